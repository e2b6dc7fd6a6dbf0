"""Pictures of transition tables, for pages of the documentation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import TypeVar

State = TypeVar("State", bound=Enum)
Event = TypeVar("Event", bound=Enum)

_BEGIN, _END = "<!-- states -->", "<!-- end -->"


def rendered(page: str, transitions: Mapping[tuple[State, Event], State], first: str) -> str:
    """A page with the diagram and the events between its markers.

    Parameters
    ----------
    page : str
    transitions : mapping of (state, event) to state
        Events that change nothing are left out of the diagram. The values of states are their names for people, those
        of events say what has happened.
    first : str
        The arrow's end where the diagram begins: a state, and what leads to it where that is no event of the table.
    """
    arrows: dict[tuple[State, State], list[str]] = {}
    for (state, event), to in transitions.items():
        if state is not to:
            arrows.setdefault((state, to), []).append(_spoken(event))
    lines = ["stateDiagram-v2", f"    [*] --> {first}"]
    lines += [f"    {a.value} --> {b.value}: {', '.join(events)}" for (a, b), events in arrows.items()]
    (kind,) = {type(event) for _, event in transitions}
    rows = [f"| {_spoken(event)} | {event.value} |" for event in kind]
    block = "\n".join(["```mermaid", *lines, "```", "", "| event | meaning |", "| --- | --- |", *rows])
    before, rest = page.split(_BEGIN, 1)
    return f"{before}{_BEGIN}\n{block}\n{_END}{rest.split(_END, 1)[1]}"


def renew(render: Callable[[str], str]) -> None:
    """Renders the page that the command line names anew."""
    path = Path(sys.argv[1])
    path.write_text(render(path.read_text(encoding="utf-8")), encoding="utf-8")


def _spoken(event: Enum) -> str:
    return event.name.lower().replace("_", " ")
