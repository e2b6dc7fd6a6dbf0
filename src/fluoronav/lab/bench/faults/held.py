"""The rule of held values, read from overlays: a pose that is not of this frame says its age, and its bound grows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from fluoronav.lab.bench.faults.loop import Heard
from fluoronav.lab.bench.faults.window import Window


@dataclass(frozen=True)
class HeldLimits:
    """What the rule allows; chosen."""

    age_within_ms: float = 50.0  # by which a stated age may be too low
    bound_within_mm: float = 0.05  # by which a bound may shrink while its pose is held
    right_of_those_that_came: float = 0.8  # share of the overlays after the recovery; how many come is not the fault's
    unexplained_s: float = 3.5  # health says after 2 s why there is no tracking, and comes once a second


LIMITS = HeldLimits()


@dataclass
class Held:
    """What overlays showed of held poses.

    Attributes
    ----------
    problems : list of str
        Breaches of the rule.
    longest_ms : float
        Highest stated age of a pose.
    by_status : dict
        Number of overlays by status.
    late : int
        Overlays that say that they are late.
    """

    problems: list[str] = field(default_factory=list)
    longest_ms: float = 0.0
    by_status: dict[str, int] = field(default_factory=dict)
    late: int = 0

    def words(self) -> str:
        """One line for people."""
        counted = ", ".join(f"{name} {count}" for name, count in sorted(self.by_status.items()))
        return f"overlays: {counted}; {self.late} late; oldest pose {self.longest_ms:.0f} ms"


def held_poses(overlays: Sequence[Heard]) -> Held:
    """Judges how overlays speak of held poses.

    The true age is the time since the exposure of the last overlay whose pose was of its own frame. It is not known of
    a pose that a search has just found.

    Parameters
    ----------
    overlays : sequence of Heard
        In their order.
    """
    held = Held()
    measured_ns: int | None = None
    before_frames, before_mm = 0, 0.0
    for o in (h.message for h in overlays):
        held.by_status[o["status"]] = held.by_status.get(o["status"], 0) + 1
        held.late += bool(o["missed"])
        r = o["registration"]
        if r is None:
            measured_ns = None
            continue
        age_ms, bound_mm = r.get("age_ms") or 0.0, r["tre_image_mm"]
        held.longest_ms = max(held.longest_ms, age_ms)
        if r["age"] == 0:
            measured_ns = o["t_acq"]
        elif measured_ns is not None and r["age"] > before_frames:
            true_ms = (o["t_acq"] - measured_ns) / 1e6
            if age_ms < true_ms - LIMITS.age_within_ms:
                held.problems.append(f"a pose of {true_ms:.0f} ms ago says {age_ms:.0f} ms")
            if bound_mm < before_mm - LIMITS.bound_within_mm:
                held.problems.append(f"the bound of a held pose shrinks from {before_mm:.2f} to {bound_mm:.2f} mm")
        else:
            measured_ns = None
        before_frames, before_mm = r["age"], bound_mm
    return held


def unexplained_s(overlays: Sequence[Heard], health: Sequence[Heard]) -> float:
    """Longest time without `tracking` and without a health message that says a reason, s.

    Parameters
    ----------
    overlays, health : sequence of Heard
        In their order.
    """
    said = [h.t for h in health if h.message["state"] != "running" and h.message.get("reason")]
    longest, begin = 0.0, None
    for o in overlays:
        if o.message["status"] == "tracking":
            begin = None
            continue
        begin = o.t if begin is None else begin
        first = next((t for t in said if t >= begin), o.t)
        longest = max(longest, min(first, o.t) - begin)
    return longest


def check_held(window: Window) -> None:
    """Adds to a fault's judgement what its overlays showed of held poses."""
    overlays = window.loop.since(window.begin, "overlay")
    held = held_poses(overlays)
    window.problems += held.problems[:1]
    silent_s = unexplained_s(overlays, window.loop.since(window.begin, "health"))
    window.check(silent_s < LIMITS.unexplained_s, f"no tracking for {silent_s:.1f} s, and health gives no reason")
    window.seen.append(held.words())


def check_stays_right(window: Window, seconds: float) -> None:
    """Waits, and notes a problem if too few of the overlays that come meanwhile have a measured and right pose."""
    begin = time.time()
    window.last(seconds)
    came = window.loop.since(begin, "overlay")
    right = sum(h.verdict.pose for h in came) / max(len(came), 1)
    window.check(
        right >= LIMITS.right_of_those_that_came, f"only {right:.0%} of the {len(came)} overlays after it are right"
    )
