"""The states of the registration, and what leads from one to another.

``python -m fluoronav.stream.registration.states docs/registration-states.md`` renews the picture of the table.
"""

from __future__ import annotations

from enum import Enum

from fluoronav import state_diagram
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
    DOUBTFUL = "something speaks against it"
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


def rendered(page: str) -> str:
    """A page with the diagram and the events between its markers."""
    return state_diagram.rendered(page, TRANSITIONS, State.SEARCHING.value)


if __name__ == "__main__":
    state_diagram.renew(rendered)
