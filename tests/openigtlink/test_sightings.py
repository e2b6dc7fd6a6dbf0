"""Pose and visibility of the tools in one message."""

import numpy as np
import pytest
from tests.openigtlink.conftest import at, matrix, packed, tracking

from fluoronav.openigtlink.protocol import MessageReader, ProtocolError
from fluoronav.openigtlink.sightings import sightings


def of(kind, name, content, metadata=None):
    (message,) = MessageReader({"TRANSFORM": 1 << 16, "TDATA": 1 << 16}).feed(packed(kind, name, content, metadata))
    return sightings(message)


@pytest.mark.parametrize(
    "status",
    ["OUT_OF_VIEW", "MISSING", "INVALID", "OUT_OF_VOLUME", "REQ_TIMEOUT", "UNKNOWN", "TOOL_MISSING", "", "new word"],
)
@pytest.mark.parametrize("key", ["StylusToTrackerStatus", "StylusToTrackerTransformStatus", "StylusStatus"])
def test_in_tracking_data_a_tool_that_is_not_ok_is_hidden_and_the_others_are_not(status, key):
    tools = tracking([("StylusToTracker", at(1)), ("ReferenceToTracker", at(2))])
    stylus, reference = of("TDATA", "TDATA_2Elem", tools, {key: status, "ReferenceToTrackerStatus": "OK"})
    assert (stylus.refused, stylus.T_tracker_tool) == ("hidden", None)
    assert reference.refused == "" and reference.T_tracker_tool is not None


@pytest.mark.parametrize(
    "metadata",
    [
        {"TransformStatus": "OUT_OF_VIEW"}, {"TransformValid": "FALSE"}, {"transformvalid": "0"},
        {"ToolStatus": "MISSING"}, {"StylusToTrackerStatus": "INVALID"}, {"Status": "lost"},
        {"TransformStatus": "OK", "TransformValid": "False"},
    ],
)  # fmt: skip
def test_a_transform_that_is_not_ok_is_hidden(metadata):
    (stylus,) = of("TRANSFORM", "StylusToTracker", matrix(at(1)), metadata)
    assert stylus.refused == "hidden" and stylus.T_tracker_tool is None


@pytest.mark.parametrize(
    "metadata",
    [
        None, {}, {"TransformStatus": "OK", "TransformValid": "TRUE"}, {"TransformStatus": "ok"},
        {"TransformStatus": "TOOL_OK"}, {"Temperature": "warm", "OtherToTrackerStatus": "MISSING"},
    ],
)  # fmt: skip
def test_a_transform_without_a_status_is_visible(metadata):
    (stylus,) = of("TRANSFORM", "StylusToTracker", matrix(at(1)), metadata)
    assert stylus.refused == "" and stylus.T_tracker_tool is not None


@pytest.mark.parametrize(
    ("T", "reason"),
    [
        (np.full((4, 4), np.nan), "not_rigid"), (at(np.inf), "not_rigid"), (np.diag([1.0, 1, -1, 1]), "not_rigid"),
        (np.diag([0.001, 0.001, 0.001, 1]), "not_rigid"), (at(100_000.0), "too_far"), (at(0, 0, -10_001), "too_far"),
        (at(1e30), "too_far"),
    ],
)  # fmt: skip
def test_an_impossible_pose_is_refused(T, reason):
    (sighting,) = of("TRANSFORM", "a", matrix(T))
    assert (sighting.refused, sighting.T_tracker_tool) == (reason, None)


def test_a_long_name_is_found_by_its_number_or_by_its_status():
    a, b = "VertebralBodyReferenceAToTracker", "VertebralBodyReferenceBToTracker"
    tools = tracking([(a[:20], at(1)), (b[:20], at(2))])
    found = of("TDATA", "x", tools, {f"{a}Index": "0", f"{b}Index": "1", f"{a}Status": "OK", f"{b}Status": "MISSING"})
    assert [(s.device, s.cut, s.refused) for s in found] == [(a, False, ""), (b, False, "hidden")]
    (one,) = of("TDATA", "x", tracking([(a[:20], at(1))]), {f"{a}Status": "OK"})
    assert (one.device, one.cut) == (a, False)
    found = of("TDATA", "x", tools, {f"{a}Status": "OK", f"{b}Status": "OK"})
    assert [(s.device, s.cut) for s in found] == [(a[:20], True)] * 2
    (short,) = of("TDATA", "x", tracking([("Stylus", at(1))]), {"StylusTipIndex": "0"})
    assert (short.device, short.cut) == ("Stylus", False)


@pytest.mark.parametrize(
    ("kind", "content"), [("TRANSFORM", bytes(47)), ("TRANSFORM", bytes(96)), ("TDATA", bytes(71))]
)
def test_a_content_of_another_size_is_refused(kind, content):
    with pytest.raises(ProtocolError) as refused:
        of(kind, "a", content)
    assert refused.value.reason == "content"


def test_tracking_data_may_be_empty():
    assert of("TDATA", "a", b"") == []
