"""Invalid messages to the running pipeline: they are counted by field, and the stream goes on."""

import json
import time

import msgpack
import msgspec
import numpy as np
import pytest
import zmq

from fluoronav.site.audit import verify_trail
from tests.live.conftest import Pipeline

NAN_POSE = [float("nan")] * 16


def fields(health):
    return health["invalid_by_field"]


@pytest.mark.parametrize(
    ("change", "payload", "field"),
    [
        ({}, b"short", "payload"),
        ({"dtype": "u1", "bits": 8}, None, "payload"),
        ({"dtype": "f9"}, None, "dtype"),
        ({"rows": 0}, b"", "rows"),
        ({"rows": 100000, "cols": 100000}, b"x", "rows"),
        ({"rows": "many"}, None, "rows"),
        ({"v": 99}, None, "v"),
        ({"seq": ...}, None, "seq"),
        ({"rows": 128, "cols": 128}, bytes(128 * 128 * 2), "rows"),
        ({"t_acq": 4_000_000_000_000_000_000}, None, "t_acq"),
        # An old frame again. (With a newer time it would be a grabber started anew, had the line been silent before.)
        ({"seq": 3, "t_acq": time.time_ns()}, None, "seq"),
    ],
)
def test_an_invalid_frame_is_counted_by_its_field_and_the_stream_goes_on(pipeline, change, payload, field):
    before = fields(pipeline.invalid()).get(field, 0)
    pipeline.frame()
    pipeline.send_raw(pipeline.header(**({"seq": pipeline.seq + 1} | change)), payload)
    pipeline.seq += 1
    overlay = pipeline.frame()
    assert overlay["dropped"]["invalid"] == 1
    # Its number was used up by the bad message where that could be read; else it is missing, and counted as lost.
    assert overlay["dropped"]["network"] == (1 if field == "seq" else 0)
    assert fields(pipeline.invalid())[field] == before + 1


def test_a_header_that_is_not_a_map_is_counted(pipeline):
    pipeline.frame()
    for raw in (b"\xc1not a map", msgpack.packb([1, 2]), b"", b"\xdf\xff\xff\xff\xff"):
        pipeline.send_raw(raw)
    pipeline.pub.send_multipart([b"frame/carm0"])
    overlay = pipeline.frame()
    assert overlay["dropped"] == {"network": 0, "overload": 0, "invalid": 5}


def test_lost_frames_are_counted_as_lost(pipeline):
    pipeline.frame()
    pipeline.seq += 4
    assert pipeline.frame()["dropped"] == {"network": 4, "overload": 0, "invalid": 0}


def test_a_frame_of_another_size_in_mid_stream_is_refused_with_both_sizes(pipeline):
    pipeline.frame()
    pipeline.seq += 1
    pipeline.send_raw(pipeline.header(rows=300, cols=300), bytes(300 * 300 * 2))
    pipeline.frame()
    pipeline.wait(lambda: "frame is 300 x 300, the camera file says 256 x 256" in log(pipeline), what="the log")


def log(pipeline):
    with open(pipeline.log.name) as file:
        return file.read()


def test_the_log_is_written_once_a_second_at_the_most(pipeline):
    pipeline.frame()
    lines, begin = len(log(pipeline).splitlines()), time.monotonic()
    for _ in range(200):
        pipeline.send_raw(b"\xc1")
        time.sleep(0.005)
    pipeline.frame()
    time.sleep(1.2)
    written = len(log(pipeline).splitlines()) - lines
    assert 1 <= written <= time.monotonic() - begin + 2


def test_tool_poses_with_nan_a_reflection_or_nonsense_are_counted_and_never_shown(pipeline):
    before = pipeline.invalid()["tools_invalid"]
    now = time.time_ns()
    tools = [
        [{"id": "kwire", "visible": True, "T_tracker_tool": NAN_POSE}],
        [{"id": "kwire", "visible": True, "T_tracker_tool": np.diag([1.0, 1, -1, 1]).ravel().tolist()}],
        "no list",
        [{"id": "kwire"}],
    ]
    for n, content in enumerate(tools):
        message = {"v": 1, "source": "t0", "seq": n, "t_acq": now, "tools": content}
        pipeline.tools.send_multipart([b"tool/t0", msgpack.packb(message)])
    pipeline.tools.send_multipart([b"tool/t0", b"\xc1"])
    good = [{"id": "kwire", "visible": True, "T_tracker_tool": np.eye(4).ravel().tolist()}]
    future = {"v": 1, "source": "t0", "seq": 9, "t_acq": now + 3600 * 10**9, "tools": good}
    pipeline.tools.send_multipart([b"tool/t0", msgpack.packb(future)])
    time.sleep(0.1)
    assert pipeline.frame()["instruments"] == []
    assert pipeline.invalid()["tools_invalid"] == before + 6


def test_a_valid_tool_pose_after_invalid_ones_is_shown(pipeline):
    pose = np.eye(4).ravel().tolist()
    tools = [{"id": n, "visible": True, "T_tracker_tool": pose} for n in ("kwire", "patient_reference")]
    message = {"v": 1, "source": "t0", "seq": 10, "t_acq": time.time_ns(), "tools": tools}
    pipeline.tools.send_multipart([b"tool/t0", msgpack.packb(message)])
    time.sleep(0.02)
    overlay = pipeline.frame()
    assert [i["id"] for i in overlay["instruments"]] == ["kwire"]
    assert {d["structure"] for d in overlay["distances"]} == {"aorta", "spinal_cord"}


def test_a_restarted_grabber_is_accepted_after_a_silence(pipeline):
    pipeline.frame()
    time.sleep(0.7)
    pipeline.seq = 5
    assert pipeline.frame()["dropped"]["network"] == 0


def test_silence_is_announced_and_its_end_too(pipeline):
    for _ in range(12):
        pipeline.frame()
        time.sleep(0.03)
    since = time.time_ns()
    stale = pipeline.wait(
        lambda: [
            a for a in pipeline.messages("alert", since) if a["kind"] == "stale_frames" and a["state"] == "raised"
        ],
        what="the alert",
    )[0]
    assert stale["priority"] == "medium"
    assert pipeline.wait(lambda: [h for h in pipeline.messages("health", since) if h["state"] == "degraded"])
    pipeline.frame()
    cleared = pipeline.wait(
        lambda: [
            a for a in pipeline.messages("alert", since) if a["kind"] == "stale_frames" and a["state"] == "cleared"
        ]
    )[0]
    assert cleared["id"] == stale["id"]


def test_a_burst_is_answered_with_the_newest_frame_and_the_rest_is_counted(pipeline):
    pipeline.frame()
    first = pipeline.seq
    for _ in range(40):
        pipeline.seq += 1
        pipeline.send_raw(pipeline.header())
    time.sleep(0.5)
    pipeline.frame()
    overlays = [o for o in pipeline.messages("overlay") if first < o["seq"] <= pipeline.seq]
    dropped = sum(o["dropped"]["overload"] + o["dropped"]["network"] for o in overlays)
    assert len(overlays) + dropped == 41
    assert [o["seq"] for o in overlays] == sorted(o["seq"] for o in overlays)


def test_requests_are_answered_and_wrong_ones_refused_with_a_text(pipeline):
    pipeline.frame()
    assert pipeline.request("status")["result"]["case"].startswith("thoracic-spine@")
    info = pipeline.request("case.info")["result"]
    assert [t["name"] for t in info["plan"]] == ["T8_left", "T8_right"]
    assert pipeline.request("plan.set", trajectories=["T8_right"])["ok"]
    assert [p["trajectory"] for p in pipeline.frame()["plan"]] == ["T8_right"]
    assert pipeline.request("mode.set", mode="shadow")["ok"]
    assert pipeline.frame()["mode"] == "shadow"
    assert pipeline.request("mode.set", mode="live")["error"]["code"] == "not_confirmed"
    assert pipeline.request("case.confirm", case="another@1")["error"]["code"] == "another_case"
    assert pipeline.request("case.confirm", case=info["case"])["result"] == {"confirmed": info["case"]}
    assert pipeline.frame()["mode"] == "shadow"  # as it was asked for
    assert pipeline.request("mode.set", mode="live")["ok"]
    assert pipeline.frame()["mode"] == "live"
    assert pipeline.request("registration.start")["ok"]
    assert pipeline.request("registration.accept")["error"]["code"] == "no_registration"
    for op, args, said in (
        ("plan.set", {"trajectories": ["L5"]}, "T8_left"),
        ("mode.set", {"mode": "turbo"}, "live or shadow"),
        ("alert.acknowledge", {"alert": "nothing/1"}, "no open alert"),
        ("record.stop", {}, "nothing is being recorded"),
        ("case.load", {"case": "another"}, "the launch file has no `cases`"),
    ):
        reply = pipeline.request(op, **args)
        assert not reply["ok"] and said in reply["error"]["text"]


def test_the_trail_holds_who_asked_for_what_with_the_pose_but_no_reading(tmp_path):
    pipeline = Pipeline(tmp_path).ready()
    pipeline.frame()
    assert pipeline.request("status")["ok"] and pipeline.request("registration.reject")["ok"]
    assert not pipeline.request("mode.set", mode="turbo")["ok"]
    (trail,) = (pipeline.path.parent / "audit").glob("pipeline-*.jsonl")
    assert verify_trail(trail) == 2
    rejected, refused = map(json.loads, trail.read_text().splitlines())
    assert (rejected["op"], rejected["user"], rejected["seq"]) == ("registration.reject", "tester", pipeline.seq)
    assert rejected["case"].startswith("thoracic-spine@") and "T_camera_ct" in rejected
    assert refused["event"] == "refused" and refused["args"] == {"mode": "turbo"}
    assert "live or shadow" in refused["why"]
    for path in (trail, trail.parent):
        assert path.stat().st_mode & 0o077 == 0  # for this user alone
    pipeline.close()


@pytest.mark.parametrize("body", [b"", b"\xc1", msgpack.packb({"v": 1, "id": 1, "op": "explode"}), b"\x00" * 5000])
def test_a_malformed_request_is_answered_with_an_error(pipeline, body):
    socket = pipeline.socket(zmq.REQ)
    socket.connect(pipeline.endpoints["requests"])
    socket.send(body)
    assert socket.poll(5000)
    reply = msgpack.unpackb(socket.recv())
    socket.close()
    assert not reply["ok"] and reply["error"]["code"] == "invalid"


def test_an_alert_is_acknowledged_by_its_id(pipeline):
    pipeline.frame()
    since = time.time_ns()
    alert = pipeline.wait(lambda: [a for a in pipeline.messages("alert", since) if a["state"] == "raised"])[0]
    assert pipeline.request("alert.acknowledge", alert=alert["id"])["ok"]
    noted = pipeline.wait(lambda: [a for a in pipeline.messages("alert", since) if a["state"] == "acknowledged"])[0]
    assert noted["id"] == alert["id"] and "tester" in noted["text"]


def test_every_received_message_fits_the_schema(pipeline):
    from fluoronav.wire import Alert, Health, Overlay

    pipeline.frame()
    for kind, model in (("overlay", Overlay), ("alert", Alert), ("health", Health)):
        messages = pipeline.messages(kind)
        assert messages
        for message in messages:
            msgspec.convert(message, model)
