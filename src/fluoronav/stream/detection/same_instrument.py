"""Which detections of a frame are of the same instrument."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fluoronav.stream.frame import Detection


@dataclass(frozen=True)
class SameInstrument:
    """Largest differences between two detections of one instrument; all chosen on simulated scenes."""

    axis_cos: float = 0.9945  # 6 degrees between their axes
    axis_px: float = 10.0  # between their axes; pixels of a 1024 image
    tip_px: float = 12.0  # between their tips; pixels of a 1024 image
    min_overlap: float = 0.5  # of the shorter one's length


SAME = SameInstrument()


def same_instrument(d: Detection, other: Detection, scale: float) -> bool:
    """Whether two detections of a frame are of one instrument.

    Parameters
    ----------
    d, other : Detection
    scale : float
        Frame pixels in one pixel of a 1024 image.
    """
    return same_line(d, other, scale) or same_tip(d, other, scale)


def same_line(d: Detection, other: Detection, scale: float) -> bool:
    """Whether two detections overlap on one axis, in the same or in opposite directions."""
    # Scalars, not arrays: this runs for each pair of a frame's candidates and tracks.
    (x, y), (other_x, other_y) = d.direction.tolist(), other.direction.tolist()
    if abs(x * other_x + y * other_y) < SAME.axis_cos:
        return False
    (tip_x, tip_y), (tail_x, tail_y) = d.tip_px.tolist(), d.tail_px.tolist()
    (from_x, from_y), (to_x, to_y) = other.tip_px.tolist(), other.tail_px.tolist()
    middle_x, middle_y = (tip_x + tail_x) / 2 - from_x, (tip_y + tail_y) / 2 - from_y
    if abs(middle_y * other_x - middle_x * other_y) > SAME.axis_px * scale:
        return False
    tip = (tip_x - from_x) * other_x + (tip_y - from_y) * other_y
    tail = (tail_x - from_x) * other_x + (tail_y - from_y) * other_y
    reach = (to_x - from_x) * other_x + (to_y - from_y) * other_y
    overlap = min(max(tip, tail), max(reach, 0.0)) - max(min(tip, tail), min(reach, 0.0))
    return overlap > SAME.min_overlap * min(abs(tip - tail), abs(reach))


def same_tip(d: Detection, other: Detection, scale: float) -> bool:
    """Whether two detections have one tip and one axis there.

    Two detections of a bent wire have different tails, and so no common axis.
    """
    near = math.dist(d.tip_px.tolist(), other.tip_px.tolist()) < SAME.tip_px * scale
    return near and float(d.direction @ other.direction) > SAME.axis_cos
