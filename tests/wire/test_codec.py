"""The protocol: what is taken, what is refused, and by which name."""

import json
from pathlib import Path

import msgpack
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluoronav.geometry import ArmJoints
from fluoronav.wire import (
    Alert,
    Health,
    InvalidMessage,
    Overlay,
    decode_args,
    decode_frame,
    decode_request,
    decode_tools,
    encode,
)

GOLDEN = Path(__file__).parent / "golden"
NOW = 1_800_000_000_000_000_000
HEADER = {"v": 1, "source": "carm0", "seq": 7, "t_acq": NOW, "rows": 4, "cols": 6, "dtype": "u2", "bits": 12}
PIXELS = np.arange(24, dtype="<u2").reshape(4, 6)


def frame(payload=None, topic=b"frame/carm0", **change):
    header = {k: v for k, v in (HEADER | change).items() if v is not ...}
    return [topic, encode(header), PIXELS.tobytes() if payload is None else payload]


def test_a_frame_is_a_view_of_its_payload():
    parts = frame()
    header, counts = decode_frame(parts)
    assert (header.seq, header.bits, header.polarity) == (7, 12, "counts")
    np.testing.assert_array_equal(counts, PIXELS)
    assert not counts.flags.owndata


def test_golden_frame_bytes_decode_to_the_same_frame_for_ever():
    parts = [(GOLDEN / f"frame.{n}.bin").read_bytes() for n in ("topic", "header", "payload")]
    header, counts = decode_frame(parts)
    expected = json.loads((GOLDEN / "frame.json").read_text())
    assert {k: getattr(header, k) for k in expected["header"]} == expected["header"]
    assert counts.tolist() == expected["counts"]


@pytest.mark.parametrize("name", ["overlay", "alert", "health"])
def test_golden_messages_fit_the_schema(name):
    model = {"overlay": Overlay, "alert": Alert, "health": Health}[name]
    message = msgpack.unpackb((GOLDEN / f"{name}.bin").read_bytes())
    assert msgspec.to_builtins(msgspec.convert(message, model))["v"] == 1


@pytest.mark.parametrize("name", ["overlay", "alert", "health"])
def test_golden_messages_are_written_again_in_the_same_bytes(name):
    model = {"overlay": Overlay, "alert": Alert, "health": Health}[name]
    golden = (GOLDEN / f"{name}.bin").read_bytes()
    message = msgspec.msgpack.decode(golden, type=model)
    # Where optional keys are left out, msgspec may write a map's length in three bytes instead of one.
    assert msgpack.packb(msgspec.to_builtins(message)) == golden
    assert msgpack.unpackb(encode(message)) == msgpack.unpackb(golden)
    if name == "overlay":
        assert encode(message) == golden


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"payload": b"short"}, "payload"),
        ({"dtype": "f9"}, "dtype"),
        ({"rows": 0}, "rows"),
        ({"rows": 100000, "cols": 100000, "payload": b"x"}, "rows"),
        ({"rows": "many"}, "rows"),
        ({"rows": True}, "rows"),
        ({"rows": 4.0}, "rows"),
        ({"v": 99}, "v"),
        ({"v": ...}, "v"),
        ({"seq": -1}, "seq"),
        ({"seq": ...}, "seq"),
        ({"t_acq": "noon"}, "t_acq"),
        ({"t_acq": 12}, "t_acq"),
        ({"bits": 17}, "bits"),
        ({"dtype": "u1", "bits": 12, "payload": bytes(24)}, "bits"),
        ({"source": "other"}, "source"),
        ({"source": "x" * 100}, "source"),
        ({"polarity": "sideways"}, "polarity"),
        ({"i0": float("nan")}, "i0"),
        ({"i0": 1e300}, "i0"),
        ({"sdd_mm": 1.0}, "sdd_mm"),  # metres
        ({"sid_mm": 1e-300}, "sid_mm"),
        ({"sdd_mm": float("inf")}, "sdd_mm"),
        ({"pixel_mm": [0.2, 0.0]}, "pixel_mm.1"),
        ({"pixel_mm": [0.2]}, "pixel_mm"),
        ({"pixel_mm": [0.0002, 0.0002]}, "pixel_mm.0"),
        ({"angles": {"orbital": 1e300}}, "angles.orbital"),
        ({"collimation": [[0, float("nan")]]}, "collimation.0.1"),
        ({"seq": 2**63}, "seq"),
        ({"topic": b"\xff\xfe/carm0"}, "topic"),
        ({"topic": b"overlay/carm0"}, "topic"),
    ],
)
def test_a_wrong_frame_is_refused_by_the_name_of_the_field(change, field):
    with pytest.raises(InvalidMessage) as caught:
        decode_frame(frame(**change))
    assert caught.value.field == field
    assert str(caught.value).startswith(field)


@pytest.mark.parametrize("header", [b"", b"\xc1not a map", msgpack.packb([1]), b"\x81" * 9])
def test_a_header_that_is_not_a_map_is_refused(header):
    with pytest.raises(InvalidMessage) as caught:
        decode_frame([b"frame/carm0", header, b""])
    assert caught.value.field == "header"


def test_an_oversized_header_is_not_even_decoded():
    with pytest.raises(InvalidMessage, match="at most 65536"):
        decode_frame([b"frame/carm0", encode(HEADER | {"study": "x" * 70000}), PIXELS.tobytes()])


def test_unknown_keys_are_ignored():
    header, _ = decode_frame(frame(vendor_secret={"a": 1}))
    assert header.seq == 7


def test_an_invalid_frame_still_tells_its_number():
    with pytest.raises(InvalidMessage) as caught:
        decode_frame(frame(payload=b"short"))
    assert caught.value.seq == 7


def test_a_number_that_no_counter_holds_is_not_told():
    with pytest.raises(InvalidMessage) as caught:
        decode_frame(frame(seq=2**63))
    assert caught.value.seq is None


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_no_bytes_whatever_do_anything_but_raise_invalid_message(parts):
    for decode in (decode_frame, decode_tools):
        for prefix in (b"", b"frame/a", b"tool/a"):
            with pytest.raises(InvalidMessage):
                decode([prefix, *parts])
    with pytest.raises(InvalidMessage):
        decode_request(parts[0] if parts else b"")


headers = st.fixed_dictionaries(
    {},
    optional={
        k: st.one_of(
            st.none(),
            st.integers(-(2**63), 2**64 - 1),
            st.floats(),
            st.text(max_size=9),
            st.lists(st.integers(-9, 9), max_size=3),
        )
        for k in (*HEADER, "polarity", "i0", "angles", "collimation")
    },
)


@given(headers)
def test_any_map_is_either_a_frame_or_refused(change):
    try:
        header, counts = decode_frame([b"frame/carm0", msgpack.packb(HEADER | change), PIXELS.tobytes()])
    except InvalidMessage:
        return
    except (OverflowError, ValueError):
        pytest.fail("escaped")
    assert counts.shape == (header.rows, header.cols)


def tools(**change):
    tool = {"id": "kwire", "visible": True, "T_tracker_tool": np.eye(4).ravel().tolist(), "error_mm": 0.2} | change
    return [b"tool/t0", encode({"v": 1, "source": "t0", "seq": 1, "t_acq": NOW, "tools": [tool]})]


def test_a_tool_pose_is_taken():
    assert decode_tools(tools()).tools[0].id == "kwire"


@pytest.mark.parametrize(
    "pose",
    [
        [float("nan")] * 16,
        np.diag([1.0, 1, -1, 1]).ravel().tolist(),
        np.zeros(16).tolist(),
        [1.0] * 15,
        "identity",
        [1.0, 0, 0, 100_000.0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1],
        [1.0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, -1e200, 0, 0, 0, 1],
    ],
)
def test_a_tool_pose_that_is_no_rigid_motion_is_refused_by_name(pose):
    with pytest.raises(InvalidMessage, match="T_tracker_tool"):
        decode_tools(tools(T_tracker_tool=pose))


def test_a_tool_is_refused_by_its_place():
    with pytest.raises(InvalidMessage) as caught:
        decode_tools(tools(T_tracker_tool=np.zeros(16).tolist()))
    assert caught.value.field == "tools.0.T_tracker_tool" and caught.value.seq == 1
    with pytest.raises(InvalidMessage, match=r"^tools\.0\.id: is missing"):
        decode_tools([b"tool/t0", encode({"v": 1, "source": "t0", "seq": 1, "t_acq": NOW, "tools": [{}]})])


@pytest.mark.parametrize(
    ("op", "args", "text"),
    [
        ("case.load", {}, "args.case: is missing"),
        ("case.load", {"case": 7}, "args.case: Expected `str`, got `int` (is '7')"),
        ("plan.set", {"trajectories": ["a", ""]}, "args.trajectories.1: Expected `str` of length >= 1 (is '')"),
        ("mode.set", {"mode": "off"}, "args.mode: is none of the values that the protocol names (is 'off')"),
    ],
)
def test_a_wrong_argument_is_refused_by_its_name(op, args, text):
    request = decode_request(encode({"v": 1, "id": 1, "op": op, "args": args}))
    with pytest.raises(InvalidMessage) as caught:
        decode_args(request)
    assert str(caught.value) == text


def test_a_user_whose_name_cannot_be_printed_is_refused():
    with pytest.raises(InvalidMessage, match="^user: holds characters that cannot be printed"):
        decode_request(encode({"v": 1, "id": 1, "op": "status", "user": "a\nb"}))


def test_of_another_version_nothing_else_is_said():
    with pytest.raises(InvalidMessage, match="^v: is not 1") as caught:
        decode_frame(frame(rows="many", v=2))
    assert caught.value.seq == 7


@pytest.mark.parametrize("header", [b"\xdd\xff\xff\xff\xff", b"\x81\xa1x\xdd\x7f\xff\xff\xff", b"\x91" * 60000])
def test_a_list_that_claims_to_be_huge_is_refused_before_it_is_made(header):
    with pytest.raises(InvalidMessage, match="^header: is not MessagePack"):
        decode_frame([b"frame/carm0", header, b""])


def test_numbers_of_numpy_are_sent_as_numbers():
    assert msgpack.unpackb(encode({"a": np.float64(1.5)})) == {"a": 1.5}
    with pytest.raises(TypeError):
        encode({"a": np.ones(2)})


def test_a_request_of_an_unknown_kind_is_refused():
    with pytest.raises(InvalidMessage, match="op"):
        decode_request(encode({"v": 1, "id": 1, "op": "self.destruct", "args": {}}))


@pytest.mark.parametrize(
    ("angles", "joints"),
    [
        ({"orbital": 30.0, "angular": -5.0, "swivel": 2.0}, ArmJoints(30.0, -5.0, 2.0, 610.0)),
        ({"orbital": 30.0, "angular": -5.0}, ArmJoints(30.0, -5.0, 0.0, 610.0)),
        ({"orbital": 30.0}, None),  # half of the beam's direction is none
        (None, None),
    ],
)
def test_joints_are_known_when_both_angles_of_the_beam_are(angles, joints):
    header = HEADER | {"angles": angles, "sid_mm": 610.0}
    decoded, _ = decode_frame([b"frame/carm0", msgpack.packb(header), PIXELS.tobytes()])
    assert decoded.joints() == joints
