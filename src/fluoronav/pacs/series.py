"""The states of a series that is received, and what leads from one to another.

``python -m fluoronav.pacs.series docs/series-states.md`` renews the picture of the table.
"""

from __future__ import annotations

from enum import Enum

from fluoronav import state_diagram


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
    QUIET_WHOLE = "no instance for `series.quiet_s`, no slice is missing; flagged, since nothing said that it ended"
    QUIET_GAP = "no instance for `series.quiet_s`, and slices are missing"
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


def rendered(page: str) -> str:
    """A page with the diagram and the events between its markers."""
    return state_diagram.rendered(page, TRANSITIONS, f"{State.ARRIVING.value}: instance")


if __name__ == "__main__":
    state_diagram.renew(rendered)
