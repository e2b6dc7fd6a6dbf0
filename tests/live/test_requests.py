"""Invalid requests: each gets a reply and changes nothing."""

import json
import os
import signal
import time

import msgpack
import psutil
import pytest
import zmq

from fluoronav.lab.simulation.rig import free_endpoints
from fluoronav.site.audit import verify_trail
from fluoronav.wire import make_request
from tests.live.conftest import Pipeline


def asked(op, args=None, **change):
    return make_request(op, args, "tester") | change


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


BAD_ARGS = [
    ("mode.set", {"mode": b"live"}),
    ("mode.set", {"mode": ["live"]}),
    ("mode.set", {"mode": float("nan")}),
    ("mode.set", {"mode": True}),
    ("plan.set", {"trajectories": [["T8_left"]]}),
    ("plan.set", {"trajectories": b"T8_left"}),
    ("plan.set", {"trajectories": [{"name": "T8_left"}]}),
    ("plan.set", {"trajectories": nested(400)}),
    ("plan.set", {"trajectories": ["x"] * 4000}),
    ("plan.set", {}),
    ("case.load", {"case": ["another"]}),
    ("case.load", {"case": b"\xff"}),
    ("case.load", {"case": "x" * 4000}),
    ("case.confirm", {}),
    ("case.confirm", {"case": 1e300}),
    ("alert.acknowledge", {"alert": [[1]]}),
    ("alert.acknowledge", {"alert": None}),
    ("alert.acknowledge", {"alert": 2**63}),
]


@pytest.mark.parametrize(("op", "args"), BAD_ARGS)
def test_malformed_arguments_are_answered_as_invalid_and_health_is_unchanged(pipeline, op, args):
    reply = pipeline.ask(msgpack.packb(asked(op, args)))
    assert reply["error"]["code"] == "invalid" and len(reply["error"]["text"]) < 400
    assert pipeline.request("status")["result"]["state"] != "failed"


@pytest.mark.parametrize(
    "body",
    [
        msgpack.packb(asked("status") | {"args": [1]}),
        msgpack.packb(asked("status", id=b"1")),
        msgpack.packb(asked("status", id=[1])),
        msgpack.packb(asked("status", id="x" * 4000)),
        msgpack.packb(asked("status", user="a\nb")),
        msgpack.packb(asked("status", user="x" * 65)),
        msgpack.packb(asked("status", t="now")),
        msgpack.packb(asked("status", t=1.5)),
        msgpack.packb(asked("status", t=-1)),
        msgpack.packb(asked("plan.set", {"trajectories": ["x" * 4000] * 60})),
        msgpack.packb(asked("plan.set", {"trajectories": nested(900)})),
        msgpack.packb({"v": 1, "id": 1, "op": "status", "user": "\ud800"}, unicode_errors="surrogatepass"),
        msgpack.packb({"v": 1, "id": 1, "op": "status", "args": {1: 2}}),
        msgpack.packb({"v": 1, "id": 1, "op": "status", "args": {"x": msgpack.ExtType(5, b"x")}}),
        msgpack.packb({"v": 1, "id": 1, "op": "status", "args": {"x": msgpack.Timestamp(0)}}),
        bytes(900_000),
    ],
)
def test_malformed_requests_are_answered_as_invalid_and_health_is_unchanged(pipeline, body):
    assert pipeline.ask(body)["error"]["code"] == "invalid"
    assert pipeline.request("status")["result"]["state"] != "failed"


def test_unknown_keys_are_ignored_whatever_they_hold(pipeline):
    more = {"mode": "shadow", "deep": nested(100), "bytes": b"\xff" * 4000, "nan": float("nan")}
    assert pipeline.ask(msgpack.packb(asked("mode.set", more, more=b"\x00")))["ok"]
    trails = list((pipeline.path.parent / "audit").glob("pipeline-*.jsonl"))
    assert sum(verify_trail(trail) for trail in trails)


def test_the_same_bytes_a_second_time_are_refused(pipeline):
    body = msgpack.packb(asked("plan.set", {"trajectories": ["T8_left"]}))
    assert pipeline.ask(body)["ok"]
    assert pipeline.request("plan.set", trajectories=["T8_right"])["ok"]
    assert pipeline.ask(body)["error"]["code"] == "repeated"
    assert [p["trajectory"] for p in pipeline.frame()["plan"]] == ["T8_right"]
    untimed = asked("plan.set", {"trajectories": ["T8_left"]}, id=7)
    del untimed["t"]
    assert pipeline.ask(msgpack.packb(untimed))["ok"]
    assert pipeline.ask(msgpack.packb(untimed))["error"]["code"] == "repeated"
    assert pipeline.ask(msgpack.packb(untimed | {"user": "another"}))["ok"]


@pytest.mark.parametrize("seconds", [-3600, -11, 11, 3600])
def test_a_request_of_another_time_is_refused(pipeline, seconds):
    body = msgpack.packb(asked("registration.reject", t=time.time_ns() + seconds * 10**9))
    reply = pipeline.ask(body)
    assert reply["error"]["code"] == "stale" and "clocks" in reply["error"]["text"]


def test_refusals_in_the_trail_are_bounded(tmp_path):
    pipeline = Pipeline(tmp_path).ready()
    client = pipeline.socket(zmq.DEALER)
    client.connect(pipeline.endpoints["requests"])
    for _ in range(3000):
        client.send(msgpack.packb(asked("plan.set", {"trajectories": ["x" * 200] * 200})))
        client.send(b"\xc1" * 1000)
        while client.poll(0):
            client.recv()
    assert pipeline.request("plan.set", trajectories=[])["ok"]
    (trail,) = (tmp_path / "audit").glob("pipeline-*.jsonl")
    assert trail.stat().st_size < 50_000
    client.close()
    pipeline.process.terminate()
    pipeline.process.wait(8)
    entries = [json.loads(line) for line in trail.read_text().splitlines()]
    assert verify_trail(trail) == len(entries)
    refused = sum(e["event"] == "refused" for e in entries) + sum(
        e["of"]["refused"] for e in entries if e["event"] == "more"
    )
    assert refused > 2000  # those that were read
    pipeline.close()


def test_a_client_that_reads_no_replies_delays_nobody(pipeline):
    silent = [pipeline.socket(zmq.DEALER) for _ in range(4)]
    for client in silent:
        client.setsockopt(zmq.RCVHWM, 1)
        client.connect(pipeline.endpoints["requests"])
        for _ in range(300):
            client.send(msgpack.packb(asked("case.info")))
    assert pipeline.request("status")["ok"]
    for client in silent:
        client.close()
    assert pipeline.request("status")["result"]["state"] != "failed"


def test_a_stalled_subscriber_costs_the_pipeline_little(tmp_path):
    """A few pictures wait for it; another subscriber misses nothing."""
    pipeline = Pipeline(tmp_path, stages=["attenuation", "view"]).ready()
    slow = pipeline.socket(zmq.SUB)
    slow.setsockopt(zmq.RCVHWM, 1)
    slow.setsockopt(zmq.RCVBUF, 4096)
    slow.connect(pipeline.endpoints["out"])
    slow.subscribe("")
    before = psutil.Process(pipeline.process.pid).memory_info().rss
    first = pipeline.seq
    for _ in range(300):
        pipeline.frame()
    grown = psutil.Process(pipeline.process.pid).memory_info().rss - before
    picture = len(pipeline.messages("view")[0]["payload"])
    assert grown < 64 * picture + 40e6
    assert len(pipeline.messages("overlay")) == pipeline.seq - first
    slow.close()
    pipeline.close()


def test_a_session_ends_with_a_stop_or_ctrl_c_and_outlives_anything_else(tmp_path):
    session = tmp_path / "audit" / "session-carm0.json"
    pipeline = Pipeline(tmp_path, cold=True).ready().confirm()
    assert session.is_file() and session.stat().st_mode & 0o077 == 0
    pipeline.process.terminate()
    assert pipeline.process.wait(8) == 0 and session.is_file()
    assert pipeline.start_again().messages("health")[-1]["session"] == {
        "confirmed": False, "accepted": False, "accepted_t": None, "plan": ["T8_left", "T8_right"], "restored": True,
    }  # fmt: skip
    pipeline.process.send_signal(signal.SIGINT)
    pipeline.process.wait(8)
    assert not session.exists()
    assert not pipeline.start_again().messages("health")[-1]["session"]["restored"]
    assert session.exists() and pipeline.request("stop")["ok"]
    pipeline.process.wait(8)
    assert not session.exists()
    assert os.listdir(tmp_path / "audit") and not list((tmp_path / "audit").glob("*.new"))
    pipeline.close()


def test_requests_open_to_other_computers_are_reported_and_need_a_time(tmp_path):
    (port,) = {e.rpartition(":")[2] for e in [free_endpoints("tcp", tmp_path)["requests"]]}
    pipeline = Pipeline(tmp_path, {"requests": f"tcp://*:{port}"}, allow_unauthenticated=True)
    pipeline.endpoints["requests"] = f"tcp://127.0.0.1:{port}"
    pipeline.ready()
    assert pipeline.messages("health")[-1]["unauthenticated"]
    untimed = asked("registration.reject")
    del untimed["t"]
    assert "t: is required" in pipeline.ask(msgpack.packb(untimed))["error"]["text"]
    assert pipeline.request("registration.reject")["ok"]
    pipeline.log.seek(0)
    assert "open to other computers" in pipeline.log.read()
    pipeline.close()
