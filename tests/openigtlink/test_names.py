"""Device names for Slicer: 20 ASCII letters, and unique."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluoronav.openigtlink.names import DeviceNames, in_ascii

RESERVED = ("Fluoroscopy", "CameraToPatient", "Status", "Alert")


@given(
    st.lists(st.text(max_size=40), unique=True, max_size=20), st.lists(st.text(max_size=40), unique=True, max_size=5)
)
def test_every_thing_has_a_unique_name_of_20_ascii_letters(things, tools):
    names = DeviceNames(RESERVED, things, tools, "ToPatient")
    given_ = [*RESERVED, *(names.of(t) for t in things if t not in RESERVED), *(names.of_tool(t) for t in tools)]
    assert len(set(given_)) == len(given_)
    assert all(0 < len(n) <= 20 and n.isascii() and n.isprintable() for n in given_)
    assert all(names.of_tool(t).endswith("ToPatient") for t in tools)


@given(st.lists(st.text(min_size=1, max_size=40), unique=True, max_size=12), st.randoms())
def test_a_name_does_not_depend_on_the_order(things, order):
    shuffled = list(things)
    random.Random(order.random()).shuffle(shuffled)
    a, b = DeviceNames(RESERVED, things), DeviceNames(RESERVED, shuffled)
    assert [a.of(t) for t in things] == [b.of(t) for t in things]


def test_three_vertebrae_with_the_same_first_twenty_letters_have_three_names():
    things = [f"vertebra_of_the_thoracic_spine_{k}" for k in (5, 6, 7)]
    names = DeviceNames((), things)
    assert [names.of(t) for t in things] == [f"vertebra_o~c_spine_{k}" for k in (5, 6, 7)]
    same_ends = [f"vertebra_{k}_of_the_thoracic_spine" for k in (15, 16)]
    assert len({DeviceNames((), same_ends).of(t) for t in same_ends}) == 2


def test_short_ascii_names_are_unchanged_whatever_is_similar():
    names = DeviceNames(RESERVED, ["Rückenmark", "Ruckenmark", "spinal_cord", "Status"], ["kwire"], "ToPatient")
    assert names.of("Ruckenmark") == "Ruckenmark" and names.of("spinal_cord") == "spinal_cord"
    assert names.of("Rückenmark") not in ("Ruckenmark", "spinal_cord") and names.of("Rückenmark").isascii()
    assert names.of_tool("kwire") == "kwireToPatient"
    assert set(names.changed()) == {"Rückenmark"}


@pytest.mark.parametrize(
    ("text", "ascii_"),
    [
        ("Rückenmark", "Ruckenmark"), ("Œsophage", "OEsophage"), ("Fußwurzel", "Fusswurzel"), ("łopatka", "lopatka"),
        ("脊髓", "u810Au9AD3"), ("Wirbel\n8", "Wirbelu000A8"), ("  ", ""),
    ],
)  # fmt: skip
def test_a_name_in_another_language_can_still_be_recognised(text, ascii_):
    assert in_ascii(text) == ascii_


def test_an_unknown_tool_gets_a_free_name():
    names = DeviceNames(RESERVED, [], ["pedicle_probe_left"], "ToPatient")
    first, second = names.of_tool("pedicle_probe_left"), names.of_tool("pedicle_screw_left")
    assert first == "pedic~_leftToPatient" and second != first and second.endswith("ToPatient") and len(second) == 20
    assert names.of_tool("pedicle_screw_left") == second
