"""Where an instrument is heading: what lies ahead of it, and how soon it is there."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from fluoronav.case import NoGo, Structure

Float = NDArray[np.float64]

# 95 % one-sided bound of a normal error.
ONE_SIDED_95 = 1.645
# How far ahead is looked, and in which steps.
AHEAD_MM = np.arange(0.0, 81.0, 1.0)
# A speed is the slope of the distances of the last so many frames; slower than this nothing is said of time.
_FRAMES, _LEAST_FRAMES, _LEAST_MM_S, _SIGMAS = 12, 5, 1.0, 2.0
_LONGEST_S = 20.0


def ahead_mm(
    obstacle: Structure | NoGo, tip_ct: Float, axis_ct: Float, radius_mm: float, sigmas_mm: Float, out: Float
) -> float | None:
    """How far the instrument may go on in its direction before it can touch an obstacle; None where it does not.

    Parameters
    ----------
    obstacle : Structure or NoGo
    tip_ct, axis_ct : ndarray, shape (3,)
        LPS mm; the unit axis points from the tail to the tip.
    radius_mm : float
        Of the instrument.
    sigmas_mm : ndarray, shape (len(AHEAD_MM),)
        Error of the place that the tip reaches, 1 sigma; it grows with the way.
    out : ndarray, shape (len(AHEAD_MM), 4)
        Scratch.

    Returns
    -------
    float or None
        mm from the tip, on the near side of its 95 % bound.
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
    """How fast one instrument comes nearer to one structure."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, float]] = deque(maxlen=_FRAMES)

    def contact_s(self, t_acq: int, distance_mm: float) -> float | None:
        """Takes a distance; returns the seconds to contact at the speed of the last frames, or None.

        None while it moves away, stands still, or moves less than its noise says.
        """
        if self._seen and not 0 < t_acq - self._seen[-1][0] < 500_000_000:
            self._seen.clear()
        self._seen.append((t_acq, distance_mm))
        if len(self._seen) < _LEAST_FRAMES:
            return None
        t = np.array([(s[0] - t_acq) / 1e9 for s in self._seen])
        d = np.array([s[1] for s in self._seen])
        t -= t.mean()
        spread = float(t @ t)
        slope = float(t @ d) / spread
        off = d - d.mean() - slope * t
        sigma = float(np.sqrt(off @ off / (len(d) - 2) / spread))
        if -slope < _LEAST_MM_S or -slope < _SIGMAS * sigma:
            return None
        seconds = max(distance_mm, 0.0) / -slope
        return seconds if seconds < _LONGEST_S else None
