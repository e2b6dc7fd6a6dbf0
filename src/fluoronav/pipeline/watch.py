"""Beside the frame path: health once a second, a watchdog over the frames, and the clients' requests."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import zmq

from fluoronav import __version__
from fluoronav.audit import AuditError, AuditTrail
from fluoronav.case import Case
from fluoronav.guidance import AlertBook, GuidanceStage
from fluoronav.instruments import InstrumentStage
from fluoronav.pipeline.accounting import FrameAccount
from fluoronav.pipeline.chain import Chain
from fluoronav.pipeline.frames import FrameLoop, Publisher
from fluoronav.pipeline.launch import LaunchFile
from fluoronav.pipeline.messages import alert_message
from fluoronav.pipeline.recording_process import RecordingProcess
from fluoronav.registration import RegistrationStage
from fluoronav.wire import InvalidMessage, Request, decode_request, encode
from fluoronav.wire.messages import PROTOCOL_VERSION

log = logging.getLogger("fluoronav")

_HEALTH_EVERY_S = 1.0
_STUCK_AFTER_S = 1.0
# Requests that change nothing; all others are kept.
_NOT_KEPT = frozenset({"status", "case.info"})


class RequestError(ValueError):
    """A request that cannot be granted; `code` is for programs, the text for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


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
        self._launch, self._router, self._publisher, self._stop, self._load = launch, router, publisher, stop, load
        self._loading = self._not_loaded = ""
        self._case_name = ""
        self._recording = RecordingProcess(launch)
        # Two books: a recording that has ended is no less so for a trail that is written.
        self._alerts, self._recording_alerts = AlertBook("watch:"), AlertBook("recording:")
        self._trail = AuditTrail(launch.audit_folder, f"pipeline-{launch.source}")
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._ending = threading.Event()
        self._state = "starting"
        self._failure = ""
        self._loop: FrameLoop | None = None
        self._account: FrameAccount | None = None
        self._chain: Chain | None = None
        self._case: Case | None = None
        self._wake: Callable[[], None] = lambda: None
        self._next_health = 0.0
        self._last_counts = (time.monotonic(), 0, 0)
        self._rates = (0.0, 0.0)
        self._failures_seen = 0
        self._degraded_until = 0.0
        self._logged_invalid = 0

    def start(self) -> None:
        self._thread.start()

    def attach(
        self, case: Case, chain: Chain, account: FrameAccount, loop: FrameLoop, wake: Callable[[], None]
    ) -> None:
        """Gives the watchdog what it watches; the service is ready from now on."""
        self._case, self._chain, self._account, self._wake = case, chain, account, wake
        self._case_name, self._loading, self._not_loaded = self._loading, "", ""
        self._failures_seen = 0
        self._loop = loop
        self._health()  # a display that waits for it is told now

    def detach(self) -> None:
        """The case at hand has ended: its alerts are of nothing any more."""
        guidance = self._chain.find(GuidanceStage) if self._chain else None
        for alert in guidance.alerts.end_all("another case is loaded") if guidance else []:
            self._send(alert)
        self._loop = None

    def not_loaded(self, text: str) -> None:
        """The case that was asked for cannot be loaded."""
        self._loading, self._not_loaded = "", text
        self._health()

    def fail(self, text: str) -> None:
        """The frame path has ended by an error."""
        self._failure = text
        self._health()

    def end(self) -> None:
        self._ending.set()
        self._thread.join(2)
        self._recording.close()

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self._once()
            except Exception as error:
                # The watchdog must outlive its own mistakes, and says so in the next health.
                self._failure = f"watchdog: {type(error).__name__}: {error}"
                log.exception("the watchdog stumbled and goes on")
                self._ending.wait(_HEALTH_EVERY_S)

    def _once(self) -> None:
        now = time.monotonic()
        self._watch(now)
        self._watch_recording()
        if now >= self._next_health:
            self._health()
        wait = max(min(self._next_health, self._stale_at(now)) - time.monotonic(), 0.002)
        if self._router.poll(round(min(wait, 0.1) * 1000)):
            self._answer()

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
            text = f"no frame for {silent:.0f} ms: the picture is old"
            self._send(self._alerts.hold("stale_frames", "medium", time.time_ns(), text))
        stuck = loop.busy_since and now - loop.busy_since > _STUCK_AFTER_S
        if stuck:
            text = f"a frame has been in work for {now - loop.busy_since:.1f} s: the guidance is not live"
            self._send(self._alerts.hold("latency", "high", time.time_ns(), text))
        elif self._alerts.is_open("latency"):
            self._send(self._alerts.end("latency", "frames are processed again"))
        state = self._judge(now)
        if state != self._state:
            self._health()

    def _watch_recording(self) -> None:
        fault = self._recording.fault()
        if fault is not None:
            self._send(self._recording_alerts.hold("storage", "medium", time.time_ns(), fault))
            self._health()

    def _send(self, alert) -> None:
        if alert is not None and self._loop is not None:
            seq, t_acq = self._loop.last_seq, self._loop.last_t_acq
            self._publisher.send("alert", alert_message(alert, self._launch.source, seq, t_acq))

    def _judge(self, now: float) -> str:
        if self._failure:
            return "failed"
        if self._loop is None or self._chain is None:
            return "starting"
        if self._chain.failures > self._failures_seen:
            self._failures_seen = self._chain.failures
            self._degraded_until = now + 5
        if not self._loop.last_frame_at:
            return "ready"
        if self._alerts.is_open("stale_frames") or self._alerts.is_open("latency") or now < self._degraded_until:
            return "degraded"
        return "running"

    # Health

    def health(self) -> dict[str, Any]:
        """The health message as of now."""
        now = time.monotonic()
        self._state = self._judge(now)
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
            "fps_in": self._rates[0],
            "fps_out": self._rates[1],
            "latency_ms": latency,
            "frames": frames,
            "invalid_by_field": invalid_by,
            "tools_invalid": loop.tools_invalid if loop else 0,
            "tools_rejected": instruments.rejected if instruments else {},
            "clock_offset_ms": loop.clock_offset_ms if loop else 0.0,
            "engine": chain.engines if chain else {},
            "case": self._case.id if self._case else "",
            "case_name": self._case_name,
            "loading": self._loading,
            "recording": str(self._recording.path) if self._recording.running else "",
            "mode": loop.mode if loop else self._launch.mode,
            "version": __version__,
            "error": self._failure or self._not_loaded or (chain.last_failure if chain else ""),
        }

    def _health(self) -> None:
        self._next_health = time.monotonic() + _HEALTH_EVERY_S
        self._publisher.send("health", self.health())

    def _log_invalid(self, count: int, text: str) -> None:
        if count > self._logged_invalid:
            log.warning(
                "%d invalid messages since the last report, the last one: %s", count - self._logged_invalid, text
            )
            self._logged_invalid = count

    # Requests

    def _answer(self) -> None:
        for _ in range(16):
            try:
                parts = self._router.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            # A REQ socket sends an empty part before its request; answer with what came before the last part.
            *envelope, body = parts
            reply: dict[str, Any] = {"v": PROTOCOL_VERSION, "id": None, "ok": False}
            try:
                request = decode_request(body)
                reply["id"] = request.id
                reply |= self._granted_and_kept(request)
            except InvalidMessage as error:
                reply["error"] = {"code": "invalid", "text": str(error)}
            self._router.send_multipart([*envelope, encode(reply)], zmq.NOBLOCK)

    def _granted_and_kept(self, request: Request) -> dict[str, Any]:
        """The reply's ``ok`` and ``result`` or ``error``; what cannot be kept is not done."""
        try:
            if request.op not in _NOT_KEPT:
                self._trail.add({"event": "asked", **self._circumstances(request)})
            reply = {"ok": True, "result": self._grant(request)}
        except RequestError as error:
            reply = {"ok": False, "error": {"code": error.code, "text": str(error)}}
            if request.op not in _NOT_KEPT:
                self._trail.add({"event": "refused", "id": request.id, "why": str(error)})
        except AuditError as error:
            self._send(self._alerts.hold("storage", "medium", time.time_ns(), str(error)))
            return {"ok": False, "error": {"code": "storage", "text": str(error)}}
        if self._alerts.is_open("storage"):
            self._send(self._alerts.end("storage", "the audit trail is written again"))
        return reply

    def _circumstances(self, request: Request) -> dict[str, Any]:
        loop = self._loop
        registration = self._chain.find(RegistrationStage) if self._chain else None
        latest = registration.latest if registration else None
        return {
            "id": request.id,
            "op": request.op,
            "args": request.args,
            "user": request.user,
            "case": self._case.id if self._case else "",
            "mode": loop.mode if loop else self._launch.mode,
            "seq": loop.last_seq if loop else None,
            "T_camera_ct": latest.T_camera_ct.ravel().tolist() if latest else None,
        }

    def _grant(self, request: Request) -> Any:
        if request.op == "status":
            return self.health()
        if request.op == "stop":
            self._stop()
            return {}
        if self._loop is None or self._case is None or self._chain is None:
            raise RequestError("not_ready", "the service is still starting; ask again when health says ready")
        if request.op == "case.info":
            return self._case_info(self._case)
        if request.op == "plan.set":
            return self._set_plan(request, self._case)
        if request.op in ("registration.start", "registration.reject"):
            registration = self._chain.find(RegistrationStage)
            if registration is None:
                raise RequestError("not_available", "this launch file has no registration stage")
            self._order(registration.restart)
            return {}
        if request.op == "registration.accept":
            return {"noted": True}
        if request.op == "mode.set":
            mode = request.args.get("mode")
            if mode not in ("live", "shadow"):
                raise RequestError("invalid", f"args.mode is {mode!r}; it must be live or shadow")
            self._loop.mode = mode
            return {"mode": mode}
        if request.op == "alert.acknowledge":
            return self._acknowledge(request)
        if request.op == "case.load":
            return self._load_case(request)
        if request.op in ("record.start", "record.stop"):
            return self._record(request.op == "record.start")
        raise RequestError("not_available", f"{request.op} is not available in version {__version__}")

    def _load_case(self, request: Request) -> dict[str, Any]:
        """Cases are those of the launch file: a request names none of this computer's files."""
        name, known = request.args.get("case"), self._launch.cases
        if not isinstance(name, str) or name not in known:
            there = ", ".join(known) or "none: the launch file has no `cases`"
            raise RequestError("invalid", f"args.case must be one of {there}")
        if self._loading:
            raise RequestError("busy", f"{self._loading} is being loaded; health says when it is there")
        self._loading = name
        self._load(name)
        self._health()
        return {"loading": name}

    def _record(self, start: bool) -> dict[str, Any]:
        recording = self._recording
        if start and recording.running:
            raise RequestError("busy", f"{recording.path} is being recorded; stop that first")
        if not start and not recording.running:
            raise RequestError("invalid", "nothing is being recorded")
        if start:
            try:
                recording.start()
            except OSError as error:
                raise RequestError("storage", f"the recording cannot begin: {error}") from error
            self._send(self._recording_alerts.end("storage", "recording again"))
        else:
            recording.stop()
        self._health()
        return {"path": str(recording.path)}

    def _order(self, command: Callable[[], None]) -> None:
        """Has the frame path do something between two frames."""
        assert self._loop is not None
        self._loop.commands.append(command)
        self._wake()

    def _case_info(self, case: Case) -> dict[str, Any]:
        return {
            "case": case.id,
            "name": case.file.name,
            "cases": list(self._launch.cases),
            "structures": [
                {"name": s.name, "color": s.color, "caution_mm": s.caution_mm, "danger_mm": s.danger_mm}
                for s in case.structures
            ],
            "no_go": [n.name for n in case.file.no_go],
            "plan": [t.model_dump() for t in case.plan],
            "tools": [t.model_dump() for t in case.tools],
        }

    def _set_plan(self, request: Request, case: Case) -> dict[str, Any]:
        names = request.args.get("trajectories")
        known = {t.name: t for t in case.plan}
        if not isinstance(names, list) or not all(n in known for n in names):
            raise RequestError(
                "invalid", f"args.trajectories must be a list of {', '.join(known) or 'nothing: no plan'}"
            )
        guidance = self._chain.find(GuidanceStage) if self._chain else None
        if guidance is None:
            raise RequestError("not_available", "this launch file has no guidance stage")
        self._order(lambda: guidance.set_plan([known[n] for n in names]))
        return {"trajectories": names}

    def _acknowledge(self, request: Request) -> dict[str, Any]:
        alert_id = request.args.get("alert")
        if not isinstance(alert_id, str):
            raise RequestError("invalid", "args.alert must be the id of an alert")
        books = self._alerts, self._recording_alerts
        own = next((a for book in books if (a := book.acknowledge(alert_id, request.user))), None)
        if own is not None:
            self._send(own)
            return {"alert": alert_id}
        guidance = self._chain.find(GuidanceStage) if self._chain else None
        if guidance is None or not guidance.alerts.knows(alert_id):
            raise RequestError("unknown_alert", f"no open alert has the id {alert_id!r}")
        self._order(lambda: self._send(guidance.alerts.acknowledge(alert_id, request.user)))
        return {"alert": alert_id}
