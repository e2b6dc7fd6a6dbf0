"""The difference between a sender's clock and ours, estimated from the delays of its messages."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClockLimits:
    """Settings of the estimate; all values are chosen.

    Attributes
    ----------
    window_s : float
        Only delays of the last seconds count.
    max_messages : int
        And at most this many of them.
    merge_s : float
        Messages that arrive within this time of the first one count as one, with the shortest delay: a burst after a
        stall is then no agreement. 0 keeps them all.
    step_ms : float
        The clock was set when delays agree with one another and differ from the estimate by more than this.
    agree_ms : float
        Delays agree within this range; a busy computer delays by less.
    agree_messages : int
        Consecutive messages that must agree; fewer are messages that were late.
    early_ms : float
        A message that arrives this much before the shortest delays carries a wrong time.
    report_ms : float
        Offsets beyond this are reported to a person.
    resynchronised_ms : float or None
        An offset falls back to 0 only below this delay, so that it does not toggle; None: below the transport time.
    """

    window_s: float = 4.0
    max_messages: int = 256
    merge_s: float = 0.0
    step_ms: float = 50.0
    agree_ms: float = 40.0
    agree_messages: int = 5
    early_ms: float = 20.0
    report_ms: float = 40.0
    resynchronised_ms: float | None = None


class ClockOffset:
    """A robust estimate of the offset of one sender's clock.

    The delay from a message's own time to its arrival is transport plus the offset between the clocks. Transport is
    never negative and often short, so the 1/16 quantile of the delays in the window estimates the offset. One extreme
    delay does not move it. A clock that was set is learned from a few messages that agree.

    Parameters
    ----------
    transport_ms : float
        Delays from 0 to this are transport alone: the clocks are taken as synchronised.
    limits : ClockLimits, optional

    Attributes
    ----------
    ms : float
        Our clock minus the sender's; 0 where they are synchronised.
    steps : int
        How often a clock was set.
    """

    def __init__(self, transport_ms: float, limits: ClockLimits | None = None) -> None:
        self._transport_ms = transport_ms
        self._limits = limits or ClockLimits()
        self._delays: deque[tuple[float, float]] = deque(maxlen=self._limits.max_messages)
        self._recent: deque[float] = deque(maxlen=self._limits.agree_messages)
        self._typical_ms = 0.0
        self.ms = 0.0
        self.steps = 0

    def add(self, at_s: float, delay_ms: float) -> float:
        """Takes a message's delay.

        Parameters
        ----------
        at_s : float
            Time of arrival, s, by a clock that is not set while it runs.
        delay_ms : float
            Time of arrival minus the time that the message carries.

        Returns
        -------
        float
            The delay without the offset, ms; negative for a message from the future.
        """
        limits = self._limits
        if self._delays and 0 <= at_s - self._delays[-1][0] < limits.merge_s:
            at_s, shortest_ms = self._delays.pop()
            self._delays.append((at_s, min(delay_ms, shortest_ms)))
            self._recent[-1] = min(delay_ms, self._recent[-1])
        else:
            self._recent.append(delay_ms)
            if len(self._recent) == limits.agree_messages and self._was_set():
                self._delays.clear()
                self._delays.extend((at_s, d) for d in self._recent)
                self.steps += 1
            else:
                while self._delays and at_s - self._delays[0][0] > limits.window_s:
                    self._delays.popleft()
                self._delays.append((at_s, delay_ms))
        ordered = sorted(d for _, d in self._delays)
        self._typical_ms = ordered[min(max(len(ordered) // 16, 1), len(ordered) - 1)]
        self.ms = 0.0 if 0 <= self._typical_ms < self._synchronised_below_ms() else self._typical_ms
        return delay_ms - self.ms

    def forget(self) -> None:
        """Starts the estimate again, for a clock that is known to have been set; `ms` holds until the next message."""
        self._delays.clear()
        self._recent.clear()
        self.steps += 1

    def is_early(self, delay_ms: float, max_ahead_ms: float) -> bool:
        """Whether a message's time lies too far in the future for any transport; asked after :meth:`add`.

        Parameters
        ----------
        delay_ms : float
        max_ahead_ms : float
            How far a clock may be ahead while there are too few messages to estimate its offset.
        """
        if len(self._delays) < self._limits.agree_messages:
            return delay_ms < -max_ahead_ms
        return delay_ms < self._typical_ms - self._limits.early_ms

    @property
    def said(self) -> bool:
        """Whether the offset is large enough to be reported to a person."""
        return abs(self.ms) > self._limits.report_ms

    def _synchronised_below_ms(self) -> float:
        again_ms = self._limits.resynchronised_ms
        return self._transport_ms if again_ms is None or self.ms == 0 else again_ms

    def _was_set(self) -> bool:
        low, high = min(self._recent), max(self._recent)
        return high - low < self._limits.agree_ms and not (
            low - self._limits.step_ms < self._typical_ms < high + self._limits.step_ms
        )
