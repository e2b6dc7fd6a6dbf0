"""Sends the frames and tool poses of a recording again, in place of a C-arm and a tracker."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgpack
import zmq

from fluoronav.recording.file import read_recording
from fluoronav.wire import encode
from fluoronav.wire.sockets import publisher_of_frames, publisher_of_tools, wait_for_subscriber

_KINDS = {b"frame": "frames", b"tool": "tools"}


class Replay:
    """Publishes the messages ``frame/*`` and ``tool/*`` of a recording at their recorded pace.

    Exposure times of frames and poses are moved to now by the same offset, so that a pipeline takes them for live.
    A broken message is sent as it came.

    Parameters
    ----------
    path : Path
        A recording.
    frames_endpoint, tools_endpoint : str
        Bound here. Without `tools_endpoint` the poses are left out.
    stopping : threading.Event
        Ends :meth:`run` before its next message.

    Attributes
    ----------
    head : dict
        The recording's head.
    counted : Counter
        Messages sent, by kind.

    Raises
    ------
    RecordingError
        The file is no recording.
    EndpointInUse
    OSError
    """

    def __init__(self, path: Path, frames_endpoint: str, tools_endpoint: str | None, stopping: threading.Event) -> None:
        self._path, self._stopping = path, stopping
        self.head, _ = read_recording(path)
        self.counted: Counter[str] = Counter()
        self._context = zmq.Context()
        self._sockets = {"frames": publisher_of_frames(self._context, frames_endpoint)}
        if tools_endpoint:
            self._sockets["tools"] = publisher_of_tools(self._context, tools_endpoint)

    def wait_for_subscriber(self) -> bool:
        """Waits for a subscriber to the frames; False if none came or it was stopped."""
        return wait_for_subscriber(self._sockets["frames"], self._stopping)

    def run(self, speed: float = 1.0, progress: Callable[[str], object] = lambda kind: None) -> None:
        """Sends the recording once.

        Parameters
        ----------
        speed : float
            2 is twice as fast.
        progress : callable
            Called with the kind of each message.
        """
        _, messages = read_recording(self._path)
        begun = first = None
        for t, parts in messages:
            kind = _KINDS.get(parts[0].partition(b"/")[0]) if parts else None
            if kind not in self._sockets:
                continue
            if begun is None or first is None:
                begun, first = time.time_ns(), t
            due = begun + (t - first) / speed
            if self._stopping.wait(max((due - time.time_ns()) / 1e9, 0)):
                return
            self._sockets[kind].send_multipart(_moved(parts, first, begun, speed))
            self.counted[kind] += 1
            progress(kind)

    def close(self) -> None:
        """Closes the sockets when all messages have left."""
        for socket in self._sockets.values():
            socket.close()
        self._context.term()


def _moved(parts: list[bytes], first: int, begun: int, speed: float) -> list[bytes]:
    """The message with its exposure time moved: as long after `begun` as it was after `first` (ns), over the speed.

    A frame says that it is of a recording.
    """
    try:
        header = msgpack.unpackb(parts[1])
        header["t_acq"] = round(begun + (int(header["t_acq"]) - first) / speed)
        if parts[0].startswith(b"frame/"):
            header["replayed"] = True
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, msgpack.UnpackException):
        return parts  # a broken message is sent as it came
    return [parts[0], encode(header), *parts[2:]]
