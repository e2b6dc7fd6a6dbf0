"""From the moment a fault begins: what is said of it, when it is over, and what must not have been said."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from fluoronav.lab.bench.faults.loop import STEADY_OVERLAYS, Heard, Loop
from fluoronav.lab.bench.faults.row import BenchError, Outcome

# How soon a fault is to be said, and how soon after its end all is to be right again, s.
SAID_WITHIN_S = 2.0
OVER_WITHIN_S = 8.0
# A status is said by so many overlays in a row.
_SAID_OVERLAYS = 5
_REPEATED_S = 5.0
# The last frame's overlay may still be on its way.
_ON_THE_WAY_S = 0.4


class Window:
    """Begins now.

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
        # Open alerts are repeated: one that was said before tells nothing of this fault.
        self._known = {_step(h.message) for h in loop.since(self.begin - _REPEATED_S, "alert")}
        self._complaints = {complaint(h.message) for h in loop.since(self.begin - _REPEATED_S, "health")}

    def last(self, seconds: float) -> None:
        """Lets the fault go on for so long; the pipeline must live meanwhile."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.loop.alive()
            time.sleep(0.02)

    def over(self) -> None:
        """The fault has ended."""
        self.ended = time.time()

    # What is said of it

    def status(self) -> float | None:
        """When overlays first did not say `tracking` any more: some in a row, since one alone is soon forgotten."""
        return not_tracking_from(self.loop.since(self.begin, "overlay"))

    def alert(self, *kinds: str) -> float | None:
        """When an alert of one of these kinds was first raised, or changed.

        A proximity alert counts where its distance has become unknown.
        """

        def speaks(a: dict) -> bool:
            if a["kind"] == "proximity":
                return "proximity" in kinds and a["state"] == "changed" and a["distance_mm"] is None
            return a["kind"] in kinds and a["state"] in ("raised", "changed")

        return self._first(h for h in self.new_alerts() if speaks(h.message))

    def new_alerts(self) -> list[Heard]:
        """Steps of alerts that were not said before the fault."""
        return [h for h in self.loop.since(self.begin, "alert") if _step(h.message) not in self._known]

    def health(self, about: str | None = None) -> float | None:
        """When health first did not say that all is well.

        Parameters
        ----------
        about : str, optional
            What its reason must speak of; without it, any other reason than before the fault counts.
        """
        return self._first(
            h
            for h in self.loop.since(self.begin, "health")
            if h.message["state"] not in ("running", "ready")
            and (complaint(h.message) not in self._complaints if about is None else about in complaint(h.message))
        )

    def say(self, *moments: float | None, within_s: float | None = SAID_WITHIN_S, what: str = "it") -> None:
        """Notes when it was first said; a problem where that was not, or too late.

        Parameters
        ----------
        *moments : float or None
            When each sign of it was seen.
        within_s : float or None
            None where nothing need be said.
        what : str
            Is to be said, for the problem's text.
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
        """Waits until all is right again: poses (and the tool) are measured and right in overlays in a row.

        Parameters
        ----------
        within_s : float
        since : float, optional
            Counted from here; by default from the fault's end.
        tool, pose : bool
            Whether the tool's place, and the pose, are looked at.
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
        """A problem where too few of the last overlays have a measured and right pose (and tool)."""
        last = self.loop.since(time.time() - seconds, "overlay")
        good = sum(h.verdict.pose and (h.verdict.tool or not tool) for h in last)
        share = good / max(len(last), round(0.8 * seconds * self.loop.fps))
        if share < at_least:
            self.problems.append(f"in {share:.0%} of the last {seconds:.0f} s is the guidance measured and right")

    def check(self, holds: bool, otherwise: str) -> None:
        """A problem where something does not hold."""
        if not holds:
            self.problems.append(otherwise)

    def outcome(self) -> Outcome:
        """What was found, with every breach of the rules since the begin."""
        try:
            self.loop.alive()
        except BenchError as error:
            self.problems.append(str(error))
        end = time.time() - _ON_THE_WAY_S
        sent = sum(self.begin <= t <= end for t in self.loop.sent_at[-20_000:])
        shown = len([h for h in self.loop.since(self.begin, "overlay") if h.t <= end + _ON_THE_WAY_S])
        problems = self.problems + self.loop.judge.since(self.begin)
        return Outcome(problems, self.said_ms, self.over_ms, max(sent - shown, 0), "; ".join(self.seen))

    @staticmethod
    def _first(found: Iterable[Heard]) -> float | None:
        return next((h.t for h in found), None)


def complaint(health: dict) -> str:
    """What health finds wrong, without the figures, which change with each message."""
    return re.sub(r"[\d.]+", "#", f"{health['state']}: {health.get('reason', '')}")


def _step(a: dict) -> tuple[str, str, str, bool]:
    """What makes an alert's message more than a repetition."""
    return a["id"], a["state"], a["priority"], a["distance_mm"] is None


def not_tracking_from(overlays: list[Heard]) -> float | None:
    """When the first of some overlays in a row was heard that do not say `tracking`; None where there are none."""
    first, row = 0.0, 0
    for h in overlays:
        other = h.message["status"] != "tracking"
        first, row = (h.t if row == 0 else first, row + 1) if other else (0.0, 0)
        if row == _SAID_OVERLAYS:
            return first
    return None


def steady_from(overlays: list[Heard], tool: bool = True, pose: bool = True) -> float | None:
    """When the first of so many good overlays in a row was heard; None where there are not so many."""
    first, row = 0.0, 0
    for h in overlays:
        good = (h.verdict.pose or not pose) and (h.verdict.tool or not tool)
        first, row = (h.t if row == 0 else first, row + 1) if good else (0.0, 0)
        if row == STEADY_OVERLAYS:
            return first
    return None
