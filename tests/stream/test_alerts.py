"""Alerts: thresholds with hysteresis, and one id through a life."""

from hypothesis import given
from hypothesis import strategies as st

from fluoronav.stream.alerts import HYSTERESIS_MM, AlertBook, proximity_level


def test_the_level_rises_at_the_threshold_and_falls_only_beyond_it():
    level = "clear"
    seen = []
    for d in (5, 4, 3.01, 3.0, 3.2, 3.49, 3.51, 2.9, 1.0, 1.3, 1.6, 9):
        level = proximity_level(d, 3.0, 1.0, level)
        seen.append(level)
    assert seen == [
        "clear", "clear", "clear", "caution", "caution", "caution", "clear", "caution", "danger", "danger", "caution",
        "clear",
    ]  # fmt: skip


@given(st.lists(st.floats(2.76, 3.24), min_size=2, max_size=50))
def test_a_distance_that_trembles_at_the_threshold_does_not_flutter(distances):
    level, changes = "caution", 0
    for d in distances:
        new = proximity_level(d, 3.0, 1.0, level)
        changes += new != level
        level = new
    assert changes == 0
    assert HYSTERESIS_MM > 0.24


@given(st.floats(-50, 50), st.sampled_from(["clear", "caution", "danger"]))
def test_no_distance_inside_a_threshold_is_ever_called_clear(d, before):
    level = proximity_level(d, 3.0, 1.0, before)
    if d <= 1:
        assert level == "danger"
    elif d <= 3:
        assert level in ("caution", "danger")


def test_an_alert_keeps_its_id_until_it_is_cleared_and_a_new_one_is_new():
    book = AlertBook()
    where = {"instrument": "kwire", "structure": "aorta"}
    raised = book.hold("proximity", "medium", 1, "near", **where)
    assert raised is not None and raised.state == "raised"
    assert book.hold("proximity", "medium", 2, "near", **where) is None
    changed = book.hold("proximity", "high", 3, "nearer", **where)
    assert changed is not None and (changed.state, changed.id, changed.t_raised) == ("changed", raised.id, 1)
    noted = book.acknowledge(raised.id, "Dr Who")
    assert noted is not None and noted.state == "acknowledged" and "Dr Who" in noted.text
    assert [a.state for a in book.open()] == ["acknowledged"]
    cleared = book.end("proximity", "away", **where)
    assert cleared is not None and (cleared.state, cleared.id) == ("cleared", raised.id)
    assert book.end("proximity", "away", **where) is None
    again = book.hold("proximity", "medium", 9, "near", **where)
    assert again is not None and again.id != raised.id
    assert book.acknowledge("no such alert", "x") is None
