"""Whether a request is of now and asked for the first time: the same bytes a second time are not granted."""

from __future__ import annotations

import heapq
import time
from collections import OrderedDict

from fluoronav.wire import Request

# How far a request's time may lie from ours.
MOST_APART_NS = 10 * 10**9
# Requests that are remembered; what is older than the oldest of them counts as seen.
_REMEMBERED = 16384

# The kind of an id and what it says: 1 is not "1".
_Id = tuple[str, str]


class Freshness:
    """Remembers the changing requests of the last seconds.

    Parameters
    ----------
    must_have_time : bool
        Whether a request must say when it was made, as where requests come from other computers.
    remembered : int
    """

    def __init__(self, must_have_time: bool, remembered: int = _REMEMBERED) -> None:
        self._must_have_time, self._remembered = must_have_time, remembered
        self._timed: set[tuple[int, _Id]] = set()
        self._by_time: list[tuple[int, _Id]] = []
        self._since = 0  # requests made before are no longer told apart
        self._untimed: OrderedDict[tuple[object, ...], float] = OrderedDict()  # and when it came, monotonic s

    def fault(self, request: Request, changes: bool) -> tuple[str, str] | None:
        """Why a request is not to be granted, as a code and a text; it is remembered if it `changes` something."""
        if request.t is None:
            if self._must_have_time:
                return "invalid", "t: is required: requests come from other computers here; send when it was made"
            return self._seen_untimed(request) if changes else None
        apart = request.t - time.time_ns()
        if abs(apart) > MOST_APART_NS:
            side = "ahead of" if apart > 0 else "behind"
            text = f"t: lies {abs(apart) / 1e9:.1f} s {side} the pipeline's clock; are the clocks synchronised?"
            return "stale", text
        return self._seen(request, request.t) if changes else None

    def _seen(self, request: Request, t: int) -> tuple[str, str] | None:
        key = (t, _typed(request))
        if t <= self._since or key in self._timed:
            return _repeated(request)
        self._timed.add(key)
        heapq.heappush(self._by_time, key)
        self._forget(time.time_ns() - MOST_APART_NS)
        return None

    def _forget(self, before: int) -> None:
        """What is stale is refused for that; of more than can be remembered, the oldest count as seen."""
        while self._by_time and (self._by_time[0][0] < before or len(self._by_time) > self._remembered):
            key = heapq.heappop(self._by_time)
            self._timed.discard(key)
            self._since = max(self._since, key[0])

    def _seen_untimed(self, request: Request) -> tuple[str, str] | None:
        """A request that does not say when it was made: the same one within ten seconds is the same bytes again."""
        key, now = (request.user, _typed(request), request.op, repr(request.args)), time.monotonic()
        while self._untimed and (
            len(self._untimed) >= self._remembered or now - next(iter(self._untimed.values())) > MOST_APART_NS / 1e9
        ):
            self._untimed.popitem(last=False)
        if key in self._untimed:
            return _repeated(request)
        self._untimed[key] = now
        return None


def _typed(request: Request) -> _Id:
    return type(request.id).__name__, str(request.id)


def _repeated(request: Request) -> tuple[str, str]:
    return "repeated", f"id {request.id!r} was asked before; each request needs an id of its own"
