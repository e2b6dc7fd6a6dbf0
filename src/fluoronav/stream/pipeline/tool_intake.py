"""The tracker's messages: received, dated by this computer's clock, and handed to the stage that wants them."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import zmq

from fluoronav.stream.frame import ToolSample
from fluoronav.stream.stage import ObservesTools
from fluoronav.wire import InvalidMessage, decode_tools, subscriber
from fluoronav.wire.clock import ClockOffset


@dataclass(frozen=True, slots=True)
class ToolIntakeLimits:
    """How much of a tracker's stream is read.

    Attributes
    ----------
    every_ms : int
        Messages are read so often at the most; chosen: half the period of a fast tracker (60 Hz).
    most_at_once : int
        Messages taken from the socket each time; a sender that floods us costs no frame.
    newest : int
        Of these, so many are read: the newest are what matters.
    transport_ms : float
        Delays up to here are transport and the tracker's own work; beyond, its clock is another.
    most_trackers : int
        Chosen: no operating theatre has more.
    """

    every_ms: int = 8
    most_at_once: int = 512
    newest: int = 16
    transport_ms: float = 50.0
    most_trackers: int = 8


LIMITS = ToolIntakeLimits()


class ToolIntake:
    """Reads ``tool/*`` messages.

    Parameters
    ----------
    context : zmq.Context
    endpoint : str
    observer : ObservesTools
    max_future_ms : float
        A message that lies further in the future of those beside it is refused.

    Attributes
    ----------
    socket : zmq.Socket
    invalid, skipped : int
        Messages refused, and left out of a flood.
    refused : str
        Why the last one was refused.
    last_at : float
        When one was read last, by the monotonic clock, s; 0 before the first.
    clocks : dict of bytes to ClockOffset
        By topic.
    """

    def __init__(self, context: zmq.Context[Any], endpoint: str, observer: ObservesTools, max_future_ms: float) -> None:
        self._observer, self._max_future_ms = observer, max_future_ms
        self.socket = subscriber(context, endpoint, ["tool/"], high_water=256, max_bytes=2**20)
        self.invalid = self.skipped = 0
        self.refused = ""
        self.last_at = 0.0
        self.clocks: dict[bytes, ClockOffset] = {}
        self._taken_at = 0.0

    def is_due(self) -> bool:
        """Whether messages may be read again."""
        return (time.monotonic() - self._taken_at) * 1000 >= LIMITS.every_ms

    def take(self) -> None:
        """Reads the newest messages, oldest first; the others of a flood are counted and left out."""
        self._taken_at = time.monotonic()
        newest: deque[list[bytes]] = deque(maxlen=LIMITS.newest)
        for _ in range(LIMITS.most_at_once):
            try:
                parts = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            self.skipped += len(newest) == LIMITS.newest
            newest.append(parts)
        for parts in newest:
            self._take_one(parts)

    def _take_one(self, parts: list[bytes]) -> None:
        now_ns, now = time.time_ns(), time.monotonic()
        try:
            message = decode_tools(parts)
        except InvalidMessage as error:
            self._refuse(str(error))
            return
        clock = self.clocks.get(parts[0])
        if clock is None:
            if len(self.clocks) >= LIMITS.most_trackers:
                self._refuse(f"source: more than {LIMITS.most_trackers} trackers send")
                return
            clock = self.clocks[parts[0]] = ClockOffset(LIMITS.transport_ms)
        delay_ms = (now_ns - message.t_acq) / 1e6
        clock.add(now, delay_ms)
        if clock.is_early(delay_ms, self._max_future_ms):
            # Believed, it would make every later sample look old.
            self._refuse("t_acq: lies in the future of the messages beside it")
            return
        self.last_at = now
        t_local = message.t_acq + round(clock.ms * 1e6)
        for tool in message.tools:
            pose = tool.T_tracker_tool if tool.visible else None
            T_tracker_tool = None if pose is None else np.array(pose).reshape(4, 4)
            self._observer.observe(ToolSample(tool.id, t_local, T_tracker_tool, tool.error_mm or 0.0))

    def _refuse(self, why: str) -> None:
        self.invalid += 1
        self.refused = f"tool {why}"

    def close(self) -> None:
        self.socket.close()
