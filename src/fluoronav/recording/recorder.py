"""Records the messages of a grabber, a tracker and the pipeline, in a process of its own."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgpack
import zmq

from fluoronav.paths import private_folder, private_opener
from fluoronav.recording.file import RecordingWriter
from fluoronav.wire import subscriber


@dataclass(frozen=True)
class RecorderLimits:
    """Limits of the recorder's process."""

    frames_held: int = 96  # messages; chosen: 3 s at 30 frames a second, for a disk that pauses
    others_held: int = 4096  # messages of the pipeline, and of a tracker; chosen: more than 3 s at 1000 a second
    flush_every_s: float = 0.5  # chosen: a crash loses less than 1 s, the poll and the write included
    sequence_gap: int = 100_000  # frames; chosen: a larger gap is a grabber that counts anew, not a loss
    write_buffer_bytes: int = 2**20  # chosen: few system calls


LIMITS = RecorderLimits()
_HELD = {"frames": LIMITS.frames_held, "out": LIMITS.others_held, "tools": LIMITS.others_held}
_TOPICS = {"frames": ("frame/",), "out": ("overlay/", "alert/", "health/"), "tools": ("tool/",)}


class Recorder:
    """Subscribes to a pipeline's endpoints and writes every message to a file as it came.

    The enhanced picture (``view/*``) is left out, since it can be computed from the frames.

    Parameters
    ----------
    source : str
        The C-arm's name in topics.
    case : str
        The case, for the recording's head.
    endpoints : mapping of str to (str or None)
        Addresses of ``frames``, ``out`` and ``tools``; None where there is no such endpoint.
    path : Path
        Must not exist.
    stopping : threading.Event
        Ends :meth:`run` within a tenth of a second; may be set from any thread or signal handler.

    Attributes
    ----------
    counted : Counter
        Messages by kind, and ``lost``: frames missing in the sequence numbers.
    """

    def __init__(
        self, source: str, case: str, endpoints: Mapping[str, str | None], path: Path, stopping: threading.Event
    ) -> None:
        self._source, self._case, self._path = source, case, path
        self._endpoints = {name: address for name in _TOPICS if (address := endpoints.get(name)) is not None}
        self._stopping = stopping
        self._last_seq: int | None = None
        self.counted: Counter[str] = Counter()

    def run(self, seconds: float | None = None, progress: Callable[[str], object] = lambda kind: None) -> None:
        """Records until it is stopped, or for some time.

        Parameters
        ----------
        seconds : float, optional
        progress : callable
            Called with the kind of each message.

        Raises
        ------
        OSError
            The file exists or cannot be written, or the disk is full; what was written stays.
        """
        context = zmq.Context()
        sockets = [self._socket(context, name) for name in self._endpoints]
        poller = zmq.Poller()
        for socket in sockets:
            poller.register(socket, zmq.POLLIN)
        end = None if seconds is None else time.monotonic() + seconds
        private_folder(self._path.parent)
        try:
            with open(self._path, "xb", buffering=LIMITS.write_buffer_bytes, opener=private_opener) as file:
                writer = RecordingWriter(file, self._source, self._case)
                flushed = time.monotonic()
                while not self._stopping.is_set() and (end is None or time.monotonic() < end):
                    for socket, _ in poller.poll(100):
                        parts = socket.recv_multipart()
                        writer.write(time.time_ns(), parts)
                        progress(self._count(parts))
                    if time.monotonic() - flushed > LIMITS.flush_every_s:
                        flushed = time.monotonic()
                        writer.flush()
                writer.finish()
        finally:
            for socket in sockets:
                socket.close()
            context.term()

    def _socket(self, context: zmq.Context, name: str) -> zmq.Socket[bytes]:
        topics = [topic if topic == "tool/" else topic + self._source for topic in _TOPICS[name]]
        return subscriber(context, self._endpoints[name], topics, high_water=_HELD[name], max_bytes=2**28)

    def _count(self, parts: list[bytes]) -> str:
        kind = parts[0].split(b"/", 1)[0].decode("ascii", "replace")
        self.counted[kind] += 1
        if kind == "frame" and len(parts) > 1:
            try:
                seq = int(msgpack.unpackb(parts[1])["seq"])
            except (ValueError, LookupError, TypeError, OverflowError, msgpack.UnpackException):
                return kind  # a broken message is kept as it came
            if self._last_seq is not None and self._last_seq < seq < self._last_seq + LIMITS.sequence_gap:
                self.counted["lost"] += seq - self._last_seq - 1
            self._last_seq = seq
        return kind
