"""Whether a stage rests because the computer leaves it no time: of the last seconds, not of one frame."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LeftOutLimits:
    """When a stage is called resting; all chosen: a person who reads it must not see it flicker."""

    remembered_frames: float = 90.0  # three seconds at 30 frames a second
    rests_above: float = 0.75  # part of the remembered frames that were left out
    works_below: float = 0.5


LIMITS = LeftOutLimits()


class Rest:
    """Counts the frames that a stage leaves out.

    Attributes
    ----------
    left_out : float
        Part of the last frames that were left out, 0 to 1; the weight of a frame falls exponentially.
    rests : bool
        Whether most of them were, with hysteresis.
    """

    def __init__(self) -> None:
        self.left_out = 0.0
        self.rests = False

    def count(self, left_out: bool) -> None:
        """A frame was left out, or not."""
        self.left_out += (left_out - self.left_out) / LIMITS.remembered_frames
        self.rests = self.left_out > (LIMITS.works_below if self.rests else LIMITS.rests_above)
