"""The states of the registration, and what leads from one to another.

``python -m fluoronav.stream.registration.states docs/registration-states.md`` renews the picture of the table.
"""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path

from fluoronav.stream.frame import Status


class State(Enum):
    """Where the registration stands; without a pose it is searching or lost."""

    SEARCHING = "searching"
    SETTLING = "settling"
    TRACKING = "tracking"
    DEGRADED = "degraded"
    LOST = "lost"


class Event(Enum):
    """What has happened to the pose."""

    FOUND = "a search, or a comparison with its neighbours, has found a pose"
    MEASURED = "measured, and nothing speaks against it"
    UNSETTLED = "measured, and still moving"
    DOUBTFUL = "measured, and something speaks against it"
    IMPLAUSIBLE = "not measured: no pose near the last one fits"
    AGED = "not measured for longer than a pose may be called tracking"
    TOO_OLD = "not measured for so long that the patient may be anywhere"
    GIVEN_UP = "implausible twice in a row, or the whole field disagrees"
    RESTARTED = "a person has the patient searched for anew"


_MEASUREMENTS = {
    Event.MEASURED: State.TRACKING,
    Event.UNSETTLED: State.SETTLING,
    Event.DOUBTFUL: State.DEGRADED,
    Event.IMPLAUSIBLE: State.DEGRADED,
    Event.AGED: State.DEGRADED,
    Event.TOO_OLD: State.LOST,
    Event.GIVEN_UP: State.LOST,
    Event.RESTARTED: State.SEARCHING,
}
_WITHOUT_POSE = {Event.FOUND: State.SETTLING, Event.GIVEN_UP: State.LOST, Event.RESTARTED: State.SEARCHING}
# By state and event. A pair that is not here cannot happen.
TRANSITIONS: dict[tuple[State, Event], State] = {
    **{(state, event): to for state in (State.SEARCHING, State.LOST) for event, to in _WITHOUT_POSE.items()},
    **{
        (state, event): to
        for state in (State.SETTLING, State.TRACKING, State.DEGRADED)
        # A better pose beside the last is called as that was, until it is measured.
        for event, to in {Event.FOUND: state, **_MEASUREMENTS}.items()
    },
}
# The protocol has no word of its own for a pose that is settling.
_WORDS: dict[State, Status] = {
    State.SEARCHING: "searching",
    State.SETTLING: "degraded",
    State.TRACKING: "tracking",
    State.DEGRADED: "degraded",
    State.LOST: "lost",
}
_BEGIN, _END = "<!-- states -->", "<!-- end -->"


class StateMachine:
    """The registration's state; it changes through the table alone.

    Attributes
    ----------
    state : State
    """

    def __init__(self) -> None:
        self.state = State.SEARCHING

    @property
    def status(self) -> Status:
        """The state's word in the overlay."""
        return _WORDS[self.state]

    def happens(self, event: Event) -> None:
        """Goes on to the next state.

        Raises
        ------
        ValueError
            The event cannot happen in this state.
        """
        to = TRANSITIONS.get((self.state, event))
        if to is None:
            raise ValueError(f"{event.name} cannot happen to a registration that is {self.state.value}")
        self.state = to


def mermaid() -> str:
    """The table as a Mermaid state diagram; events that change nothing are left out."""
    arrows: dict[tuple[State, State], list[str]] = {}
    for (state, event), to in TRANSITIONS.items():
        if state is not to:
            arrows.setdefault((state, to), []).append(event.name.lower().replace("_", " "))
    lines = ["stateDiagram-v2", f"    [*] --> {State.SEARCHING.value}"]
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
