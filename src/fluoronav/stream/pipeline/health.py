"""The health message: how the service is, and why it is not better."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fluoronav.site.launch import LaunchFile
from fluoronav.stream.pipeline.accounting import FrameTotals
from fluoronav.stream.pipeline.judge import LIMITS, shortfalls
from fluoronav.stream.pipeline.messages import health_message
from fluoronav.stream.pipeline.publisher import Publisher
from fluoronav.stream.pipeline.recording_process import RecordingProcess
from fluoronav.stream.pipeline.rests import Rests
from fluoronav.stream.pipeline.watchdog import Watchdog
from fluoronav.stream.pipeline.work import Work
from fluoronav.stream.stage import HoldsPose, ObservesTools, RendersKeyframes, WatchesBreathing, WitnessesPictures
from fluoronav.wire import messages as wire

log = logging.getLogger("fluoronav")

_EVERY_S = 1.0
# Rates are counted over at least so long, s.
_RATES_OVER_S = 0.5


@dataclass
class _Passing:
    """A fault that is said for some time."""

    text: str = ""
    until: float = 0.0

    def note(self, text: str, for_s: float) -> None:
        self.text, self.until = text, time.monotonic() + for_s

    def now(self, now: float) -> str:
        return self.text if now < self.until else ""


class Health:
    """Judges the service, and says so once a second and on a change of state.

    Parameters
    ----------
    launch : LaunchFile
    publisher : Publisher
    watchdog : Watchdog
    recording : RecordingProcess
    rests : Rests

    Attributes
    ----------
    work : Work or None
    next_at : float
        When it is said next, by the monotonic clock, s.
    failure : str
        Why the frame path has ended.
    loading : str
        The case that is being loaded, by its name in the launch file.
    session_fault : str
        Why the session before a restart was not taken up, until a person has confirmed the patient.
    stumbled, not_loaded : _Passing
        Errors of the watchdog, and of a case that was asked for.
    """

    def __init__(
        self, launch: LaunchFile, publisher: Publisher, watchdog: Watchdog, recording: RecordingProcess, rests: Rests
    ) -> None:
        self._rests = rests
        self._launch, self._publisher, self._watchdog, self._recording = launch, publisher, watchdog, recording
        self.work: Work | None = None
        self.next_at = 0.0
        self.failure = self.loading = self.session_fault = ""
        self.stumbled, self.not_loaded, self._failed = _Passing(), _Passing(), _Passing()
        self._state, self._reason = "starting", ""
        self._failures_seen = 0
        self._last_counts = (time.monotonic(), 0, 0)
        self._rates = (0.0, 0.0)
        self._logged_invalid = 0

    def attach(self, work: Work) -> None:
        """Another case is at work."""
        self.work, self.loading, self._failures_seen = work, "", 0
        self.not_loaded = _Passing()

    def changed(self) -> bool:
        """Whether the state is not the one that was said last."""
        return self._judge(time.monotonic())[0] != self._state

    def say(self) -> None:
        """Sends the message, and every open alert again for whoever listens to alerts alone."""
        self.next_at = time.monotonic() + _EVERY_S
        health = self.message()
        self._publisher.send("health", health)
        for alert in health.alerts or ():
            self._publisher.send("alert", alert)

    def message(self) -> wire.Health:
        """The health message as of now."""
        now = time.monotonic()
        self._state, self._reason = self._judge(now)
        work = self.work
        loop = work.loop if work is not None else None
        tools = loop.tools if loop is not None else None
        return health_message(
            source=self._launch.source,
            instance=self._publisher.instance,
            state=self._state,
            reason=self._reason,
            error=self._error(now),
            alerts=self._open_alerts(),
            totals=self._totals(now),
            rates=self._rates,
            latencies_ms=loop.latencies_ms[: loop.latency_count].copy() if loop else np.zeros(0),
            tools_invalid=tools.invalid if tools else 0,
            tools_skipped=tools.skipped if tools else 0,
            tools_rejected=dict(loop.standing.tools_rejected) if loop else {},
            keyframes=self._keyframes(),
            looks=dict(loop.standing.looks) if loop else {},
            witness=self._verdicts(),
            breaths=self._breaths(),
            resting=self._rests.resting,
            clock_offset_ms=loop.clock_offset_ms if loop else 0.0,
            engine=work.chain.engines if work else {},
            case=work.case.id if work else "",
            case_name=work.case_name if work else "",
            loading=self.loading,
            recording=str(self._recording.path) if self._recording.running else "",
            mode=loop.mode if loop else "shadow",
            session=self._session(),
            unauthenticated=self._launch.unauthenticated,
        )

    def _keyframes(self) -> dict[str, int]:
        renders = self.work.chain.find(RendersKeyframes) if self.work else None
        return dict(renders.keyframes) if renders is not None else {}

    def _verdicts(self) -> dict[str, int]:
        witness = self.work.chain.find(WitnessesPictures) if self.work else None
        return {reason: n for reason, n in witness.verdicts.items() if n} if witness is not None else {}

    def _breaths(self) -> dict[str, int]:
        watch = self.work.chain.find(WatchesBreathing) if self.work else None
        return {what: n for what, n in watch.breaths.items() if n} if watch is not None else {}

    def _totals(self, now: float) -> FrameTotals:
        """Frames since the start; brings the rates up to date."""
        if self.work is None:
            return FrameTotals()
        totals = self.work.account.totals
        then, received, processed = self._last_counts
        elapsed = now - then
        if elapsed > _RATES_OVER_S:
            self._rates = (totals.received - received) / elapsed, (totals.processed - processed) / elapsed
            self._last_counts = now, totals.received, totals.processed
        self._log_invalid()
        return totals

    def _session(self) -> wire.SessionState:
        work = self.work
        accepted = work is not None and work.loop.standing.accepted
        return wire.SessionState(
            confirmed=work is not None and work.confirmed is not None,
            accepted=accepted,
            accepted_t=work.accepted.t if work is not None and work.accepted is not None and accepted else None,
            plan=list(work.plan) if work else [],
            restored=work is not None and work.restored,
        )

    def _open_alerts(self) -> list[wire.Alert]:
        """All that is open, for a display that has just begun to listen."""
        if self.work is None:
            return []
        loop = self.work.loop
        alerts = [*self._watchdog.alerts.open(), *loop.standing.alerts]
        return [self._publisher.alert(a, loop.last_seq, loop.last_t_acq) for a in alerts]

    def _judge(self, now: float) -> tuple[str, str]:
        """The state, and why it is not better, in words."""
        if self.failure:
            return "failed", self.failure
        if self.work is None:
            return "starting", ""
        chain = self.work.chain
        if chain.failures > self._failures_seen:
            self._failures_seen = chain.failures
            self._failed.note(chain.last_failure, LIMITS.failed_s)
        reason = next(self._reasons(self.work, now), "")
        if reason:
            return "degraded", reason
        return ("running" if self.work.loop.last_frame_at else "ready"), ""

    def _reasons(self, work: Work, now: float) -> Iterator[str]:
        yield from (alert.text for alert in self._watchdog.alerts.open())
        yield from filter(None, (self._failed.now(now), self.stumbled.now(now), self.session_fault))
        has_tracker = work.case.file.tracker is not None and work.chain.find(ObservesTools) is not None
        tracker = self._launch.endpoints.tools if has_tracker else None
        registers = work.chain.find(HoldsPose) is not None
        yield from shortfalls(work.loop, now, registers=registers, tracker=tracker)

    def _error(self, now: float) -> str:
        """An error that has passed is not said any more."""
        return self.failure or self.not_loaded.now(now) or self.stumbled.now(now) or self._failed.now(now)

    def _log_invalid(self) -> None:
        assert self.work is not None
        loop = self.work.loop
        tools_invalid, tools_text = (loop.tools.invalid, loop.tools.refused) if loop.tools else (0, "")
        count, text = self.work.account.totals.invalid + tools_invalid, loop.invalid_text or tools_text
        if count > self._logged_invalid:
            log.warning("%d invalid messages since the last report, such as: %s", count - self._logged_invalid, text)
            self._logged_invalid = count
