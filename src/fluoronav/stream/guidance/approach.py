"""Distance and time to contact of an instrument with what lies ahead of it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.case import NoGo, Structure

Float = NDArray[np.float64]

# 95 % one-sided bound of a normal error.
ONE_SIDED_95 = 1.645
AHEAD_MM = np.arange(0.0, 81.0, 1.0)  # points ahead of the tip at which distances are taken


@dataclass(frozen=True, slots=True)
class ClosingLimits:
    """When a time to contact is given; all are chosen."""

    frames: int = 12  # over which the closing speed is fitted
    least_frames: int = 5
    most_gap_ns: int = 500_000_000  # between two frames; after a longer one the fit starts again
    least_mm_s: float = 1.0  # slower instruments stand still
    least_sigmas: float = 2.0  # of the speed
    most_s: float = 20.0  # to contact


CLOSING = ClosingLimits()


def ahead_mm(
    obstacle: Structure | NoGo, tip_ct: Float, axis_ct: Float, radius_mm: float, sigmas_mm: Float, out: Float
) -> float | None:
    """Way of an instrument along its axis until it can touch an obstacle; None where it does not.

    Parameters
    ----------
    obstacle : Structure or NoGo
    tip_ct, axis_ct : ndarray, shape (3,)
        LPS mm; the unit axis points from the tail to the tip.
    radius_mm : float
        Of the instrument.
    sigmas_mm : ndarray, shape (len(AHEAD_MM),)
        Error of the tip's position at each point ahead, 1 sigma.
    out : ndarray, shape (len(AHEAD_MM), 4)
        Scratch.

    Returns
    -------
    float or None
        mm from the tip: the 95 % lower bound.
    """
    obstacle.distances(tip_ct + AHEAD_MM[:, None] * axis_ct, out)
    lower = out[:, 0] - radius_mm - ONE_SIDED_95 * sigmas_mm
    touches = np.flatnonzero(lower <= 0)
    if not len(touches):
        return None
    k = int(touches[0])
    if k == 0:
        return 0.0
    return float(AHEAD_MM[k - 1] + lower[k - 1] / max(lower[k - 1] - lower[k], 1e-9))


class ClosingSpeed:
    """Closing speed of one instrument at one structure."""

    def __init__(self) -> None:
        self._distances: deque[tuple[int, float]] = deque(maxlen=CLOSING.frames)

    def contact_s(self, t_acq: int, distance_mm: float) -> float | None:
        """Takes a distance; returns the seconds to contact at the speed of the last frames.

        None while it moves away, stands still, or its speed is within the noise.
        """
        if self._distances and not 0 < t_acq - self._distances[-1][0] < CLOSING.most_gap_ns:
            self._distances.clear()
        self._distances.append((t_acq, distance_mm))
        if len(self._distances) < CLOSING.least_frames:
            return None
        t = np.array([(s[0] - t_acq) / 1e9 for s in self._distances])
        d = np.array([s[1] for s in self._distances])
        t -= t.mean()
        spread = float(t @ t)
        slope = float(t @ d) / spread
        residuals = d - d.mean() - slope * t
        sigma = float(np.sqrt(residuals @ residuals / (len(d) - 2) / spread))
        if -slope < CLOSING.least_mm_s or -slope < CLOSING.least_sigmas * sigma:
            return None
        seconds = max(distance_mm, 0.0) / -slope
        return seconds if seconds < CLOSING.most_s else None
