"""What the pipeline sends, for any number of viewers, each of which gets the newest it can take."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any

import cv2
import msgpack
import numpy as np
import zmq
import zmq.asyncio

from fluoronav.display.open_alerts import OpenAlerts
from fluoronav.display.packing import with_head
from fluoronav.wire.messages import MAX_SIDE, PROTOCOL_VERSION

_KEPT_OVERLAYS = 6  # a viewer that is slower than this many frames misses overlays, never alerts
_MOST_ALERTS = 256
_MOST_REPLIES = 64
# A page says when it has taken a picture, and gets the next then; one that says nothing any more, after so long.
_UNTAKEN_S = 1.0
# Of a frame's side: what is shown larger than that is sent whole, since a hardly smaller picture is only less sharp.
_MOST_SHARE = 0.85
Message = bytes


def packed(topic: str, header: dict[str, Any], payload: bytes = b"") -> Message:
    """One binary WebSocket message: the head says its topic."""
    return with_head({**header, "topic": topic}, payload)


class Picture:
    """A frame for viewers, at the size that each of them shows it.

    Parameters
    ----------
    head : dict
        With ``rows``, ``cols`` and ``dtype`` (``u1`` or ``u2``).
    pixels : bytes
    """

    def __init__(self, head: dict[str, Any], pixels: bytes) -> None:
        self._head, self._pixels = head, pixels
        self._made: dict[tuple[int, int], Message] = {}

    def message(self, side: int | None) -> Message:
        """With ``height`` and ``width``, those of the pixels, beside the frame's own size.

        A browser takes ten milliseconds and more for a full frame, and a fraction of that for what it can show of it.

        Parameters
        ----------
        side : int, optional
            What the longer side takes on the viewer's screen, in its pixels; without it the frame is sent as it is.
        """
        rows, cols = self._head["rows"], self._head["cols"]
        share = side / max(rows, cols) if side else 1.0
        shape = (rows, cols) if share > _MOST_SHARE else (max(round(rows * share), 1), max(round(cols * share), 1))
        if shape not in self._made:
            pixels = self._pixels
            if shape != (rows, cols):
                # Bilinear, as the page draws it: what it then shows is the same to a count.
                whole = np.frombuffer(pixels, "<u2" if self._head["dtype"] == "u2" else "u1").reshape(rows, cols)
                pixels = cv2.resize(whole, shape[::-1], interpolation=cv2.INTER_LINEAR).tobytes()
            self._made[shape] = packed("picture", self._head | {"height": shape[0], "width": shape[1]}, pixels)
        return self._made[shape]


@dataclass(eq=False)
class Viewer:
    """What waits for one browser: never more than the newest picture, some overlays, and one word on each alert."""

    role: str = "watch"
    screen: str = ""  # which page it is, as that says itself; empty where it does not
    picture: Picture | None = None
    side: int | None = None  # pixels that the longer side of a picture takes on its screen, once it has said so
    overlays: deque[Message] = field(default_factory=lambda: deque(maxlen=_KEPT_OVERLAYS))
    said: deque[Message] = field(default_factory=lambda: deque(maxlen=_MOST_REPLIES))
    standing: dict[str, Message] = field(default_factory=dict)  # by kind: the newest of what stands until the next
    alerts: OrderedDict[str, Message] = field(default_factory=OrderedDict)  # by id: the newest word on each
    skipped: int = 0
    paced: bool = False  # it has said that it has taken something: it will again
    sent_at: float = -1e9  # of a picture that it has not taken yet
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def offer_picture(self, picture: Picture) -> None:
        self.skipped += self.picture is not None
        self.picture = picture
        self.wake.set()

    def taken(self) -> None:
        """The page has taken the picture that it was sent.

        Without that, what it has no time for would lie in its buffers and become old there.
        """
        self.paced, self.sent_at = True, -1e9
        self.wake.set()

    def offer_overlay(self, message: Message) -> None:
        self.overlays.append(message)
        self.wake.set()

    def say(self, message: Message) -> None:
        self.said.append(message)
        self.wake.set()

    def tell(self, kind: str, message: Message) -> None:
        """Says what stands from now on, in place of what stood."""
        self.standing.pop(kind, None)
        self.standing[kind] = message
        self.wake.set()

    def alert(self, alert_id: str, message: Message) -> None:
        """Says something of one alert, in place of what waits to be said of it."""
        self.alerts.pop(alert_id, None)
        self.alerts[alert_id] = message
        self.wake.set()

    def all_alerts(self, message: Message) -> None:
        """Says which alerts are open, in place of whatever waits to be said of single ones."""
        self.alerts.clear()
        self.tell("alarms", message)

    async def next(self, timeout_s: float) -> list[Message]:
        """What has come, pictures last; empty after a silence."""
        try:
            await asyncio.wait_for(self.wake.wait(), timeout_s)
        except TimeoutError:
            return []
        self.wake.clear()
        out = [*self.said, *self.standing.values(), *self.alerts.values(), *self.overlays]
        for sent in (self.said, self.standing, self.alerts, self.overlays):
            sent.clear()
        now = time.monotonic()
        if self.picture is not None and (not self.paced or now - self.sent_at > _UNTAKEN_S):
            out.append(self.picture.message(self.side))
            self.picture, self.sent_at = None, now
        return out


class Hub:
    """Subscribes to a pipeline and hands on what it says.

    Parameters
    ----------
    out, frames : str
        Endpoints of the pipeline's publisher and of the grabber. The picture is the enhanced one (``view/*``) while it
        comes, and otherwise the frame itself.
    """

    def __init__(self, out: str, frames: str) -> None:
        self._endpoints = out, frames
        self.viewers: set[Viewer] = set()
        self.alerts = OpenAlerts(_MOST_ALERTS)
        self.health: dict[str, Any] = {}
        self.last_heard = self.last_health = 0.0
        self.invalid = 0
        self._last_view = 0.0

    async def run(self) -> None:
        """Until it is cancelled. A pipeline that dies and comes back is heard again by itself."""
        context = zmq.asyncio.Context.instance()
        said, frames = context.socket(zmq.SUB), context.socket(zmq.SUB)
        try:
            for socket, endpoint, topics, held in (
                (said, self._endpoints[0], ("overlay/", "alert/", "health/", "view/"), 64),
                (frames, self._endpoints[1], ("frame/",), 2),
            ):
                socket.setsockopt(zmq.RCVHWM, held)
                socket.setsockopt(zmq.LINGER, 0)
                socket.setsockopt(zmq.MAXMSGSIZE, 2**28)
                for topic in topics:
                    socket.setsockopt(zmq.SUBSCRIBE, topic.encode())
                socket.connect(endpoint)
            await asyncio.gather(self._listen(said), self._listen(frames))
        finally:
            said.close()
            frames.close()

    async def _listen(self, socket: zmq.asyncio.Socket) -> None:
        while True:
            parts = await socket.recv_multipart()
            try:
                self.take(parts)
            except (ValueError, LookupError, TypeError, OverflowError, msgpack.UnpackException):
                self.invalid += 1

    def take(self, parts: list[bytes]) -> None:
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
            if now - self._last_view > 0.5:
                self._picture(header, parts[2], inverse=header.get("polarity") == "inverse", view=False)
            return
        self.last_heard = now
        if kind == "view":
            self._picture(header, parts[2], inverse=False, view=True)
            self._last_view = now
        elif kind == "overlay":
            int(header["seq"])
            if not self.viewers:
                return
            message = packed("overlay", header)
            for viewer in self.viewers:
                viewer.offer_overlay(message)
        elif kind in ("alert", "health") and not self.alerts.is_ended(header):
            self._stands(kind, header, now)

    def _stands(self, kind: str, header: dict[str, Any], now: float) -> None:
        """Takes what stands until the pipeline says something else of it."""
        anew = self.alerts.take(header) if kind == "alert" else self.alerts.reconcile(header)
        if kind == "health":
            self.health, self.last_health = header, now
            # The page has them from the list: twice would be twice the bytes.
            self.say("health", {k: v for k, v in header.items() if k != "alerts"})
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
                if len(viewer.alerts) > _MOST_ALERTS:
                    viewer.all_alerts(self._all_alerts())

    def _all_alerts(self) -> Message:
        return packed("alarms", {"instance": self.alerts.instance, "open": self.alerts.all()})

    def say(self, kind: str, header: dict[str, Any]) -> None:
        """Tells every viewer what stands from now on."""
        message = packed(kind, header)
        for viewer in self.viewers:
            viewer.tell(kind, message)

    def greet(self, viewer: Viewer) -> None:
        """A viewer that has just come hears what stands."""
        if self.health:
            viewer.tell("health", packed("health", {k: v for k, v in self.health.items() if k != "alerts"}))
        viewer.all_alerts(self._all_alerts())

    def _picture(self, header: dict[str, Any], pixels: bytes, *, inverse: bool, view: bool) -> None:
        rows, cols, dtype = int(header["rows"]), int(header["cols"]), header.get("dtype", "u1")
        bits = int(header.get("bits", 8))
        if dtype not in ("u1", "u2") or not (1 <= rows <= MAX_SIDE and 1 <= cols <= MAX_SIDE and 1 <= bits <= 16):
            raise ValueError(f"no picture has {rows} x {cols} pixels of type {dtype!r} and {bits} bits")
        if len(pixels) != rows * cols * (2 if dtype == "u2" else 1):
            raise ValueError("pixels and size disagree")
        shown = {
            "seq": int(header["seq"]), "t_acq": int(header["t_acq"]), "rows": rows, "cols": cols, "dtype": dtype,
            "bits": bits, "inverse": inverse, "view": view,
        }  # fmt: skip
        if not self.viewers:
            return
        picture = Picture(shown, pixels)
        for viewer in self.viewers:
            viewer.offer_picture(picture)
