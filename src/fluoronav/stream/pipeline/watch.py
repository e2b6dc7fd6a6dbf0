"""Beside the frame path: a thread with health once a second, a watchdog over the frames, and the request desk."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import zmq

from fluoronav import __version__
from fluoronav.case import Case
from fluoronav.site.launch import LaunchFile
from fluoronav.stream.guidance import AlertBook, GuidanceStage
from fluoronav.stream.pipeline.accounting import FrameAccount
from fluoronav.stream.pipeline.chain import Chain
from fluoronav.stream.pipeline.frames import FrameLoop, Publisher
from fluoronav.stream.pipeline.judge import LIMITS, frozen_for_s, shortfalls
from fluoronav.stream.pipeline.recording_process import RecordingProcess
from fluoronav.stream.pipeline.requests import RequestDesk, Within
from fluoronav.stream.pipeline.session import Session
from fluoronav.stream.registration.stage import RegistrationStage
from fluoronav.stream.tracking.stage import InstrumentStage
from fluoronav.wire.messages import PROTOCOL_VERSION

log = logging.getLogger("fluoronav")

_HEALTH_EVERY_S = 1.0
_STUCK_AFTER_S = 1.0
# The frame path takes up a session within milliseconds, unless it has ended by an error.
_SESSION_HELD_S = 0.5
# What had no room on the disk, and the session where alarms have changed, are written so often.
_TEND_EVERY_S = 0.3
# Health and that wait so long at the most for a moment between two frames.
_HEALTH_WAITS_S = 0.1
# Without frames nobody knows whether another grabber still sends.
_CONFLICT_OVER_S = 3.0


class Watch:
    """A thread with the request socket, the watchdog's clock and the health message.

    Parameters
    ----------
    router : zmq.Socket
        ROUTER, bound.
    stop : callable
        Ends the service.
    load : callable
        Has another case of the launch file loaded, by its name there.
    """

    def __init__(
        self, launch: LaunchFile, router: zmq.Socket[bytes], publisher: Publisher, stop: Callable[[], None],
        load: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._launch, self._router, self._publisher = launch, router, publisher
        self._case_name = self._not_loaded = ""
        self._recording = RecordingProcess(launch)
        # Three books: a recording that has ended is no less so for a trail that is written, and a picture that stands
        # still is no silence.
        self._alerts, self._recording_alerts = AlertBook("watch:"), AlertBook("recording:")
        self._picture_alerts = AlertBook("picture:")
        self._desk = RequestDesk(
            launch, router,
            Within(stop, load, self.health, self._health, self._send, self._recording, self._alerts,
                   self._picture_alerts, self._recording_alerts),
        )  # fmt: skip
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._ending = threading.Event()
        self._state, self._reason = "starting", ""
        self._failure = ""
        self._stumbled, self._stumbled_until = "", 0.0
        self._loop: FrameLoop | None = None
        self._account: FrameAccount | None = None
        self._chain: Chain | None = None
        self._case: Case | None = None
        self._next_health = self._next_tending = 0.0
        self._last_counts = (time.monotonic(), 0, 0)
        self._rates = (0.0, 0.0)
        self._failures_seen = 0
        self._failed_until = self._not_loaded_until = 0.0
        self._logged_invalid = 0

    def start(self) -> None:
        self._thread.start()

    def attach(
        self, case: Case, case_name: str, chain: Chain, account: FrameAccount, loop: FrameLoop,
        wake: Callable[[], None], session: Session | None = None,
    ) -> None:  # fmt: skip
        """Gives the watchdog what it watches; the service is ready from now on, and goes on with a session."""
        self._case, self._chain, self._account = case, chain, account
        self._case_name, self._desk.loading, self._not_loaded = case_name, "", ""
        self._not_loaded_until = 0.0
        self._failures_seen = 0
        self._loop = loop
        self._desk.attach(case, case_name, chain, loop, wake, session)
        # What a session has open is held by the frame path before the first health says what is.
        held = threading.Event()
        loop.commands.append(held.set)
        wake()
        held.wait(_SESSION_HELD_S)
        self._health()  # a display that waits for it is told now

    def detach(self) -> None:
        """The case at hand has ended: its alerts are of nothing any more."""
        guidance = self._chain.find(GuidanceStage) if self._chain else None
        for alert in guidance.alerts.end_all("another case is loaded") if guidance else []:
            self._send(alert)
        self._loop = None
        self._desk.detach()

    def not_loaded(self, text: str) -> None:
        """The case that was asked for cannot be loaded."""
        self._desk.loading, self._not_loaded = "", text
        self._not_loaded_until = time.monotonic() + LIMITS.not_loaded_s
        self._health()

    def fail(self, text: str) -> None:
        """The frame path has ended by an error."""
        self._failure = text
        self._health()

    def session_before(self) -> Session | None:
        """The session that this start goes on with."""
        return self._desk.session_before()

    def not_taken_up(self, why: str) -> None:
        """That session is not gone on with after all."""
        self._desk.not_taken_up(why)

    def end(self, *, over: bool) -> None:
        """Ends the thread; `over`: the operation has ended, too, and a next start has nothing to go on with."""
        self._ending.set()
        self._thread.join(2)
        if over:
            self._desk.end_session()
        self._desk.close()
        self._recording.close()

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self._once()
            except Exception as error:
                # The watchdog must outlive its own mistakes, and says so in the next health.
                self._stumbled = f"watchdog: {type(error).__name__}: {error}"
                self._stumbled_until = time.monotonic() + LIMITS.failed_s
                log.exception("the watchdog stumbled and goes on")
                self._ending.wait(_HEALTH_EVERY_S)

    def _once(self) -> None:
        now = time.monotonic()
        self._watch(now)
        self._watch_recording()
        waits = 0.0 if self._between_frames(now) else _HEALTH_WAITS_S
        if now >= self._next_health + waits:
            self._health()
        if now >= self._next_tending + waits:
            self._next_tending = now + _TEND_EVERY_S
            self._desk.tend()
        wait = max(min(self._next_health, self._stale_at(now)) - time.monotonic(), 0.002)
        if self._router.poll(round(min(wait, 0.1) * 1000)):
            self._desk.answer()

    def _between_frames(self, now: float) -> bool:
        """Whether no frame is in work, nor due at once: milliseconds of Python beside one would make it wait."""
        loop = self._loop
        if loop is None or not loop.last_frame_at:
            return True
        since = now - loop.last_frame_at
        return not loop.busy_since and (since < 0.6 * loop.period_s or since > 2 * loop.period_s)

    # The watchdog

    def _stale_at(self, now: float) -> float:
        """When the silence would be too long: a slow pulse rate is not silence."""
        loop = self._loop
        if loop is None or not loop.last_frame_at or self._alerts.is_open("stale_frames"):
            return now + 1
        return loop.last_frame_at + max(self._launch.stale_ms / 1000, 2.2 * loop.period_s)

    def _watch(self, now: float) -> None:
        loop = self._loop
        if loop is None or not loop.last_frame_at:
            return
        if self._alerts.is_open("stale_frames"):
            if now - loop.last_frame_at < self._launch.stale_ms / 1000:
                self._send(self._alerts.end("stale_frames", "frames arrive again"))
        elif now >= self._stale_at(now) and not loop.busy_since:
            silent = (now - loop.last_frame_at) * 1000
            refused = loop.recent.since(loop.last_frame_at).refused
            why = f"; {refused} were refused: {loop.invalid_text}" if refused else ""
            text = f"no frame for {silent:.0f} ms: the picture is old{why}"
            self._send(self._alerts.hold("stale_frames", "medium", time.time_ns(), text))
        frozen_s = 0.0 if self._alerts.is_open("stale_frames") else frozen_for_s(loop, now)
        if frozen_s:
            text = f"the same picture has come for {frozen_s:.1f} s: it is not live"
            self._send(self._picture_alerts.hold("stale_frames", "medium", time.time_ns(), text))
        elif self._picture_alerts.is_open("stale_frames"):
            self._send(self._picture_alerts.end("stale_frames", "the picture changes again, or none comes at all"))
        conflict = self._account.conflict if self._account and now - loop.last_frame_at < _CONFLICT_OVER_S else ""
        if conflict:
            self._send(self._alerts.hold("security", "high", time.time_ns(), conflict))
        elif self._alerts.is_open("security"):
            self._send(self._alerts.end("security", "one grabber sends again"))
        stuck = loop.busy_since and now - loop.busy_since > _STUCK_AFTER_S
        if stuck:
            text = f"a frame has been in work for {now - loop.busy_since:.1f} s: the guidance is not live"
            self._send(self._alerts.hold("latency", "high", time.time_ns(), text))
        elif self._alerts.is_open("latency"):
            self._send(self._alerts.end("latency", "frames are processed again"))
        if self._judge(now)[0] != self._state:
            self._health()

    def _watch_recording(self) -> None:
        fault = self._recording.fault()
        if fault is not None:
            self._send(self._recording_alerts.hold("storage", "medium", time.time_ns(), fault))
            self._health()

    def _send(self, alert) -> None:
        if alert is not None and self._loop is not None:
            seq, t_acq = self._loop.last_seq, self._loop.last_t_acq
            self._publisher.send("alert", self._publisher.alert(alert, seq, t_acq))

    def _judge(self, now: float) -> tuple[str, str]:
        """The state, and why it is not better, in words."""
        loop, chain = self._loop, self._chain
        if self._failure:
            return "failed", self._failure
        if loop is None or chain is None:
            return "starting", ""
        if chain.failures > self._failures_seen:
            self._failures_seen, self._failed_until = chain.failures, now + LIMITS.failed_s
        reason = next(self._reasons(loop, chain, now), "")
        if reason:
            return "degraded", reason
        return ("running" if loop.last_frame_at else "ready"), ""

    def _reasons(self, loop: FrameLoop, chain: Chain, now: float) -> Iterator[str]:
        books = self._alerts, self._picture_alerts, self._recording_alerts
        yield from (alert.text for book in books for alert in book.open())
        if now < self._failed_until:
            yield chain.last_failure
        if now < self._stumbled_until:
            yield self._stumbled
        if self._desk.session_fault:
            yield self._desk.session_fault
        promised = self._launch.endpoints.tools
        has_tracker = self._case is not None and self._case.file.tracker is not None
        watched = chain.find(InstrumentStage) is not None and has_tracker
        registers = chain.find(RegistrationStage) is not None
        yield from shortfalls(loop, now, registers=registers, tracker=promised if watched else None)

    def _open_alerts(self) -> list[dict[str, Any]]:
        """All that is open, for a display that has just begun to listen."""
        loop, guidance = self._loop, self._chain.find(GuidanceStage) if self._chain else None
        if loop is None:
            return []
        books = [self._alerts, self._picture_alerts, self._recording_alerts, *([guidance.alerts] if guidance else [])]
        return [self._publisher.alert(a, loop.last_seq, loop.last_t_acq) for book in books for a in book.open()]

    # Health

    def health(self) -> dict[str, Any]:
        """The health message as of now."""
        now = time.monotonic()
        self._state, self._reason = self._judge(now)
        loop, account, chain = self._loop, self._account, self._chain
        instruments = chain.find(InstrumentStage) if chain else None
        frames = {"received": 0, "processed": 0, "network": 0, "overload": 0, "invalid": 0, "missed": 0}
        latency = {"p50": 0.0, "p99": 0.0, "max": 0.0}
        invalid_by: dict[str, int] = {}
        if account is not None and loop is not None:
            totals = account.totals
            frames = {name: int(getattr(totals, name)) for name in frames}
            invalid_by = dict(totals.invalid_by_field)
            then, received, processed = self._last_counts
            if now - then > 0.5:
                elapsed = now - then
                self._rates = (totals.received - received) / elapsed, (totals.processed - processed) / elapsed
                self._last_counts = now, totals.received, totals.processed
            recent = loop.latencies_ms[: min(loop.latency_count, len(loop.latencies_ms))].copy()
            if len(recent):
                p50, p99 = np.percentile(recent, [50, 99])
                latency = {"p50": float(p50), "p99": float(p99), "max": float(recent.max())}
            self._log_invalid(totals.invalid + loop.tools_invalid, loop.invalid_text)
        return {
            "v": PROTOCOL_VERSION,
            "source": self._launch.source,
            "t": time.time_ns(),
            "state": self._state,
            "reason": self._reason,
            "instance": self._publisher.instance,
            "alerts": self._open_alerts(),
            "fps_in": self._rates[0],
            "fps_out": self._rates[1],
            "latency_ms": latency,
            "frames": frames,
            "invalid_by_field": invalid_by,
            "tools_invalid": loop.tools_invalid if loop else 0,
            "tools_skipped": loop.tools_skipped if loop else 0,
            "tools_rejected": instruments.rejected if instruments else {},
            "clock_offset_ms": loop.clock_offset_ms if loop else 0.0,
            "engine": chain.engines if chain else {},
            "case": self._case.id if self._case else "",
            "case_name": self._case_name,
            "loading": self._desk.loading,
            "recording": str(self._recording.path) if self._recording.running else "",
            "mode": loop.mode if loop else "shadow",
            "session": self._desk.session(),
            "unauthenticated": self._launch.unauthenticated,
            "version": __version__,
            "error": self._error(now),
        }

    def _error(self, now: float) -> str:
        """An error that has passed is not said any more."""
        if self._failure:
            return self._failure
        if now < self._not_loaded_until:
            return self._not_loaded
        if now < self._stumbled_until:
            return self._stumbled
        return self._chain.last_failure if self._chain and now < self._failed_until else ""

    def _health(self) -> None:
        self._next_health = time.monotonic() + _HEALTH_EVERY_S
        health = self.health()
        self._publisher.send("health", health)
        # Who listens to alerts alone, and has just begun to, hears of what is open, too.
        for alert in health["alerts"]:
            self._publisher.send("alert", alert)

    def _log_invalid(self, count: int, text: str) -> None:
        if count > self._logged_invalid:
            log.warning(
                "%d invalid messages since the last report, the last one: %s", count - self._logged_invalid, text
            )
            self._logged_invalid = count
