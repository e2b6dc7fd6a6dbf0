"""Plausibility of a case's volumes: a CT in HU of a patient's size, and bone in bone.

A file may be valid and still be of another patient, in another unit, or mirrored. What would misplace something is
refused; what is only unusual is a warning. Label maps are checked in `label_checks.py`, the plan in `place_checks.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.case.schema import CaseError
from fluoronav.case.volume import Volume

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a patient's case. HU as in DICOM PS3.3 C.11.1: air -1000, water 0.

    The limits of bone are from 70 bones of four real CTs (voxels of 3 and 0.7 mm, one osteoporotic, one with metal):
    the contrast is 0.30 to 0.80 in place, and mostly below 0.25 where mirrored or moved by 10 mm. Others are chosen.
    """

    # A CT.
    finest_mm: float = 0.1  # voxel in the plane
    least_extent_mm: float = 40.0  # longest side
    most_extent_mm: float = 2500.0
    looked_at: int = 300_000  # voxels in which values are checked, evenly spaced
    all_air_hu: float = -700.0  # below, nothing attenuates X-rays enough to register to
    # Fat is about -100, lung -800, air -1000; stored values, MR and PET have nothing there.
    air_or_fat_hu: float = -60.0
    least_air_or_fat: float = 0.001  # fraction of the voxels
    lowest_hu: float = -1300.0  # below there is padding of one value, not a range of values
    most_below: float = 0.01  # fraction of the voxels that are no padding
    soft_tissue_hu: float = 150.0  # absolute value
    least_soft_tissue: float = 0.01  # fraction of the voxels
    # A label map: fractions of a label's voxels inside the CT.
    bone_inside: float = 0.99
    least_inside: float = 0.5
    in_air_hu: float = -300.0  # mean of a watched structure that lies in air
    # From the 10th to the 90th percentile: soft organs and vessels in place 40 to 300, cords 8 mm off 350 to 510.
    most_spread_hu: float = 350.0
    # Bones: the contrast is the fraction of dense voxels in a label minus that in a shell around it.
    bone_hu: float = 150.0  # denser voxels are bone
    least_contrast: float = 0.10  # of all bones together
    low_contrast: float = 0.22  # of one bone: a warning
    better_elsewhere: float = 0.08  # gain in contrast where the label map is moved or mirrored
    least_bone_mm3: float = 1000.0  # smaller pieces, which the end of a scan cuts off, are not checked
    shell_mm: tuple[float, float] = (2.0, 6.0)  # distances from the label
    shell_step_mm: float = 2.0  # of the grid of points
    bone_points: int = 4000  # in the label and in the shell
    least_bone_in_bone: float = 0.6  # fraction of a segmented bone's volume that lies in the CT's bone
    # Plan and prior: distances outside the outermost voxels.
    target_outside_mm: float = 50.0
    entry_outside_mm: float = 200.0
    isocentre_outside_mm: float = 400.0
    no_go_outside_mm: float = 50.0
    marker_outside_mm: float = 1000.0
    short_path_mm: float = 10.0  # length of a planned path: a warning


LIMITS = Limits()


def check_size_of_patient(volume: Volume) -> None:
    """Raises :class:`CaseError` where a CT is too small or too large to be one of a patient in mm."""
    spacing = np.array(volume.image.GetSpacing())
    extent = spacing * np.array(volume.image.GetSize())
    if spacing.min() < LIMITS.finest_mm or not LIMITS.least_extent_mm <= extent.max() <= LIMITS.most_extent_mm:
        raise CaseError(
            f"{volume.path}: is {_by(extent)} mm in voxels of {_by(spacing)} mm, which no CT of a patient is: are its "
            "lengths in cm, m or inches? Write it in mm"
        )


def check_hounsfield(volume: Volume) -> list[str]:
    """Raises :class:`CaseError` where a CT's values are not HU; returns what is unusual about them."""
    path, values = volume.path, volume.sampled(LIMITS.looked_at)
    low, high = volume.extremes()
    if not high > LIMITS.all_air_hu:
        raise CaseError(
            f"{path}: is all air: no voxel is above {LIMITS.all_air_hu:g} HU (is the rescale intercept right?)"
        )
    kept = values[values > low]
    if (kept < LIMITS.lowest_hu).mean() > LIMITS.most_below:
        raise CaseError(
            f"{path}: {100 * (kept < LIMITS.lowest_hu).mean():.0f} % of it lies below {LIMITS.lowest_hu:g} HU, where "
            "nothing is: was the rescale applied twice? Export it again in HU"
        )
    air_or_fat = float(((values < LIMITS.air_or_fat_hu) & (values >= LIMITS.lowest_hu)).mean())
    if air_or_fat < LIMITS.least_air_or_fat:
        raise CaseError(
            f"{path}: its values from {low:g} to {high:g} are not HU: nothing in it is fat or air (below "
            f"{LIMITS.air_or_fat_hu:g} HU). Stored values without their rescale, MR and PET look like this: export "
            "the CT again in HU, or say `units: shifted` if it is HU + 1000"
        )
    soft = float((np.abs(values) < LIMITS.soft_tissue_hu).mean())
    if soft < LIMITS.least_soft_tissue:
        return [
            f"{path}: hardly anything in it ({100 * soft:.1f} %) has the HU of soft tissue, -150 to 150: is it in HU, "
            "and of a patient?"
        ]
    return []


def check_bone_volume(ct: Volume, volume: Volume, where: str) -> None:
    """Raises :class:`CaseError` where a bone that was cut out of the CT does not lie in the CT's bone.

    Parameters
    ----------
    ct, volume : Volume
        HU.
    where : str
        Begins the message.
    """
    found = np.flatnonzero(volume.voxels > LIMITS.bone_hu)
    found = found[:: max(len(found) // LIMITS.bone_points, 1)]
    if len(found) == 0:
        raise CaseError(f"{where}: {volume.path} holds no bone: nothing in it is above {LIMITS.bone_hu:g} HU")
    index = np.stack(np.unravel_index(found, volume.voxels.shape)[::-1], axis=1).astype(float)
    image = volume.image
    step = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    seen, dense = dense_at(ct, index @ step.T + np.array(image.GetOrigin()))
    if seen < LIMITS.bone_inside:
        raise CaseError(
            f"{where}: {ct.path} has nothing where {100 * (1 - seen):.0f} % of {volume.path} lies: is it of this "
            "patient, and in the CT's frame?"
        )
    if dense < LIMITS.least_bone_in_bone:
        raise CaseError(
            f"{where}: only {100 * dense:.0f} % of the bone in {volume.path} lies in bone of {ct.path}: is it of this "
            "patient, and in the CT's frame?"
        )


def voxel_index(ct: Volume, points_ct: Float) -> Float:
    """Continuous voxel indices (x, y, z) of points, LPS mm, shape (n, 3)."""
    direction = np.array(ct.image.GetDirection()).reshape(3, 3)
    return (points_ct - np.array(ct.image.GetOrigin())) @ direction / np.array(ct.image.GetSpacing())


def dense_at(ct: Volume, points_ct: Float) -> tuple[float, float]:
    """Fractions of the points that lie in the CT, and that lie in its bone."""
    at = np.rint(voxel_index(ct, points_ct)).astype(int)
    inside = at[((at >= 0) & (at < ct.image.GetSize())).all(1)]
    dense = ct.voxels[inside[:, 2], inside[:, 1], inside[:, 0]] > LIMITS.bone_hu
    n = max(len(points_ct), 1)
    return len(inside) / n, np.count_nonzero(dense) / n


def _by(values: Float) -> str:
    return " x ".join(f"{v:.3g}" for v in values)
