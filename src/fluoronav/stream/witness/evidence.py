"""From what single frames say to a doubt that holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Answer = Literal["agrees", "disagrees", "cannot_say"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one frame says.

    Attributes
    ----------
    answer : {"agrees", "disagrees", "cannot_say"}
    reason : str
        Under which it is counted.
    offset_mm : float
        How far the shadow lies from where it is expected, across the ray; 0 where it agrees or cannot be said.
    """

    answer: Answer
    reason: str
    offset_mm: float = 0.0


@dataclass(frozen=True, slots=True)
class EvidenceLimits:
    """How many frames make a doubt, and end it.

    Attributes
    ----------
    raised_at : int
        Frames that disagree, less those that agree, where each frame is judged by itself. Chosen: with the frame in
        which the alert leaves, it is raised within five.
    raised_at_of_sums : int
        The same where frames are judged by the sum of those before; chosen for the same.
    agreed : int
        So many in a row that agree end it. Chosen: a third of a second at 30 frames a second.
    """

    raised_at: int = 3
    raised_at_of_sums: int = 2
    agreed: int = 10


LIMITS = EvidenceLimits()


class Evidence:
    """Counts what frames say of one thing; a frame that cannot say changes nothing.

    Parameters
    ----------
    raised_at : int
        Frames that disagree, less those that agree, that make a doubt.

    Attributes
    ----------
    doubted : bool
    offset_mm : float
        Of the last frame that disagreed.
    """

    def __init__(self, raised_at: int = LIMITS.raised_at) -> None:
        self._raised_at = raised_at
        self.doubted = False
        self.offset_mm = 0.0
        self._against = self._agreed = 0

    def take(self, verdict: Verdict) -> bool:
        """Takes a frame's verdict; returns whether `doubted` has changed."""
        before = self.doubted
        if verdict.answer == "disagrees":
            self._against, self._agreed = min(self._against + 1, self._raised_at), 0
            self.offset_mm = verdict.offset_mm
            self.doubted = self.doubted or self._against >= self._raised_at
        elif verdict.answer == "agrees":
            self._against, self._agreed = max(self._against - 1, 0), self._agreed + 1
            self.doubted = self.doubted and self._agreed < LIMITS.agreed
        return self.doubted != before

    def forget(self) -> bool:
        """Begins anew; returns whether `doubted` has changed."""
        before = self.doubted
        self.doubted, self._against, self._agreed = False, 0, 0
        return before
