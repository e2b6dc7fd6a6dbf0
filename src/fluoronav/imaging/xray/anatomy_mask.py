"""The pixels that show anatomy alone: in the field of view, with a signal, and without metal.

What the CT does not have must not be compared with it: screws, rods, instruments, wires, lead. It is
denser than its surroundings and narrower than a vertebra, so a morphological opening of the attenuation removes it
(a white top-hat finds it; Soille, Morphological Image Analysis, 2003, 4.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.imaging.xray.field_shapes import FIELD_SIDE

Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class AnatomyLimits:
    """Limits of what counts as anatomy; pixels are of an image of 128 pixels, and scale with it.

    Attributes
    ----------
    metal_px : int
        Diameter of the opening. Chosen: a screw's head of 12 mm has 8 pixels, a thoracic vertebra 20.
    metal_drop : float
        Minimum difference of the log signal. Set on exposures of the embedded case with screws and rods: 94 % of
        titanium and all of steel, and 2.6 % of the field beside it.
    around_px : int
        Side of the square that metal is dilated by: its blurred edge.
    usual_percentiles, usual_spread : tuple of float, float
        Of the log signal in the field: 2.2 to 2.5 in exposures of the embedded chest. It tells the gain of an image
        whose values are a logarithm; metal is above these percentiles.
    floor_fraction : float
        Maximum signal that has no logarithm worth comparing, of the field's median; chosen.
    least_left : float
        Fraction of the field that must be left. Where less is left, what was found is no metal: nothing is masked.
        Chosen.
    """

    metal_px: int = 13
    metal_drop: float = 0.4
    around_px: int = 3
    usual_percentiles: tuple[float, float] = (10.0, 75.0)
    usual_spread: float = 2.4
    floor_fraction: float = 0.01
    least_left: float = 0.6


LIMITS = AnatomyLimits()


def find_anatomy(counts: Float32, dark: float, field_mask: Mask, median_signal: float) -> Mask:
    """The pixels that may be compared with a CT.

    Parameters
    ----------
    counts : ndarray of float32, shape (rows, cols)
        A small version of the frame (`FIELD_SIDE` pixels), bright = more X-ray.
    dark : float
        Counts without X-rays.
    field_mask : ndarray of bool, the same shape
    median_signal : float
        Of the field, above the dark level.

    Returns
    -------
    ndarray of bool, the same shape
    """
    floor = max(LIMITS.floor_fraction * median_signal, 1e-3)
    signal = counts - np.float32(dark)
    seen = field_mask & (signal > floor)
    return _without_metal(-np.log(np.maximum(signal, np.float32(floor))), seen, field_mask, LIMITS.metal_drop)


def find_anatomy_of_log(attenuation: Float32, field_mask: Mask) -> Mask:
    """The same of an image whose values are a logarithm with an unknown gain.

    Parameters
    ----------
    attenuation : ndarray of float32, shape (rows, cols)
        A small version of the frame (`FIELD_SIDE` pixels), up to gain and offset.
    field_mask : ndarray of bool, the same shape

    Returns
    -------
    ndarray of bool, the same shape
    """
    if not field_mask.any():
        return field_mask
    low, high = np.percentile(attenuation[field_mask], LIMITS.usual_percentiles)
    gain = float(high - low) / LIMITS.usual_spread
    return _without_metal(attenuation, field_mask, field_mask, LIMITS.metal_drop * gain)


def wider_than_metal(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The disc into which no metal fits, for morphology in an image of a shape."""
    size = max(round(LIMITS.metal_px * max(shape) / FIELD_SIDE) | 1, 3)
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)), np.uint8)


def _without_metal(attenuation: Float32, seen: Mask, field_mask: Mask, drop: float) -> Mask:
    opened = cv2.morphologyEx(attenuation, cv2.MORPH_OPEN, wider_than_metal(attenuation.shape))
    metal = attenuation - opened > drop
    around = max(round(LIMITS.around_px * max(attenuation.shape) / FIELD_SIDE) | 1, 3)
    metal = cv2.dilate(metal.astype(np.uint8), np.ones((around, around), np.uint8)) > 0
    anatomy = seen & ~metal
    return anatomy if anatomy.sum() >= LIMITS.least_left * field_mask.sum() else seen
