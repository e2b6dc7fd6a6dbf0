"""What one browser gets: the newest picture that it can take, some overlays, and every alert."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict, deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from fluoronav.display.pace import STEPS, ScreenLoad
from fluoronav.display.packing import with_head

Message = bytes


@dataclass(frozen=True, slots=True)
class ViewerLimits:
    """What waits for one viewer; all are chosen."""

    max_overlays: int = 6  # a viewer that is slower by more frames misses overlays, never alerts
    max_alerts: int = 256
    max_replies: int = 64
    untaken_s: float = 1.0  # a page that does not confirm a picture gets the next after so long
    unconfirmed_s: float = 0.1  # between pictures for a viewer that has never confirmed one
    early_s: float = 0.008  # before it is due a picture may be sent: frames come when they come
    max_scale: float = 0.85  # of a frame's side; a hardly smaller picture saves little and is less sharp
    max_sizes: int = 4  # that one picture is made in; further viewers get the next larger of these


LIMITS = ViewerLimits()


def packed(topic: str, header: dict[str, Any], payload: bytes | memoryview = b"") -> Message:
    """One binary WebSocket message, with its topic first in the head, where `page/link.js` reads it."""
    return with_head({"topic": topic} | header | {"topic": topic}, payload)


class DisplayPicture:
    """A frame for viewers, scaled to the size at which each of them shows it.

    Parameters
    ----------
    head : dict
        With ``rows``, ``cols`` and ``dtype`` (``u1`` or ``u2``).
    pixels : bytes or memoryview
    """

    def __init__(self, head: dict[str, Any], pixels: bytes | memoryview) -> None:
        self._head, self._pixels = head, pixels
        self._made: dict[tuple[int, int], Message] = {}
        self._lock = threading.Lock()  # viewers of one size ask at the same time, and it is made once

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
        with self._lock:
            shape = self._near(shape)
            if shape not in self._made:
                self._made[shape] = self._make(shape, shape == (rows, cols))
            return self._made[shape]

    def _near(self, shape: tuple[int, int]) -> tuple[int, int]:
        """The shape itself, while few were made; else the smallest of these that is not smaller, or the largest."""
        if shape in self._made or len(self._made) < LIMITS.max_sizes:
            return shape
        return min((made for made in self._made if made >= shape), default=max(self._made))

    def _make(self, shape: tuple[int, int], whole: bool) -> Message:
        pixels = self._pixels
        if not whole:
            # Bilinear, as the page draws it: what it then shows is the same to a count.
            frame = np.frombuffer(pixels, "<u2" if self._head["dtype"] == "u2" else "u1")
            frame = frame.reshape(self._head["rows"], self._head["cols"])
            pixels = cv2.resize(frame, shape[::-1], interpolation=cv2.INTER_LINEAR).data.cast("B")
        return packed("picture", self._head | {"height": shape[0], "width": shape[1]}, pixels)


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
    last_at: float = -1e9  # when the last picture was sent
    hidden: bool = False  # its page is behind another: it draws nothing
    local: bool = False  # its browser runs on this computer
    load: ScreenLoad = field(default_factory=ScreenLoad)  # of its browser
    level: int = 0  # of `STEPS`: how thinned its pictures are
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

    def pace(self, levels: dict[str, int]) -> None:
        """Thins the pictures by the highest of the levels, and tells the page whose it is.

        Parameters
        ----------
        levels : dict
            Of the ladder's steps, by what is busy; that of the viewer's own screen is added.
        """
        levels = {**levels, "screen": self.load.ladder.level}
        why = max(levels, key=lambda name: levels[name])
        if levels[why] == self.level:
            return
        self.level = levels[why]
        step = STEPS[self.level]
        head = {"per_s": step.per_s if self.level else None, "scale": step.scale, "why": why if self.level else ""}
        self.tell("pace", packed("pace", head))

    def _picture_in_s(self, now: float) -> float:
        """Seconds until the next picture may be sent; not while the page is hidden, or has not confirmed the last."""
        if self.picture is None or self.hidden:
            return float("inf")
        if self.paced:
            due = max(self.sent_at + LIMITS.untaken_s, self.last_at + 1 / STEPS[self.level].per_s)
        else:
            due = self.last_at + max(LIMITS.unconfirmed_s, 1 / STEPS[self.level].per_s)
        return max(due - LIMITS.early_s - now, 0.0)

    @property
    def _picture_side(self) -> int | None:
        scale = STEPS[self.level].scale
        return self.side if self.side is None or scale == 1 else max(round(self.side * scale), 1)

    async def next(self, timeout_s: float) -> list[Message | DisplayPicture]:
        """What waits, the picture last, still to be made by :meth:`made`; empty after a silence."""
        wait_s = min(timeout_s, self._picture_in_s(time.monotonic()))
        with suppress(TimeoutError):
            await asyncio.wait_for(self.wake.wait(), wait_s)
        self.wake.clear()
        out: list[Message | DisplayPicture]
        out = [*self.replies, *self.states.values(), *self.alerts.values(), *self.overlays]
        for sent in (self.replies, self.states, self.alerts, self.overlays):
            sent.clear()
        now = time.monotonic()
        if self.picture is not None and self._picture_in_s(now) <= 0:
            out.append(self.picture)
            self.picture, self.sent_at, self.last_at = None, now, now
        return out

    def made(self, picture: DisplayPicture) -> Message:
        """The picture's message at the size that this viewer is sent; may be called in another thread."""
        return picture.message(self._picture_side)
