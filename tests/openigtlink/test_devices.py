"""The tool of each device; two devices are never one tool."""

import pytest
from tests.openigtlink.conftest import at

from fluoronav.openigtlink.devices import Devices, tool_ids

LONG_A, LONG_B = "VertebralBodyReferenceAToTracker", "VertebralBodyReferenceBToTracker"


def test_pairs_are_read():
    assert tool_ids(["StylusToTracker=kwire", "Bohrführung=drill", "a=b=c"]) == {
        "StylusToTracker": "kwire", "Bohrführung": "drill", "a": "b=c"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        (["Stylus"], "DEVICE=ID was expected"), (["Stylus="], "DEVICE=ID was expected"), (["=x"], "DEVICE=ID was"),
        (["a=" + "x" * 65], "DEVICE=ID was expected"),
        (["a=kwire", "b=kwire"], "two devices cannot be one tool"), (["a=kwire", "a=drill"], "a device is one tool"),
        ([f"{LONG_A}=a", f"{LONG_B}=b"], "the same in OpenIGTLink's 20 letters, 'VertebralBodyReferen'"),
    ],
)  # fmt: skip
def test_pairs_that_make_two_devices_one_tool_are_refused_at_the_start(pairs, text):
    with pytest.raises(ValueError, match=text):
        tool_ids(pairs)


def test_a_device_has_its_tools_id_or_its_own_name():
    devices = Devices(tool_ids(["StylusToTracker=kwire", f"{LONG_A}=vertebra"]))
    assert devices.tool("StylusToTracker", False, 0) == "kwire"
    assert devices.tool("DrillToTracker", False, 0) == "Drill"
    assert devices.tool("", False, 0) == "unnamed"
    assert devices.tool(LONG_A, False, 0) == "vertebra"
    assert devices.tool(LONG_A[:20], True, 0) == "vertebra", "as an older gateway cuts it"
    assert devices.tool("x" * 300, False, 0) == "x" * 64


def test_two_devices_of_one_tool_are_noticed_and_the_named_one_keeps_it():
    devices = Devices({"StylusToTracker": "kwire"})
    devices.tool("DrillToTracker", False, 0)
    devices.tool("DrillToWorld", False, 1)
    assert devices.shared("DrillToTracker", 1) == ["DrillToWorld"] and devices.shared("DrillToWorld", 1)
    assert not devices.of_another("DrillToWorld", 1)
    devices.tool("kwire", False, 1)
    devices.tool("StylusToTracker", False, 1)
    assert devices.shared("kwire", 1) and devices.of_another("kwire", 1)
    assert devices.shared("StylusToTracker", 1) == []
    devices.tool("DrillToTracker", False, 20)
    assert devices.shared("DrillToTracker", 20) == [], "the other has not been heard of for long"


def test_a_name_that_hops_between_two_places_belongs_to_two_devices():
    devices = Devices({})
    devices.tool("Drill", False, 0)
    seen = [devices.hops("Drill", False, at(500.0 * (k % 2)), k / 50, k / 50) for k in range(10)]
    assert not any(seen[:3]) and all(seen[3:])
    assert devices.hops("Drill", False, at(500), 1.0, 1.0), "still"
    assert not devices.hops("Drill", False, at(500), 4.0, 4.0), "believed again after three seconds"


def test_a_fast_hand_and_a_single_glitch_are_no_second_device():
    devices = Devices({})
    devices.tool("Drill", False, 0)
    for k in range(100):
        x = 30.0 * k if k != 50 else 9000.0
        assert not devices.hops("Drill", False, at(x), k / 50, k / 50)


def test_a_name_that_may_be_cut_is_watched_first_and_one_hop_is_enough():
    devices = Devices({})
    devices.tool(LONG_A[:20], True, 0)
    seen = [devices.hops(LONG_A[:20], True, at(0), k / 50, k / 50) for k in range(50)]
    assert all(seen[:25]) and not any(seen[25:])
    assert devices.hops(LONG_A[:20], True, at(300), 1.0, 1.0)
    assert devices.hops(LONG_A[:20], True, at(300), 3.9, 3.9)
    assert not devices.hops(LONG_A[:20], True, at(300), 4.1, 4.1)
