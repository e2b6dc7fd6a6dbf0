"""A recording holds what was sent, byte for byte, and says so when it does not."""

import threading
import time
from itertools import pairwise

import msgpack
import pytest
import zmq

from fluoronav.lab.simulation.rig import free_endpoints
from fluoronav.paths import shipped
from fluoronav.recording import Recorder, RecordingError, Replay, read_recording
from fluoronav.recording.file import write_head, write_message
from fluoronav.recording.replay import _moved


def test_what_is_sent_is_kept_as_it_came_and_what_is_missing_is_counted(tmp_path):
    endpoints = free_endpoints("tcp", tmp_path)
    context, sockets = zmq.Context(), {}
    for name in ("frames", "out", "tools"):
        sockets[name] = context.socket(zmq.PUB)
        sockets[name].setsockopt(zmq.LINGER, 0)
        sockets[name].bind(endpoints[name])
    stopping = threading.Event()
    recorder = Recorder("carm0", "embedded", endpoints, tmp_path / "a" / "one.fnrec", stopping)
    running = threading.Thread(target=recorder.run)
    running.start()
    time.sleep(0.5)  # subscriptions
    sent = []

    def send(name, topic, header, *payload):
        parts = [topic, header if isinstance(header, bytes) else msgpack.packb(header), *payload]
        sent.append(parts)
        sockets[name].send_multipart(parts)
        time.sleep(0.02)

    before = time.time_ns()
    send("frames", b"frame/carm0", {"v": 1, "seq": 7}, bytes(range(256)))
    send("frames", b"frame/carm0", b"not a message", b"")  # kept, too: it is what somebody will ask about
    send("frames", b"frame/carm0", {"v": 1, "seq": 10}, b"xyz")
    send("out", b"overlay/carm0", {"v": 1, "seq": 10, "text": "ä"})
    send("tools", b"tool/optical", {"v": 1, "seq": 1})
    sockets["out"].send_multipart([b"view/carm0", msgpack.packb({"seq": 10}), b"picture"])
    sockets["frames"].send_multipart([b"frame/other", msgpack.packb({"seq": 1}), b""])
    time.sleep(0.3)
    stopping.set()
    running.join(5)
    assert not running.is_alive()
    for socket in sockets.values():
        socket.close()
    context.term()
    head, messages = read_recording(tmp_path / "a" / "one.fnrec")
    assert head["source"] == "carm0" and head["case"] == "embedded"
    times, parts = zip(*messages, strict=True)
    assert list(parts) == sent
    assert before < times[0] and list(times) == sorted(times)
    assert recorder.counted["frame"] == 3 and recorder.counted["lost"] == 2 and recorder.counted["tool"] == 1
    with pytest.raises(FileExistsError):
        Recorder("carm0", "embedded", endpoints, tmp_path / "a" / "one.fnrec", threading.Event()).run(0.1)


def test_a_recording_that_was_cut_off_is_whole_up_to_there(tmp_path):
    path = tmp_path / "cut.fnrec"
    with path.open("wb") as file:
        write_head(file, "carm0", "embedded")
        for k in range(5):
            write_message(file, k, [b"frame/carm0", b"header", bytes(1000)])
    path.write_bytes(path.read_bytes()[:-500])
    _, messages = read_recording(path)
    assert [t for t, _ in messages] == [0, 1, 2, 3]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 something else", msgpack.packb({"format": "another"})])
def test_a_file_that_is_no_recording_is_named(tmp_path, content):
    path = tmp_path / "wrong.fnrec"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match="wrong.fnrec: is not a recording"):
        read_recording(path)


def test_a_recording_of_another_version_is_refused(tmp_path):
    path = tmp_path / "later.fnrec"
    path.write_bytes(msgpack.packb({"format": "fluoronav-recording", "version": 9}))
    with pytest.raises(RecordingError, match="version 9"):
        read_recording(path)


def test_a_replay_sends_the_same_at_the_same_pace_with_times_of_now(tmp_path):
    path, endpoints = tmp_path / "one.fnrec", free_endpoints("tcp", tmp_path)
    second = 10**9
    with path.open("wb") as file:
        write_head(file, "carm0", "embedded")
        for k in range(10):
            at = 5 * second + k * second // 20
            write_message(file, at, [b"tool/optical", msgpack.packb({"v": 1, "seq": k, "t_acq": at - 7, "tools": []})])
            header = {"v": 1, "seq": k, "t_acq": at - 2_000_000, "rows": 2}
            write_message(file, at, [b"frame/carm0", msgpack.packb(header), bytes([k] * 4)])
            write_message(file, at, [b"overlay/carm0", msgpack.packb({"seq": k})])
        write_message(file, at, [b"frame/carm0", b"no message", b""])
    stopping = threading.Event()
    replay = Replay(path, endpoints["frames"], endpoints["tools"], stopping)
    assert replay.head["source"] == "carm0"
    context, got = zmq.Context(), []
    frames, tools = (context.socket(zmq.SUB) for _ in range(2))
    for socket, name in ((frames, "frames"), (tools, "tools")):
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect(endpoints[name])
    assert replay.wait_for_subscriber()
    before = time.time_ns()
    replay.run(speed=2.0)
    poller = zmq.Poller()
    for socket in (frames, tools):
        poller.register(socket, zmq.POLLIN)
    while ready := poller.poll(500):
        got += [socket.recv_multipart() for socket, _ in ready]
    assert replay.counted == {"frames": 11, "tools": 10} and len(got) == 21
    seen = [parts for parts in got if parts[0] == b"frame/carm0"]
    assert seen[-1] == [b"frame/carm0", b"no message", b""]
    assert [parts[2] for parts in seen[:10]] == [bytes([k] * 4) for k in range(10)]
    headers = [msgpack.unpackb(parts[1]) for parts in seen[:10]]
    assert [h["seq"] for h in headers] == list(range(10)) and all(h["rows"] == 2 for h in headers)
    times = [h["t_acq"] for h in headers]
    assert before - second < times[0] < before + second
    assert {round((b - a) / 1e6) for a, b in pairwise(times)} == {25}  # of 50 ms, twice as fast
    poses = [msgpack.unpackb(parts[1])["t_acq"] for parts in got if parts[0] == b"tool/optical"]
    assert all(abs((p - f) - 1_000_000) < 1000 for p, f in zip(poses, times, strict=True))  # moved alike
    stopping.set()
    replay.run()
    assert replay.counted["frames"] == 11
    replay.close()
    for socket in (frames, tools):
        socket.close(0)
    context.term()
    with pytest.raises(RecordingError, match="is not a recording"):
        Replay(shipped("launch/demo.yaml"), endpoints["frames"], None, stopping)


@pytest.mark.parametrize("item", [7, [1], ["now", [b"frame/carm0"]], [1, b"frame"], [1, ["text"]], {"t": 1}])
def test_a_recording_whose_messages_are_none_is_named(tmp_path, item):
    path = tmp_path / "damaged.fnrec"
    with path.open("wb") as file:
        write_head(file, "carm0", "embedded")
        file.write(msgpack.packb(item))
    _, messages = read_recording(path)
    with pytest.raises(RecordingError, match="damaged.fnrec: is damaged"):
        next(messages)


@pytest.mark.parametrize("seq", [float("inf"), float("nan"), "7", None, [1], 2**63])
def test_a_number_that_is_none_does_not_end_a_recording(tmp_path, seq):
    recorder = Recorder("carm0", "", {}, tmp_path / "x.fnrec", threading.Event())
    header = msgpack.packb({"seq": seq, "t_acq": seq})
    assert recorder._count([b"frame/carm0", header]) == "frame"
    assert len(_moved([b"frame/carm0", header, b""], 0, 0, 1.0)) == 3
