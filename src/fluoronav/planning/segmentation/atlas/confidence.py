"""How sure a vertebra of the atlas engine is.

The number is the Dice overlap to be expected by what can be seen without a reference: how well scan and atlas
correlate after the registration, and how clearly the bone stands out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.planning.segmentation.atlas.scan import LIMITS, Scan


@dataclass(frozen=True)
class Signs:
    """What a vertebra's confidence is found from.

    Attributes
    ----------
    correlation : float
        Of scan and atlas, after the registration.
    contrast : float
        Share by which the histograms of the bone and of what is around it differ.
    inside : float
        Share of the vertebra inside the scan.
    borrowed : bool
        It has the shape of another level.
    metal_cm3 : float
        Within 40 mm of the body's centre.
    """

    correlation: float
    contrast: float
    inside: float
    borrowed: bool
    metal_cm3: float


@dataclass(frozen=True, slots=True)
class ConfidenceSettings:
    """The fit of confidence to Dice, on registrations of patients B and L3 from good and bad starts."""

    correlations: tuple[float, ...] = (0.4, 0.55, 0.7, 0.8)
    dice: tuple[float, ...] = (0.2, 0.6, 0.83, 0.9)
    clear_contrast: float = 0.35  # below, the bone's edge is not seen
    unclear: float = 0.9  # factor below that contrast
    borrowed: float = 0.95  # factor
    cut: float = 0.9  # factor
    metal: float = 0.6  # factor beside a screw or more
    little_metal_cm3: float = 0.3
    metal_mm: float = 40.0  # of the body's centre
    unsure_level: float = 0.9  # factor while the level is a question


SETTINGS = ConfidenceSettings()


def confidence_of(signs: Signs, *, level_sure: bool) -> float:
    """Confidence, 0 to 1."""
    out = float(np.interp(signs.correlation, SETTINGS.correlations, SETTINGS.dice))
    if signs.contrast < SETTINGS.clear_contrast:
        out *= SETTINGS.unclear
    if signs.borrowed:
        out *= SETTINGS.borrowed
    if signs.inside < 0.97:
        out *= SETTINGS.cut
    if signs.metal_cm3 > SETTINGS.little_metal_cm3:
        out *= SETTINGS.metal
    return round(out * (1.0 if level_sure else SETTINGS.unsure_level), 2)


def metal_near(scan: Scan, centre_ct: NDArray[np.float64]) -> float:
    """Volume above the limit of metal around a vertebral body, cm3."""
    image, reach = scan.working, SETTINGS.metal_mm
    spacing = np.array(image.GetSpacing())
    at = (centre_ct - np.array(image.GetOrigin())) / spacing
    low = np.maximum(np.floor(at - reach / spacing), 0).astype(int)
    high = np.minimum(np.ceil(at + reach / spacing) + 1, image.GetSize()).astype(int)
    if (high <= low).any():
        return 0.0
    part = sitk.GetArrayViewFromImage(image)[low[2] : high[2], low[1] : high[1], low[0] : high[0]]
    return float((part > LIMITS.metal_hu).sum() * np.prod(spacing) / 1000)
