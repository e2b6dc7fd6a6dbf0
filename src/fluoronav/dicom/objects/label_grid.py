"""A label map brought onto the planes of its source images, by where both lie in the patient.

The order and direction of voxels differ between a label map and the slices of a series: feet-first scans, coronal and
oblique series, files that were turned into another orientation. Only the places of voxels in the patient are compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.objects.source import Source
from fluoronav.dicom.slices import DicomFile

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GridLimits:
    """Tolerances; all are chosen."""

    off_grid_voxels: float = 0.1  # of any corner of an image from the label map's voxel centres
    cosine: float = 1e-3  # of direction cosines


LIMITS = GridLimits()


@dataclass(frozen=True)
class Planes:
    """The planes of a source, one for each slice or frame.

    Attributes
    ----------
    positions_ct : ndarray, shape (n, 3)
        Centre of each plane's first pixel, LPS mm.
    right_ct, down_ct : ndarray, shape (3,)
        One step along a row and along a column, LPS mm.
    rows, columns : int
    """

    positions_ct: Float
    right_ct: Float
    down_ct: Float
    rows: int
    columns: int


def planes_of(source: Source) -> Planes:
    """Where the planes of a source lie.

    Raises
    ------
    DicomError
        A plane has no place in the patient, or lies in another direction or size than the others.
    """
    parts = [part for dataset in source.datasets for part in _placed_frames(dataset, source.name)]
    positions = np.array([p.ImagePositionPatient for p, _, _ in parts], dtype=np.float64)
    cosines = np.array([o.ImageOrientationPatient for _, o, _ in parts], dtype=np.float64)
    spacings = np.array([m.PixelSpacing for _, _, m in parts], dtype=np.float64)
    sizes = {(int(d.Rows), int(d.Columns)) for d in source.datasets}
    if np.abs(cosines - cosines[0]).max() > LIMITS.cosine:
        raise DicomError(f"{source.name}: its slices lie in different planes (a localiser among them?)")
    if len(sizes) > 1 or not np.allclose(spacings, spacings[0], rtol=1e-4):
        raise DicomError(f"{source.name}: its slices differ in Rows, Columns or PixelSpacing")
    rows, columns = sizes.pop()
    # PixelSpacing is (distance between rows, distance between columns).
    down_mm, right_mm = spacings[0]
    return Planes(positions, cosines[0, :3] * right_mm, cosines[0, 3:] * down_mm, rows, columns)


def on_planes(labels: sitk.Image, planes: Planes, name: str) -> NDArray[np.integer]:
    """The labels on each plane, shape (n, rows, columns); 0 where the label map has nothing.

    Parameters
    ----------
    labels : SimpleITK.Image
        Whole numbers; its grid is that of the planes, flipped, permuted or cropped.
    planes : Planes
    name : str
        Of the source, for messages.

    Raises
    ------
    DicomError
        The label map lies on another grid, two planes lie at one place, or labels lie outside the planes.
    """
    voxels = sitk.GetArrayViewFromImage(labels).transpose(2, 1, 0)  # by index (x, y, z)
    to_index, origin = _index_of(labels)
    right, down = to_index @ planes.right_ct, to_index @ planes.down_ct
    starts = (planes.positions_ct - origin) @ to_index.T
    _check_on_grid(starts, right, down, planes, labels, name)
    u, v = int(np.abs(right).argmax()), int(np.abs(down).argmax())
    w = 3 - u - v
    across = np.rint(starts[:, w]).astype(int)
    if len(set(across)) < len(across):
        raise DicomError(f"{name}: two slices lie at the same place; remove the repeats")
    if (np.rint(starts[:, [u, v]]) != np.rint(starts[0, [u, v]])).any():
        raise DicomError(f"{name}: its slices lie beside one another (a tilted gantry); resample it to right angles")
    start = np.rint(starts[0]).astype(int)
    stacked = voxels.transpose(w, v, u)
    out = np.zeros((len(across), planes.rows, planes.columns), voxels.dtype)
    rows = _taken(start[v], int(np.sign(down[v])), planes.rows, stacked.shape[1])
    columns = _taken(start[u], int(np.sign(right[u])), planes.columns, stacked.shape[2])
    for k, index in enumerate(across):
        if 0 <= index < stacked.shape[0]:
            out[k, rows[0], columns[0]] = stacked[index, rows[1], columns[1]]
    lost = int(np.count_nonzero(voxels)) - int(np.count_nonzero(out))
    if lost:
        raise DicomError(
            f"{name}: {lost} labelled voxels lie outside the series or between its slices: slices are missing, or the "
            "label map is of a longer scan"
        )
    return out


def resampled(labels: sitk.Image, planes: Planes, name: str) -> sitk.Image:
    """The labels by nearest neighbour on the grid of the planes, which must be evenly spaced along their normal.

    Raises
    ------
    DicomError
        The planes are not evenly spaced.
    """
    normal = np.cross(planes.right_ct, planes.down_ct)
    normal /= np.linalg.norm(normal)
    order = np.argsort(planes.positions_ct @ normal)
    steps = np.diff(planes.positions_ct[order], axis=0)
    if len(steps) == 0 or np.abs(steps - steps[0]).max() > LIMITS.off_grid_voxels * np.linalg.norm(steps[0]):
        raise DicomError(f"{name}: its slices are not evenly spaced; make the label map on the grid of the series")
    step = steps.mean(axis=0)
    axes = np.column_stack([planes.right_ct, planes.down_ct, step])
    spacing = np.linalg.norm(axes, axis=0)
    grid = sitk.Image([planes.columns, planes.rows, len(order)], labels.GetPixelID())
    grid.SetOrigin(planes.positions_ct[order[0]].tolist())
    grid.SetSpacing(spacing.tolist())
    try:
        grid.SetDirection((axes / spacing).ravel().tolist())
    except RuntimeError as error:
        raise DicomError(f"{name}: its slices do not stack at right angles (a tilted gantry)") from error
    return sitk.Resample(labels, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0)


def is_on_grid(labels: sitk.Image, planes: Planes) -> bool:
    """Whether :func:`on_planes` takes the label map's grid."""
    to_index, origin = _index_of(labels)
    starts = (planes.positions_ct - origin) @ to_index.T
    return _off_grid(starts, to_index @ planes.right_ct, to_index @ planes.down_ct, planes) <= LIMITS.off_grid_voxels


def _index_of(labels: sitk.Image) -> tuple[Float, Float]:
    """The matrix from mm to index of a label map, and its origin."""
    step = np.array(labels.GetDirection()).reshape(3, 3) * np.array(labels.GetSpacing())
    return np.linalg.inv(step), np.array(labels.GetOrigin())


def _off_grid(starts: Float, right: Float, down: Float, planes: Planes) -> float:
    """Largest distance of a plane's corners from voxel centres, in voxels; infinite for turned axes."""
    if int(np.abs(right).argmax()) == int(np.abs(down).argmax()):
        return float("inf")
    for step in (right, down):
        if np.abs(np.abs(step).max() - 1) > 0.01 or np.abs(np.rint(step)).sum() != 1:
            return float("inf")
    across, along = right * (planes.columns - 1), down * (planes.rows - 1)
    corners = np.concatenate([starts, starts + across, starts + along, starts + across + along])
    # A drift over a whole row may reach the next voxel centre, so the steps are held against whole ones first.
    drift = max(
        float(np.abs(right - np.rint(right)).max() * (planes.columns - 1)),
        float(np.abs(down - np.rint(down)).max() * (planes.rows - 1)),
    )
    return max(drift, float(np.abs(corners - np.rint(corners)).max()))


def _check_on_grid(starts: Float, right: Float, down: Float, planes: Planes, labels: sitk.Image, name: str) -> None:
    off = _off_grid(starts, right, down, planes)
    if off > LIMITS.off_grid_voxels:
        spacing = " x ".join(f"{s:.3g}" for s in labels.GetSpacing())
        by = "turned against it" if off == float("inf") else f"{off:.2g} voxels beside it"
        raise DicomError(
            f"{name}: the label map (voxels of {spacing} mm) is not on the grid of the series, but {by}; resample it "
            "to the series"
        )


def _taken(start: int, sign: int, count: int, size: int) -> tuple[slice, slice]:
    """Along one axis: the pixels that lie inside the label map, and the voxels that they are, in their order."""
    first, last = (start, start + sign * (count - 1)) if sign > 0 else (start - (count - 1), start)
    low, high = max(first, 0), min(last, size - 1)
    if low > high:
        return slice(0, 0), slice(0, 0)
    if sign > 0:
        return slice(low - start, high - start + 1), slice(low, high + 1)
    return slice(start - high, start - low + 1), slice(high, low - 1 if low else None, -1)


def _placed_frames(
    dataset: pydicom.Dataset, name: str
) -> list[tuple[pydicom.Dataset, pydicom.Dataset, pydicom.Dataset]]:
    """The items with position, orientation and pixel measures of every frame."""
    file = DicomFile(dataset, name)  # pyright: ignore[reportArgumentType]
    needed = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    if not file.has_groups:
        parts = [(dataset, dataset, dataset)]
    else:
        shared = (dataset.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
        parts = []
        for own in dataset.PerFrameFunctionalGroupsSequence:
            found = [
                (own.get(macro) or shared.get(macro) or [pydicom.Dataset()])[0]
                for macro in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
            ]
            parts.append((found[0], found[1], found[2]))
    for part in parts:
        for item, keyword in zip(part, needed, strict=True):
            if not item.get(keyword):
                raise DicomError(f"{name}: a slice has no {keyword}; its place in the patient is not known")
    if not dataset.get("FrameOfReferenceUID"):
        raise DicomError(f"{name}: FrameOfReferenceUID (0020,0052) is missing; a viewer could not place the result")
    return parts
