"""Which stages rest, since the computer does not hold them: by the frames that were late or skipped."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np

from fluoronav.stream.pipeline.frames import FrameLoop
from fluoronav.stream.pipeline.work import Work
from fluoronav.stream.stage import MayRest

log = logging.getLogger("fluoronav")


@dataclass(frozen=True, slots=True)
class RestLimits:
    """When a stage rests, and when it comes back.

    Attributes
    ----------
    over_s, every_s : float
        Frames are counted over so many seconds, so often; chosen: as `health` does.
    least_frames, least_late : int
        Fewer frames, and fewer late or skipped ones, say nothing; chosen.
    late_share : float
        Of these frames; chosen: half of that from which `health` is degraded, so that a stage rests before.
    calm_s, longest_calm_s : float
        So long without load before a stage comes back, doubled each time that it did not last; chosen.
    relapse_s : float
        A stage that has run for longer has lasted; chosen.
    calm_share : float
        Late or skipped frames while it is calm, at the most; chosen: one in a hundred is a hiccup.
    room : float
        Part of the frame time that the chain may need before a stage comes back; chosen.
    percentile : float
        Of the times from exposure to overlay, that which the chain is said to need; chosen with `late_share`.
    """

    over_s: float = 3.0
    every_s: float = 1.0
    least_frames: int = 15
    least_late: int = 3
    late_share: float = 0.05
    calm_s: float = 10.0
    longest_calm_s: float = 300.0
    relapse_s: float = 60.0
    calm_share: float = 0.01
    room: float = 0.75
    percentile: float = 95.0


LIMITS = RestLimits()


@dataclass(slots=True)
class Load:
    """What frames say of the computer's load.

    Attributes
    ----------
    frames, behind : int
        Frames that came, and those of them that were late or skipped.
    frame_ms, needs_ms : float
        The time that a frame has, and that the chain needs.
    """

    frames: int
    behind: int
    frame_ms: float
    needs_ms: float

    def too_high(self) -> bool:
        """Whether a stage should rest."""
        return self.behind >= LIMITS.least_late and self.behind > LIMITS.late_share * self.frames

    def leaves_room(self) -> bool:
        """Whether a stage may come back."""
        return self.behind <= LIMITS.calm_share * self.frames and self.needs_ms <= LIMITS.room * self.frame_ms

    def in_words(self) -> str:
        """Why a stage rests."""
        if self.needs_ms > self.frame_ms:
            return f"the frame time is {self.frame_ms:.0f} ms, the chain needs {self.needs_ms:.0f} ms"
        return f"{self.behind} of {self.frames} frames were late or skipped"


def measured_load(loop: FrameLoop, deadline_ms: float, now: float, over_s: float) -> Load:
    """The load over the last seconds.

    Parameters
    ----------
    loop : FrameLoop
    deadline_ms : float
    now : float
        By the monotonic clock, s.
    over_s : float
    """
    recent = loop.recent.since(now - over_s)
    count = loop.latency_count
    newest = min(recent.taken, count, len(loop.latencies_ms))
    latencies_ms = loop.latencies_ms[np.arange(count - newest, count) % len(loop.latencies_ms)]
    needs_ms = float(np.percentile(latencies_ms, LIMITS.percentile)) if newest else 0.0
    period_ms = 1000 * loop.period_s or deadline_ms
    return Load(
        recent.taken + recent.skipped, recent.late + recent.skipped, min(deadline_ms, period_ms), needs_ms
    )  # fmt: skip


@dataclass(slots=True)
class _History:
    """Of one stage: how long it must be calm before it comes back, and since when it runs (monotonic, s)."""

    calm_s: float = LIMITS.calm_s
    runs_since: float = field(default=float("-inf"))


class Rests:
    """Decides which stages rest: one more at a time, the last of the chain first; they come back in reverse.

    It runs beside the frame path, which is told by a command between two frames.

    Parameters
    ----------
    deadline_ms : float
        From exposure to overlay.

    Attributes
    ----------
    resting : dict
        Why, by stage, in words.
    """

    def __init__(self, deadline_ms: float) -> None:
        self._deadline_ms = deadline_ms
        self.resting: dict[str, str] = {}
        self._work: Work | None = None
        self._histories: dict[str, _History] = {}
        self._changed_at = self._next_at = 0.0

    def check(self, work: Work | None, now: float) -> None:
        """Puts a stage to rest, or has one come back, where the frames since the last change call for it."""
        if work is not self._work:
            self._work, self.resting, self._histories, self._changed_at = work, {}, {}, now
        since_s = now - self._changed_at
        if work is None or now < self._next_at or since_s < LIMITS.over_s:
            return
        self._next_at = now + LIMITS.every_s
        load = measured_load(work.loop, self._deadline_ms, now, LIMITS.over_s)
        if load.frames < LIMITS.least_frames:
            return
        if load.too_high():
            self._rest_one(work, load, now)
        elif self.resting:
            name = next(reversed(self.resting))
            long_calm = since_s >= self._history(name).calm_s
            if long_calm and measured_load(work.loop, self._deadline_ms, now, LIMITS.calm_s).leaves_room():
                self._wake(work, name, now)

    def _rest_one(self, work: Work, load: Load, now: float) -> None:
        able = (s for s in reversed(work.chain.stages) if isinstance(s, MayRest) and s.engine != "none")
        name = next((s.name for s in able if s.name not in self.resting), None)
        if name is None:
            return
        history = self._history(name)
        lasted = now - history.runs_since > LIMITS.relapse_s
        if history.runs_since > float("-inf"):
            history.calm_s = LIMITS.calm_s if lasted else min(2 * history.calm_s, LIMITS.longest_calm_s)
        self.resting = {**self.resting, name: load.in_words()}
        log.warning("stage %s rests: %s", name, self.resting[name])
        self._tell(work, now)

    def _wake(self, work: Work, name: str, now: float) -> None:
        self.resting = {other: why for other, why in self.resting.items() if other != name}
        self._history(name).runs_since = now
        log.info("stage %s works again", name)
        self._tell(work, now)

    def _history(self, name: str) -> _History:
        return self._histories.setdefault(name, _History())

    def _tell(self, work: Work, now: float) -> None:
        self._changed_at, names = now, frozenset(self.resting)
        work.loop.commands.append(lambda: work.chain.let_rest(names))
        work.wake()
