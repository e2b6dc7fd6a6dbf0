"""A recording holds what was sent, byte for byte, and says so when it does not."""

import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import msgpack
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from mcap.writer import Writer

from fluoronav.lab.simulation.rig import free_endpoints
from fluoronav.paths import shipped
from fluoronav.recording import Recorder, RecordingError, Replay, read_recording
from fluoronav.recording.file import ENCODING, LIMITS, RecordingWriter
from fluoronav.recording.recorder import LIMITS as RECORDER_LIMITS
from fluoronav.recording.replay import _moved

OLD = Path(__file__).parent / "golden/one.fnrec"
MESSAGES = st.lists(st.tuples(st.integers(0, 2**63), st.lists(st.binary(max_size=300), min_size=1, max_size=4)))


@contextmanager
def recording(path):
    with path.open("wb") as file:
        writer = RecordingWriter(file, "carm0", "embedded")
        yield writer
        writer.finish()


def old_recording(path, *objects):
    head = {"format": "fluoronav-recording", "version": 1, "source": "carm0", "case": "embedded"}
    path.write_bytes(b"".join(map(msgpack.packb, (head, *objects))))


def test_what_is_sent_is_kept_as_it_came_and_what_is_missing_is_counted(tmp_path):
    endpoints = free_endpoints("tcp", tmp_path)
    context, sockets = zmq.Context(), {}
    for name in ("frames", "out", "tools"):
        sockets[name] = context.socket(zmq.PUB)
        sockets[name].setsockopt(zmq.LINGER, 0)
        sockets[name].bind(endpoints[name])
    stopping = threading.Event()
    recorder = Recorder("carm0", "embedded", endpoints, tmp_path / "a" / "one.mcap", stopping)
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
    head, messages = read_recording(tmp_path / "a" / "one.mcap")
    assert head["source"] == "carm0" and head["case"] == "embedded"
    times, parts = zip(*messages, strict=True)
    assert list(parts) == sent
    assert before < times[0] and list(times) == sorted(times)
    assert recorder.counted["frame"] == 3 and recorder.counted["lost"] == 2 and recorder.counted["tool"] == 1
    with pytest.raises(FileExistsError):
        Recorder("carm0", "embedded", endpoints, tmp_path / "a" / "one.mcap", threading.Event()).run(0.1)


def test_a_recording_that_was_cut_off_is_whole_up_to_there(tmp_path):
    path = tmp_path / "cut.mcap"
    with path.open("wb") as file:
        writer = RecordingWriter(file, "carm0", "embedded")
        for k in range(5):
            writer.write(k, [b"frame/carm0", b"header", bytes(1000)])
            writer.flush()
    path.write_bytes(path.read_bytes()[:-120])
    _, messages = read_recording(path)
    assert [t for t, _ in messages] == [0, 1, 2, 3]


def test_an_old_recording_that_was_cut_off_is_whole_up_to_there(tmp_path):
    path = tmp_path / "cut.fnrec"
    old_recording(path, *([k, [b"frame/carm0", b"header", bytes(1000)]] for k in range(5)))
    path.write_bytes(path.read_bytes()[:-500])
    _, messages = read_recording(path)
    assert [t for t, _ in messages] == [0, 1, 2, 3]


@settings(max_examples=40, deadline=None)
@given(sent=MESSAGES, flush_after=st.integers(0, 5), share=st.floats(0, 1))
def test_a_recording_gives_back_what_was_written_and_each_beginning_of_it_a_beginning(
    tmp_path_factory, sent, flush_after, share
):
    path = tmp_path_factory.mktemp("recordings") / "any.mcap"
    with recording(path) as writer:
        for k, (t, parts) in enumerate(sent):
            writer.write(t, parts)
            if k % 6 == flush_after:
                writer.flush()
    assert list(read_recording(path)[1]) == sent
    whole = path.read_bytes()
    head_ends = whole.index(b"embedded") + 100
    path.write_bytes(whole[: head_ends + round(share * (len(whole) - head_ends))])
    cut = list(read_recording(path)[1])
    assert cut == sent[: len(cut)]


def test_a_recording_of_the_former_format_is_read():
    head, messages = read_recording(OLD)
    assert head["version"] == 1 and head["source"] == "carm0" and head["case"] == "embedded"
    assert head["started"] == 1_790_000_000_000_000_000
    messages = list(messages)
    assert [parts[0] for _, parts in messages] == [b"frame/carm0"] * 3 + [b"overlay/carm0"]
    assert [t for t, _ in messages][:2] == [1_790_000_000_100_000_000, 1_790_000_000_133_000_000]
    assert messages[2][1][2] == bytes([2] * 8) and msgpack.unpackb(messages[2][1][1])["seq"] == 2


def test_a_recording_is_an_mcap_file_with_an_index_whose_checksums_hold(tmp_path):
    path = tmp_path / "one.mcap"
    with recording(path) as writer:
        for k in range(3):
            writer.write(10 + k, [b"frame/carm0", b"header", bytes(2000)])
            writer.write(20 + k, [b"overlay/carm0", b"header"])
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        summary = reader.get_summary()
        assert summary is not None and summary.statistics is not None
        assert summary.statistics.message_count == 6 and summary.chunk_indexes[0].compression == "lz4"
        assert {c.topic: c.message_encoding for c in summary.channels.values()} == {
            "frame/carm0": ENCODING, "overlay/carm0": ENCODING,
        }  # fmt: skip
        assert sorted(s.name for s in summary.schemas.values()) == ["fluoronav.frame", "fluoronav.overlay"]
        frames = list(reader.iter_messages(topics=["frame/carm0"]))
        assert [m.log_time for _, _, m in frames] == [10, 11, 12]
        assert msgpack.unpackb(frames[0][2].data) == [b"frame/carm0", b"header", bytes(2000)]
    assert path.stat().st_size < 4000  # what compresses is compressed


def test_topics_beyond_the_limit_share_a_channel_and_lose_nothing(tmp_path):
    path, count = tmp_path / "many.mcap", LIMITS.channels + 5
    with recording(path) as writer:
        for k in range(count):
            writer.write(k, [b"tool/%d" % k, b"\xff"])
    assert [parts[0] for _, parts in read_recording(path)[1]] == [b"tool/%d" % k for k in range(count)]
    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None and len(summary.channels) == LIMITS.channels + 1


def test_a_byte_that_changed_on_the_disk_is_said_and_what_came_before_is_read(tmp_path):
    path = tmp_path / "damaged.mcap"
    with path.open("wb") as file:
        writer = RecordingWriter(file, "carm0", "embedded")
        for k in range(3):
            writer.write(k, [b"frame/carm0", b"header", bytes(range(256))])
            writer.flush()
        third = file.tell() - 120
    content = bytearray(path.read_bytes())
    content[third] ^= 0x10
    path.write_bytes(content)
    messages, read = read_recording(path)[1], []
    with pytest.raises(RecordingError, match="damaged.mcap: is damaged"):
        read.extend(t for t, _ in messages)
    assert read == [0, 1]


KILLED = """
import os, signal, sys
from fluoronav.recording.file import RecordingWriter

with open(sys.argv[1], "wb", buffering=2**20) as file:
    writer = RecordingWriter(file, "carm0", "embedded")
    for k in range(3):
        writer.write(k, [b"frame/carm0", b"header", bytes(range(256))])
    writer.flush()
    writer.write(3, [b"frame/carm0", b"header", b"not flushed"])
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_recorder_that_is_killed_loses_only_what_came_since_its_last_flush_less_than_a_second_ago(tmp_path):
    path = tmp_path / "killed.mcap"
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False).returncode == -signal.SIGKILL
    assert [t for t, _ in read_recording(path)[1]] == [0, 1, 2]
    assert RECORDER_LIMITS.flush_every_s + 0.1 < 1  # the poll lasts a tenth of a second


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_an_error_of_the_operating_system():
    with pytest.raises(OSError, match="No space left"), open("/dev/full", "wb", buffering=0) as file:
        writer = RecordingWriter(file, "carm0", "embedded")
        writer.write(1, [b"frame/carm0", b"", b""])
        writer.flush()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 something else", msgpack.packb({"format": "another"})])
def test_a_file_that_is_no_recording_is_named(tmp_path, content):
    path = tmp_path / "wrong.fnrec"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match="wrong.fnrec: is not a recording"):
        read_recording(path)


def mcap_of(path, name, values):
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start()
        writer.add_metadata(name, values)
        writer.finish()


def test_an_mcap_file_of_another_program_is_no_recording(tmp_path):
    for name, values in (("settings", {"version": "2"}), ("fluoronav-recording", {"version": "two"})):
        mcap_of(tmp_path / "wrong.mcap", name, values)
        with pytest.raises(RecordingError, match="wrong.mcap: is not a recording"):
            read_recording(tmp_path / "wrong.mcap")


def test_a_recording_of_another_version_is_refused(tmp_path):
    path = tmp_path / "later.fnrec"
    path.write_bytes(msgpack.packb({"format": "fluoronav-recording", "version": 9}))
    with pytest.raises(RecordingError, match="version 9"):
        read_recording(path)
    mcap_of(path, "fluoronav-recording", {"version": "9", "started": "1"})
    with pytest.raises(RecordingError, match="version 9"):
        read_recording(path)


def test_a_replay_sends_the_same_at_the_same_pace_with_times_of_now(tmp_path):
    path, endpoints = tmp_path / "one.mcap", free_endpoints("tcp", tmp_path)
    second = 10**9
    with recording(path) as writer:
        for k in range(10):
            at = 5 * second + k * second // 20
            writer.write(at, [b"tool/optical", msgpack.packb({"v": 1, "seq": k, "t_acq": at - 7, "tools": []})])
            header = {"v": 1, "seq": k, "t_acq": at - 2_000_000, "rows": 2}
            writer.write(at, [b"frame/carm0", msgpack.packb(header), bytes([k] * 4)])
            writer.write(at, [b"overlay/carm0", msgpack.packb({"seq": k})])
        writer.write(at, [b"frame/carm0", b"no message", b""])
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
    assert all(h["replayed"] for h in headers), "a screen must not call this live"
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
    old_recording(path, item)
    _, messages = read_recording(path)
    with pytest.raises(RecordingError, match="damaged.fnrec: is damaged"):
        next(messages)


@pytest.mark.parametrize("data", [b"", b"\xc1", msgpack.packb(7), msgpack.packb(["text"])])
def test_an_mcap_message_that_is_no_array_of_parts_is_named(tmp_path, data):
    path = tmp_path / "damaged.mcap"
    with recording(path) as writer:
        writer.write(1, [b"frame/carm0"])
        writer._writer.add_message(1, 2, data, 2)
    _, messages = read_recording(path)
    assert next(messages) == (1, [b"frame/carm0"])
    with pytest.raises(RecordingError, match="damaged.mcap: is damaged"):
        next(messages)


@pytest.mark.parametrize("seq", [float("inf"), float("nan"), "7", None, [1], 2**63])
def test_a_number_that_is_none_does_not_end_a_recording(tmp_path, seq):
    recorder = Recorder("carm0", "", {}, tmp_path / "x.fnrec", threading.Event())
    header = msgpack.packb({"seq": seq, "t_acq": seq})
    assert recorder._count([b"frame/carm0", header]) == "frame"
    assert len(_moved([b"frame/carm0", header, b""], 0, 0, 1.0)) == 3
