"""Distances from an instrument to the watched structures, with 95 % lower bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.case import NoGo, Structure, Tool
from fluoronav.stream.frame import Instrument
from fluoronav.stream.guidance.approach import AHEAD_MM, ONE_SIDED_95, ahead_mm

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DistanceLimits:
    """Errors and limits of the distances."""

    segmentation_sigma_mm: float = 0.35  # 1 sigma of a structure's surface: half a voxel of 0.7 mm
    axis_sigma_deg: float = 0.3  # 1 sigma of an instrument's axis; chosen
    step_mm: float = 2.0  # between the points of a shaft at which distances are taken
    shaft_mm: float = 150.0  # length of the shaft from the tip on
    # An instrument whose position is less certain (1 sigma) has no distances: every structure on its ray would
    # raise an alert. Chosen.
    most_sigma_mm: float = 6.0
    reach_mm: float = 1000.0  # from the target: farther away it lies on a table, or its tracker is wrong


LIMITS = DistanceLimits()
_ALONG_MM = np.arange(0.0, LIMITS.shaft_mm + LIMITS.step_mm, LIMITS.step_mm)
_AXIS_SIGMA_RAD = float(np.deg2rad(LIMITS.axis_sigma_deg))


@dataclass(frozen=True, slots=True)
class Measurement:
    """The distance from an instrument to one structure.

    Attributes
    ----------
    obstacle : Structure or NoGo
    distance_mm, lower_mm : float
        From the surface of tip or shaft where it comes nearest, negative inside; its 95 % lower bound.
    nearest_ct : ndarray, shape (3,)
        Point on the structure's surface, LPS mm.
    ahead_mm : float or None
        Way to contact along the instrument's axis; None where there is none.
    """

    obstacle: Structure | NoGo
    distance_mm: float
    lower_mm: float
    nearest_ct: Float
    ahead_mm: float | None


class InstrumentDistances:
    """Measures the distances of instruments.

    Parameters
    ----------
    watched : sequence of Structure or NoGo
    tools : sequence of Tool
        Of the case; an instrument of another id is taken for its tip.
    target_ct : ndarray, shape (3,)
        LPS mm.
    """

    def __init__(self, watched: Sequence[Structure | NoGo], tools: Sequence[Tool], target_ct: Float) -> None:
        self._watched, self._target_ct = watched, target_ct
        self._tools = {t.id: t for t in tools}
        self._out = np.empty((len(_ALONG_MM), 4))
        self._out_ahead = np.empty((len(AHEAD_MM), 4))
        for obstacle in watched:
            obstacle.distances(np.zeros((1, 3)), self._out[:1])  # compiles

    def applies_to(self, instrument: Instrument) -> bool:
        """Whether an instrument has distances: its position is known, and within reach of the target."""
        if instrument.tip_ct is None or not is_placed(instrument):
            return False
        return float(np.abs(instrument.tip_ct - self._target_ct).max()) < LIMITS.reach_mm

    def of(self, instrument: Instrument) -> list[Measurement]:
        """The distances of an instrument to all watched structures; empty where it has none."""
        if instrument.tip_ct is None or not self.applies_to(instrument):
            return []
        points, radii, sigmas, lateral = self._along(instrument)
        widest = float(radii.max())
        bent_rad = 0.0 if instrument.curvature is None else instrument.curvature.tip_angle_rad / ONE_SIDED_95
        sigmas_ahead = np.hypot(sigmas[0], np.hypot(_AXIS_SIGMA_RAD, bent_rad) * AHEAD_MM)
        measured = []
        for obstacle in self._watched:
            out = self._out[: len(points)]
            obstacle.distances(points, out)
            lower_bounds = out[:, 0] - radii - ONE_SIDED_95 * sigmas - lateral
            k = int(lower_bounds.argmin())
            distance, lower = float(out[k, 0] - radii[k]), float(lower_bounds[k])
            if not (math.isfinite(distance) and math.isfinite(lower)):
                continue
            nearest_ct = points[k] - out[k, 0] * out[k, 1:]
            ahead = None
            if instrument.axis_ct is not None:
                ahead = ahead_mm(
                    obstacle, instrument.tip_ct, instrument.axis_ct, widest, sigmas_ahead, self._out_ahead
                )  # fmt: skip
            measured.append(Measurement(obstacle, distance, lower, nearest_ct, ahead))
        return measured

    def _along(self, instrument: Instrument) -> tuple[Float, Float, Float, Float]:
        """Points of the axis from the tip on, LPS mm, (n, 3), and there: radius, 1 sigma, and lateral offset, (n,)."""
        assert instrument.tip_ct is not None
        tool = self._tools.get(instrument.id)
        steps = _ALONG_MM[:1]
        if tool is not None and instrument.axis_ct is not None:
            steps = _ALONG_MM[tool.length_mm >= _ALONG_MM]
        axis = np.zeros(3) if instrument.axis_ct is None else instrument.axis_ct
        radii = np.zeros(len(steps)) if tool is None else tool.radii_mm(steps)
        sigmas = np.sqrt(instrument.sigma_mm**2 + (_AXIS_SIGMA_RAD * steps) ** 2 + LIMITS.segmentation_sigma_mm**2)
        lateral = np.zeros(len(steps))
        if instrument.curvature is not None:
            lateral = instrument.curvature.lateral_offset_mm(steps)
        return instrument.tip_ct - steps[:, None] * axis, radii, sigmas, lateral


def is_placed(instrument: Instrument) -> bool:
    """Whether an instrument's position in the patient is certain enough for distances."""
    tip_ct = instrument.tip_ct
    return tip_ct is not None and bool(np.isfinite(tip_ct).all()) and instrument.sigma_mm <= LIMITS.most_sigma_mm
