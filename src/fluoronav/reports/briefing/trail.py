"""Who said what and when, by the case's trail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from fluoronav.reports.briefing.content import Said


class Trail:
    """The events of a case.

    Parameters
    ----------
    events : iterable of mapping
        Lines of ``provenance.jsonl``, oldest first: ``n`` their number, ``t`` ns since 1970.
    """

    def __init__(self, events: Iterable[Mapping[str, Any]]) -> None:
        self._events = [e for e in events if isinstance(e.get("n"), int) and isinstance(e.get("t"), int)]
        self._at = {e["n"]: _minutes(datetime.fromtimestamp(e["t"] / 1e9).astimezone()) for e in self._events}

    def when(self, number: str) -> str:
        """The time of a line that an item of a plan names; empty where it names none."""
        return self._at.get(int(number), "") if number.isascii() and number.isdigit() else ""

    def stated(self, state: str, revision: int) -> Mapping[str, Any]:
        """The last event that gave the plan a state, up to a revision; empty where there is none."""
        found = [e for e in self._events if e.get("event") == "plan" and e.get("what") == state and _up_to(e, revision)]
        return found[-1] if found else {}

    def said(self, state: str, revision: int, who: str) -> Said:
        """Who gave the plan a state, by the plan, and when, by the trail."""
        event = self.stated(state, revision) if who else {}
        return Said(who, self._at.get(event.get("n", -1), "") if event.get("user") == who else "")


def _up_to(event: Mapping[str, Any], revision: int) -> bool:
    return isinstance(event.get("revision"), int) and event["revision"] <= revision


def minutes(iso: str) -> str:
    """An ISO 8601 time in this computer's zone; the text itself where it is none."""
    try:
        return _minutes(datetime.fromisoformat(iso).astimezone())
    except ValueError:
        return iso


def _minutes(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M")
