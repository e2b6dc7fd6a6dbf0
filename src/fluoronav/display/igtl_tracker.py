"""Tool poses of an OpenIGTLink server (PLUS, NDI's or Brainlab's gateways, 3D Slicer) as ``tool/*`` messages.

The pipeline never speaks OpenIGTLink itself: this process does, and a sender that stalls or floods it stalls nothing
else.
"""

from __future__ import annotations

import logging
import re
import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import pyigtl
import zmq
from numpy.typing import NDArray
from pyigtl.messages import MessageBase, message_type_to_class_constructor

from fluoronav.geometry import is_rigid
from fluoronav.wire import bind, encode
from fluoronav.wire.messages import PROTOCOL_VERSION

log = logging.getLogger("fluoronav")

Float = NDArray[np.float64]

_POLL_S = 0.002
# pyigtl's client does not notice that its server has gone: silence for so long, and a new one is made.
_SILENCE_S = 3.0
# A sender's clock that is farther from ours than this is not ours: the time of arrival is used.
_CLOCK_S = 2.0
# Names as PLUS gives them: `StylusToTracker` is the stylus.
_TO_TRACKER = re.compile(r"^(.+?)To(Tracker|Physical|World)$")


class TrackingDataMessage(MessageBase):
    """TDATA, which pyigtl does not know: several tools of one moment (openigtlink.org/protocols/v2_trackingdata).

    Attributes
    ----------
    tools : dict
        ``T_tracker_tool`` (4, 4) by name.
    """

    _TOOL = struct.Struct("> 20s B B 12f")

    def __init__(
        self, tools: Mapping[str, Float] | None = None, timestamp: float | None = None, device_name: str | None = None
    ) -> None:
        MessageBase.__init__(self, timestamp=timestamp, device_name=device_name)
        self._message_type = "TDATA"
        self._valid_message = True
        self.tools = dict(tools or {})

    def _pack_content(self) -> bytes:  # pyright: ignore[reportIncompatibleMethodOverride]
        return b"".join(
            self._TOOL.pack(name.encode(), 1, 0, *T[:3].T.ravel().tolist()) for name, T in self.tools.items()
        )

    def _unpack_content(self, content: bytes) -> None:
        self.tools = {}
        for name, _, _, *numbers in self._TOOL.iter_unpack(content[: len(content) // 70 * 70]):
            T = np.eye(4)
            T[:3] = np.array(numbers).reshape(4, 3).T
            self.tools[name.rstrip(b"\0").decode(errors="replace")] = T


class StartTrackingMessage(MessageBase):
    """STT_TDATA: asks a server to send tracking data, at an interval in ms."""

    def __init__(self, interval_ms: int = 16) -> None:
        MessageBase.__init__(self, device_name="fluoronav")
        self._message_type = "STT_TDATA"
        self._valid_message = True
        self._interval_ms = interval_ms

    def _pack_content(self) -> bytes:  # pyright: ignore[reportIncompatibleMethodOverride]
        return struct.pack("> I 32s", self._interval_ms, b"")


message_type_to_class_constructor["TDATA"] = TrackingDataMessage


class TrackerBridge:
    """Reads an OpenIGTLink server's TRANSFORM and TDATA and publishes them as ``tool/<source>``.

    Parameters
    ----------
    host, port
        Of the OpenIGTLink server.
    endpoint : str
        ZeroMQ endpoint to bind; the pipeline connects to it.
    source : str
        Name of the tracker.
    names : mapping
        Tool ids by device name; a device that is not named here keeps its own name, without ``ToTracker``.
    error_mm : float
        1 sigma of the tracker; OpenIGTLink does not say it.

    Attributes
    ----------
    counts : Counter
        ``sent``, and what was refused, by reason: ``not_rigid``, ``hidden``.
    """

    def __init__(
        self, host: str, port: int, endpoint: str, source: str, names: Mapping[str, str], error_mm: float
    ) -> None:
        self._host, self._port, self._source, self._error_mm = host, port, source, error_mm
        self._names = dict(names)
        self.counts: Counter[str] = Counter()
        self._seq = 0
        self._context = zmq.Context()
        self._out = self._context.socket(zmq.PUB)
        self._out.setsockopt(zmq.LINGER, 0)
        bind(self._out, endpoint, "tools")
        self._client = self._connect()

    def run(self, stopping: Callable[[], bool]) -> None:
        """Until told to stop; connects again when the server was away."""
        heard, said = time.monotonic(), time.monotonic()
        told = False
        while not stopping():
            now = time.monotonic()
            if self.take():
                heard, told = now, False
            elif now - heard > _SILENCE_S:
                if not told:
                    log.warning("nothing from %s:%d for %.0f s; connecting again", self._host, self._port, _SILENCE_S)
                heard, told = now, True
                self._client.stop()
                self._client = self._connect()
            if now - said > 1 and self.counts["not_rigid"]:
                said = now
                log.warning("%d poses so far that are no rigid, right-handed motion", self.counts["not_rigid"])
            time.sleep(_POLL_S)

    def take(self) -> int:
        """Publishes what has arrived; returns how many messages that was."""
        messages = self._client.get_latest_messages()
        for message in messages:
            if isinstance(message, TrackingDataMessage):
                self._publish(message, message.tools)
            elif isinstance(message, pyigtl.TransformMessage):
                self._publish(message, {message.device_name: np.asarray(message.matrix, np.float64)})
        return len(messages)

    def close(self) -> None:
        self._client.stop()
        self._out.close()
        self._context.term()

    def _connect(self) -> pyigtl.OpenIGTLinkClient:
        client = pyigtl.OpenIGTLinkClient(self._host, self._port)
        client.send_message(StartTrackingMessage(), wait=False)
        return client

    def _publish(self, message: MessageBase, poses: Mapping[str, Float]) -> None:
        # PLUS says in the metadata whether it sees the tool; a hidden one has the identity for a pose.
        status = {k.lower(): str(v).upper() for k, v in message.metadata.items()}.get("transformstatus", "OK")
        tools = []
        for device, T in poses.items():
            rigid, visible = is_rigid(T), status == "OK"
            self.counts["not_rigid"] += not rigid
            self.counts["hidden"] += not visible
            good = rigid and visible
            pose = np.asarray(T, dtype=np.float64).ravel().tolist() if good else None
            tools.append(
                {"id": self._name(device), "visible": good, "T_tracker_tool": pose, "error_mm": self._error_mm}
            )
        now = time.time()
        t = message.timestamp if abs(message.timestamp - now) < _CLOCK_S else now
        header = {"v": PROTOCOL_VERSION, "source": self._source, "seq": self._seq, "t_acq": int(t * 1e9)}
        self._out.send_multipart([f"tool/{self._source}".encode(), encode(header | {"tools": tools})])
        self._seq += 1
        self.counts["sent"] += 1

    def _name(self, device: str) -> str:
        if device in self._names:
            return self._names[device]
        found = _TO_TRACKER.match(device)
        return (found.group(1) if found else device or "unnamed")[:64]
