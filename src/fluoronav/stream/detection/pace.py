"""How long a look takes on this computer, and whether it fits into the time that a frame has left."""

from __future__ import annotations

from dataclasses import dataclass

from fluoronav.stream.frame import RESERVE_MS


@dataclass(frozen=True)
class TimeLimits:
    """How a look adapts to a computer's speed; all chosen on simulated times and two computers."""

    overrun_fraction: float = 0.01  # of frames that may take longer than the estimate
    step_ms: float = 1.0  # of the estimate
    excess_gain: float = 0.25  # fraction of a large excess that is taken from one frame
    max_step_ms: float = 4.0  # one slow frame must not suspend the detection for seconds
    skipped_decay: float = 0.999  # of the estimate in a frame that is skipped, so that it is tried again
    # Frames skipped after one that the look made late, doubled after the next such frame.
    min_rest_frames: int = 4
    max_rest_frames: int = 1800


TIMES = TimeLimits()


class Pace:
    """The time of one kind of look.

    Parameters
    ----------
    first_ms : float
        Assumed before the first.
    """

    def __init__(self, first_ms: float) -> None:
        self._estimate_ms = first_ms
        self._rest_frames = self._resting = 0

    @property
    def resting(self) -> bool:
        """It has made a frame late, and waits."""
        return self._resting > 0

    @property
    def estimate_ms(self) -> float:
        """What it takes in all but one of a hundred frames."""
        return self._estimate_ms

    def fits(self, left_ms: float) -> bool:
        """Whether it may be tried with so much time left."""
        return not self._resting and left_ms >= self._estimate_ms + RESERVE_MS

    def skipped(self) -> None:
        """It was left out of a frame."""
        self._resting = max(self._resting - 1, 0)
        self._estimate_ms *= TIMES.skipped_decay

    def took(self, left_ms: float, took_ms: float) -> None:
        """Rests after a late frame, and updates the estimate of the time for all but one in a hundred frames."""
        # A computer that is too slow for it would else make a frame late at each attempt.
        late = took_ms > left_ms - RESERVE_MS
        doubled = min(max(2 * self._rest_frames, TIMES.min_rest_frames), TIMES.max_rest_frames)
        self._rest_frames = self._resting = doubled if late else 0
        # A running quantile: Robbins and Monro, Ann. Math. Stat. 22:400, 1951.
        excess_ms = took_ms - self._estimate_ms
        if excess_ms > 0:
            step_ms = max(TIMES.step_ms * (1 - TIMES.overrun_fraction), TIMES.excess_gain * excess_ms)
            self._estimate_ms += min(step_ms, TIMES.max_step_ms)
        else:
            self._estimate_ms -= TIMES.step_ms * TIMES.overrun_fraction
