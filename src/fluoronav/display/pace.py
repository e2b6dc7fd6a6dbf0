"""How many pictures a viewer gets, and how large: fewer and smaller ones while the pipeline or the viewer is busy.

Overlays, alerts and health are never thinned.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the ladder."""

    per_s: float  # pictures a second at most
    scale: float  # of the length of a picture's side on the viewer's screen


# The first step is without a bound. The others are chosen: each takes about half of the time of the one before, and at
# 6 a second a hand at an instrument can still be followed.
STEPS = (Step(float("inf"), 1.0), Step(15.0, 1.0), Step(10.0, 0.75), Step(6.0, 0.5))


@dataclass(frozen=True, slots=True)
class PaceLimits:
    """When pictures are thinned, and when no more; all are chosen."""

    near_deadline: float = 0.8  # part of a frame's deadline; an overlay that took more came nearly late
    overlays: int = 30  # that are looked at: one second
    near: int = 3  # of these: from so many on the pipeline is busy
    slow_ms: float = 60.0  # from asking for a refresh to the end of its painting, two refreshes more than usual
    reports: int = 4  # of which the median is taken: one second
    server_share: float = 0.35  # of a core that the display's server may take
    settle_s: float = 0.5  # after a step, before the next one down
    calm_s: float = 4.0  # without being busy, before a step back
    longest_calm_s: float = 64.0  # the same where a step back has made it busy again each time


LIMITS = PaceLimits()


class Ladder:
    """A number of steps that grows while something is busy, and falls again when it is not.

    A step back that is followed by being busy was too early: the next one waits for twice as long.
    """

    def __init__(self) -> None:
        self.level = 0
        self._changed = self._busy_at = self._back_at = float("-inf")
        self._calm_s = LIMITS.calm_s

    def take(self, now: float, busy: bool) -> bool:
        """Takes how it stands.

        Parameters
        ----------
        now : float
            Monotonic, s.
        busy : bool

        Returns
        -------
        bool
            The level has changed.
        """
        before = self.level
        if busy:
            self._busy_at = now
            if before < len(STEPS) - 1 and now - self._changed >= LIMITS.settle_s:
                early = now - self._back_at < self._calm_s
                self._calm_s = min(2 * self._calm_s, LIMITS.longest_calm_s) if early else LIMITS.calm_s
                self.level, self._changed = before + 1, now
        elif before and now - max(self._busy_at, self._changed) >= self._calm_s:
            self.level, self._changed, self._back_at = before - 1, now, now
        return self.level != before


class PipelineLoad:
    """Whether the pipeline hardly keeps its deadline, by what its overlays say of themselves."""

    def __init__(self) -> None:
        self.ladder = Ladder()
        self._near: deque[bool] = deque(maxlen=LIMITS.overlays)

    def take(self, now: float, overlay: dict[str, Any]) -> bool:
        """Takes an overlay's times; returns whether the level has changed."""
        self._near.append(_is_near_deadline(overlay))
        changed = self.ladder.take(now, sum(self._near) >= LIMITS.near)
        if changed:
            self._near.clear()  # what was before the step says nothing about it
        return changed


def _is_near_deadline(overlay: dict[str, Any]) -> bool:
    dropped = overlay.get("dropped")
    if overlay.get("missed") is True or (isinstance(dropped, dict) and _number(dropped.get("overload")) > 0):
        return True
    # The two times are of the pipeline's own clock.
    took_ms = (_number(overlay.get("t_sent")) - _number(overlay.get("t_recv"))) / 1e6
    deadline_ms = _number(overlay.get("deadline_ms"))
    return deadline_ms > 0 and took_ms > LIMITS.near_deadline * deadline_ms


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


class ScreenLoad:
    """Whether a viewer's browser hardly draws what it is sent, by the times that its page tells."""

    def __init__(self) -> None:
        self.ladder = Ladder()
        self._drawn_ms: deque[float] = deque(maxlen=LIMITS.reports)

    def take(self, now: float, drawn_ms: float) -> bool:
        """Takes how long a picture's drawing took, ms; returns whether the level has changed."""
        self._drawn_ms.append(drawn_ms)
        full = len(self._drawn_ms) == LIMITS.reports
        changed = self.ladder.take(now, full and median(self._drawn_ms) > LIMITS.slow_ms)
        if changed:
            self._drawn_ms.clear()
        return changed


class ServerLoad:
    """Whether the display's server takes more than its share of a core, however many look on."""

    def __init__(self, now: float, used_s: float) -> None:
        self.ladder = Ladder()
        self._now, self._used_s = now, used_s

    def take(self, now: float, used_s: float) -> bool:
        """Takes what the server has used of the processor so far, s; returns whether the level has changed."""
        if now - self._now < LIMITS.settle_s:
            return False
        share = (used_s - self._used_s) / (now - self._now)
        self._now, self._used_s = now, used_s
        return self.ladder.take(now, share > LIMITS.server_share)
