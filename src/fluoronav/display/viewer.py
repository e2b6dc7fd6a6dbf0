"""What one browser gets: the newest picture that it can take, some overlays, and every alert."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from fluoronav.display.packing import with_head

Message = bytes


@dataclass(frozen=True, slots=True)
class ViewerLimits:
    """What waits for one viewer; all are chosen."""

    max_overlays: int = 6  # a viewer that is slower by more frames misses overlays, never alerts
    max_alerts: int = 256
    max_replies: int = 64
    untaken_s: float = 1.0  # a page that does not confirm a picture gets the next after so long
    max_scale: float = 0.85  # of a frame's side; a hardly smaller picture saves little and is less sharp


LIMITS = ViewerLimits()


def packed(topic: str, header: dict[str, Any], payload: bytes = b"") -> Message:
    """One binary WebSocket message, with its topic in the head."""
    return with_head({**header, "topic": topic}, payload)


class DisplayPicture:
    """A frame for viewers, scaled to the size at which each of them shows it.

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
        """The picture with ``height`` and ``width`` of its pixels, beside ``rows`` and ``cols`` of the frame.

        A browser needs ten milliseconds and more for a full frame, and a fraction of that for what it can show of it.

        Parameters
        ----------
        side : int, optional
            Length of the longer side on the viewer's screen, in its pixels; None sends the whole frame.
        """
        rows, cols = self._head["rows"], self._head["cols"]
        scale = side / max(rows, cols) if side else 1.0
        whole = scale > LIMITS.max_scale
        shape = (rows, cols) if whole else (max(round(rows * scale), 1), max(round(cols * scale), 1))
        if shape not in self._made:
            pixels = self._pixels
            if shape != (rows, cols):
                # Bilinear, as the page draws it: what it then shows is the same to a count.
                frame = np.frombuffer(pixels, "<u2" if self._head["dtype"] == "u2" else "u1").reshape(rows, cols)
                pixels = cv2.resize(frame, shape[::-1], interpolation=cv2.INTER_LINEAR).tobytes()
            self._made[shape] = packed("picture", self._head | {"height": shape[0], "width": shape[1]}, pixels)
        return self._made[shape]


@dataclass(eq=False)
class Viewer:
    """What waits for one browser: the newest picture, some overlays, and the newest message of each alert."""

    role: str = "watch"
    screen: str = ""  # the page's own id of its screen; empty where it sends none
    picture: DisplayPicture | None = None
    side: int | None = None  # of a picture on its screen, px; None until it has told
    overlays: deque[Message] = field(default_factory=lambda: deque(maxlen=LIMITS.max_overlays))
    replies: deque[Message] = field(default_factory=lambda: deque(maxlen=LIMITS.max_replies))
    states: dict[str, Message] = field(default_factory=dict)  # by kind: the newest of what holds until the next
    alerts: OrderedDict[str, Message] = field(default_factory=OrderedDict)  # by id: the newest message of each
    skipped: int = 0
    paced: bool = False  # it confirms pictures
    sent_at: float = -1e9  # when the picture was sent that it has not confirmed yet; monotonic, s
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def offer_picture(self, picture: DisplayPicture) -> None:
        self.skipped += self.picture is not None
        self.picture = picture
        self.wake.set()

    def taken(self) -> None:
        """The page confirms the picture that it was sent.

        Without this, pictures that it has no time for would wait and grow old in its buffers.
        """
        self.paced, self.sent_at = True, -1e9
        self.wake.set()

    def offer_overlay(self, message: Message) -> None:
        self.overlays.append(message)
        self.wake.set()

    def reply(self, message: Message) -> None:
        self.replies.append(message)
        self.wake.set()

    def tell(self, kind: str, message: Message) -> None:
        """Sends a state, in place of an older one that still waits."""
        self.states.pop(kind, None)
        self.states[kind] = message
        self.wake.set()

    def alert(self, alert_id: str, message: Message) -> None:
        """Sends a message of one alert, in place of an older one that still waits."""
        self.alerts.pop(alert_id, None)
        self.alerts[alert_id] = message
        self.wake.set()

    def all_alerts(self, message: Message) -> None:
        """Sends the list of open alerts, in place of all messages of single ones that still wait."""
        self.alerts.clear()
        self.tell("alarms", message)

    async def next(self, timeout_s: float) -> list[Message]:
        """What waits, the picture last; empty after a silence."""
        try:
            await asyncio.wait_for(self.wake.wait(), timeout_s)
        except TimeoutError:
            return []
        self.wake.clear()
        out = [*self.replies, *self.states.values(), *self.alerts.values(), *self.overlays]
        for sent in (self.replies, self.states, self.alerts, self.overlays):
            sent.clear()
        now = time.monotonic()
        if self.picture is not None and (not self.paced or now - self.sent_at > LIMITS.untaken_s):
            out.append(self.picture.message(self.side))
            self.picture, self.sent_at = None, now
        return out
