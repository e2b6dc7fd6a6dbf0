"""Tool poses of an OpenIGTLink server (PLUS, NDI's or Brainlab's gateways, 3D Slicer) as ``tool/*`` messages.

Only this process speaks OpenIGTLink: a sender that stalls or floods it does not touch the pipeline. A pose that is
refused is published as not visible, counted by reason and logged.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
from fluoronav.wire import ToolPose, ToolsMessage, bind, encode
from fluoronav.wire.values import MOST_TOOLS, PROTOCOL_VERSION

log = logging.getLogger("fluoronav")

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BridgeLimits:
    """Times and sizes of the bridge; all are chosen."""

    wait_s: float = 0.05  # for messages; a stop takes effect within this
    pause_s: float = 0.002  # between two reads: of a flood only the newest pose of a device is published
    tracking_interval_ms: int = 16  # asked of the server
    max_devices: int = 256
    report_offset_ns: int = 20_000_000  # a change of a clock's offset that is logged


LIMITS = BridgeLimits()
# Types that are read, and the maximum bytes of a body: hundreds of tools with their metadata.
_WANTED = {
    "TRANSFORM": 1 << 16, "TDATA": 1 << 18, "STATUS": 1 << 16, "RTS_STATUS": 1 << 16, "RTS_TDATA": 1 << 16
}  # fmt: skip
_REASONS = {
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


class _DeviceState:
    """A device's clock and its newest pose."""

    def __init__(self) -> None:
        self.clock = SenderClock()
        self.newest: tuple[int, str, bytes] | None = None  # time, reason of a refusal, pose
        self.moved = True
        self.reported_offset_ns = 0


class TrackerBridge:
    """Reads an OpenIGTLink server's TRANSFORM and TDATA and publishes them as ``tool/<source>``.

    Parameters
    ----------
    host, port
        The OpenIGTLink server.
    endpoint : str
        ZeroMQ endpoint to bind; the pipeline connects to it.
    source : str
        Name of the tracker.
    names : mapping
        Tool ids by device name; any other device keeps its own name, without ``ToTracker``.
    error_mm : float
        1 sigma of the tracker, which OpenIGTLink does not transmit.

    Attributes
    ----------
    counts : Counter
        ``sent``, and refusals by reason.
    """

    def __init__(
        self, host: str, port: int, endpoint: str, source: str, names: Mapping[str, str], error_mm: float
    ) -> None:
        self._address, self._source, self._error_mm = f"{host}:{port}", source, error_mm
        self._devices = Devices(names)
        self._states: dict[str, _DeviceState] = {}
        self._connections = 0
        self._passed_over: set[str] = set()
        self._seq = 0
        self._context = zmq.Context()
        self._out = self._context.socket(zmq.PUB)
        self._out.setsockopt(zmq.LINGER, 0)
        bind(self._out, endpoint, "tools")
        # The first message has metadata: PLUS sends the tools' visibility only to clients that understand it.
        greeting = (
            pack_message("STATUS", "fluoronav", pack_status(STATUS_OK, "", "OK"), metadata={}),
            pack_message("STT_TDATA", "fluoronav", pack_start_tracking(LIMITS.tracking_interval_ms)),
        )
        self._gateway = Gateway(host, port, _WANTED, greeting)
        self.counts: Counter[str] = self._gateway.counts
        self._tally = Tally(self.counts, _REASONS)

    def run(self, stopping: Callable[[], bool]) -> None:
        """Until told to stop; connects again whenever the connection is lost."""
        while not stopping():
            if self.take(LIMITS.wait_s):
                time.sleep(LIMITS.pause_s)
            self._tally.say()

    def take(self, seconds: float) -> int:
        """Publishes what arrives within this time; returns the number of messages."""
        messages = self._gateway.take(seconds)
        if self.counts["connected"] != self._connections:
            self._connections = self.counts["connected"]
            self._states.clear()
            log.info("OpenIGTLink: connected to %s", self._address)
        for reason in ("unreachable", "closed", "silent", "stalled", "header", "too_long"):
            self._tally.note(reason, f"{self._address}: {self._gateway.why}")
        for kind in self._gateway.passed_over - self._passed_over:
            self._passed_over.add(kind)
            log.info(
                "OpenIGTLink: %s sends %s, which is not read: poses come as TRANSFORM or TDATA", self._address, kind
            )
        ready: dict[tuple[str, ...], tuple[int, list[ToolPose]]] = {}
        for message in messages:
            try:
                if message.header.kind in ("TRANSFORM", "TDATA"):
                    self._poses(message, ready)
                else:
                    self._status(message)
            except ProtocolError as error:
                self.counts[error.reason] += 1
                self._tally.note(error.reason, str(error))
        for t_acq, tools in ready.values():
            for first in range(0, len(tools), MOST_TOOLS):
                self._send(t_acq, tools[first : first + MOST_TOOLS])
        return len(messages)

    def _send(self, t_acq: int, tools: list[ToolPose]) -> None:
        message = ToolsMessage(v=PROTOCOL_VERSION, source=self._source, seq=self._seq, t_acq=t_acq, tools=tools)
        self._out.send_multipart([f"tool/{self._source}".encode(), encode(message)])
        self._seq += 1
        self.counts["sent"] += 1

    def close(self) -> None:
        self._gateway.close()
        self._out.close()
        self._context.term()

    def _poses(self, message: Message, ready: dict[tuple[str, ...], tuple[int, list[ToolPose]]]) -> None:
        now_ns, now_s, t_ns = time.time_ns(), time.monotonic(), message.header.t_ns
        received = sightings(message)
        names = Counter(s.device for s in received)
        fresh = [s for s in received if names[s.device] > 1 or self._is_new(s, t_ns)]
        if not fresh:
            return
        t = self._time(fresh[0].device, t_ns, now_ns)
        tools: dict[str, ToolPose] = {}
        for sighting in fresh:
            tool = self._devices.tool(sighting.device, sighting.cut, now_s)
            refused = self._refused(sighting, names[sighting.device] > 1, t)
            if refused:
                self.counts[refused] += 1
            if refused == "same_name" and self._devices.of_another(sighting.device, now_s):
                continue
            pose = None if refused or sighting.T_tracker_tool is None else sighting.T_tracker_tool.ravel().tolist()
            if tool not in tools or pose is None:
                visible = pose is not None
                tools[tool] = ToolPose(id=tool, visible=visible, T_tracker_tool=pose, error_mm=self._error_mm)
        key = (message.header.kind, *(s.device for s in fresh))
        if key in ready:
            self.counts["superseded"] += 1
        if tools:
            ready[key] = t, list(tools.values())

    def _is_new(self, sighting: Sighting, t_ns: int) -> bool:
        """False where a device's pose and time have come before: some gateways repeat the last message."""
        state = self._states.get(sighting.device)
        if state is None:
            if len(self._states) >= LIMITS.max_devices:
                self._states.clear()
            state = self._states[sighting.device] = _DeviceState()
        T = sighting.T_tracker_tool
        newest = (t_ns, sighting.refused, b"" if T is None else T.tobytes())
        before, state.newest = state.newest, newest
        state.moved = before != newest
        if before == newest and t_ns and state.clock.advances:
            self.counts["repeated"] += 1
            return False
        return True

    def _time(self, device: str, t_ns: int, now_ns: int) -> int:
        """When poses were measured, by this computer's clock."""
        state = self._states.get(device)
        t = state.clock.ours(t_ns, now_ns, state.moved) if state is not None else None
        if state is None or t is None:
            self.counts["untimed"] += 1
            return now_ns
        offset = state.clock.offset_ns
        if abs(offset - state.reported_offset_ns) > LIMITS.report_offset_ns:
            state.reported_offset_ns = offset
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
