"""CT volumes and label maps from NRRD, NIfTI and DICOM, all in the patient's LPS frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.case.schema import CaseError

_ASKEW = "not perpendicular to each other; resample it to an orthogonal grid first"


@dataclass(frozen=True)
class Volume:
    """Voxels with their place in the patient.

    Attributes
    ----------
    image : SimpleITK.Image
        Origin, spacing and direction are LPS mm; the direction may be oblique.
    path : Path
        Where it came from, for messages.
    """

    image: sitk.Image
    path: Path

    @cached_property
    def voxels(self) -> NDArray:
        """The voxels, shape (z, y, x); a copy, since SimpleITK's views do not keep their image alive."""
        return sitk.GetArrayFromImage(self.image)

    def hounsfield(self) -> tuple[Volume, bool]:
        """This volume in HU, and whether it is a segmented bone: that counts from air (0) over water (1000).

        Raises
        ------
        CaseError
            Every voxel has the same value.
        """
        low, high = float(self.voxels.min()), float(self.voxels.max())
        if low == high:
            raise CaseError(f"{self.path}: every voxel has the same value, {low:g}: there is nothing in it")
        if low < 0:
            return self, False
        return Volume(sitk.Cast(self.image, sitk.sitkFloat32) - 1000.0, self.path), True

    def corners_ct(self) -> NDArray[np.float64]:
        """The eight outermost voxel centres, LPS mm, shape (8, 3)."""
        n = np.array(self.image.GetSize()) - 1
        at = [[float(n[a] * b[a]) for a in range(3)] for b in np.ndindex(2, 2, 2)]
        return np.array([self.image.TransformContinuousIndexToPhysicalPoint(i) for i in at])

    def extent_ct(self, labels: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest coordinates of the voxels that have one of these labels, LPS mm, shape (3,) each."""
        found = np.argwhere(np.isin(self.voxels, labels))[:, ::-1].astype(float)
        if len(found) == 0:
            raise CaseError(f"{self.path}: has no voxel with a label of {', '.join(map(str, labels))}")
        low, high = found.min(0), found.max(0)
        corners = [[(low, high)[b[a]][a] for a in range(3)] for b in np.ndindex(2, 2, 2)]
        points = np.array([self.image.TransformContinuousIndexToPhysicalPoint(c) for c in corners])
        return points.min(0), points.max(0)

    def resampled(
        self, origin_ct: NDArray, size_xyz: tuple[int, int, int], spacing_mm: float, outside: float, *, nearest=False
    ) -> NDArray:
        """Values on an isotropic grid along the patient axes.

        Parameters
        ----------
        origin_ct : array, shape (3,)
            Centre of the grid's first voxel, LPS mm.
        size_xyz : tuple of 3 int
        spacing_mm : float
        outside : float
            What stands where this volume has nothing.
        nearest : bool
            Labels need the nearest voxel; everything else is interpolated linearly.

        Returns
        -------
        ndarray, shape (z, y, x)
            float32, or the labels' own type.
        """
        out = sitk.Resample(
            self.image,
            [int(n) for n in size_xyz],
            sitk.Transform(),
            sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear,
            [float(x) for x in origin_ct],
            [float(spacing_mm)] * 3,
            np.eye(3).ravel().tolist(),
            float(outside),
            self.image.GetPixelID() if nearest else sitk.sitkFloat32,
        )
        return sitk.GetArrayFromImage(out)


def read_volume(path: str | Path, series: str | None = None) -> Volume:
    """Reads a volume.

    Parameters
    ----------
    path : path
        A DICOM folder, or one file that SimpleITK can read (NRRD, NIfTI, MetaImage).
    series : str, optional
        SeriesInstanceUID, where a DICOM folder holds more than one.

    Raises
    ------
    CaseError
        What is missing or wrong, and in which file.
    """
    path = Path(path)
    if not path.exists():
        raise CaseError(f"{path}: no such file or folder")
    if path.is_dir():
        # Not above: pydicom takes a fifteenth of a second of every start, and few cases are folders of DICOM.
        from fluoronav.case.dicom import read_dicom_series

        image = read_dicom_series(path, series)
    else:
        try:
            image = sitk.ReadImage(str(path))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            if "orthonormal" in str(error):
                reason = f"its axes are {_ASKEW}"
            raise CaseError(f"{path}: cannot be read as a volume: {reason}") from error
    return Volume(_checked(image, path), path)


def _checked(image: sitk.Image, path: Path) -> sitk.Image:
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[..., 0]
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise CaseError(
            f"{path}: has {image.GetDimension()} dimensions and {image.GetNumberOfComponentsPerPixel()} values a "
            "voxel; a volume has 3 and 1"
        )
    size, spacing = image.GetSize(), image.GetSpacing()
    if min(size) < 2:
        raise CaseError(f"{path}: is {size[0]} x {size[1]} x {size[2]} voxels; a volume needs at least 2 on each axis")
    if not all(np.isfinite(spacing)) or min(spacing) <= 0 or max(spacing) > 20:
        raise CaseError(f"{path}: voxel spacing {spacing} mm is not usable; it must be above 0 and at most 20")
    axes = np.array(image.GetDirection()).reshape(3, 3)
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-3:
        raise CaseError(f"{path}: its axes are {_ASKEW}")
    voxels = sitk.GetArrayViewFromImage(image)
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise CaseError(f"{path}: {int((~np.isfinite(voxels)).sum())} voxels are not finite numbers (NaN or infinite)")
    return image
