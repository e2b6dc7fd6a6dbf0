"""The states of a series that is received, and what leads from one to another.

``python -m fluoronav.pacs.series docs/series-states.md`` renews the picture of the table.
"""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path


class State(Enum):
    """Where a series stands."""

    ARRIVING = "arriving"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    REFUSED = "refused"


class Event(Enum):
    """What has happened to a series, whichever association it came over."""

    INSTANCE = "an instance came that was not here"
    COUNTED = "as many instances are here as an archive counts"
    RELEASED = "its associations were released, and no slice is missing between those that are here"
    QUIET_WHOLE = (
        "quiet for so long that it is judged anyway: no slice is missing; flagged, since none said that it ended"
    )
    QUIET_GAP = "quiet for so long that it is judged anyway: slices are missing"
    UNUSABLE = "complete, and no case can be made of it; the reason is kept"
    RETRIED = "a person has it judged anew"


# By state and event. A pair that is not here cannot happen.
TRANSITIONS: dict[tuple[State, Event], State] = {
    **{(state, Event.INSTANCE): State.ARRIVING for state in State},
    (State.ARRIVING, Event.COUNTED): State.COMPLETE,
    (State.ARRIVING, Event.RELEASED): State.COMPLETE,
    (State.ARRIVING, Event.QUIET_WHOLE): State.COMPLETE,
    (State.ARRIVING, Event.QUIET_GAP): State.INCOMPLETE,
    (State.INCOMPLETE, Event.COUNTED): State.COMPLETE,
    (State.COMPLETE, Event.UNUSABLE): State.REFUSED,
    **{(state, Event.RETRIED): State.ARRIVING for state in (State.INCOMPLETE, State.REFUSED)},
}
_BEGIN, _END = "<!-- states -->", "<!-- end -->"


def after(state: State, event: Event) -> State:
    """The state that follows.

    Raises
    ------
    ValueError
        The event cannot happen in this state.
    """
    to = TRANSITIONS.get((state, event))
    if to is None:
        raise ValueError(f"{event.name} cannot happen to a series that is {state.value}")
    return to


def mermaid() -> str:
    """The table as a Mermaid state diagram; events that change nothing are left out."""
    arrows: dict[tuple[State, State], list[str]] = {}
    for (state, event), to in TRANSITIONS.items():
        if state is not to:
            arrows.setdefault((state, to), []).append(event.name.lower().replace("_", " "))
    lines = ["stateDiagram-v2", f"    [*] --> {State.ARRIVING.value}: instance"]
    lines += [f"    {a.value} --> {b.value}: {', '.join(events)}" for (a, b), events in arrows.items()]
    return "\n".join(lines)


def rendered(page: str) -> str:
    """A page with the diagram and the events between its markers."""
    events = "\n".join(f"| {e.name.lower().replace('_', ' ')} | {e.value} |" for e in Event)
    block = f"```mermaid\n{mermaid()}\n```\n\n| event | meaning |\n| --- | --- |\n{events}"
    before, rest = page.split(_BEGIN, 1)
    return f"{before}{_BEGIN}\n{block}\n{_END}{rest.split(_END, 1)[1]}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(rendered(path.read_text(encoding="utf-8")), encoding="utf-8")
