"""Says what was refused and why, at most once a second."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping

log = logging.getLogger("fluoronav")

# A line at once, and while the same goes on ever less often.
_FIRST_S, _LONGEST_S = 1.0, 30.0


class Tally:
    """Counts by reason, and puts what is new into words.

    Parameters
    ----------
    counts : Counter
        What is counted; whoever counts adds to it.
    words : mapping
        What each reason that is said means; others are counted in silence.
    """

    def __init__(
        self, counts: Counter[str], words: Mapping[str, str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.counts = counts
        self._words, self._clock = dict(words), clock
        self._said: Counter[str] = Counter()
        self._at, self._pause_s = -float("inf"), _FIRST_S
        self._going_on: set[str] = set()
        self._notes: dict[str, str] = {}

    def note(self, reason: str, text: str) -> None:
        """The newest case of a reason, which is said with it."""
        self._notes[reason] = text

    def say(self) -> None:
        """One line of what has come since the last one; at most one a second, and fewer while the same goes on."""
        now = self._clock()
        if now - self._at < _FIRST_S:
            return
        new = {r: self.counts[r] - self._said[r] for r in self._words if self.counts[r] > self._said[r]}
        known = set(new) <= self._going_on
        if not new or (known and now - self._at < self._pause_s):
            return
        self._pause_s = min(2 * self._pause_s, _LONGEST_S) if known else _FIRST_S
        self._going_on = set(new) if not known else self._going_on
        if now - self._at > 2 * _LONGEST_S:
            self._pause_s, self._going_on = _FIRST_S, set(new)
        self._at = now
        self._said.update(new)
        parts = [f"{n} {self._words[r]}" + (f" ({self._notes[r]})" if r in self._notes else "") for r, n in new.items()]
        log.warning("OpenIGTLink: %s", "; ".join(parts))
