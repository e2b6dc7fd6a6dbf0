"""Which stages rest, and why: what they need is missing, or the computer leaves them no time."""

from __future__ import annotations

import logging
from collections import deque
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
        Frames of the last `over_s` are counted every `every_s`; chosen: as `health` does.
    least_frames, least_late : int
        Fewer frames, and fewer late or skipped ones, say nothing; chosen.
    late_share : float
        Share of late or skipped frames above which a stage rests. Chosen: half of the share at which `health` is
        degraded, so that the stage rests first.
    calm_s, longest_calm_s : float
        Time without load before a stage comes back, and the most that it grows to; it is doubled each time that the
        stage has to rest again soon. Chosen.
    relapse_s : float
        A stage that rests again within this time was back too soon; chosen.
    calm_share : float
        Largest share of late or skipped frames that still counts as without load; chosen: one in a hundred is a hiccup.
    room : float
        Part of the frame time that the chain may need before a stage comes back; chosen.
    percentile : float
        Percentile of the times from exposure to overlay that counts as what the chain needs; chosen with `late_share`.
    rests_above, works_below : float
        Part of the frames that a stage itself leaves out, above which it is said to rest, and below which to work;
        chosen: a person who reads it must not see it flicker.
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
    rests_above: float = 0.75
    works_below: float = 0.5


LIMITS = RestLimits()
_CHECKS = 1 + round(LIMITS.over_s / LIMITS.every_s)  # that are compared


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
    """Of one stage.

    Attributes
    ----------
    calm_s : float
        How long it must be calm before it comes back.
    runs_since : float
        By the monotonic clock, s.
    counts : deque of tuple of int
        Frames in which it worked and that it left out, as of the last checks.
    leaves_out : bool
        It leaves out most frames by itself.
    """

    calm_s: float = LIMITS.calm_s
    runs_since: float = float("-inf")
    counts: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=_CHECKS))
    leaves_out: bool = False

    def count(self, stage: MayRest) -> None:
        """Looks at what the stage has done since the last checks, with hysteresis."""
        self.counts.append((stage.worked, stage.left_out))
        worked, left_out = np.subtract(self.counts[-1], self.counts[0])
        enough = len(self.counts) == self.counts.maxlen and worked + left_out >= LIMITS.least_frames
        most = LIMITS.works_below if self.leaves_out else LIMITS.rests_above
        self.leaves_out = bool(enough and left_out > most * (worked + left_out))


class Rests:
    """Decides which stages rest, and says which do.

    Where frames are late it puts one more stage to rest at a time, the last of the chain first; they come back in
    reverse. It runs beside the frame path, which is told by a command between two frames. A stage that leaves frames
    out by itself is only said to rest, and goes on trying.

    Parameters
    ----------
    deadline_ms : float
        From exposure to overlay.

    Attributes
    ----------
    resting : dict
        Why, by stage, in words; replaced, never changed.
    """

    def __init__(self, deadline_ms: float) -> None:
        self._deadline_ms = deadline_ms
        self.resting: dict[str, str] = {}
        self._work: Work | None = None
        self._stages: list[MayRest] = []
        self._put: dict[str, str] = {}  # to rest, and why
        self._histories: dict[str, _History] = {}
        self._changed_at = self._next_at = 0.0

    def check(self, work: Work | None, now: float) -> None:
        """Puts a stage to rest, or has one come back, where the frames since the last change call for it."""
        if work is not self._work:
            self._begin(work, now)
        if work is None or now < self._next_at:
            return
        self._next_at = now + LIMITS.every_s
        for stage in self._stages:
            self._histories[stage.name].count(stage)
        if now - self._changed_at >= LIMITS.over_s:
            self._weigh(work, now)
        self.resting = {s.name: why for s in self._stages if (why := self._why(s))}

    def _begin(self, work: Work | None, now: float) -> None:
        self._work, self._put, self._changed_at, self._next_at = work, {}, now, now
        self._stages = [s for s in work.chain.stages if isinstance(s, MayRest)] if work is not None else []
        self._histories = {s.name: _History() for s in self._stages}
        self.resting = {}

    def _weigh(self, work: Work, now: float) -> None:
        load = measured_load(work.loop, self._deadline_ms, now, LIMITS.over_s)
        if load.frames < LIMITS.least_frames:
            return
        if load.too_high():
            self._rest_one(work, load, now)
        elif self._put:
            name = next(reversed(self._put))
            long_calm = now - self._changed_at >= self._histories[name].calm_s
            if long_calm and measured_load(work.loop, self._deadline_ms, now, LIMITS.calm_s).leaves_room():
                self._wake(work, name, now)

    def _rest_one(self, work: Work, load: Load, now: float) -> None:
        able = (s.name for s in reversed(self._stages) if not s.missing)
        name = next((name for name in able if name not in self._put), None)
        if name is None:
            return
        history = self._histories[name]
        lasted = now - history.runs_since > LIMITS.relapse_s
        if history.runs_since > float("-inf"):
            history.calm_s = LIMITS.calm_s if lasted else min(2 * history.calm_s, LIMITS.longest_calm_s)
        self._put[name] = load.in_words()
        log.warning("stage %s rests: %s", name, self._put[name])
        self._tell(work, now)

    def _wake(self, work: Work, name: str, now: float) -> None:
        del self._put[name]
        self._histories[name].runs_since = now
        log.info("stage %s works again", name)
        self._tell(work, now)

    def _why(self, stage: MayRest) -> str:
        """Why a stage rests, in words; empty while it works."""
        if stage.missing or stage.name in self._put:
            return stage.missing or self._put[stage.name]
        if self._histories[stage.name].leaves_out:
            return f"most frames leave it too little time: it takes {stage.takes_ms:.0f} ms"
        return ""

    def _tell(self, work: Work, now: float) -> None:
        self._changed_at, names = now, frozenset(self._put)
        work.loop.commands.append(lambda: work.chain.let_rest(names))
        work.wake()
