"""A device's times as this computer's times.

A sender's time cannot be used as it is: a gateway's clock may be ahead or behind by a constant, be set during an
operation, count from its start, or not be sent at all. The time of arrival jitters with the network. What is published
is the sender's time plus the estimated offset of its clock (:class:`~fluoronav.wire.clock.ClockOffset`).
"""

from __future__ import annotations

from fluoronav.wire.clock import ClockLimits, ClockOffset

# Chosen. The shortest delay of a synchronised gateway is below this.
TRANSPORT_MS = 20.0
# Chosen. Trackers send up to 1000 poses a second: 10 agreeing messages, merged over 10 ms, are no burst after a stall.
LIMITS = ClockLimits(
    window_s=3.0, max_messages=512, merge_s=0.01, step_ms=100.0, agree_messages=10, resynchronised_ms=10.0
)
# Several poses shared one time: the sender's clock is coarse, and its times are not used for so long.
COARSE_FOR_NS = 3_000_000_000
# So many consecutive messages from the future mean that the clock was set; within the tolerance it is jitter.
FUTURE_MESSAGES, FUTURE_TOLERANCE_NS = 3, 20_000_000


class SenderClock:
    """Converts the times of one device; the devices behind one gateway may have different clocks.

    Attributes
    ----------
    advances : bool
        The sender's times have increased since it is connected.
    """

    def __init__(self) -> None:
        self._offset = ClockOffset(TRANSPORT_MS, LIMITS)
        self._from_future = 0
        self._newest_ns: int | None = None
        self._coarse_until_ns = 0
        self.advances = False

    @property
    def offset_ns(self) -> int:
        """Our time minus the sender's, as it is applied; 0 where the clocks agree."""
        return round(self._offset.ms * 1e6)

    @property
    def steps(self) -> int:
        """How often a clock was set."""
        return self._offset.steps

    def ours(self, t_ns: int, now_ns: int, moved: bool = True) -> int | None:
        """A sender's time as ours.

        Parameters
        ----------
        t_ns : int
            The sender's time.
        now_ns : int
            When the message arrived.
        moved : bool
            The pose differs from the one in the message before.

        Returns
        -------
        int or None
            ns since 1970, never later than now. None where the sender's times cannot be used: it sends none, they stand
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
            self._coarse_until_ns = now_ns + COARSE_FOR_NS
        self._newest_ns = t_ns
        if (before is not None and not self.advances) or now_ns < self._coarse_until_ns:
            return None
        self._add(t_ns, now_ns)
        t = t_ns + self.offset_ns
        self._from_future = self._from_future + 1 if t > now_ns + FUTURE_TOLERANCE_NS else 0
        if self._from_future >= FUTURE_MESSAGES:
            self._learn_again()
            self._add(t_ns, now_ns)
        return min(t, now_ns)

    def _add(self, t_ns: int, now_ns: int) -> None:
        self._offset.add(now_ns / 1e9, (now_ns - t_ns) / 1e6)

    def _learn_again(self) -> None:
        self._offset.forget()
        self._from_future = 0
