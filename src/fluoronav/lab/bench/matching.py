"""When a detection is of an instrument that is there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluoronav.stream.frame import Detection

Float = NDArray[np.float64]

# Its tip is this close and its axis, too (pixels of a 1024 image, degrees).
SAME_PX, _SAME_DEG = 40.0, 10.0


def off_px(d: Detection, tip: Float, direction: Float) -> float:
    """How far a detection's tip is from a place; infinitely where its axis is another.

    Parameters
    ----------
    d : Detection
    tip, direction : ndarray, shape (2,)
        (column, row); the unit direction points out of the tip.
    """
    turn = np.rad2deg(np.arccos(np.clip(d.direction @ direction, -1, 1)))
    return float(np.linalg.norm(d.tip_px - tip)) if turn < _SAME_DEG else np.inf


def nearest(found: list[Detection], tip: Float, direction: Float) -> tuple[int, float] | None:
    """Which detection is of an instrument, and how far its tip is off (pixels); None where none is.

    Parameters
    ----------
    found : list of Detection
    tip, direction : ndarray, shape (2,)
        As for :func:`off_px`.
    """
    off, k = min(((off_px(d, tip, direction), k) for k, d in enumerate(found)), default=(np.inf, -1))
    return (k, off) if off < SAME_PX else None
