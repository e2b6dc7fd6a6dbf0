"""For how long something has not been seen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AbsenceLimits:
    """When an absence is reported; chosen: one hidden exposure must not raise an alert."""

    frames: int = 15
    after_ns: int = 500_000_000  # for slow frame rates


LIMITS = AbsenceLimits()


class Absence:
    """Counts the frames in which something is not seen."""

    def __init__(self) -> None:
        self.end()

    def end(self) -> None:
        """It is seen again."""
        self._frames, self._since = 0, 0

    def goes_on(self, t_local: int) -> bool:
        """It is not seen in this frame either; returns whether the absence is long enough to be reported."""
        self._frames += 1
        if self._frames == 1:
            self._since = t_local
        return self._frames >= LIMITS.frames or t_local - self._since > LIMITS.after_ns
