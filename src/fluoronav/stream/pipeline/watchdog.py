"""Whether frames come, are new and are processed: what is wrong with that is an alert.

The watchdog reads what the frame path has noted (`standing.py`) and touches no stage.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from fluoronav.stream.alerts import AlertBook
from fluoronav.stream.frame import Alert
from fluoronav.stream.pipeline.frames import FrameLoop
from fluoronav.stream.pipeline.judge import frozen_for_s
from fluoronav.stream.pipeline.publisher import Publisher
from fluoronav.stream.pipeline.recording_process import RecordingProcess
from fluoronav.stream.pipeline.work import Work


@dataclass(frozen=True, slots=True)
class WatchdogLimits:
    """When the frame path is said not to live.

    Attributes
    ----------
    stuck_s : float
        A frame in work for so long; chosen: thirty frame periods.
    conflict_over_s : float
        Without frames nobody knows whether another grabber still sends.
    silent_periods : float
        Silence of so many frame periods; chosen: one lost pulse is none. A slow pulse rate is not silence.
    """

    stuck_s: float = 1.0
    conflict_over_s: float = 3.0
    silent_periods: float = 2.2


LIMITS = WatchdogLimits()


class ServiceAlerts:
    """The open alerts of the service itself, in books of their own: what ends one ends no other.

    Attributes
    ----------
    stream : AlertBook
        Silence, a second grabber, a frame path that is stuck, an audit trail that is not written.
    picture : AlertBook
        A picture that does not change.
    recording : AlertBook
        A recording that has ended.
    """

    def __init__(self) -> None:
        self.stream, self.picture = AlertBook("watch:"), AlertBook("picture:")
        self.recording = AlertBook("recording:")

    def open(self) -> list[Alert]:
        """All that is open."""
        return [alert for book in (self.stream, self.picture, self.recording) for alert in book.open()]

    def book_of(self, alert_id: str) -> AlertBook | None:
        """The book that holds an open alert of that id."""
        return next((b for b in (self.stream, self.picture, self.recording) if b.knows(alert_id)), None)


class Watchdog:
    """Watches the frame path.

    Parameters
    ----------
    stale_ms : float
        Silence of so long is an alert.
    publisher : Publisher
    recording : RecordingProcess

    Attributes
    ----------
    alerts : ServiceAlerts
    work : Work or None
        What is watched.
    """

    def __init__(self, stale_ms: float, publisher: Publisher, recording: RecordingProcess) -> None:
        self._stale_s, self._publisher, self._recording = stale_ms / 1000, publisher, recording
        self.alerts = ServiceAlerts()
        self.work: Work | None = None

    def send(self, alert: Alert | None) -> None:
        """Sends an alert, as of the last frame; None is nothing to send."""
        if alert is not None and self.work is not None:
            loop = self.work.loop
            self._publisher.send("alert", self._publisher.alert(alert, loop.last_seq, loop.last_t_acq))

    def stale_at(self, now: float) -> float:
        """When the silence will be too long, by the monotonic clock, s."""
        loop = self.work.loop if self.work is not None else None
        if loop is None or not loop.last_frame_at or self.alerts.stream.is_open("stale_frames"):
            return now + 1
        return loop.last_frame_at + max(self._stale_s, LIMITS.silent_periods * loop.period_s)

    def check(self, now: float) -> None:
        """Raises and clears what is to be said of the frames."""
        loop = self.work.loop if self.work is not None else None
        if loop is None or not loop.last_frame_at:
            return
        self._check_silence(loop, now)
        self._check_picture(loop, now)
        self._check_grabbers(loop, now)
        self._check_stuck(loop, now)

    def check_recording(self) -> bool:
        """Whether a recording has just ended by an error; an alert says so."""
        fault = self._recording.fault()
        if fault is not None:
            self.send(self.alerts.recording.hold("storage", "medium", time.time_ns(), fault))
        return fault is not None

    def say_storage(self, fault: str) -> None:
        """Says that the audit trail or the session cannot be written, or can be again."""
        if fault:
            self._hold("storage", "medium", fault)
        else:
            self._end("storage", "the audit trail is written again")

    def _check_silence(self, loop: FrameLoop, now: float) -> None:
        if self.alerts.stream.is_open("stale_frames"):
            if now - loop.last_frame_at < self._stale_s:
                self._end("stale_frames", "frames arrive again")
        elif now >= self.stale_at(now) and not loop.busy_since:
            silent_ms = (now - loop.last_frame_at) * 1000
            refused = loop.recent.since(loop.last_frame_at).refused
            why = f"; {refused} were refused: {loop.invalid_text}" if refused else ""
            self._hold("stale_frames", "medium", f"no frame for {silent_ms:.0f} ms: the picture is old{why}")

    def _check_picture(self, loop: FrameLoop, now: float) -> None:
        book = self.alerts.picture
        frozen_s = 0.0 if self.alerts.stream.is_open("stale_frames") else frozen_for_s(loop, now)
        if frozen_s:
            text = f"the same picture has come for {frozen_s:.1f} s: it is not live"
            self.send(book.hold("stale_frames", "medium", time.time_ns(), text))
        elif book.is_open("stale_frames"):
            self.send(book.end("stale_frames", "the picture changes again, or none comes at all"))

    def _check_grabbers(self, loop: FrameLoop, now: float) -> None:
        assert self.work is not None
        conflict = self.work.account.conflict if now - loop.last_frame_at < LIMITS.conflict_over_s else ""
        if conflict:
            self._hold("security", "high", conflict)
        else:
            self._end("security", "one grabber sends again")

    def _check_stuck(self, loop: FrameLoop, now: float) -> None:
        busy_since = loop.busy_since
        if busy_since and now - busy_since > LIMITS.stuck_s:
            text = f"a frame has been in work for {now - busy_since:.1f} s: the guidance is not live"
            self._hold("latency", "high", text)
        else:
            self._end("latency", "frames are processed again")

    def _hold(self, kind: str, priority, text: str) -> None:
        self.send(self.alerts.stream.hold(kind, priority, time.time_ns(), text))

    def _end(self, kind: str, text: str) -> None:
        if self.alerts.stream.is_open(kind):
            self.send(self.alerts.stream.end(kind, text))
