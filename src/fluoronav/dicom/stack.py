"""One volume from CT slices: their common grid, checked before any pixels are read, and their values in HU."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.pixels.utils import pixel_array

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.slices import LIMITS as FILE
from fluoronav.dicom.slices import UNREADABLE, DicomFile, Slice, check_is_ct, slices_of
from fluoronav.geometry.grid import Grid, check_grid, check_size


@dataclass(frozen=True, slots=True)
class StackLimits:
    """Tolerances of a stack of slices; all are chosen. Steps are distances between slices."""

    position_mm: float = 0.05  # of a slice's position, or the fraction of the step below, whichever is more
    sideways_steps: float = 0.01  # across the normal
    gap_steps: float = 0.02  # of a step, against the median step
    spacing: float = 1e-4  # relative, of the pixel spacing between slices


LIMITS = StackLimits()


def stacked(files: list[DicomFile], folder: Path) -> sitk.Image:
    """The volume of the slices in files, float32 HU, LPS; raises :class:`DicomError` where they form none.

    Parameters
    ----------
    files : list of DicomFile
    folder : Path
        For messages.
    """
    for file in files:
        check_is_ct(file)
    for keyword, what in (("FrameOfReferenceUID", "frames of reference"), ("PatientID", "patients")):
        values = {str(f.header.get(keyword)) for f in files if f.header.get(keyword)}
        if len(values) > 1:
            raise DicomError(f"{folder}: the slices of this series are of {len(values)} {what} ({keyword} differs)")
    slices = [s for file in files for s in slices_of(file)]
    if len(slices) < 2:
        raise DicomError(f"{folder}: the series has one slice; a volume needs at least 2")
    orientation = _common_orientation(slices, folder)
    row, column = orientation[:3], orientation[3:]
    normal = np.cross(row, column)
    first = slices[0]
    shape = Counter((s.file.header.Rows, s.file.header.Columns) for s in slices).most_common(1)[0][0]
    for s in slices:
        if (s.file.header.Rows, s.file.header.Columns) != shape:
            raise DicomError(f"{s.name}: Rows or Columns differ from the other slices'")
        if not np.allclose(s.spacing, first.spacing, rtol=LIMITS.spacing):
            raise DicomError(f"{s.name}: PixelSpacing {s.spacing.tolist()} differs from {first.name}'s")
    check_size((shape[1], shape[0], len(slices)), 4, folder)

    slices = sorted(slices, key=lambda s: float(s.position @ normal))
    positions = np.array([s.position for s in slices])
    step = _step(positions, normal, folder)
    # PixelSpacing is (row distance, column distance) = (y, x).
    scale = np.array([first.spacing[1], first.spacing[0], step])
    grid = Grid(
        (int(shape[1]), int(shape[0]), len(slices)), np.column_stack([row, column, normal]) * scale, positions[0]
    )
    check_grid(grid, folder)
    image = sitk.GetImageFromArray(_hounsfield(slices, shape))
    image.SetSpacing(scale.tolist())
    image.SetOrigin(positions[0].tolist())
    image.SetDirection(np.column_stack([row, column, normal]).ravel().tolist())
    return image


def _common_orientation(slices: list[Slice], folder: Path) -> NDArray[np.float64]:
    """The orientation of most slices; raises :class:`DicomError` that names a slice in another plane."""
    counted = Counter(tuple(np.round(s.orientation, 2)) for s in slices)
    common = counted.most_common(1)[0][0]
    orientation = next(s.orientation for s in slices if tuple(np.round(s.orientation, 2)) == common)
    odd = [s for s in slices if np.abs(s.orientation - orientation).max() > FILE.cosine]
    if odd:
        raise DicomError(
            f"{folder}: slices lie in different planes (a localiser among them?): {len(odd)} of {len(slices)} not in "
            f"that of the others: {odd[0].name}"
        )
    return orientation


def _step(positions: NDArray[np.float64], normal: NDArray[np.float64], folder: Path) -> float:
    """The distance between slices, mm; raises :class:`DicomError` where it is not uniform."""
    steps = np.diff(positions, axis=0)
    along = steps @ normal
    step = float(np.median(along))
    if along.min() < LIMITS.position_mm:
        at = positions[int(along.argmin())]
        raise DicomError(f"{folder}: two slices at the same position {np.round(at, 2).tolist()}; remove the repeats")
    sideways = float(np.median(np.linalg.norm(steps - np.outer(along, normal), axis=1)))
    if sideways > max(LIMITS.position_mm, LIMITS.sideways_steps * step):
        tilt = np.degrees(np.arctan2(sideways, step))
        raise DicomError(
            f"{folder}: the gantry was tilted by {tilt:.1f} degrees, so the slices do not stack at right angles; "
            "resample the series to an orthogonal grid first"
        )
    gaps = np.flatnonzero(np.abs(along - step) > max(LIMITS.position_mm, LIMITS.gap_steps * step))
    if len(gaps):
        missing = int(np.rint(along[gaps] / step - 1).sum())
        raise DicomError(
            f"{folder}: slices are missing or unevenly spaced: {along[gaps[0]]:.2f} mm after "
            f"{np.round(positions[gaps[0]], 2).tolist()} where the others are {step:.2f} mm apart"
            + (f" ({missing} missing in all)" if missing > 0 else "")
        )
    # A single slice that is displaced sideways does not change the median.
    astray = np.linalg.norm(positions - positions[0] - np.outer((positions - positions[0]) @ normal, normal), axis=1)
    if astray.max() > max(LIMITS.position_mm, LIMITS.sideways_steps * step) * 2:
        at = positions[int(astray.argmax())]
        where = np.round(at, 2).tolist()
        raise DicomError(f"{folder}: the slice at {where} lies {astray.max():.2f} mm beside the others")
    return step


def _hounsfield(slices: list[Slice], shape: tuple[int, int]) -> NDArray[np.float32]:
    """The slices' pixels in HU, shape (n, rows, columns); a file is read once, and one at a time."""
    voxels = np.empty((len(slices), *shape), np.float32)
    of_file: dict[Path, list[int]] = defaultdict(list)
    for k, s in enumerate(slices):
        of_file[s.file.path].append(k)
    for path, indices in of_file.items():
        try:
            dataset = pydicom.dcmread(path, force=True)
            for k in indices:
                s = slices[k]
                np.multiply(pixel_array(dataset, index=s.frame), np.float32(s.slope), out=voxels[k], casting="unsafe")
                voxels[k] += np.float32(s.intercept)
        except (*UNREADABLE, RuntimeError) as error:
            reason = f"pixel data cannot be decoded ({error}); convert it to uncompressed DICOM"
            raise DicomError(f"{path}: {reason}") from error
    return voxels
