"""CT volumes and label maps from NRRD, NIfTI and DICOM, all in the patient's LPS frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.case.compressed import inflated_start
from fluoronav.case.metaimage import read_metaimage_grid
from fluoronav.case.nifti import read_nifti_grid
from fluoronav.case.nrrd import declares_hounsfield, read_nrrd_grid
from fluoronav.case.schema import CaseError
from fluoronav.dicom.errors import DicomError
from fluoronav.geometry.grid import Grid, GridError, check_grid
from fluoronav.paths import regular_file

_MAGIC_BYTES = 348
# sizeof_hdr of Analyze and NIfTI-1 (348) and NIfTI-2 (540), in both byte orders.
_NIFTI_SIZES = tuple(n.to_bytes(4, order) for n in (348, 540) for order in ("little", "big"))

# Hounsfield units; HU + 1000 (air is 0); stored values without their DICOM rescale.
CtUnits = Literal["hu", "shifted", "raw"]


@dataclass(frozen=True)
class Volume:
    """Voxels with their position in the patient.

    Attributes
    ----------
    image : SimpleITK.Image
        Origin, spacing and direction are LPS mm; the direction may be oblique.
    path : Path
        For messages.
    warnings : tuple of str
        What was not read, or is unusual.
    units : "hu", "shifted", "raw" or None
        Units of the values as the file's header declares them; None where it says nothing.
    """

    image: sitk.Image
    path: Path
    warnings: tuple[str, ...] = ()
    units: CtUnits | None = None

    @cached_property
    def voxels(self) -> NDArray:
        """The voxels, shape (z, y, x); a copy, since SimpleITK's views do not keep their image alive."""
        return sitk.GetArrayFromImage(self.image)

    def sampled(self, most: int) -> NDArray[np.float32]:
        """The values of about `most` evenly spaced voxels; all of them where there are fewer."""
        voxels = sitk.GetArrayViewFromImage(self.image).reshape(-1)
        # A step that divides the row length would examine the same columns in each row; an odd step seldom does.
        return voxels[:: max(voxels.size // most, 1) | 1].astype(np.float32)

    def extremes(self) -> tuple[float, float]:
        """The lowest and the highest value; without a copy of the voxels."""
        voxels = sitk.GetArrayViewFromImage(self.image)
        return float(voxels.min()), float(voxels.max())

    def corners_ct(self) -> NDArray[np.float64]:
        """The eight outermost voxel centres, LPS mm, shape (8, 3)."""
        n = np.array(self.image.GetSize()) - 1
        at = [[float(n[a] * b[a]) for a in range(3)] for b in np.ndindex(2, 2, 2)]
        return np.array([self.image.TransformContinuousIndexToPhysicalPoint(i) for i in at])

    def extent_ct(self, labels: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest coordinates of the voxels that have one of these labels, LPS mm, shape (3,) each."""
        found = bounds(np.isin(self.voxels, labels))
        if found is None:
            raise CaseError(f"{self.path}: has no voxel with a label of {', '.join(map(str, labels))}")
        corners = [[float(found[b[a]][a]) for a in range(3)] for b in np.ndindex(2, 2, 2)]
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
            Value outside this volume.
        nearest : bool
            Nearest neighbour, for labels; else linear interpolation.

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


def bounds(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """First and last true index along each axis of a mask (z, y, x), in the order (x, y, z); None without any.

    `numpy.argwhere` would take 24 times as much memory as the mask.
    """
    plane = np.any(mask, axis=0)
    along = (np.any(plane, axis=0), np.any(plane, axis=1), np.any(mask, axis=(1, 2)))
    if not along[0].any():
        return None
    found = [np.flatnonzero(a) for a in along]
    return np.array([f[0] for f in found]), np.array([f[-1] for f in found])


def read_volume(path: str | Path, series: str | None = None) -> Volume:
    """Reads a volume.

    Parameters
    ----------
    path : path
        A DICOM folder, or one file: NRRD, NIfTI, MetaImage, DICOM, or the DICOMDIR of a medium.
    series : str, optional
        SeriesInstanceUID, where a DICOM folder or medium holds more than one.

    Raises
    ------
    CaseError
        What is missing or wrong, and in which file. The header is checked before any voxels are read.
    """
    path = Path(path)
    if not path.exists():
        raise CaseError(f"{path}: no such file or folder")
    try:
        return _read(path, series)
    except (DicomError, GridError) as error:
        raise CaseError(str(error)) from error


def _read(path: Path, series: str | None) -> Volume:
    if path.is_dir():
        # Imported here: pydicom would add a fifteenth of a second to every start, and few cases are DICOM folders.
        from fluoronav.dicom.series import read_dicom_series

        return _of_dicom(*read_dicom_series(path, series), path)
    try:
        start = inflated_start(regular_file(path), _MAGIC_BYTES)
    except OSError as error:
        raise CaseError(f"{path}: cannot be read as a volume: {error}") from error
    if start[128:132] == b"DICM":
        from fluoronav.dicom.series import read_dicom_file

        return _of_dicom(*read_dicom_file(path, series), path)
    grid, reader_name = _grid_of(path, start)
    check_grid(grid, path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(reader_name)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise CaseError(f"{path}: cannot be read as a volume: {reason}") from error
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[..., 0]
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1 or image.GetSize() != grid.size:
        raise CaseError(
            f"{path}: has {image.GetDimension()} dimensions and {image.GetNumberOfComponentsPerPixel()} values a "
            "voxel; a volume has 3 and 1"
        )
    # The checked header sets the position, whatever the reader made of it.
    image.SetSpacing(grid.spacing_mm.tolist())
    image.SetOrigin(grid.origin_ct.tolist())
    image.SetDirection(grid.direction.ravel().tolist())
    declares = reader_name == "NrrdImageIO" and declares_hounsfield(path)
    return Volume(_finite(image, path), path, units="hu" if declares else None)


def _of_dicom(image: sitk.Image, warnings: tuple[str, ...], path: Path) -> Volume:
    # The reader applies the rescale and refuses a RescaleType other than HU.
    return Volume(_finite(image, path), path, warnings, "hu")


def _grid_of(path: Path, start: bytes) -> tuple[Grid, str]:
    """The grid that the file's header describes, and the name of SimpleITK's reader for it."""
    if start[:4] == b"NRRD":
        return read_nrrd_grid(path), "NrrdImageIO"
    if len(start) >= 348 and (start[344:347] in (b"n+1", b"ni1") or start[:4] in _NIFTI_SIZES):
        return read_nifti_grid(path), "NiftiImageIO"
    if path.suffix.lower() in (".mha", ".mhd"):
        return read_metaimage_grid(path), "MetaImageIO"
    raise CaseError(f"{path}: cannot be read as a volume: it is no NRRD, NIfTI, MetaImage or DICOM file")


def _finite(image: sitk.Image, path: Path) -> sitk.Image:
    voxels = sitk.GetArrayViewFromImage(image)
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise CaseError(f"{path}: {int((~np.isfinite(voxels)).sum())} voxels are not finite numbers (NaN or infinite)")
    return image
