"""The units of a CT's values: declared by the user or the file, or inferred from the values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.case.schema import CaseError
from fluoronav.case.volume import CtUnits, Volume

_SHIFT_HU = 1000.0


@dataclass(frozen=True)
class IntensityLimits:
    """Limits on the distribution of a CT's values. HU as in C.11.1 of DICOM PS3.3: air -1000, water 0.

    Measured on six whole CTs (chest, spine, postoperative), one crop of a vertebra and one segmented radius, each in HU
    and in HU + 1000.
    """

    # Values that only HU have: air and fat, -1300 to -60. Chosen as in the checks of a case (case/plausible.py).
    fat_hu: float = -60.0
    lowest_hu: float = -1300.0
    least_fat_or_air: float = 0.001
    # Air and lung; the crop of a vertebra has none.
    air_hu: float = -700.0
    # Fraction of exact zeros beside negative values that no CT has (measured: at most 0.005): a background of 0.
    zero_background: float = 0.2
    # Soft tissue, and the range between lung and fat in which a CT has little: 40 % and 3 % of a chest.
    soft_tissue_hu: float = 150.0
    least_soft_tissue: float = 0.10
    gap_hu: tuple[float, float] = (-500.0, -200.0)
    least_soft_tissue_to_gap: float = 4.0
    # A bone that was cut out: a background of one value (radius 0.79), hardly anything like lung or air (0.006 below
    # -300 HU), and much bone (0.30 to 0.80 of 70 labels of real CTs, at most 0.15 of whole CTs).
    least_background: float = 0.2
    lung_hu: float = -300.0
    most_lung_in_bone: float = 0.05
    bone_hu: float = 150.0
    least_bone: float = 0.25
    # Number of voxels whose values are examined.
    samples: int = 300_000


LIMITS = IntensityLimits()


@dataclass(frozen=True)
class Hounsfield:
    """A volume in HU.

    Attributes
    ----------
    volume : Volume
        HU; its warnings include what is unusual about the units.
    units : "hu" or "shifted"
        Units of the values as they were read.
    segmented : bool
        Whether it is a bone that was cut out of a CT.
    note : str
        What was inferred from the values, and why; empty where the units were declared.
    """

    volume: Volume
    units: CtUnits
    segmented: bool
    note: str


def to_hounsfield(volume: Volume, units: CtUnits | None, setting: str) -> Hounsfield:
    """Converts a volume to HU.

    Parameters
    ----------
    volume : Volume
    units : "hu", "shifted", "raw" or None
        Declared units of the values; None: as the file's header declares, or else inferred from the values.
    setting : str
        The option or the key that declares the units, for messages: "--units".

    Raises
    ------
    CaseError
        Values that are all the same, raw or ambiguous, or that contradict their declaration.
    """
    path = volume.path
    low, high = float(volume.voxels.min()), float(volume.voxels.max())
    if low == high:
        raise CaseError(f"{path}: every voxel has the same value, {low:g}: there is nothing in it")
    if units == "raw":
        raise CaseError(
            f"{path}: raw values have no known density and cannot be registered: multiply them by RescaleSlope and add "
            f"RescaleIntercept of the scan's DICOM header, write the volume again, and say {setting} hu"
        )
    inferred, reason = _inferred(volume.sampled(LIMITS.samples), low)
    note, warnings = "", volume.warnings
    if units is None and volume.units == "hu" and inferred == "shifted":
        raise CaseError(
            f"{path}: its header declares HU, but {reason}, as in HU + 1000: say {setting} shifted, or {setting} hu if "
            "the header is right"
        )
    if units == "shifted" and inferred == "hu":
        raise CaseError(f"{path}: is declared with {setting} shifted as HU + 1000, but {reason}: say {setting} hu")
    units = units or volume.units
    if units is None:
        if inferred is None:
            raise CaseError(
                f"{path}: the units of its values, {low:g} to {high:g}, are ambiguous: {reason}. Say {setting} hu "
                f"(Hounsfield units) or {setting} shifted (HU + 1000, air is 0), or export it again in HU"
            )
        units = inferred
        meaning = "Hounsfield units" if units == "hu" else "HU + 1000"
        note = f"{path}: its values are taken as {meaning}, as with {setting} {units}: {reason}"
    elif units == "hu" and inferred != "hu":
        warnings = (*warnings, f"{path}: is declared as HU, but {reason}")
    image = volume.image if units == "hu" else sitk.Cast(volume.image, sitk.sitkFloat32) - _SHIFT_HU
    in_hu = replace(volume, image=image, units="hu", warnings=warnings)
    return Hounsfield(in_hu, units, _is_segmented(in_hu), note)


def _inferred(values: NDArray[np.float32], low: float) -> tuple[Literal["hu", "shifted"] | None, str]:
    """The units that the values show, or None; and the reason, in words. `low` is the lowest value of the volume."""
    # A negative lowest value may be padding, which is no evidence of air: -2048 in HU is -1048 in HU + 1000.
    measured = values[values > low] if low < LIMITS.fat_hu else values
    negative = measured[(measured >= LIMITS.lowest_hu) & (measured < LIMITS.fat_hu)]
    least = LIMITS.least_fat_or_air * values.size
    zeros = float((values == 0).mean())
    if (negative < LIMITS.air_hu).sum() >= least:
        return "hu", "air is near -1000"
    if negative.size >= least:
        if zeros < LIMITS.zero_background or low < LIMITS.air_hu:
            return "hu", "fat is near -100"
        return None, f"some are as low as fat, but {100 * zeros:.0f} % are 0, which is water in HU"
    inside = measured[measured > 0] - _SHIFT_HU
    if inside.size and zeros >= LIMITS.least_background and _like_bone(inside):
        return "shifted", f"{100 * zeros:.0f} % are 0 and the rest is as dense as bone only if water is 1000"
    if inside.size and (measured < LIMITS.air_hu + _SHIFT_HU).sum() >= least and _has_soft_tissue(inside):
        return "shifted", "air is near 0 and soft tissue near 1000"
    if LIMITS.lowest_hu <= low < LIMITS.air_hu:
        return "hu", f"the background is {low:g}, as air is"
    return None, "nothing is as low as air or fat in HU, and the values do not show air at 0 and water at 1000"


def _has_soft_tissue(hu: NDArray[np.float32]) -> bool:
    """Whether there is soft tissue, and much more of it than between lung and fat."""
    soft = (np.abs(hu) < LIMITS.soft_tissue_hu).mean()
    gap = ((hu >= LIMITS.gap_hu[0]) & (hu < LIMITS.gap_hu[1])).mean()
    return bool(soft >= LIMITS.least_soft_tissue and soft >= LIMITS.least_soft_tissue_to_gap * gap)


def _like_bone(hu: NDArray[np.float32]) -> bool:
    """Whether values without their background are those of bone alone."""
    lung, bone = (hu < LIMITS.lung_hu).mean(), (hu > LIMITS.bone_hu).mean()
    return bool(lung < LIMITS.most_lung_in_bone and bone >= LIMITS.least_bone)


def _is_segmented(volume: Volume) -> bool:
    """Whether a volume in HU is a bone that was cut out: one background value, and bone."""
    hu = volume.sampled(LIMITS.samples)
    background = hu == hu.min()
    return bool(background.mean() >= LIMITS.least_background and _like_bone(hu[~background]))
