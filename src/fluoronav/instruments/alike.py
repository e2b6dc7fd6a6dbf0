"""Which finds are of one and the same instrument."""

from __future__ import annotations

import numpy as np

from fluoronav.records import Detection

# Two finds are of one line when their axes differ by less than this (6 degrees, pixels of a 1024 image).
_SAME_AXIS_COS, _SAME_AXIS_PX = 0.9945, 10.0
# And of one tip when their tips are closer than this: a bent wire's two finds have other tails, and so no common line.
_SAME_TIP_PX = 12.0


def one_instrument(d: Detection, other: Detection, scale: float) -> bool:
    """Whether two finds of a frame are of one instrument.

    Parameters
    ----------
    d, other : Detection
    scale : float
        Pixels of the frame for one of a 1024 image.
    """
    return on_one_line(d, other, scale) or at_one_tip(d, other, scale)


def on_one_line(d: Detection, other: Detection, scale: float) -> bool:
    """Whether two finds lie along each other: the same axis either way round, and the same stretch of it."""
    if abs(float(d.direction @ other.direction)) < _SAME_AXIS_COS:
        return False
    ends = np.stack([d.tip_px, d.tail_px]) - other.tip_px
    normal = np.array([-other.direction[1], other.direction[0]])
    if np.abs(ends.mean(0) @ normal) > _SAME_AXIS_PX * scale:
        return False
    along, reach = ends @ other.direction, float((other.tail_px - other.tip_px) @ other.direction)
    shared = min(along.max(), max(reach, 0.0)) - max(along.min(), min(reach, 0.0))
    return bool(shared > 0.5 * min(np.ptp(along), abs(reach)))


def at_one_tip(d: Detection, other: Detection, scale: float) -> bool:
    """Whether two finds are of one tip: the same place, and the same axis there."""
    near = float(np.linalg.norm(d.tip_px - other.tip_px)) < _SAME_TIP_PX * scale
    return near and float(d.direction @ other.direction) > _SAME_AXIS_COS
