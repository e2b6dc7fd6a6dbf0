"""A real OpenIGTLink server, the bridge as a process, and what arrives as tool/*."""

import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
import zmq

from fluoronav.geometry import exp_se3
from fluoronav.wire import decode_tools

pyigtl = pytest.importorskip("pyigtl", reason="the extra `igtl` is not installed")
from fluoronav.display.igtl_tracker import TrackingDataMessage  # noqa: E402

T = exp_se3([0.3, -0.2, 0.5, 10, 20, 1500])


@pytest.fixture
def bridge(free_port, tmp_path):
    """A server, the bridge, and a subscriber to what it publishes."""
    server = pyigtl.OpenIGTLinkServer(port=free_port, local_server=True)
    endpoint = f"ipc://{tmp_path}/tools"
    process = subprocess.Popen(
        [sys.executable, "-m", "fluoronav.cli", "bridge", "igtl", "--tracker", f"127.0.0.1:{free_port}",
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


def until(server, socket, message, wanted, seconds=20.0):
    """Sends a message again and again until one arrives that is wanted."""
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
    server, socket, process = bridge
    one = until(server, socket, pyigtl.TransformMessage(T, device_name="StylusToTracker"), lambda m: m.tools[0].visible)
    (tool,) = one.tools
    assert one.source == "igtl" and tool.id == "kwire" and tool.error_mm == pytest.approx(0.3)
    np.testing.assert_allclose(np.reshape(tool.T_tracker_tool, (4, 4)), T, atol=1e-3)
    assert abs(one.t_acq / 1e9 - time.time()) < 5
    both = {"StylusToTracker": T, "ReferenceToTracker": exp_se3([0, 0, 1, 5, 6, 7])}
    several = until(server, socket, TrackingDataMessage(both, device_name="tracker"), lambda m: len(m.tools) == 2)
    assert {t.id for t in several.tools} == {"kwire", "Reference"}
    np.testing.assert_allclose(
        np.reshape(several.tools[1].T_tracker_tool, (4, 4)), both["ReferenceToTracker"], atol=1e-3
    )
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0 and "sent" in process.stdout.read()


def test_a_left_handed_matrix_a_hidden_tool_and_a_clock_from_1970_are_not_believed(bridge):
    server, socket, _ = bridge
    mirrored = T @ np.diag([1.0, 1, -1, 1])
    wrong = until(server, socket, pyigtl.TransformMessage(mirrored, device_name="kwire"), lambda m: True)
    assert wrong.tools[0].visible is False and wrong.tools[0].T_tracker_tool is None
    hidden = pyigtl.TransformMessage(T, device_name="hiddenToTracker")
    hidden.header_version, hidden.metadata = 2, {"TransformStatus": "MISSING"}
    got = until(server, socket, hidden, lambda m: m.tools[0].id == "hidden")
    assert got.tools[0].visible is False
    old = pyigtl.TransformMessage(T, device_name="oldToTracker")
    end = time.monotonic() + 20
    while time.monotonic() < end:
        old.timestamp = 12.5
        server.send_message(old, wait=False)
        if socket.poll(50) and (m := decode_tools(socket.recv_multipart())).tools[0].id == "old":
            assert abs(m.t_acq / 1e9 - time.time()) < 5
            return
    pytest.fail("nothing arrived")


def test_tracking_data_is_packed_as_the_specification_says():
    packed = TrackingDataMessage({"a": T})._pack_content()
    assert len(packed) == 70 and packed[:2] == b"a\0"
    # Column by column, then the shift; big-endian floats.
    assert struct.unpack("> 3f", packed[22:34]) == pytest.approx(tuple(T[:3, 0]), abs=1e-6)
    assert struct.unpack("> 3f", packed[58:70]) == pytest.approx(tuple(T[:3, 3]), abs=1e-3)
    again = TrackingDataMessage()
    again._unpack_content(packed + b"cut off")
    np.testing.assert_allclose(again.tools["a"], T, atol=1e-3)
