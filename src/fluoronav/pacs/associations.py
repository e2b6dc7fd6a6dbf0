"""Which series come over associations that are open, and when the last of them was released."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable


class OpenAssociations:
    """Only events of series: a series is never known by its association.

    Parameters
    ----------
    on_release : callable
        Called when an association was released.
    """

    def __init__(self, on_release: Callable[[], None] = lambda: None) -> None:
        self._on_release = on_release
        self._lock = threading.Lock()
        self._open: dict[Hashable, set[str]] = defaultdict(set)
        self._ended_s: dict[str, float] = {}
        self._touched_s: dict[str, float] = {}
        self._released: set[Hashable] = set()
        self._begun_s = time.monotonic()

    def touched(self, association: Hashable, series: str) -> None:
        """An instance of the series came."""
        with self._lock:
            self._open[association].add(series)
            self._touched_s[series] = time.monotonic()
            self._ended_s.pop(series, None)

    def released(self, association: Hashable) -> None:
        """The sender has said that it is done."""
        with self._lock:
            self._released.add(association)
            ended = self._open.pop(association, set())
            for series in ended - set().union(*self._open.values()):
                self._ended_s[series] = time.monotonic()
        self._on_release()

    def closed(self, association: Hashable) -> bool:
        """The connection is gone; returns False if that was an association with instances that was not released."""
        with self._lock:
            if association in self._released:
                self._released.discard(association)
                return True
            return not self._open.pop(association, None)

    def settled_s(self, series: str) -> float | None:
        """How long ago the last association of a series was released, s; None while one is open or if it broke."""
        with self._lock:
            ended = self._ended_s.get(series)
            return None if ended is None else time.monotonic() - ended

    def quiet_s(self, series: str) -> float:
        """How long ago the last instance of a series came, s; since the start of this process at the most.

        A monotonic clock: one that is set while series arrive changes nothing.
        """
        with self._lock:
            return time.monotonic() - self._touched_s.get(series, self._begun_s)

    def forget(self, series: str) -> None:
        """The series is judged."""
        with self._lock:
            self._ended_s.pop(series, None)
            self._touched_s.pop(series, None)
