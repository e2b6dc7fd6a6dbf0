"""The sender's clock against ours, from the times that it writes on its messages.

A sender's time cannot be taken as it is: a gateway's clock is ahead or behind by a constant, is set in the middle of an
operation, counts from its start, or is not sent at all. The time of arrival alone jitters with the network. What is
published is the sender's time, moved by the least delay of the last seconds.
"""

from __future__ import annotations

from collections import deque

import numpy as np

_NS = 1_000_000_000
# The least delay is sought over so long, in steps of so long.
WINDOW_NS, _STEP_OF_WINDOW_NS = 3 * _NS, 10_000_000
# Of so many delays one may be extreme and rules nothing (at 60 messages a second 9 of 180).
_ONE_IN = 20
# A least delay between 0 and this is transport: the clocks agree, as synchronised clocks do. Only beyond it is a time
# moved, until the least delay is below the second again.
TRANSPORT_NS, _AGREED_NS = 20_000_000, 10_000_000
# Where every delay of so long is longer than the least by so much, or this many messages in a row come from the future,
# a clock was set.
_STEP_AFTER_NS, _STEP_NS, _STEP_MESSAGES = _NS // 2, 100_000_000, 3
# What is within this of now is jitter.
_FUTURE_NS = 20_000_000


class SenderClock:
    """Turns the times of one device into this computer's; a gateway may join devices with clocks of their own.

    Attributes
    ----------
    offset_ns : int
        Our time minus the sender's, as it is applied; 0 where the clocks agree.
    steps : int
        How often a clock was set.
    advances : bool
        Its times have gone forward since it is connected.
    """

    def __init__(self) -> None:
        self._delays: deque[tuple[int, int]] = deque(maxlen=1024)
        self._ahead = 0
        self._newest_ns: int | None = None
        self._coarse_until_ns = 0
        self.advances = False
        self.offset_ns, self.steps = 0, 0

    def ours(self, t_ns: int, now_ns: int, moved: bool = True) -> int | None:
        """A moment in our time.

        Parameters
        ----------
        t_ns : int
            The sender's time.
        now_ns : int
            When the message arrived.
        moved : bool
            The pose is another one than in the message before.

        Returns
        -------
        int or None
            ns since 1970, never later than now; None where the sender's times say nothing: there are none, they stand
            still, or several poses share one.
        """
        before = self._newest_ns
        if t_ns <= 0:
            return None
        if before is not None and t_ns > before:
            self.advances = True
        if before is not None and t_ns < before:
            self._learn_again()
        if before == t_ns and moved and self.advances:
            self._coarse_until_ns = now_ns + WINDOW_NS
        self._newest_ns = t_ns
        if (before is not None and not self.advances) or now_ns < self._coarse_until_ns:
            return None
        self._note(now_ns, now_ns - t_ns)
        t = t_ns + self.offset_ns
        self._ahead = self._ahead + 1 if t > now_ns + _FUTURE_NS else 0
        if self._ahead >= _STEP_MESSAGES:
            self._learn_again()
            self._note(now_ns, now_ns - t_ns)
        return min(t, now_ns)

    def _note(self, now_ns: int, delay: int) -> None:
        delays = self._delays
        if delays and 0 <= now_ns - delays[-1][0] < _STEP_OF_WINDOW_NS:
            delays[-1] = (delays[-1][0], min(delay, delays[-1][1]))
            return
        delays.append((now_ns, delay))
        while not 0 <= now_ns - delays[0][0] <= WINDOW_NS:
            delays.popleft()
        if self._was_set(now_ns):
            self._learn_again()
            delays.append((now_ns, delay))
        self._apply()

    def _apply(self) -> None:
        delays = np.fromiter((d for _, d in self._delays), np.int64, len(self._delays))
        rank = max(len(delays) // _ONE_IN, int(len(delays) > 2))
        least = int(np.partition(delays, rank)[rank])
        agree = 0 <= least <= (TRANSPORT_NS if self.offset_ns == 0 else _AGREED_NS)
        self.offset_ns = 0 if agree else least

    def _was_set(self, now_ns: int) -> bool:
        """Whether all delays of the last half second are much longer than those before."""
        recent = [d for t, d in self._delays if now_ns - t <= _STEP_AFTER_NS]
        earlier = sorted(d for t, d in self._delays if now_ns - t > _STEP_AFTER_NS)
        return len(recent) > _STEP_MESSAGES and len(earlier) > 1 and min(recent) - earlier[1] > _STEP_NS

    def _learn_again(self) -> None:
        self._delays.clear()
        self._ahead = 0
        self.steps += 1
