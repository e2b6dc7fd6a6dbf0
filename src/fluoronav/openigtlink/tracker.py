"""Tool poses of an OpenIGTLink server (PLUS, NDI's or Brainlab's gateways, 3D Slicer) as ``tool/*`` messages.

The pipeline never speaks OpenIGTLink itself: this process does, and a sender that stalls or floods it stalls nothing
else. What is not believed is published as not visible, counted by reason and said.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from fluoronav.openigtlink.clock import SenderClock
from fluoronav.openigtlink.content import STATUS_OK, pack_start_tracking, pack_status, unpack_status
from fluoronav.openigtlink.devices import Devices
from fluoronav.openigtlink.gateway import Gateway
from fluoronav.openigtlink.protocol import Message, ProtocolError, pack_message
from fluoronav.openigtlink.sightings import Sighting, sightings
from fluoronav.openigtlink.tally import Tally
from fluoronav.wire import bind, encode
from fluoronav.wire.messages import PROTOCOL_VERSION

log = logging.getLogger("fluoronav")

Float = NDArray[np.float64]

# A stop is heeded within this; a flood is read in gulps at this distance, of which the newest pose of a device counts.
_LOOK_S, _GULP_S = 0.05, 0.002
_TRACKING_INTERVAL_MS = 16
# Types that are read, and the most bytes of a body: hundreds of tools with their metadata.
_WANTED = {
    "TRANSFORM": 1 << 16, "TDATA": 1 << 18, "STATUS": 1 << 16, "RTS_STATUS": 1 << 16, "RTS_TDATA": 1 << 16
}  # fmt: skip
_MOST_DEVICES = 256
# A change of the clocks' difference that is worth a word.
_WORTH_SAYING_NS = 20_000_000
_WORDS = {
    "unreachable": "times no connection",
    "closed": "connections ended",
    "silent": "connections given up in silence",
    "stalled": "connections given up inside a message",
    "header": "connections given up over bytes that are no message",
    "too_long": "connections given up over a message that is too long",
    "checksum": "messages with a wrong checksum",
    "metadata": "messages whose metadata do not fit",
    "content": "messages whose content does not fit",
    "hidden": "poses of tools that the tracker does not see",
    "not_rigid": "poses that are no rigid, right-handed motion",
    "too_far": "poses more than 10 m away (is the gateway's unit mm?)",
    "same_name": "poses of devices that share a name or a tool",
    "untimed": "messages without a usable time; that of arrival is taken",
    "repeated": "messages that came before",
    "clock": "times the difference of the clocks was learned",
    "status": "times the server said that it is not well",
}


class _Heard:
    """What a device said last, and its clock."""

    def __init__(self) -> None:
        self.clock = SenderClock()
        self.said: tuple[int, str, bytes] | None = None
        self.moved = True
        self.said_offset_ns = 0


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
        ``sent``, and what was refused, by reason.
    """

    def __init__(
        self, host: str, port: int, endpoint: str, source: str, names: Mapping[str, str], error_mm: float
    ) -> None:
        self._address, self._source, self._error_mm = f"{host}:{port}", source, error_mm
        self._devices = Devices(names)
        self._heard: dict[str, _Heard] = {}
        self._connections = 0
        self._passed_over: set[str] = set()
        self._seq = 0
        self._context = zmq.Context()
        self._out = self._context.socket(zmq.PUB)
        self._out.setsockopt(zmq.LINGER, 0)
        bind(self._out, endpoint, "tools")
        # The server learns from the first that its metadata are understood: PLUS says only then what it sees.
        greeting = (
            pack_message("STATUS", "fluoronav", pack_status(STATUS_OK, "", "OK"), metadata={}),
            pack_message("STT_TDATA", "fluoronav", pack_start_tracking(_TRACKING_INTERVAL_MS)),
        )
        self._gateway = Gateway(host, port, _WANTED, greeting)
        self.counts: Counter[str] = self._gateway.counts
        self._tally = Tally(self.counts, _WORDS)

    def run(self, stopping: Callable[[], bool]) -> None:
        """Until told to stop; connects again whenever the server was away."""
        while not stopping():
            if self.take(_LOOK_S):
                time.sleep(_GULP_S)
            self._tally.say()

    def take(self, seconds: float) -> int:
        """Publishes what has arrived, waiting for it so long; returns how many messages that was."""
        messages = self._gateway.take(seconds)
        if self.counts["connected"] != self._connections:
            self._connections = self.counts["connected"]
            self._heard.clear()
            log.info("OpenIGTLink: connected to %s", self._address)
        for reason in ("unreachable", "closed", "silent", "stalled", "header", "too_long"):
            self._tally.note(reason, f"{self._address}: {self._gateway.why}")
        for kind in self._gateway.passed_over - self._passed_over:
            self._passed_over.add(kind)
            log.info(
                "OpenIGTLink: %s sends %s, which is not read: poses come as TRANSFORM or TDATA", self._address, kind
            )
        ready: dict[tuple[str, ...], dict[str, Any]] = {}
        for message in messages:
            try:
                if message.header.kind in ("TRANSFORM", "TDATA"):
                    self._poses(message, ready)
                else:
                    self._status(message)
            except ProtocolError as error:
                self.counts[error.reason] += 1
                self._tally.note(error.reason, str(error))
        for header in ready.values():
            header["seq"] = self._seq
            self._out.send_multipart([f"tool/{self._source}".encode(), encode(header)])
            self._seq += 1
            self.counts["sent"] += 1
        return len(messages)

    def close(self) -> None:
        self._gateway.close()
        self._out.close()
        self._context.term()

    def _poses(self, message: Message, ready: dict[tuple[str, ...], dict[str, Any]]) -> None:
        now_ns, now_s, t_ns = time.time_ns(), time.monotonic(), message.header.t_ns
        seen = sightings(message)
        names = Counter(s.device for s in seen)
        fresh = [s for s in seen if names[s.device] > 1 or self._is_new(s, t_ns)]
        if not fresh:
            return
        t = self._time(fresh[0].device, t_ns, now_ns)
        tools: dict[str, dict[str, Any]] = {}
        for sighting in fresh:
            tool = self._devices.tool(sighting.device, sighting.cut, now_s)
            refused = self._refused(sighting, names[sighting.device] > 1, t)
            if refused:
                self.counts[refused] += 1
            if refused == "same_name" and self._devices.of_another(sighting.device, now_s):
                continue
            pose = None if refused or sighting.T_tracker_tool is None else sighting.T_tracker_tool.ravel().tolist()
            if tool not in tools or pose is None:
                tools[tool] = {
                    "id": tool, "visible": pose is not None, "T_tracker_tool": pose, "error_mm": self._error_mm
                }  # fmt: skip
        key = (message.header.kind, *(s.device for s in fresh))
        if key in ready:
            self.counts["superseded"] += 1
        if tools:
            ready[key] = {"v": PROTOCOL_VERSION, "source": self._source, "t_acq": t, "tools": list(tools.values())}

    def _is_new(self, sighting: Sighting, t_ns: int) -> bool:
        """False where a device's pose and time have come before: a gateway that sends its last words again."""
        heard = self._heard.get(sighting.device)
        if heard is None:
            if len(self._heard) >= _MOST_DEVICES:
                self._heard.clear()
            heard = self._heard[sighting.device] = _Heard()
        T = sighting.T_tracker_tool
        said = (t_ns, sighting.refused, b"" if T is None else T.tobytes())
        heard.moved, before, heard.said = heard.said != said, heard.said, said
        if before == said and t_ns and heard.clock.advances:
            self.counts["repeated"] += 1
            return False
        return True

    def _time(self, device: str, t_ns: int, now_ns: int) -> int:
        """When poses were measured, in our time."""
        heard = self._heard.get(device)
        t = heard.clock.ours(t_ns, now_ns, heard.moved) if heard is not None else None
        if heard is None or t is None:
            self.counts["untimed"] += 1
            return now_ns
        offset = heard.clock.offset_ns
        if abs(offset - heard.said_offset_ns) > _WORTH_SAYING_NS:
            heard.said_offset_ns = offset
            self.counts["clock"] += 1
            side = "behind" if offset > 0 else "ahead of"
            self._tally.note(
                "clock",
                f"{device}: {abs(offset) / 1e9:.3f} s {side} this computer's, or its poses take so long; its times are "
                "moved by as much",
            )
        return t

    def _refused(self, sighting: Sighting, twice: bool, t_ns: int) -> str:
        """Why a pose is not published; empty where it is."""
        now_s = time.monotonic()
        others = self._devices.shared(sighting.device, now_s)
        if others or twice:
            self._tally.note("same_name", f"{sighting.device} and {', '.join(others) or 'another of that name'}")
            return "same_name"
        T = sighting.T_tracker_tool
        if T is None:
            if sighting.refused == "hidden":
                self._tally.note("hidden", f"{sighting.device} {sighting.status}")
            else:
                self._tally.note(sighting.refused, sighting.device)
            return sighting.refused
        if self._devices.hops(sighting.device, sighting.cut, T, t_ns / 1e9, now_s):
            self._tally.note(
                "same_name",
                f"{sighting.device}{' may have been cut after 20 letters, and' if sighting.cut else ''} "
                "hops between places: does the gateway send two tools under one name?",
            )
            return "same_name"
        return ""

    def _status(self, message: Message) -> None:
        if message.header.kind == "RTS_TDATA":
            code, text = (STATUS_OK, "") if message.content[:1] in (b"", b"\0") else (0, "it refuses to send TDATA")
        else:
            code, text = unpack_status(message.content)
        if code != STATUS_OK:
            self.counts["status"] += 1
            self._tally.note("status", f"{self._address}: code {code} {text}"[:200])
