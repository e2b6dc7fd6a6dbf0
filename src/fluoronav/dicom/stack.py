"""One volume from slices: their common grid, checked from their headers, and their values (HU of a CT)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.dicom.decoding import frame_pixels
from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.repeats import whole, without_repeats
from fluoronav.dicom.slices import LIMITS as SLICE
from fluoronav.dicom.slices import DicomFile, Slice, check_is_volume, is_localizer, slices_of, tag_name
from fluoronav.geometry.grid import Grid, check_grid, check_size


@dataclass(frozen=True, slots=True)
class StackLimits:
    """Tolerances of a stack of slices; all are chosen. Steps are distances between slices."""

    position_mm: float = 0.05  # of a slice's position, or the fraction of the step below, whichever is more
    sideways_steps: float = 0.01  # across the normal
    gap_steps: float = 0.02  # of a step, against the median step
    spacing: float = 1e-4  # relative, of the pixel spacing between slices


LIMITS = StackLimits()


@dataclass(frozen=True)
class Stack:
    """Slices that form one volume.

    Attributes
    ----------
    slices : list of Slice
        From the first to the last along the normal.
    grid : Grid
        Of the volume's voxels, LPS mm.
    notes : tuple of str
        What was set aside.
    """

    slices: list[Slice]
    grid: Grid
    notes: tuple[str, ...] = ()

    def image(self) -> sitk.Image:
        """The volume, float32: HU of a CT, intensities of MR. Reads the pixels."""
        image = sitk.Image(list(self.grid.size), sitk.sitkFloat32)
        _fill(image, self.slices)
        image.SetSpacing(self.grid.spacing_mm.tolist())
        image.SetOrigin(self.grid.origin_ct.tolist())
        image.SetDirection(self.grid.direction.ravel().tolist())
        return image


def stack_of(files: list[DicomFile], where: Path, modalities: Sequence[str] = ("CT",)) -> Stack:
    """The stack that the slices in files form, by their headers.

    Pixels are read only of two slices at one place: where they are the same, one is set aside.

    Parameters
    ----------
    files : list of DicomFile
    where : Path
        For messages.
    modalities : sequence of str
        "CT", "MR" or both.

    Raises
    ------
    DicomError
        They form no volume.
    """
    for file in files:
        check_is_volume(file, modalities)
    _check_one_patient(files, where)
    slices = [s for file in files for s in slices_of(file)]
    seen = [s for s in slices if not is_localizer(s.file, s.frame)]
    notes = () if len(seen) == len(slices) else (f"{where}: {len(slices) - len(seen)} localizer frames were set aside",)
    if len(seen) < 2:
        raise DicomError(f"{where}: the series has {len(seen)} slice{'s'[: len(seen) != 1]}; a volume needs at least 2")
    orientation = _common_orientation(seen, where)
    row, column = orientation[:3], orientation[3:]
    normal = np.cross(row, column)
    first = seen[0]
    shape = Counter((s.file.header.Rows, s.file.header.Columns) for s in seen).most_common(1)[0][0]
    for s in seen:
        if (s.file.header.Rows, s.file.header.Columns) != shape:
            raise DicomError(f"{s.name}: Rows or Columns differ from the other slices'")
        if not np.allclose(s.spacing, first.spacing, rtol=LIMITS.spacing):
            raise DicomError(f"{s.name}: PixelSpacing {s.spacing.tolist()} differs from {first.name}'s")
    check_size((shape[1], shape[0], len(seen)), 4, where)

    seen = sorted(seen, key=lambda s: float(s.position @ normal))
    seen, repeats = without_repeats(seen, normal, LIMITS.position_mm, where)
    positions = np.array([s.position for s in seen])
    step = _step(positions, normal, where)
    # PixelSpacing is (row distance, column distance) = (y, x).
    scale = np.array([first.spacing[1], first.spacing[0], step])
    grid = Grid((int(shape[1]), int(shape[0]), len(seen)), np.column_stack([row, column, normal]) * scale, positions[0])
    check_grid(grid, where)
    return Stack(seen, grid, (*notes, *repeats))


def _check_one_patient(files: list[DicomFile], where: Path) -> None:
    """Refuses slices of several patients, or of one and of nobody; the text names none of them."""
    for keyword, what in (("FrameOfReferenceUID", "frames of reference"), ("PatientID", "patients")):
        values = {str(f.header.get(keyword) or "") for f in files}
        if len(values - {""}) > 1:
            count = len(values - {""})
            raise DicomError(f"{where}: the slices of this series are of {count} {what} ({keyword} differs)")
        if keyword == "PatientID" and len(values) > 1:
            without = [f.path.name for f in files if not f.header.get(keyword)]
            raise DicomError(
                f"{where}: {len(without)} of {len(files)} files have no {tag_name(keyword)} and the others have one "
                f"({without[0]}): they may be of two patients; export the series again"
            )


def _common_orientation(slices: list[Slice], folder: Path) -> NDArray[np.float64]:
    """The orientation of most slices; raises :class:`DicomError` that names a slice in another plane."""
    counted = Counter(tuple(np.round(s.orientation, 2)) for s in slices)
    common = counted.most_common(1)[0][0]
    orientation = next(s.orientation for s in slices if tuple(np.round(s.orientation, 2)) == common)
    odd = [s for s in slices if np.abs(s.orientation - orientation).max() > SLICE.cosine]
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


def _fill(image: sitk.Image, slices: list[Slice]) -> None:
    """Puts the slices' rescaled pixels into an image, one after another: no second copy of the volume is held."""
    shape = image.GetSize()[1::-1]
    plane = np.empty(shape, np.float32)
    of_file: dict[Path, list[int]] = defaultdict(list)
    for k, s in enumerate(slices):
        of_file[s.file.path].append(k)
    for path, indices in of_file.items():
        dataset = whole(path)
        for k in indices:
            s = slices[k]
            pixels = frame_pixels(dataset, s.frame, path)
            if pixels.shape != shape:
                raise DicomError(f"{path}: has {pixels.shape} pixels, its header says {shape}")
            np.multiply(pixels, np.float32(s.slope), out=plane, casting="unsafe")
            plane += np.float32(s.intercept)
            image[:, :, k] = sitk.GetImageFromArray(plane)
