"""Tip, axis and curvature of an instrument, measured at full resolution along a path of the first network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.stream.detection.paths import (
    arc_lengths,
    chord_direction,
    profile_centres,
    projected_on_line,
    straight_length,
)
from fluoronav.stream.detection.profiles import profiles_across
from fluoronav.stream.detection.sagitta import sagitta_px
from fluoronav.stream.detection.shaft_axis import fit_axis
from fluoronav.stream.detection.tip import locate_tip

Float = NDArray[np.float64]


@dataclass(frozen=True)
class MeasurementLimits:
    """Where profiles across a shaft are taken; all chosen on simulated exposures."""

    reach_px: float = 320.0  # from the tip: farther away the shaft says little of the direction at the tip
    step_px: float = 4.0  # between profiles
    half_profile_px: int = 22  # the shadow and its flanks
    half_screw_profile_px: int = 42  # a screw's head is wider than all other instruments
    min_path_px: float = 40.0  # shorter paths are not measured
    rough_sigma_deg: float = 1.0  # a direction known no better than this is measured along other parts of the path, too


LIMITS = MeasurementLimits()


@dataclass(frozen=True)
class MeasuredInstrument:
    """An instrument at full resolution.

    Attributes
    ----------
    tip_px, direction : ndarray, shape (2,)
        (column, row); the unit direction points from the tail to the tip.
    tail_px : ndarray, shape (2,)
        Where it leaves the view, or ends.
    width_px : float
        Of its shadow; 0 where it could not be measured.
    sigma_px : float
        Of the tip, 1 sigma.
    sigma_deg : float
        Of the direction, 1 sigma.
    sagitta_px : float
        Offset of the axis from the middle of the chord between tail and tip, over all that is in view; positive towards
        the direction turned by a quarter from columns to rows; 0 where it is straight.
    """

    tip_px: Float
    direction: Float
    tail_px: Float
    width_px: float
    sigma_px: float
    sigma_deg: float
    sagitta_px: float


def measure(
    counts: NDArray, path_px: Float, dark: float, inverse: bool = False, kind: str = "k-wire"
) -> MeasuredInstrument | None:
    """Measures an instrument along a path.

    Parameters
    ----------
    counts : ndarray of uint8 or uint16, shape (rows, cols)
    path_px : ndarray, shape (n, 2)
        (column, row) from the tip to the tail, correct to a few pixels.
    dark : float
        Counts without X-rays.
    inverse : bool
        Dark means more X-rays.
    kind : str
        Decides the length of the profiles.

    Returns
    -------
    MeasuredInstrument or None
        None where the path is too short. What cannot be measured is the path's own, with its error.
    """
    half_px = LIMITS.half_screw_profile_px if kind == "screw" else LIMITS.half_profile_px
    arc_length = arc_lengths(path_px)
    reach = min(float(arc_length[-1]), LIMITS.reach_px)
    if reach < LIMITS.min_path_px:
        return None

    def axis_over(reach: float, path: Float) -> tuple[Float, Float, float, float]:
        centre = profile_centres(path, arc_length, reach, LIMITS.step_px)
        direction = chord_direction(path, arc_length, reach)
        normal = np.array([-direction[1], direction[0]])
        profiles = profiles_across(counts, centre, normal, half_px, dark, inverse)
        return fit_axis(profiles, half_px, path[0], centre, direction, normal, reach)

    # Computed for every path, in a few microseconds, so that both are compiled before the first frame that needs them.
    straight, on_line = straight_length(path_px, arc_length), projected_on_line(path_px)
    found = axis_over(reach, path_px)
    if found[3] > LIMITS.rough_sigma_deg:
        if LIMITS.min_path_px < straight < reach:
            found = min(found, axis_over(straight, path_px), key=lambda f: f[3])
        if len(on_line):
            found = min(found, axis_over(reach, on_line), key=lambda f: f[3])
    at_tip, axis, width_px, sigma_deg = found
    moved_px, sigma_px = locate_tip(counts, at_tip, axis, width_px, dark, inverse)
    sagitta = sagitta_px(counts, path_px, arc_length, half_px, dark, inverse)
    return MeasuredInstrument(at_tip + moved_px * axis, axis, path_px[-1], width_px, sigma_px, sigma_deg, sagitta)
