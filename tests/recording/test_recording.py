"""A recording holds what was sent, byte for byte, and says so when it does not."""

import threading
import time

import msgpack
import pytest
import zmq

from fluoronav.paths import shipped
from fluoronav.pipeline import load_launch
from fluoronav.recording import Recorder, RecordingError, read_recording
from fluoronav.recording.file import write_head, write_message
from fluoronav.simulation.rig import free_endpoints


def test_what_is_sent_is_kept_as_it_came_and_what_is_missing_is_counted(tmp_path):
    endpoints = free_endpoints("tcp", tmp_path)
    launch = load_launch(shipped("launch/demo.yaml"))
    launch = launch.model_copy(update={"endpoints": launch.endpoints.model_copy(update=endpoints)})
    context, sockets = zmq.Context(), {}
    for name in ("frames", "out", "tools"):
        sockets[name] = context.socket(zmq.PUB)
        sockets[name].setsockopt(zmq.LINGER, 0)
        sockets[name].bind(endpoints[name])
    stopping = threading.Event()
    recorder = Recorder(launch, tmp_path / "a" / "one.fnrec", stopping)
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
    assert head["source"] == "carm0" and head["case"] == launch.case
    times, parts = zip(*messages, strict=True)
    assert list(parts) == sent
    assert before < times[0] and list(times) == sorted(times)
    assert recorder.counted["frame"] == 3 and recorder.counted["lost"] == 2 and recorder.counted["tool"] == 1
    with pytest.raises(FileExistsError):
        Recorder(launch, tmp_path / "a" / "one.fnrec", threading.Event()).run(0.1)


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
