"""What `pacs live` hears of a stream, and when something of it becomes a result.

Knows the wire alone: no sockets, no files, no DICOM.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from fluoronav.wire import FrameHeader, InvalidMessage, decode_frame
from fluoronav.wire.values import PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class HeardLimits:
    """What is kept of a stream; all are chosen."""

    frames: int = 8  # that wait for their overlay: a quarter of a second at 30 a second, 16 MB at 2 MB each
    moments: int = 16  # that a display may still show when a person marks them: half a second, 32 MB
    overlays: int = 8  # that wait for their frame, which travels on another connection
    alerts: int = 20_000  # messages of one case; the recording has all
    silence_s: float = 15.0  # without a word of the pipeline, which speaks once a second: the case has ended


LIMITS = HeardLimits()


@dataclass(frozen=True)
class Moment:
    """A frame with its overlay.

    Attributes
    ----------
    header : FrameHeader
    counts : ndarray of uint8 or uint16, shape (rows, columns)
    overlay : dict
        As it was sent.
    """

    header: FrameHeader
    counts: Any
    overlay: dict[str, Any]

    @property
    def accepted(self) -> dict[str, Any] | None:
        """The registration, if a person has accepted it."""
        registration = self.overlay.get("registration")
        return registration if registration and registration.get("accepted") else None


@dataclass(frozen=True)
class Event:
    """Something that becomes a result.

    Attributes
    ----------
    kind : {"begin", "mark", "accept", "end", "run"}
    case : str
        Id of the case that it is about.
    moment : Moment, optional
        For `mark` and `accept`.
    alerts : tuple of dict
        Messages of the case for `end`; for `accept`, those of :meth:`Heard.alerts_at`.
    registration : dict, optional
        The last one that a person had accepted.
    models : dict
        Networks that had a part in it, by name.
    t : int
        Time by the pipeline's or the grabber's clock, ns; for `accept`, when the person accepted.
    recording : str
        File, for `run`.
    """

    kind: str
    case: str
    t: int
    moment: Moment | None = None
    alerts: tuple[dict[str, Any], ...] = ()
    registration: dict[str, Any] | None = None
    models: dict[str, str] | None = None
    recording: str = ""


class Heard:
    """Takes messages of the wire, and says what has happened.

    Parameters
    ----------
    accepted : tuple of (str, int), optional
        The acceptance that was heard last before a restart, as :attr:`accepted` has it.

    Attributes
    ----------
    case : str
        Id of the loaded case; empty while none is.
    moment : Moment or None
        The last frame whose overlay came, of this case.
    accepted : tuple of (str, int)
        The last acceptance of which an event was made: the case, and when a person accepted (`session.accepted_t`).
    invalid : int
        Messages that were none.
    counted : Counter
        Frames and overlays that never met, and alerts left out, by reason.
    """

    def __init__(self, accepted: tuple[str, int] = ("", 0)) -> None:
        self.case, self.accepted = "", accepted
        self.moment: Moment | None = None
        self.invalid = 0
        self.counted: Counter[str] = Counter()
        self._frames: OrderedDict[int, tuple[FrameHeader, Any]] = OrderedDict()
        self._overlays: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._alerts: list[dict[str, Any]] = []
        self._registration: dict[str, Any] | None = None
        self._models: dict[str, str] = {}
        self._accepted_t = 0  # as health says; 0 while nothing is accepted
        self._recent: deque[Moment] = deque(maxlen=LIMITS.moments)
        self._marked: tuple[Moment, tuple[dict[str, Any], ...]] | None = None
        self._told = 0  # number of alert messages at the last mark
        self._recording = ""
        self._last_t = 0
        self._last_heard_s: float | None = None

    def take(self, parts: Sequence[Any], now_s: float) -> list[Event]:
        """One message; what it makes happen.

        Parameters
        ----------
        parts : sequence of buffers
        now_s : float
            Monotonic, s.
        """
        kind = bytes(parts[0]).partition(b"/")[0]
        try:
            if kind == b"frame":
                header, counts = decode_frame(parts)
                return self._put(self._frames, header.seq, (header, counts), LIMITS.frames)
            content = msgpack.unpackb(parts[1])
            if not isinstance(content, dict) or content.get("v") != PROTOCOL_VERSION:
                raise ValueError("another version of the protocol")
            self._last_heard_s = now_s
            if kind == b"overlay":
                return self._put(self._overlays, int(content["seq"]), content, LIMITS.overlays)
            if kind == b"health":
                return self._health(content)
            if kind == b"alert":
                self._alert(content)
        except (InvalidMessage, ValueError, LookupError, TypeError, AttributeError, msgpack.UnpackException):
            self.invalid += 1
        return []

    def silence(self, now_s: float) -> list[Event]:
        """Called several times a second: a pipeline that says nothing any more has ended its case."""
        if self._last_heard_s is None or now_s - self._last_heard_s < LIMITS.silence_s:
            return []
        return self.end()

    def end(self) -> list[Event]:
        """The case ends now."""
        self._last_heard_s = None
        return self._ended("")

    def _put(self, waiting: OrderedDict[int, Any], seq: int, content: Any, most: int) -> list[Event]:
        """Keeps a frame or an overlay until the other comes; then they are a moment."""
        waiting[seq] = content
        if seq in self._frames and seq in self._overlays:
            header, counts = self._frames.pop(seq)
            overlay = self._overlays.pop(seq)
            return self._met(Moment(header, counts, overlay)) if header.t_acq == overlay["t_acq"] else []
        while len(waiting) > most:
            waiting.popitem(last=False)
            self.counted["frames without overlay" if waiting is self._frames else "overlays without frame"] += 1
        return []

    def _met(self, moment: Moment) -> list[Event]:
        # Before the first health it is not known which case it is of.
        if not self.case:
            return []
        self.moment, self._last_t = moment, moment.header.t_acq
        self._recent.append(moment)
        self._models |= moment.overlay.get("models") or {}
        self._registration = moment.accepted or self._registration
        return self._acceptance()

    def _acceptance(self) -> list[Event]:
        """An acceptance that is new, once a frame shows it; one registration may be lost and found again."""
        moment, acceptance = self.moment, (self.case, self._accepted_t)
        if not self._accepted_t or acceptance == self.accepted or moment is None or moment.accepted is None:
            return []
        self.accepted = acceptance
        alerts = self.alerts_at(moment)
        return [Event("accept", self.case, self._accepted_t, moment, alerts, moment.accepted)]

    def mark(self, seq: int | None = None) -> Event | None:
        """The event of a mark: of the frame that a person saw, or of the newest if that has gone; None without one."""
        held = [*reversed(self._recent), *([self._marked[0]] if self._marked else [])]
        moment = next((m for m in held if m.header.seq == seq), self.moment)
        if moment is None:
            return None
        alerts = self.alerts_at(moment)
        self._marked, self._told = (moment, alerts), len(self._alerts)
        return Event("mark", self.case, moment.header.t_acq, moment, alerts)

    def alerts_at(self, moment: Moment) -> tuple[dict[str, Any], ...]:
        """All messages of the alerts that are open, or were since the case began or the last mark.

        A moment that is marked again has those that it had: the same moment makes the same report.
        """
        if self._marked is not None and self._marked[0] is moment:
            return self._marked[1]
        last = {(a.get("instance"), a["id"]): a["state"] for a in self._alerts}
        told = {key for key, state in last.items() if state != "cleared"}
        told |= {(a.get("instance"), a["id"]) for a in self._alerts[self._told :]}
        return tuple(a for a in self._alerts if (a.get("instance"), a["id"]) in told)

    def _health(self, health: dict[str, Any]) -> list[Event]:
        case, events = str(health["case"]), []
        recording = str(health.get("recording") or "")
        if self._recording and recording != self._recording and self.case:
            events.append(Event("run", self.case, int(health["t"]), recording=self._recording))
        self._recording = recording
        # While a pipeline starts it has none yet: the present case goes on until another is there.
        if case and case != self.case:
            events += self._ended(case)
            events.append(Event("begin", case, int(health["t"])))
        if self.case:
            self._last_t = max(self._last_t, int(health["t"]))
            self._open_alerts(health.get("alerts") or ())
            self._accepted_t = int((health.get("session") or {}).get("accepted_t") or 0)
            events += self._acceptance()
        return events

    def _alert(self, alert: dict[str, Any]) -> None:
        if not {"id", "t_raised", "state"} <= alert.keys():
            raise ValueError("no alert")
        if len(self._alerts) < LIMITS.alerts:
            self._alerts.append(alert)
        else:
            self.counted["alerts beyond the most"] += 1

    def _open_alerts(self, alerts: Sequence[dict[str, Any]]) -> None:
        """Takes those that were raised before anybody listened, or whose message was lost."""
        known = {(a.get("instance"), a["id"]) for a in self._alerts}
        for alert in alerts:
            if (alert.get("instance"), alert["id"]) not in known:
                self._alert(alert)

    def _ended(self, next_case: str) -> list[Event]:
        """Forgets the present case; its end, where there was one."""
        ended = self.case
        events = []
        if ended:
            if self._recording and not next_case:
                events.append(Event("run", ended, self._last_t, recording=self._recording))
                self._recording = ""
            events.append(
                Event(
                    "end", ended, self._last_t, self.moment, tuple(self._alerts), self._registration, dict(self._models)
                )
            )
        self.case, self.moment = next_case, None
        self._frames.clear()
        self._overlays.clear()
        # Alerts that came before the first health are of the case that it names.
        self._alerts = [] if ended else self._alerts
        self._registration, self._models, self._accepted_t = None, {}, 0
        self._marked, self._told = None, 0
        self._recent.clear()
        return events
