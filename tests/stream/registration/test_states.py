"""The transition table of the registration's states."""

from itertools import product
from pathlib import Path

import pytest

from fluoronav.stream.registration.states import TRANSITIONS, Event, State, StateMachine, rendered

WITHOUT_POSE = (State.SEARCHING, State.LOST)
PAGE = Path(__file__).parents[3] / "docs" / "registration-states.md"


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)), ids=lambda x: x.name.lower())
def test_every_event_in_every_state_leads_on_or_is_refused(state, event):
    machine = StateMachine()
    machine.state = state
    if (state, event) in TRANSITIONS:
        machine.happens(event)
        assert machine.state is TRANSITIONS[state, event]
    else:
        with pytest.raises(ValueError, match=f"{event.name} cannot happen to a registration that is {state.value}"):
            machine.happens(event)
        assert machine.state is state


def test_without_a_pose_nothing_is_measured_or_held():
    measured = set(Event) - {Event.FOUND, Event.GIVEN_UP, Event.RESTARTED}
    assert not [(s, e) for s, e in product(WITHOUT_POSE, measured) if (s, e) in TRANSITIONS]


def test_only_a_measurement_that_nothing_speaks_against_leads_to_tracking():
    leads = {(s, e) for (s, e), to in TRANSITIONS.items() if to is State.TRACKING and s is not State.TRACKING}
    assert {e for _, e in leads} == {Event.MEASURED}


def test_every_state_can_be_reached_and_left_again():
    for state in State:
        reached, left = set(), {state}
        for _ in State:
            reached |= {s for (s, _), to in TRANSITIONS.items() if to is state or to in reached}
            left |= {to for (s, _), to in TRANSITIONS.items() if s in left}
        assert State.SEARCHING in reached | {state} and left == set(State)


def test_a_settling_pose_is_degraded_on_the_wire_and_all_others_are_called_what_they_are():
    words = {}
    for state in State:
        machine = StateMachine()
        machine.state = state
        words[state.value] = machine.status
    assert words.pop("settling") == "degraded"
    assert all(word == name for name, word in words.items())


def test_the_picture_in_the_docs_is_of_the_table_as_it_is():
    """`python -m fluoronav.stream.registration.states docs/registration-states.md` renews it."""
    page = PAGE.read_text(encoding="utf-8")
    assert rendered(page) == page
