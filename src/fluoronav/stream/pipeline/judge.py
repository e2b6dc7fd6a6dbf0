"""What `health` says of the pipeline: what the launch file promises, held against what is delivered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fluoronav.stream.pipeline.frames import FrameLoop
from fluoronav.wire.clock import ClockOffset


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """From where on something is not delivered.

    Attributes
    ----------
    over_s : float
        Late and refused frames are counted over so many seconds.
    least_late, least_frames, least_come : int
        Fewer late frames, fewer refused ones, and lost ones among fewer that were sent, say nothing.
    missed_share, refused_share, lost_share : float
        Of these frames.
    untracked_s : float
        A registration that is not `tracking` for so long; a search takes a second or more.
    tracker_silent_s : float
        A tracker that says nothing for so long: even a slow one sends ten messages a second.
    frozen_s : float
        A picture that is the same to the last bit for so long; longer where the C-arm pulses slowly.
    frozen_periods : float
        So many of the periods between two pictures.
    failed_s, not_loaded_s : float
        A stage that has failed, and a case that could not be loaded, are said for so long.
    clock_late_ms : tuple of float
        Messages later than the first may be late or have another clock; later than the second they have another clock.
    """

    over_s: float = 3.0
    least_late: int = 3
    least_frames: int = 2
    least_come: int = 10
    missed_share: float = 0.1
    refused_share: float = 0.1
    lost_share: float = 0.25
    untracked_s: float = 2.0
    tracker_silent_s: float = 2.0
    frozen_s: float = 1.0
    frozen_periods: float = 2.2
    failed_s: float = 5.0
    not_loaded_s: float = 60.0
    clock_late_ms: tuple[float, float] = (40.0, 1000.0)


LIMITS = HealthLimits()


def frozen_for_s(loop: FrameLoop, now: float) -> float:
    """For how long the same picture has come again and again, s; 0 while that is within the C-arm's pulses."""
    if not loop.repeats.changed_at:
        return 0.0
    unchanged = loop.last_frame_at - loop.repeats.changed_at
    return unchanged if unchanged > max(LIMITS.frozen_s, LIMITS.frozen_periods * loop.repeats.period_s) else 0.0


def shortfalls(loop: FrameLoop, now: float, *, registers: bool, tracker: str | None) -> Iterator[str]:
    """What is promised and not delivered, in words, the worst first.

    Parameters
    ----------
    loop : FrameLoop
    now : float
        By the monotonic clock, s.
    registers : bool
        A registration is promised.
    tracker : str or None
        Endpoint of the tracker that is promised.
    """
    recent = loop.recent.since(now - LIMITS.over_s)
    taken, come = recent.taken, recent.taken + recent.lost
    if recent.refused >= LIMITS.least_frames and recent.refused > LIMITS.refused_share * (taken + recent.refused):
        yield f"{recent.refused} of the last {taken + recent.refused} frames were refused ({loop.invalid_text})"
    standing = loop.standing
    untracked_s = standing.untracked_s(now)
    if registers and untracked_s > LIMITS.untracked_s:
        why = f" ({standing.status_reason})" if standing.status_reason else ""
        yield f"the registration has been {standing.status} for {untracked_s:.0f} s{why}"
    if recent.late >= LIMITS.least_late and recent.late > LIMITS.missed_share * taken:
        yield f"{100 * recent.late / taken:.0f} % of the last {taken} overlays were late"
    if come >= LIMITS.least_come and recent.lost > LIMITS.lost_share * come:
        yield f"{recent.lost} of the last {come} frames were skipped or lost on the way"
    if tracker is not None and loop.first_frame_at:
        heard = loop.tools.last_at if loop.tools is not None else 0.0
        if not heard and now - loop.first_frame_at > LIMITS.tracker_silent_s:
            yield f"nothing was ever heard of the tracker at {tracker}"
        elif heard and now - heard > LIMITS.tracker_silent_s:
            yield f"nothing has been heard of the tracker at {tracker} for {now - heard:.0f} s"
    if standing.engine_fault:
        yield standing.engine_fault
    for name, clock in (("the C-arm's frames", loop.clock), *((f"{_name(t)}'s poses", c) for t, c in _tools(loop))):
        if LIMITS.clock_late_ms[0] < clock.ms < LIMITS.clock_late_ms[1]:
            yield f"{name} come {clock.ms:.0f} ms late, or its clock is behind by that: are the clocks synchronised?"


def _tools(loop: FrameLoop) -> list[tuple[bytes, ClockOffset]]:
    return [] if loop.tools is None else list(loop.tools.clocks.items())


def _name(topic: bytes) -> str:
    return topic.decode("utf-8", "replace").split("/", 1)[-1]
