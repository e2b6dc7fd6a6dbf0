"""Which detection belongs to which instrument of a scene."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluoronav.stream.frame import Detection

Float = NDArray[np.float64]

# Largest distance of the tips (pixels of a 1024 image) and angle of the axes; chosen: a tip at the other end of a short
# instrument is no match.
SAME_PX, _SAME_DEG = 40.0, 10.0


def off_px(d: Detection, tip: Float, direction: Float) -> float:
    """Distance of a detection's tip from a place, pixels; infinite if the axes differ.

    Parameters
    ----------
    d : Detection
    tip, direction : ndarray, shape (2,)
        (column, row); the unit direction points outwards at the tip.
    """
    turn = np.rad2deg(np.arccos(np.clip(d.direction @ direction, -1, 1)))
    return float(np.linalg.norm(d.tip_px - tip)) if turn < _SAME_DEG else np.inf


def nearest(found: list[Detection], tip: Float, direction: Float) -> tuple[int, float] | None:
    """Index of the nearest matching detection and its distance (pixels); None if there is none.

    Parameters
    ----------
    found : list of Detection
    tip, direction : ndarray, shape (2,)
        As for :func:`off_px`.
    """
    off, k = min(((off_px(d, tip, direction), k) for k, d in enumerate(found)), default=(np.inf, -1))
    return (k, off) if off < SAME_PX else None
