"""The transition table of a series' states."""

from itertools import product
from pathlib import Path

import pytest

from fluoronav.pacs.series import TRANSITIONS, Event, State, after, rendered

PAGE = Path(__file__).parents[2] / "docs" / "series-states.md"


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)), ids=lambda x: x.name.lower())
def test_every_event_in_every_state_leads_on_or_is_refused(state, event):
    if (state, event) in TRANSITIONS:
        assert after(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(ValueError, match=f"{event.name} cannot happen to a series that is {state.value}"):
            after(state, event)


def test_another_instance_has_a_series_judged_again_whatever_it_was():
    assert {after(state, Event.INSTANCE) for state in State} == {State.ARRIVING}


def test_a_series_is_refused_only_after_it_was_complete():
    assert {s for (s, _), to in TRANSITIONS.items() if to is State.REFUSED} == {State.COMPLETE}


def test_the_picture_in_the_docs_is_of_the_table_as_it_is():
    """`python -m fluoronav.pacs.series docs/series-states.md` renews it."""
    page = PAGE.read_text(encoding="utf-8")
    assert rendered(page) == page
