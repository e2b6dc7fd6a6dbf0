"""The life of an alert: raised, changed, acknowledged, cleared, under one id."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from itertools import count

from fluoronav.stream.frame import Alert, Level, Priority

# A proximity alert clears only when the distance has grown this far beyond its threshold again.
HYSTERESIS_MM = 0.5
# Characters of an id, as the protocol has them.
ID_CHARS = 64
LEVELS: tuple[Level, ...] = ("clear", "caution", "danger")


def alert_id(prefix: str, key: tuple[str | None, ...], number: int) -> str:
    """An alert's id, which fits into a message whatever its names are.

    ``proximity/kwire/aorta/7``; where the names are too long, ``proximity/beginning~0f3c9a1b2d4e/7`` with a hash of all
    of them.

    Parameters
    ----------
    prefix : str
        Of the book.
    key : tuple of str or None
        The kind, and the names of instrument and structure where there are any.
    number : int
        Tells it from the alerts before.
    """
    names, end = prefix + "/".join(x for x in key if x), f"/{number}"
    if len(names) + len(end) > ID_CHARS:
        end = f"~{blake2b(names.encode(errors='replace'), digest_size=6).hexdigest()}{end}"
        names = names[: ID_CHARS - len(end)]
    return names + end


class AlertBook:
    """The alerts that are open, each under a key such as ``("proximity", "kwire", "aorta")``.

    Ids are stable through an alert's life, and no two of a process are the same; a condition that comes back is a new
    alert.

    Parameters
    ----------
    prefix : str
        Before every id, where several books send by one socket.
    """

    _numbers = count(1)

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._open: dict[tuple[str | None, ...], Alert] = {}

    def hold(
        self,
        kind: str,
        priority: Priority,
        t: int,
        text: str,
        *,
        instrument: str | None = None,
        structure: str | None = None,
        distance_mm: float | None = None,
        lower_mm: float | None = None,
        threshold_mm: float | None = None,
    ) -> Alert | None:
        """Says that a condition holds; returns what must be sent: `raised`, `changed`, or None.

        It has changed with another priority, and when its distance is measured no longer, or again.
        """
        key = (kind, instrument, structure)
        held = self._open.get(key)
        measured_alike = held is not None and (held.distance_mm is None) == (distance_mm is None)
        if held is not None and held.priority == priority and measured_alike:
            return None
        if held is None:
            alert = Alert(
                self._new_id(key), t, "raised", priority, kind, instrument, structure,
                distance_mm, lower_mm, threshold_mm, text,
            )  # fmt: skip
        else:
            alert = replace(
                held, state="changed", priority=priority, distance_mm=distance_mm, lower_mm=lower_mm,
                threshold_mm=threshold_mm, text=text,
            )  # fmt: skip
        self._open[key] = alert
        return alert

    def end(
        self,
        kind: str,
        text: str,
        *,
        instrument: str | None = None,
        structure: str | None = None,
        distance_mm: float | None = None,
        lower_mm: float | None = None,
    ) -> Alert | None:
        """Says that a condition no longer holds; returns the `cleared` alert to be sent, or None."""
        held = self._open.pop((kind, instrument, structure), None)
        if held is None:
            return None
        return replace(held, state="cleared", distance_mm=distance_mm, lower_mm=lower_mm, text=text)

    def end_all(self, text: str) -> list[Alert]:
        """Says that nothing holds any more; returns what is to be sent."""
        ended = [replace(held, state="cleared", text=text) for held in self._open.values()]
        self._open.clear()
        return ended

    def acknowledge(self, alert_id: str, user: str) -> Alert | None:
        """The message that somebody has seen an open alert; None where there is no such alert.

        It stays open, and acknowledged until it changes.
        """
        for key, held in self._open.items():
            if held.id == alert_id:
                seen = replace(held, state="acknowledged")
                self._open[key] = seen
                return replace(seen, text=f"acknowledged by {user or 'an unnamed user'}")
        return None

    def open(self) -> tuple[Alert, ...]:
        """The alerts that are open, as they were sent last; may be asked from another thread."""
        return tuple(self._open.values())

    def restore(self, alert: Alert) -> None:
        """Holds an alert that was open before a restart, under an id of this start."""
        key = (alert.kind, alert.instrument, alert.structure)
        self._open[key] = replace(alert, id=self._new_id(key), state="raised")

    def _new_id(self, key: tuple[str | None, ...]) -> str:
        return alert_id(self._prefix, key, next(self._numbers))

    def knows(self, alert_id: str) -> bool:
        """Whether an alert of that id is open; may be asked from another thread."""
        return any(held.id == alert_id for held in list(self._open.values()))

    def is_open(self, kind: str, instrument: str | None = None, structure: str | None = None) -> bool:
        return (kind, instrument, structure) in self._open


def proximity_level(lower_mm: float, caution_mm: float, danger_mm: float, before: Level) -> Level:
    """The level of a distance, with hysteresis: it rises at a threshold and falls only beyond it by a margin.

    Parameters
    ----------
    lower_mm : float
        95 % lower bound of the distance.
    caution_mm, danger_mm : float
        Thresholds, caution being the larger.
    before : str
        The level in the frame before.
    """
    if lower_mm <= danger_mm or (before == "danger" and lower_mm <= danger_mm + HYSTERESIS_MM):
        return "danger"
    if lower_mm <= caution_mm or (before != "clear" and lower_mm <= caution_mm + HYSTERESIS_MM):
        return "caution"
    return "clear"
