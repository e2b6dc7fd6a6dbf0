"""Logs what was refused and why, at most once a second."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping

log = logging.getLogger("fluoronav")

# Chosen: pause between two log lines; doubled while the same reasons go on.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0


class Tally:
    """Logs the counts of reasons that have risen.

    Parameters
    ----------
    counts : Counter
        Counts by reason; its owner adds to it.
    words : mapping
        Text of each reason that is logged; the others are not.
    clock : callable
        Monotonic time, s.
    """

    def __init__(
        self, counts: Counter[str], words: Mapping[str, str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.counts = counts
        self._words, self._clock = dict(words), clock
        self._logged: Counter[str] = Counter()
        self._at, self._pause_s = -float("inf"), FIRST_PAUSE_S
        self._repeated: set[str] = set()
        self._notes: dict[str, str] = {}

    def note(self, reason: str, text: str) -> None:
        """Keeps an example of a reason; the newest is logged with it."""
        self._notes[reason] = text

    def say(self) -> None:
        """Logs one line of what is new since the last one; less often while the same reasons go on."""
        now = self._clock()
        if now - self._at < FIRST_PAUSE_S:
            return
        new = {r: self.counts[r] - self._logged[r] for r in self._words if self.counts[r] > self._logged[r]}
        known = set(new) <= self._repeated
        if not new or (known and now - self._at < self._pause_s):
            return
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S) if known else FIRST_PAUSE_S
        self._repeated = set(new) if not known else self._repeated
        if now - self._at > 2 * LONGEST_PAUSE_S:
            self._pause_s, self._repeated = FIRST_PAUSE_S, set(new)
        self._at = now
        self._logged.update(new)
        parts = [f"{n} {self._words[r]}" + (f" ({self._notes[r]})" if r in self._notes else "") for r, n in new.items()]
        log.warning("OpenIGTLink: %s", "; ".join(parts))
