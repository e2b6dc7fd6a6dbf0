"""What a sender's clock differs from ours by, learned from when its messages arrive."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClockLimits:
    """How an offset is learned.

    Attributes
    ----------
    window_s : float
        Delays of so many seconds count.
    most : int
        And of so many messages at the most.
    step_ms : float
        Delays that differ from the offset by more are a step of the clock, if they agree with one another.
    agree_ms : float
        Delays within so much of one another agree: a busy computer delays by less.
    agree_messages : int
        So many in a row make a step; fewer are messages that were late.
    early_ms : float
        A single message that comes so much before any other could has a wrong time.
    said_ms : float
        Offsets from here on are said to a person.
    """

    window_s: float = 4.0
    most: int = 256
    step_ms: float = 50.0
    agree_ms: float = 40.0
    agree_messages: int = 5
    early_ms: float = 20.0
    said_ms: float = 40.0


class ClockOffset:
    """A robust estimate of one sender's clock.

    The delay from a message's own time to its arrival is transport plus the difference between the clocks. Transport is
    never negative and often short: the shortest delays of the last seconds tell, but for the very shortest. One extreme
    delay does not move it, and a step of the clock is learned from a few messages that agree.

    Parameters
    ----------
    transport_ms : float
        Delays from 0 to here are transport, and the clocks are taken for synchronised.
    limits : ClockLimits, optional

    Attributes
    ----------
    ms : float
        Our clock minus the sender's; 0 where they are synchronised.
    """

    def __init__(self, transport_ms: float, limits: ClockLimits | None = None) -> None:
        self._transport_ms = transport_ms
        self._limits = limits or ClockLimits()
        self._delays: deque[tuple[float, float]] = deque(maxlen=self._limits.most)
        self._recent: deque[float] = deque(maxlen=self._limits.agree_messages)
        self._typical_ms = 0.0
        self.ms = 0.0

    def add(self, at_s: float, delay_ms: float) -> float:
        """Takes a message's delay.

        Parameters
        ----------
        at_s : float
            When it arrived, by a clock that never steps.
        delay_ms : float
            Its arrival minus the time that it carries.

        Returns
        -------
        float
            The delay without the clocks' difference, ms; negative for a message from the future.
        """
        limits = self._limits
        self._recent.append(delay_ms)
        if len(self._recent) == limits.agree_messages and self._stepped():
            self._delays.clear()
            self._delays.extend((at_s, d) for d in self._recent)
        else:
            while self._delays and at_s - self._delays[0][0] > limits.window_s:
                self._delays.popleft()
            self._delays.append((at_s, delay_ms))
        ordered = sorted(d for _, d in self._delays)
        self._typical_ms = ordered[min(max(len(ordered) // 16, 1), len(ordered) - 1)]
        self.ms = 0.0 if 0 <= self._typical_ms < self._transport_ms else self._typical_ms
        return delay_ms - self.ms

    def is_early(self, delay_ms: float, most_ahead_ms: float) -> bool:
        """Whether a message's time lies so far ahead that no transport explains it; asked after :meth:`add`.

        Parameters
        ----------
        delay_ms : float
        most_ahead_ms : float
            How far a clock may be ahead while too few messages are known to say.
        """
        if len(self._delays) < self._limits.agree_messages:
            return delay_ms < -most_ahead_ms
        return delay_ms < self._typical_ms - self._limits.early_ms

    @property
    def said(self) -> bool:
        """Whether the clocks differ by so much that a person should know."""
        return abs(self.ms) > self._limits.said_ms

    def _stepped(self) -> bool:
        low, high = min(self._recent), max(self._recent)
        return high - low < self._limits.agree_ms and not (
            low - self._limits.step_ms < self._typical_ms < high + self._limits.step_ms
        )
