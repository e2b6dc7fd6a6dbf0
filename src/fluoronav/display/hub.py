"""Subscribes to the pipeline and hands its messages to any number of viewers."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import msgpack
import zmq
import zmq.asyncio

from fluoronav.display.open_alerts import OpenAlerts
from fluoronav.display.pace import PipelineLoad, ServerLoad
from fluoronav.display.place import is_of_this_computer
from fluoronav.display.viewer import LIMITS as VIEWER_LIMITS
from fluoronav.display.viewer import DisplayPicture, Message, Viewer, packed
from fluoronav.wire import subscriber
from fluoronav.wire.values import MAX_SIDE, PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class HubLimits:
    """What waits at the hub's sockets; all are chosen."""

    max_results: int = 64
    max_frames: int = 2
    max_message_bytes: int = 2**28
    no_view_s: float = 0.5  # without an enhanced picture for so long frames are shown


LIMITS = HubLimits()


class Hub:
    """Subscribes to a pipeline and hands on its messages.

    Parameters
    ----------
    out, frames : str
        Endpoints of the pipeline's publisher and of the grabber. The picture is the enhanced one (``view/*``) while it
        comes, and otherwise the frame itself.
    """

    def __init__(self, out: str, frames: str) -> None:
        self._endpoints = out, frames
        self.viewers: set[Viewer] = set()
        self.alerts = OpenAlerts(VIEWER_LIMITS.max_alerts)
        self.health: dict[str, Any] = {}
        self.last_heard = self.last_health = 0.0
        self.invalid = 0
        self._last_view = 0.0
        # A pipeline on another computer is not slowed down by a browser on this one.
        self._beside = is_of_this_computer(out)
        self._pipeline, self._server = PipelineLoad(), ServerLoad(time.monotonic(), time.process_time())
        self._frames: zmq.asyncio.Socket | None = None
        self._hears_frames = False

    async def run(self) -> None:
        """Until it is cancelled. A pipeline that is started again is heard without further action."""
        context = zmq.asyncio.Context.instance()
        out, grabber = self._endpoints
        topics, max_bytes = ("overlay/", "alert/", "health/", "view/"), LIMITS.max_message_bytes
        results = subscriber(context, out, topics, high_water=LIMITS.max_results, max_bytes=max_bytes)
        self._frames = frames = subscriber(context, grabber, [], high_water=LIMITS.max_frames, max_bytes=max_bytes)
        self._hears_frames = False
        try:
            await asyncio.gather(self._listen(results), self._listen(frames))
        finally:
            self._frames = None
            results.close()
            frames.close()

    def watch(self, now: float) -> None:
        """Called several times a second: hears frames only where they are shown, and keeps to the server's share.

        A frame has megabytes, which a grabber sends to those alone who have subscribed.

        Parameters
        ----------
        now : float
            Monotonic, s.
        """
        if self._server.take(now, time.process_time()):
            self.pace()
        wanted = now - self._last_view > LIMITS.no_view_s and any(not viewer.hidden for viewer in self.viewers)
        if self._frames is not None and wanted != self._hears_frames:
            self._frames.setsockopt(zmq.SUBSCRIBE if wanted else zmq.UNSUBSCRIBE, b"frame/")
            self._hears_frames = wanted

    def pace(self) -> None:
        """Thins the pictures of every viewer by what is busy."""
        for viewer in self.viewers:
            pipeline = self._pipeline.ladder.level if viewer.local and self._beside else 0
            viewer.pace({"pipeline": pipeline, "server": self._server.ladder.level})

    async def _listen(self, socket: zmq.asyncio.Socket) -> None:
        while True:
            # Without a copy: what is not shown is not touched.
            frames = await socket.recv_multipart(copy=False)
            try:
                self.take([*(frame.bytes for frame in frames[:2]), *(frame.buffer for frame in frames[2:])])
            except (ValueError, LookupError, TypeError, OverflowError, msgpack.UnpackException):
                self.invalid += 1

    def take(self, parts: list[Any]) -> None:
        """One message of the wire protocol.

        Raises
        ------
        ValueError, KeyError, TypeError
            It is not one.
        """
        kind = parts[0].decode().split("/", 1)[0]
        header = msgpack.unpackb(parts[1], raw=False)
        if not isinstance(header, dict) or header.get("v") != PROTOCOL_VERSION:
            raise ValueError("another version of the protocol")
        now = time.monotonic()
        if kind == "frame":
            if now - self._last_view > LIMITS.no_view_s:
                self._picture(header, parts[2], inverse=header.get("polarity") == "inverse", view=False)
            return
        self.last_heard = now
        if kind == "view":
            self._picture(header, parts[2], inverse=False, view=True)
            self._last_view = now
        elif kind == "overlay":
            int(header["seq"])
            if self._pipeline.take(now, header):
                self.pace()
            if not self.viewers:
                return
            message = packed("overlay", header)
            for viewer in self.viewers:
                viewer.offer_overlay(message)
        elif kind in ("alert", "health") and not self.alerts.is_ended(header):
            self._take_state(kind, header, now)

    def _take_state(self, kind: str, header: dict[str, Any], now: float) -> None:
        """Takes an alert or health, which hold until the pipeline sends another."""
        anew = self.alerts.take(header) if kind == "alert" else self.alerts.reconcile(header)
        if kind == "health":
            self.health, self.last_health = header, now
            self.say("health", _without_alerts(header))
        if anew:
            self.say("anew", {"instance": self.alerts.instance})
        if kind == "health" or anew:
            message = self._all_alerts()
            for viewer in self.viewers:
                viewer.all_alerts(message)
        if kind == "alert":
            message = packed(kind, header)
            for viewer in self.viewers:
                viewer.alert(header["id"], message)
                if len(viewer.alerts) > VIEWER_LIMITS.max_alerts:
                    viewer.all_alerts(self._all_alerts())

    def _all_alerts(self) -> Message:
        return packed("alarms", {"instance": self.alerts.instance, "open": self.alerts.all()})

    def say(self, kind: str, header: dict[str, Any]) -> None:
        """Sends every viewer a state, which holds until the next of its kind."""
        message = packed(kind, header)
        for viewer in self.viewers:
            viewer.tell(kind, message)

    def add(self, viewer: Viewer) -> None:
        """Takes a new viewer, and sends it the states that hold now."""
        self.viewers.add(viewer)
        if self.health:
            viewer.tell("health", packed("health", _without_alerts(self.health)))
        viewer.all_alerts(self._all_alerts())
        self.pace()
        self.watch(time.monotonic())

    def _picture(self, header: dict[str, Any], pixels: memoryview, *, inverse: bool, view: bool) -> None:
        rows, cols, dtype = int(header["rows"]), int(header["cols"]), header.get("dtype", "u1")
        bits = int(header.get("bits", 8))
        if dtype not in ("u1", "u2") or not (1 <= rows <= MAX_SIDE and 1 <= cols <= MAX_SIDE and 1 <= bits <= 16):
            raise ValueError(f"no picture has {rows} x {cols} pixels of type {dtype!r} and {bits} bits")
        if len(pixels) != rows * cols * (2 if dtype == "u2" else 1):
            raise ValueError("pixels and size disagree")
        head = {
            "seq": int(header["seq"]), "t_acq": int(header["t_acq"]), "rows": rows, "cols": cols, "dtype": dtype,
            "bits": bits, "inverse": inverse, "view": view,
        }  # fmt: skip
        looking = [viewer for viewer in self.viewers if not viewer.hidden]
        if not looking:
            return
        picture = DisplayPicture(head, pixels)
        for viewer in looking:
            viewer.offer_picture(picture)


def _without_alerts(health: dict[str, Any]) -> dict[str, Any]:
    """Health for the page, which gets the alerts as a list of their own."""
    return {k: v for k, v in health.items() if k != "alerts"}
