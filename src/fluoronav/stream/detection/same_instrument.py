"""Which finds are of one and the same instrument."""

from __future__ import annotations

import math

from fluoronav.stream.frame import Detection

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
    # Numbers, not arrays: this is asked of each pair of a frame's finds, and of each with each that was followed.
    (x, y), (other_x, other_y) = d.direction.tolist(), other.direction.tolist()
    if abs(x * other_x + y * other_y) < _SAME_AXIS_COS:
        return False
    (tip_x, tip_y), (tail_x, tail_y) = d.tip_px.tolist(), d.tail_px.tolist()
    (from_x, from_y), (to_x, to_y) = other.tip_px.tolist(), other.tail_px.tolist()
    middle_x, middle_y = (tip_x + tail_x) / 2 - from_x, (tip_y + tail_y) / 2 - from_y
    if abs(middle_y * other_x - middle_x * other_y) > _SAME_AXIS_PX * scale:
        return False
    tip = (tip_x - from_x) * other_x + (tip_y - from_y) * other_y
    tail = (tail_x - from_x) * other_x + (tail_y - from_y) * other_y
    reach = (to_x - from_x) * other_x + (to_y - from_y) * other_y
    shared = min(max(tip, tail), max(reach, 0.0)) - max(min(tip, tail), min(reach, 0.0))
    return shared > 0.5 * min(abs(tip - tail), abs(reach))


def at_one_tip(d: Detection, other: Detection, scale: float) -> bool:
    """Whether two finds are of one tip: the same place, and the same axis there."""
    near = math.dist(d.tip_px.tolist(), other.tip_px.tolist()) < _SAME_TIP_PX * scale
    return near and float(d.direction @ other.direction) > _SAME_AXIS_COS
