"""Writes what a grabber, a tracker and the pipeline say to a file, in a process of its own."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import msgpack
import zmq

from fluoronav.paths import private_folder, private_opener
from fluoronav.recording.file import write_head, write_message
from fluoronav.wire import subscriber

# Three seconds of a frame a thirtieth, for a disk that pauses.
_HELD = {"frames": 96, "out": 4096, "tools": 4096}
_TOPICS = {"frames": ("frame/",), "out": ("overlay/", "alert/", "health/"), "tools": ("tool/",)}
_FLUSH_EVERY_S = 1.0


class Recorder:
    """Subscribes to a pipeline's endpoints and keeps every message as it comes.

    The enhanced picture (``view/*``) is left out: it follows from the frames.

    Parameters
    ----------
    source : str
        The C-arm's name in topics.
    case : str
        Which case the recording is of, for its head.
    endpoints : mapping of str to (str or None)
        Addresses of ``frames``, ``out`` and ``tools``; None where there is no such endpoint.
    path : Path
        Must not exist.
    stopping : threading.Event
        Ends :meth:`run` within a tenth of a second; set from any thread or signal handler.

    Attributes
    ----------
    counted : Counter
        Messages by kind, and ``lost``: frames that are missing by their numbers.
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
        """Until it is stopped, or for some time.

        Parameters
        ----------
        seconds : float, optional
        progress : callable
            Told the kind of each message.

        Raises
        ------
        OSError
            The file exists or cannot be written, the disk is full; what was written stays.
        """
        context = zmq.Context()
        sockets = [self._socket(context, name) for name in self._endpoints]
        poller = zmq.Poller()
        for socket in sockets:
            poller.register(socket, zmq.POLLIN)
        end = None if seconds is None else time.monotonic() + seconds
        private_folder(self._path.parent)
        try:
            with open(self._path, "xb", buffering=2**20, opener=private_opener) as file:
                write_head(file, self._source, self._case)
                flushed = time.monotonic()
                while not self._stopping.is_set() and (end is None or time.monotonic() < end):
                    for socket, _ in poller.poll(100):
                        parts = socket.recv_multipart()
                        write_message(file, time.time_ns(), parts)
                        progress(self._count(parts))
                    if time.monotonic() - flushed > _FLUSH_EVERY_S:
                        flushed = time.monotonic()
                        file.flush()
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
                return kind  # kept as it came: what was wrong with it is worth keeping, too
            if self._last_seq is not None and self._last_seq < seq < self._last_seq + 100000:
                self.counted["lost"] += seq - self._last_seq - 1
            self._last_seq = seq
        return kind
