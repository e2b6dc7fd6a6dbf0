"""The judgement of one fault: when it was reported, when it was over, and which rules were broken."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

from fluoronav.lab.bench.faults.loop import STEADY_OVERLAYS, Heard, Loop
from fluoronav.lab.bench.faults.row import BenchError, Outcome

# Within which a fault is to be reported, and after its end all is to be right again, s; chosen.
SAID_WITHIN_S = 2.0
OVER_WITHIN_S = 8.0


@dataclass(frozen=True)
class WindowLimits:
    """Times and counts of the judgement of one fault; chosen."""

    status_overlays: int = 5  # in a row that make a status: one alone is soon forgotten
    repeated_s: float = 5.0  # alerts of so long before the fault are known
    on_the_way_s: float = 0.4  # an overlay may still be on its way


LIMITS = WindowLimits()


class Window:
    """Begins with its construction.

    Parameters
    ----------
    loop : Loop
    """

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.begin = self.ended = time.time()
        self.problems: list[str] = []
        self.seen: list[str] = []
        self.said_ms: float | None = None
        self.over_ms: float | None = None
        # Open alerts are repeated: an alert from before does not report this fault.
        self._known = {_step(h.message) for h in loop.since(self.begin - LIMITS.repeated_s, "alert")}
        self._complaints = {complaint(h.message) for h in loop.since(self.begin - LIMITS.repeated_s, "health")}

    def last(self, seconds: float) -> None:
        """Waits; raises :class:`BenchError` if the pipeline ends meanwhile."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.loop.alive()
            time.sleep(0.02)

    def over(self) -> None:
        """Marks the fault's end."""
        self.ended = time.time()

    # Reports of the fault

    def status(self) -> float | None:
        """Time of the first of some overlays in a row that do not say `tracking`."""
        return not_tracking_from(self.loop.since(self.begin, "overlay"))

    def alert(self, *kinds: str) -> float | None:
        """Time at which an alert of one of these kinds was first raised or changed.

        A proximity alert counts if its distance has become unknown.
        """

        def speaks(a: dict) -> bool:
            if a["kind"] == "proximity":
                return "proximity" in kinds and a["state"] == "changed" and a["distance_mm"] is None
            return a["kind"] in kinds and a["state"] in ("raised", "changed")

        return self._first(h for h in self.new_alerts() if speaks(h.message))

    def new_alerts(self) -> list[Heard]:
        """Alerts that were not open before the fault, or have changed since."""
        return [h for h in self.loop.since(self.begin, "alert") if _step(h.message) not in self._known]

    def health(self, about: str | None = None) -> float | None:
        """Time of the first health message that reports a problem.

        Parameters
        ----------
        about : str, optional
            Text that its reason must contain; without it, any reason other than those before the fault counts.
        """
        return self._first(
            h
            for h in self.loop.since(self.begin, "health")
            if h.message["state"] not in ("running", "ready")
            and (complaint(h.message) not in self._complaints if about is None else about in complaint(h.message))
        )

    def note(self, *kinds: str) -> None:
        """Notes the first report by status, health or an alert of these kinds; none is needed."""
        self.say(self.status(), self.alert(*kinds), self.health(), within_s=None)

    def say(self, *moments: float | None, within_s: float | None = SAID_WITHIN_S, what: str = "it") -> None:
        """Notes when the fault was first reported; it is a problem if that was never, or too late.

        Parameters
        ----------
        *moments : float or None
            Time of each kind of report.
        within_s : float or None
            None if no report is needed.
        what : str
            What is to be reported, for the problem's text.
        """
        first = min((m for m in moments if m is not None), default=None)
        self.said_ms = None if first is None else (first - self.begin) * 1000
        if within_s is None:
            return
        if first is None:
            self.problems.append(f"{what} was never said")
        elif first - self.begin > within_s:
            self.problems.append(f"{what} was said after {first - self.begin:.1f} s")

    # When it is over

    def recover(
        self, within_s: float = OVER_WITHIN_S, *, since: float | None = None, tool: bool = True, pose: bool = True
    ) -> None:
        """Waits until pose and tool are measured and right in several overlays in a row.

        Parameters
        ----------
        within_s : float
        since : float, optional
            Begin of the recovery; the fault's end by default.
        tool, pose : bool
            Whether tool and pose count.
        """
        start = self.ended if since is None else since
        while True:
            self.loop.alive()
            first = steady_from(self.loop.since(start, "overlay"), tool, pose)
            if first is not None or time.time() - start > within_s:
                break
            time.sleep(0.05)
        if first is None:
            self.problems.append(f"not over {within_s:.0f} s later")
        else:
            self.over_ms = (first - start) * 1000

    def delivered(self, seconds: float, at_least: float = 0.8, *, tool: bool = True) -> None:
        """Notes a problem if too few of the last overlays have a measured and right pose (and tool)."""
        last = self.loop.since(time.time() - seconds, "overlay")
        good = sum(h.verdict.pose and (h.verdict.tool or not tool) for h in last)
        fraction = good / max(len(last), round(0.8 * seconds * self.loop.fps))
        if fraction < at_least:
            self.problems.append(f"in {fraction:.0%} of the last {seconds:.0f} s is the guidance measured and right")

    def check(self, holds: bool, otherwise: str) -> None:
        """Notes a problem if a condition does not hold."""
        if not holds:
            self.problems.append(otherwise)

    def outcome(self) -> Outcome:
        """The result, with every breach of the rules since the begin."""
        try:
            self.loop.alive()
        except BenchError as error:
            self.problems.append(str(error))
        end = time.time() - LIMITS.on_the_way_s
        sent = sum(self.begin <= t <= end for t in self.loop.sent_at[-20_000:])
        shown = len([h for h in self.loop.since(self.begin, "overlay") if h.t <= end + LIMITS.on_the_way_s])
        problems = self.problems + self.loop.judge.since(self.begin)
        return Outcome(problems, self.said_ms, self.over_ms, max(sent - shown, 0), "; ".join(self.seen))

    @staticmethod
    def _first(found: Iterable[Heard]) -> float | None:
        return next((h.t for h in found), None)


def complaint(health: dict) -> str:
    """State and reason of health, without the numbers, which change with each message."""
    return re.sub(r"[\d.]+", "#", f"{health['state']}: {health.get('reason', '')}")


def _step(a: dict) -> tuple[str, str, str, bool]:
    """Fields by which a message of an alert differs from a repetition."""
    return a["id"], a["state"], a["priority"], a["distance_mm"] is None


def not_tracking_from(overlays: list[Heard]) -> float | None:
    """Time of the first of several overlays in a row that do not say `tracking`; None if there are none."""
    first, row = 0.0, 0
    for h in overlays:
        other = h.message["status"] != "tracking"
        first, row = (h.t if row == 0 else first, row + 1) if other else (0.0, 0)
        if row == LIMITS.status_overlays:
            return first
    return None


def steady_from(overlays: list[Heard], tool: bool = True, pose: bool = True) -> float | None:
    """Time of the first of `STEADY_OVERLAYS` good overlays in a row; None if there are none."""
    first, row = 0.0, 0
    for h in overlays:
        good = (h.verdict.pose or not pose) and (h.verdict.tool or not tool)
        first, row = (h.t if row == 0 else first, row + 1) if good else (0.0, 0)
        if row == STEADY_OVERLAYS:
            return first
    return None
