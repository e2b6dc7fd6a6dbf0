"""What `pacs live` hears of a stream, and when something of it becomes a result.

Knows the wire alone: no sockets, no files, no DICOM.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from fluoronav.wire import FrameHeader, InvalidMessage, decode_frame
from fluoronav.wire.messages import PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class HeardLimits:
    """What is kept of a stream; all are chosen."""

    frames: int = 8  # that wait for their overlay: a quarter of a second at 30 a second, 16 MB at 2 MB each
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
        Messages of the case, for `end`.
    registration : dict, optional
        The last one that a person had accepted.
    models : dict
        Networks that had a part in it, by name.
    t : int
        Time by the pipeline's or the grabber's clock, ns.
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

    Attributes
    ----------
    case : str
        Id of the loaded case; empty while none is.
    moment : Moment or None
        The last frame whose overlay came, of this case.
    invalid : int
        Messages that were none.
    counted : Counter
        Frames and overlays that never met, and alerts left out, by reason.
    """

    def __init__(self) -> None:
        self.case = ""
        self.moment: Moment | None = None
        self.invalid = 0
        self.counted: Counter[str] = Counter()
        self._frames: OrderedDict[int, tuple[FrameHeader, Any]] = OrderedDict()
        self._overlays: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._alerts: list[dict[str, Any]] = []
        self._registration: dict[str, Any] | None = None
        self._models: dict[str, str] = {}
        self._said_accepted = False
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
        self._models |= moment.overlay.get("models") or {}
        registration = moment.overlay.get("registration")
        accepted = moment.accepted
        if registration is not None:
            was, self._said_accepted = self._said_accepted, accepted is not None
        else:
            was = True  # one that is lost for a while stays accepted, or not
        if accepted is None:
            return []
        self._registration = accepted
        if was:
            return []
        return [Event("accept", self.case, moment.header.t_acq, moment, (), accepted)]

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
        self._registration, self._models, self._said_accepted = None, {}, False
        return events
