"""Angles between endplates: Cobb's in the coronal plane, kyphosis and lordosis in the sagittal plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from fluoronav.planning.anatomy import LEVELS
from fluoronav.planning.measurements.errors import Refused
from fluoronav.planning.measurements.fitting import Plane, cross, unit
from fluoronav.planning.measurements.mask import Float
from fluoronav.planning.measurements.vertebra import tilt_deg

# From head to tail, with the levels that some people have.
ORDER = (*LEVELS[:19], "T13", *LEVELS[19:24], "L6", "S1")
# Named ranges: upper endplate of the first to lower endplate of the last that are there; at least `least` levels.
KYPHOSIS, LORDOSIS = ("T4", "T12"), ("L1", "L5")


@dataclass(frozen=True)
class Endplates:
    """Endplates of a vertebra with the standard deviations of their tilts.

    Attributes
    ----------
    level : str
    top, bottom : Plane
        LPS mm, normals to the head.
    tilts_sd : ndarray, shape (4,)
        Degrees: top and bottom, each in the coronal and in the sagittal plane.
    """

    level: str
    top: Plane
    bottom: Plane
    tilts_sd: Float


@dataclass(frozen=True)
class SpineAngle:
    """An angle between the upper endplate of one vertebra and the lower endplate of another.

    Attributes
    ----------
    upper, lower : str
        Levels.
    degrees : float
        Coronal: not signed. Sagittal: positive for kyphosis.
    sigma : float
        One standard deviation, degrees.
    points_ct : ndarray, shape (4, 3)
        The two lines to draw, LPS mm.
    """

    upper: str
    lower: str
    degrees: float
    sigma: float
    points_ct: Float


def angle_between(upper: Endplates, lower: Endplates, plane: int) -> SpineAngle:
    """The angle of two endplates in the patient's coronal (0) or sagittal (1) plane.

    Each endplate meets the plane in a line; the angle is that between the lines (Cobb 1948). In the sagittal plane the
    sign is that of kyphosis.
    """
    tilts = tilt_deg(upper.top)[plane], tilt_deg(lower.bottom)[plane]
    value = tilts[0] - tilts[1]
    # A kyphotic spine's upper endplates tip forward: their normals lean to the front (-y).
    value = abs(value) if plane == 0 else -value
    sigma = float(np.hypot(upper.tilts_sd[plane], lower.tilts_sd[2 + plane]))
    lines = [_line(p, plane) for p in (upper.top, lower.bottom)]
    return SpineAngle(upper.level, lower.level, float(value), sigma, np.concatenate(lines))


def extreme_cobb(endplates: Mapping[str, Endplates]) -> SpineAngle:
    """The largest coronal angle between any two levels; raises :class:`Refused` with fewer than two."""
    found = ordered(endplates)
    if len(found) < 2:
        raise Refused(f"a Cobb angle needs two whole vertebrae; {len(found)} was found")
    return max((angle_between(a, b, 0) for a, b in combinations(found, 2)), key=lambda angle: angle.degrees)


def between_levels(endplates: Mapping[str, Endplates], upper: str, lower: str, plane: int) -> SpineAngle:
    """The angle between two levels that a person chose.

    Raises
    ------
    Refused
        A level is not measured, or they are in the wrong order.
    """
    for level in (upper, lower):
        if level not in endplates:
            raise Refused(f"{level}: its endplates were not measured, so there is no angle {upper} to {lower}")
    if ORDER.index(upper) >= ORDER.index(lower):
        raise Refused(f"{upper} is not above {lower}: name the upper level first")
    return angle_between(endplates[upper], endplates[lower], plane)


def part_of(endplates: Mapping[str, Endplates], ends: tuple[str, str], least: int) -> tuple[str, str]:
    """The outermost measured levels of a part of the spine; raises :class:`Refused` where there are too few."""
    low, high = (ORDER.index(level) for level in ends)
    found = [level for level in ORDER[low : high + 1] if level in endplates]
    if len(found) < least:
        raise Refused(f"{ends[0]} to {ends[1]}: {len(found)} levels are measured; at least {least} are needed")
    return found[0], found[-1]


def ordered(endplates: Mapping[str, Endplates]) -> Sequence[Endplates]:
    """From head to tail."""
    return [endplates[level] for level in ORDER if level in endplates]


def _line(plane: Plane, which: int, half_mm: float = 25.0) -> Float:
    """Two points of the line in which an endplate meets the coronal or the sagittal plane through its middle."""
    direction = unit(cross(plane.normal, np.eye(3)[1 if which == 0 else 0]))
    return np.stack([plane.point - half_mm * direction, plane.point + half_mm * direction])
