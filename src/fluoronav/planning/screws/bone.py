"""One vertebra cut out of a label map, with its signed distance field."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from fluoronav.case.distance import sample_distances
from fluoronav.case.volume import bounds

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BoneSettings:
    """How a vertebra is cut out of its label map."""

    field_mm: float = 0.8  # grid of the distance field; chosen: 1 mm loses a 3.5 mm pedicle, 0.6 takes twice the time
    margin_mm: float = 4.0  # around the bone; chosen: wider than any screw's radius
    least_cm3: float = 2.0  # of a whole vertebra; chosen: the smallest of a hand-drawn neck has 9
    second_piece: float = 0.03  # share of the label's voxels; smaller pieces are specks and are left out; chosen
    most_cut_mm2: float = 20.0  # of the bone's section in the border of the scan; chosen: the tip of a process


SETTINGS = BoneSettings()


class VertebraError(ValueError):
    """A vertebra that no screw can be placed in; the text says its level, what is wrong and what to do."""


@dataclass(frozen=True)
class Bone:
    """One vertebra.

    Attributes
    ----------
    level : str
    mask : ndarray of bool, shape (z, y, x)
        Its voxels on the label map's own grid, with a rim of empty voxels; cavities inside are filled.
    origin_ct : ndarray, shape (3,)
        Centre of the first voxel of the mask, LPS mm.
    step_ct : ndarray, shape (3, 3)
        Columns: one step along x, y, z of the mask, LPS mm.
    hundredths : ndarray of int16, shape (z, y, x)
        Signed distance field, 0.01 mm, negative inside, on a grid along the patient axes.
    field_origin_ct, field_spacing_mm : ndarray, shape (3,)
    notes : tuple of str
        What was left out or is unusual.
    """

    level: str
    mask: NDArray[np.bool_] = field(repr=False)
    origin_ct: Float
    step_ct: Float
    hundredths: NDArray[np.int16] = field(repr=False)
    field_origin_ct: Float
    field_spacing_mm: Float
    notes: tuple[str, ...] = ()

    def depth_mm(self, points_ct: Float) -> Float:
        """Depth of points below the bone's surface, mm; negative outside. Points (n, 3), LPS mm."""
        points = np.ascontiguousarray(points_ct, np.float64)
        out = np.empty((len(points), 4))
        sample_distances(self.hundredths, self.field_origin_ct, self.field_spacing_mm, points, out)
        return -out[:, 0]

    def surface_ct(self) -> Float:
        """Centres of the field's voxels just inside the surface, LPS mm, shape (n, 3)."""
        shell = (self.hundredths < 0) & (self.hundredths > -100 * 1.5 * self.field_spacing_mm[0])
        z, y, x = np.nonzero(shell)
        return np.stack([x, y, z], axis=1) * self.field_spacing_mm + self.field_origin_ct


def cut_out(labels: sitk.Image, value: int, level: str, settings: BoneSettings = SETTINGS) -> Bone:
    """Cuts a vertebra out of a label map.

    Parameters
    ----------
    labels : SimpleITK.Image
        Whole numbers, on any grid.
    value : int
        Of the vertebra.
    level : str
        Its name, for messages.

    Raises
    ------
    VertebraError
        The label is empty, in several pieces, cut off by the scan's border, or far too small.
    """
    voxels = sitk.GetArrayViewFromImage(labels)
    found = bounds(voxels == value)
    if found is None:
        raise VertebraError(f"{level}: its label ({value}) has no voxel: segment the vertebra first")
    low, high = found
    mask = np.asarray(voxels[tuple(slice(low[a], high[a] + 1) for a in (2, 1, 0))] == value)
    spacing = np.array(labels.GetSpacing())
    voxel_mm3 = float(np.prod(spacing))
    mask, notes = _largest_piece(mask, level, voxel_mm3, settings)
    if mask.sum() * voxel_mm3 < settings.least_cm3 * 1000:
        raise VertebraError(
            f"{level}: its label has {mask.sum() * voxel_mm3 / 1000:.1f} cm3; a whole vertebra has at least "
            f"{settings.least_cm3:g}: complete its segmentation"
        )
    _check_border(mask, level, low, high, np.array(labels.GetSize()), spacing, settings)
    mask = np.pad(np.asarray(ndimage.binary_fill_holes(mask), bool), 1)
    step = np.array(labels.GetDirection()).reshape(3, 3) * spacing
    origin = np.asarray(np.array(labels.GetOrigin()) + step @ (low - 1.0), np.float64)
    hundredths, field_origin = _field(mask, origin, step, settings)
    return Bone(level, mask, origin, step, hundredths, field_origin, np.full(3, settings.field_mm), notes)


def _largest_piece(
    mask: NDArray[np.bool_], level: str, voxel_mm3: float, settings: BoneSettings
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    pieces = np.zeros(mask.shape, np.int32)
    n = int(ndimage.label(mask, np.ones((3, 3, 3)), output=pieces))  # type: ignore[call-overload,arg-type]
    if n == 1:
        return mask, ()
    sizes = np.bincount(pieces.ravel())[1:]
    order = np.argsort(sizes)[::-1]
    cm3 = sizes[order] * voxel_mm3 / 1000
    if sizes[order[1]] > settings.second_piece * sizes.sum():
        raise VertebraError(
            f"{level}: its label is in {n} pieces, the largest of {cm3[0]:.1f} and {cm3[1]:.1f} cm3: join them, or "
            "erase what is another vertebra"
        )
    note = f"{level}: {n - 1} specks of its label ({cm3[1:].sum():.2f} cm3) were left out"
    return pieces == order[0] + 1, (note,)


def _check_border(
    mask: NDArray[np.bool_], level: str, low: NDArray, high: NDArray, size: NDArray, spacing: Float, s: BoneSettings
) -> None:
    """Refuses a bone that goes on beyond the scan."""
    for axis in range(3):
        area = float(np.prod(np.delete(spacing, axis)))
        for at_border, k in ((low[axis] == 0, 0), (high[axis] == size[axis] - 1, -1)):
            cut = float(mask.take(k, 2 - axis).sum()) * area
            if at_border and cut > s.most_cut_mm2:
                raise VertebraError(
                    f"{level}: is only partly in the scan: its border cuts {cut:.0f} mm2 of the bone; take a level "
                    "that is whole, or a longer scan"
                )


def _field(
    mask: NDArray[np.bool_], origin_ct: Float, step_ct: Float, settings: BoneSettings
) -> tuple[NDArray[np.int16], Float]:
    """Signed distance field on an isotropic grid along the patient axes, and the grid's origin."""
    image = sitk.GetImageFromArray(mask.astype(np.float32))
    spacing = np.linalg.norm(step_ct, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(origin_ct.tolist())
    image.SetDirection((step_ct / spacing).ravel().tolist())
    n = np.array(image.GetSize()) - 1
    corners = origin_ct + (np.array(list(np.ndindex(2, 2, 2))) * n) @ step_ct.T
    low, high = corners.min(0) - settings.margin_mm, corners.max(0) + settings.margin_mm
    size = np.ceil((high - low) / settings.field_mm).astype(int) + 1
    even = sitk.Resample(
        image, size.tolist(), sitk.Transform(), sitk.sitkLinear, low.tolist(), [settings.field_mm] * 3,
        np.eye(3).ravel().tolist(), 0.0, sitk.sitkFloat32,
    )  # fmt: skip
    inside = even > 0.5
    # The surface lies half-way between the last voxel inside and the first outside (docs of `case.distance`).
    outer = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(inside, False, False, True))
    inner = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(sitk.Not(inside), False, False, True))
    return np.clip(np.rint((outer - inner) * 50), -32768, 32767).astype(np.int16), low
