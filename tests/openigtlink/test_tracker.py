"""Valid and faulty gateways, the bridge, and the tool/* messages that it publishes."""

import itertools
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import zmq
from tests.openigtlink.conftest import GatewayStandIn, at, matrix, packed, repeating, tracking

from fluoronav.geometry import exp_se3
from fluoronav.openigtlink import gateway as gateway_module
from fluoronav.wire import decode_tools

T = exp_se3([0.3, -0.2, 0.5, 10, 20, 1500])
LONG_A, LONG_B = "VertebralBodyReferenceAToTracker", "VertebralBodyReferenceBToTracker"


class TrackingData:
    """TDATA for pyigtl's server, which lacks it."""

    def __new__(cls, tools):
        pyigtl = pytest.importorskip("pyigtl", reason="pyigtl is not installed (extra `dev`)")
        message = pyigtl.messages.MessageBase(device_name="tracker")
        message._message_type, message._valid_message = "TDATA", True
        message._pack_content = lambda: tracking(tools.items())
        return message


@pytest.fixture
def bridge(free_port, tmp_path):
    """pyigtl's server, the bridge as a process, and a subscriber to what it publishes."""
    pyigtl = pytest.importorskip("pyigtl", reason="pyigtl is not installed (extra `dev`)")
    server = pyigtl.OpenIGTLinkServer(port=free_port, local_server=True)
    endpoint = f"ipc://{tmp_path}/tools"
    process = subprocess.Popen(
        [sys.executable, "-m", "fluoronav", "bridge", "igtl", "--tracker", f"127.0.0.1:{free_port}",
         "--endpoint", endpoint, "--tool", "StylusToTracker=kwire"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SUBSCRIBE, b"tool/")
    assert "publishing tool/igtl" in process.stdout.readline()
    socket.connect(endpoint)
    yield server, socket, process
    socket.close()
    context.term()
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
    server.stop()


def until(server, socket, message, wanted, seconds=60.0):
    """Sends a message repeatedly until a wanted one arrives."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        message.timestamp = time.time()
        server.send_message(message, wait=False)
        while socket.poll(30):
            got = decode_tools(socket.recv_multipart())
            if wanted(got):
                return got
    pytest.fail("nothing arrived that was wanted")


def test_transform_and_tdata_arrive_as_tool_messages_under_the_ids_of_the_case(bridge):
    import pyigtl

    server, socket, process = bridge
    one = until(server, socket, pyigtl.TransformMessage(T, device_name="StylusToTracker"), lambda m: m.tools[0].visible)
    (tool,) = one.tools
    assert one.source == "igtl" and tool.id == "kwire" and tool.error_mm == pytest.approx(0.3)
    np.testing.assert_allclose(np.reshape(tool.T_tracker_tool, (4, 4)), T, atol=1e-3)
    assert abs(one.t_acq / 1e9 - time.time()) < 5
    both = {"StylusToTracker": T, "ReferenceToTracker": exp_se3([0, 0, 1, 5, 6, 7])}
    several = until(server, socket, TrackingData(both), lambda m: len(m.tools) == 2)
    assert {t.id for t in several.tools} == {"kwire", "Reference"}
    np.testing.assert_allclose(
        np.reshape(several.tools[1].T_tracker_tool, (4, 4)), both["ReferenceToTracker"], atol=1e-3
    )
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0 and "sent" in process.stdout.read()


def test_a_left_handed_matrix_a_hidden_tool_and_a_clock_from_1970_are_refused(bridge):
    import pyigtl

    server, socket, _ = bridge
    mirrored = T @ np.diag([1.0, 1, -1, 1])
    wrong = until(server, socket, pyigtl.TransformMessage(mirrored, device_name="kwire"), lambda m: True)
    assert wrong.tools[0].visible is False and wrong.tools[0].T_tracker_tool is None
    hidden = pyigtl.TransformMessage(T, device_name="hiddenToTracker")
    hidden.header_version, hidden.metadata = 2, {"TransformStatus": "MISSING"}
    got = until(server, socket, hidden, lambda m: m.tools[0].id == "hidden")
    assert got.tools[0].visible is False
    old = pyigtl.TransformMessage(T, device_name="oldToTracker")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        old.timestamp = 12.5
        server.send_message(old, wait=False)
        if socket.poll(50) and (m := decode_tools(socket.recv_multipart())).tools[0].id == "old":
            assert abs(m.t_acq / 1e9 - time.time()) < 5
            return
    pytest.fail("nothing arrived")


def stylus(k, x=100.0, **more):
    return packed("TRANSFORM", "StylusToTracker", matrix(at(x, 0.01 * (k % 7))), **more)


def broken(message):
    """With one bit changed on the way."""
    changed = bytearray(message)
    changed[58 + 36] ^= 0x80
    return bytes(changed)


def test_a_message_with_a_wrong_checksum_is_counted_and_logged_and_never_published(heard, caplog):
    with caplog.at_level(logging.WARNING, "fluoronav"):
        h = heard(repeating(lambda k: broken(stylus(k)) if k % 3 else stylus(k)))
        h.until(lambda: len(h.poses("Stylus")) > 20)
    assert {x for _, x in h.poses("Stylus")} == {100.0}
    assert h.counts["checksum"] >= 30 and h.gateway.connections == 1
    said = [r.message for r in caplog.records if "messages with a wrong checksum" in r.message]
    assert said


@pytest.mark.parametrize("cut", [0, 1, 30, 57, 58, 80])
def test_a_gateway_that_dies_at_any_byte_is_connected_to_again(heard, cut):
    def script(send, n, ending):
        if n == 1:
            send(stylus(0, 1.0) + stylus(1, 1.0)[:cut])
        else:
            repeating(lambda k: stylus(k, 2.0))(send, n, ending)

    h = heard(script)
    h.until(lambda: (h.poses("Stylus") or [(0, 0)])[-1][1] == 2.0)
    assert h.counts["closed"] == 1 and h.gateway.connections == 2


@pytest.mark.parametrize("cut", [30, 80])
def test_a_gateway_that_goes_silent_inside_a_message_is_given_up(heard, cut, monkeypatch):
    monkeypatch.setattr(gateway_module, "LIMITS", replace(gateway_module.LIMITS, stalled_s=0.3))

    def script(send, n, ending):
        if n == 1:
            send(stylus(0)[:cut])
            ending.wait(1.5)
        else:
            repeating(stylus)(send, n, ending)

    h = heard(script)
    h.until(lambda: h.poses("Stylus"))
    assert h.counts["stalled"] == 1


def test_a_body_that_trickles_for_ever_is_given_up(heard, monkeypatch):
    monkeypatch.setattr(gateway_module, "LIMITS", replace(gateway_module.LIMITS, stalled_s=0.3))

    def script(send, n, ending):
        if n > 1:
            return repeating(stylus)(send, n, ending)
        data = stylus(0)
        for k in range(len(data) - 1):
            send(data[k : k + 1])
            time.sleep(0.05)

    h = heard(script)
    h.until(lambda: h.poses("Stylus"))
    assert h.counts["stalled"] == 1


def test_a_silent_gateway_is_connected_to_again(heard, monkeypatch):
    monkeypatch.setattr(gateway_module, "LIMITS", replace(gateway_module.LIMITS, silence_s=0.3))
    h = heard(lambda send, n, ending: ending.wait(1.0) if n == 1 else repeating(stylus)(send, n, ending))
    h.until(lambda: h.poses("Stylus"))
    assert h.counts["silent"] >= 1


def test_noise_makes_few_connections_with_growing_pauses(heard):
    h = heard(lambda send, n, ending: send(os.urandom(4096)))
    h.listen(5.5)
    assert h.counts["header"] + h.counts["too_long"] + h.counts["closed"] >= 1
    assert h.gateway.connections <= 8 and not h.messages


def test_a_connection_that_is_lost_repeatedly_is_opened_every_time(heard):
    def script(send, n, ending):
        for k in range(15 if n < 6 else 10**9):
            if ending.is_set():
                return
            send(stylus(k, float(n)))
            time.sleep(0.01)

    h = heard(script)
    h.until(lambda: 6.0 in {x for _, x in h.poses("Stylus")})
    assert h.gateway.connections == 6 and h.counts["closed"] == 5


def test_a_picture_between_two_poses_is_skipped_and_its_type_is_logged_once(heard, caplog):
    picture = packed("IMAGE", "video", bytes(20000))
    with caplog.at_level(logging.INFO, "fluoronav"):
        h = heard(repeating(lambda k: picture + stylus(k)))
        h.until(lambda: len(h.poses("Stylus")) > 5)
    assert h.counts["not_read"] >= 5 and h.gateway.connections == 1
    assert caplog.text.count("sends IMAGE, which is not read") == 1


@pytest.mark.parametrize("state", ["unreachable", "connected", "inside", "silent", "name"])
def test_the_bridge_can_be_stopped_in_every_state(tmp_path, state):
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = free.getsockname()[1]
    scripts = {
        "connected": repeating(stylus),
        "inside": lambda send, n, ending: (send(stylus(0)[:30]), ending.wait(10)),
        "silent": lambda send, n, ending: ending.wait(10),
    }
    gateway = GatewayStandIn(scripts[state]) if state in scripts else None
    host = "no.such.host.invalid" if state == "name" else "127.0.0.1"
    process = subprocess.Popen(
        [sys.executable, "-m", "fluoronav", "bridge", "igtl", "--tracker",
         f"{host}:{gateway.port if gateway else nobody}", "--endpoint", f"ipc://{tmp_path}/tools"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert "publishing" in process.stdout.readline()
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        if gateway:
            gateway.close()


def test_a_tool_out_of_view_is_published_as_not_visible_and_the_others_with_their_poses(heard):
    metadata = {"StylusToTrackerStatus": "OUT_OF_VIEW", "ReferenceToTrackerStatus": "OK"}
    tools = (("StylusToTracker", 100.0), ("ReferenceToTracker", 5.0))

    def make(k):
        return packed("TDATA", "TDATA_2Elem", tracking([(name, at(x, 0.01 * k)) for name, x in tools]), metadata)

    h = heard(repeating(make))
    h.until(lambda: len(h.poses("Stylus")) > 5)
    assert {x for _, x in h.poses("Stylus")} == {None} and {x for _, x in h.poses("Reference")} == {5.0}
    assert h.counts["hidden"] >= 5


@pytest.mark.parametrize(
    ("x", "reason"), [(np.nan, "not_rigid"), (1e30, "too_far"), (100_000.0, "too_far"), (np.inf, "not_rigid")]
)
def test_an_impossible_pose_is_published_as_not_visible_and_counted(heard, x, reason):
    h = heard(repeating(lambda k: stylus(k, x if k % 2 else 1.0)))
    h.until(lambda: len(h.poses("Stylus")) > 10)
    assert {p for _, p in h.poses("Stylus")} == {1.0, None} and h.counts[reason] >= 5


def test_more_tools_than_a_message_holds_are_sent_in_several(heard):
    names = [f"tool{k}" for k in range(40)]
    h = heard(repeating(lambda k: packed("TDATA", "t", tracking([(name, at(1, 0.01 * k)) for name in names]))))
    h.until(lambda: all(h.poses(name) for name in names))
    assert max(len(m.tools) for m in h.messages) == 32


def test_two_devices_with_the_same_cut_name_are_never_one_tool(heard, caplog):
    def both(k):
        return packed("TRANSFORM", LONG_A[:20], matrix(at(100.0, 0.01 * k))) + packed(
            "TRANSFORM", LONG_B[:20], matrix(at(-400.0, 0.01 * k))
        )

    with caplog.at_level(logging.WARNING, "fluoronav"):
        h = heard(repeating(both))
        h.listen(2.0)
    assert {x for _, x in h.poses(LONG_A[:20])} == {None}
    assert "may have been cut after 20 letters" in caplog.text


def test_two_devices_whose_long_names_are_in_the_metadata_are_two_tools(heard):
    def both(k):
        return b"".join(
            packed("TRANSFORM", name[:20], matrix(at(x, 0.01 * k)), {"IGTL_DEVICE_NAME": name})
            for name, x in ((LONG_A, 100.0), (LONG_B, -400.0))
        )

    h = heard(repeating(both), {LONG_A: "patient_reference"})
    h.until(lambda: len(h.poses("VertebralBodyReferenceB")) > 5)
    assert {x for _, x in h.poses("patient_reference")} == {100.0}
    assert {x for _, x in h.poses("VertebralBodyReferenceB")} == {-400.0}


def test_a_tool_that_comes_twice_in_one_message_is_refused(heard):
    h = heard(repeating(lambda k: packed("TDATA", "t", tracking([("a", at(1, 0.01 * k)), ("a", at(2, 0.01 * k))]))))
    h.until(lambda: len(h.poses("a")) > 5)
    assert {x for _, x in h.poses("a")} == {None} and h.counts["same_name"] >= 10


def test_a_device_with_the_name_of_a_tool_does_not_disturb_it(heard):
    h = heard(
        repeating(lambda k: stylus(k) + packed("TRANSFORM", "kwireToTracker", matrix(at(-400.0, 0.01 * k)))),
        {"StylusToTracker": "kwire"},
    )
    h.until(lambda: len(h.poses("kwire")) > 30)
    assert {x for _, x in h.poses("kwire")[5:]} == {100.0} and h.counts["same_name"] > 0


@pytest.mark.parametrize("offset", [-60.0, -0.3, 0.06, 0.3, 3600.0])
def test_a_wrong_clock_of_the_gateway_loses_no_pose_and_is_logged(heard, offset, caplog):
    with caplog.at_level(logging.WARNING, "fluoronav"):
        h = heard(repeating(lambda k: stylus(k, t=time.time() - offset)))
        h.until(lambda: len(h.poses("Stylus")) > 60)
        now = time.time_ns()
    times = [t for t, _ in h.poses("Stylus")]
    assert all(b > a for a, b in itertools.pairwise(times))
    assert abs(now - times[-1]) < 5e9
    side = "behind" if offset > 0 else "ahead of"
    assert re.search(rf"StylusToTracker: [\d.]+ s {side} this computer's", caplog.text)


def test_a_gateway_without_times_gets_those_of_arrival(heard):
    h = heard(repeating(lambda k: stylus(k, t=0)))
    h.until(lambda: len(h.poses("Stylus")) > 5)
    assert abs(h.poses("Stylus")[-1][0] - time.time_ns()) < 5e9 and h.counts["untimed"] > 0


def test_a_repeated_pose_with_its_old_time_is_not_published_again(heard):
    frozen = []

    def make(k):
        if k < 50:
            frozen[:] = [stylus(k)]
        return frozen[0]

    h = heard(repeating(make))
    h.until(lambda: h.counts["repeated"] > 20)
    assert len(h.poses("Stylus")) <= 50


def test_a_status_that_is_not_ok_is_logged(heard, caplog):
    from fluoronav.openigtlink.content import pack_status

    with caplog.at_level(logging.WARNING, "fluoronav"):
        h = heard(repeating(lambda k: packed("STATUS", "NDI", pack_status(13, "starting up", "NotReady")) + stylus(k)))
        h.until(lambda: len(h.poses("Stylus")) > 5)
    assert "code 13 NotReady: starting up" in caplog.text and h.counts["status"] >= 5


def test_the_greeting_has_metadata_and_asks_for_tracking_data(heard):
    h = heard(repeating(stylus))
    h.until(lambda: h.poses("Stylus"))
    asked = h.gateway.received
    assert asked[:14] == b"\0\2STATUS" + bytes(6) and b"STT_TDATA" in asked


def test_of_a_flood_the_newest_pose_of_each_read_is_published(heard):
    def script(send, n, ending):
        for _ in range(20):
            send(b"".join(stylus(k) for k in range(200)))
        ending.wait(3)

    h = heard(script)
    h.until(lambda: h.counts["superseded"] > 1000)
    assert h.counts["sent"] < 1000


def test_tools_that_cannot_be_told_apart_are_refused_on_the_command_line():
    process = subprocess.run(
        [sys.executable, "-m", "fluoronav", "bridge", "igtl", "--tool", f"{LONG_A}=a", f"{LONG_B}=b"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert process.returncode == 1 and "Traceback" not in process.stderr
    assert "the same in OpenIGTLink's 20 letters" in process.stderr
