"""What clients ask of the running pipeline: each request is kept, granted or refused in words, and answered."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import zmq

from fluoronav import __version__
from fluoronav.audit import AuditError, AuditTrail
from fluoronav.case import Case
from fluoronav.guidance import AlertBook, GuidanceStage
from fluoronav.pipeline.chain import Chain
from fluoronav.pipeline.frames import FrameLoop
from fluoronav.pipeline.launch import LaunchFile
from fluoronav.pipeline.recording_process import RecordingProcess
from fluoronav.records import Alert
from fluoronav.registration import RegistrationStage
from fluoronav.wire import InvalidMessage, Request, decode_request, encode
from fluoronav.wire.messages import PROTOCOL_VERSION

# Requests that change nothing; all others are kept.
_NOT_KEPT = frozenset({"status", "case.info"})
_MOST_AT_ONCE = 16


class RequestError(ValueError):
    """A request that cannot be granted; `code` is for programs, the text for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Within:
    """What a request can reach beside the frame path.

    Attributes
    ----------
    stop : callable
        Ends the service.
    load : callable
        Has another case of the launch file loaded, by its name there.
    health : callable
        The health message as of now.
    say_health : callable
        Sends it.
    send : callable
        Sends an alert, unless it is None.
    recording : RecordingProcess
    alerts, recording_alerts : AlertBook
    """

    stop: Callable[[], None]
    load: Callable[[str], None]
    health: Callable[[], dict[str, Any]]
    say_health: Callable[[], None]
    send: Callable[[Alert | None], None]
    recording: RecordingProcess
    alerts: AlertBook
    recording_alerts: AlertBook


@dataclass(frozen=True)
class _AtWork:
    """What runs while one case is loaded."""

    case: Case
    chain: Chain
    loop: FrameLoop
    wake: Callable[[], None]

    def order(self, command: Callable[[], None]) -> None:
        """Has the frame path do something between two frames."""
        self.loop.commands.append(command)
        self.wake()


class RequestDesk:
    """Answers what comes by the request socket, one request after the other, on the thread that calls it.

    Parameters
    ----------
    launch : LaunchFile
    router : zmq.Socket
        ROUTER, bound.
    within : Within

    Attributes
    ----------
    loading : str
        The case that is being loaded, by its name in the launch file; empty without one.
    """

    def __init__(self, launch: LaunchFile, router: zmq.Socket[bytes], within: Within) -> None:
        self._launch, self._router, self._within = launch, router, within
        self._trail = AuditTrail(launch.audit_folder, f"pipeline-{launch.source}")
        self._at_work: _AtWork | None = None
        self.loading = ""
        # What may be asked while nothing is loaded yet, and what needs a case at work.
        self._at_any_time: dict[str, Callable[[Request], Any]] = {
            "status": lambda _: self._within.health(),
            "stop": self._stop,
        }
        self._with_a_case: dict[str, Callable[[Request, _AtWork], Any]] = {
            "case.info": self._case_info,
            "case.load": self._load_case,
            "plan.set": self._set_plan,
            "registration.start": self._restart_registration,
            "registration.reject": self._restart_registration,
            "registration.accept": lambda request, at_work: {"noted": True},
            "mode.set": self._set_mode,
            "alert.acknowledge": self._acknowledge,
            "record.start": self._start_recording,
            "record.stop": self._stop_recording,
        }

    def attach(self, case: Case, chain: Chain, loop: FrameLoop, wake: Callable[[], None]) -> None:
        """A case is at work; `wake` has its frame path look at its commands."""
        self._at_work = _AtWork(case, chain, loop, wake)

    def detach(self) -> None:
        """The case at hand has ended."""
        self._at_work = None

    def answer(self) -> None:
        """Answers what has come, a few requests at the most."""
        for _ in range(_MOST_AT_ONCE):
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
        within = self._within
        try:
            if request.op not in _NOT_KEPT:
                self._trail.add({"event": "asked", **self._circumstances(request)})
            reply = {"ok": True, "result": self._grant(request)}
        except RequestError as error:
            reply = {"ok": False, "error": {"code": error.code, "text": str(error)}}
            if request.op not in _NOT_KEPT:
                self._trail.add({"event": "refused", "id": request.id, "why": str(error)})
        except AuditError as error:
            within.send(within.alerts.hold("storage", "medium", time.time_ns(), str(error)))
            return {"ok": False, "error": {"code": "storage", "text": str(error)}}
        if within.alerts.is_open("storage"):
            within.send(within.alerts.end("storage", "the audit trail is written again"))
        return reply

    def _circumstances(self, request: Request) -> dict[str, Any]:
        at_work = self._at_work
        registration = at_work.chain.find(RegistrationStage) if at_work else None
        latest = registration.latest if registration else None
        return {
            "id": request.id,
            "op": request.op,
            "args": request.args,
            "user": request.user,
            "case": at_work.case.id if at_work else "",
            "mode": at_work.loop.mode if at_work else self._launch.mode,
            "seq": at_work.loop.last_seq if at_work else None,
            "T_camera_ct": latest.T_camera_ct.ravel().tolist() if latest else None,
        }

    def _grant(self, request: Request) -> Any:
        if request.op in self._at_any_time:
            return self._at_any_time[request.op](request)
        if self._at_work is None:
            raise RequestError("not_ready", "the service is still starting; ask again when health says ready")
        if request.op not in self._with_a_case:
            raise RequestError("not_available", f"{request.op} is not available in version {__version__}")
        return self._with_a_case[request.op](request, self._at_work)

    # What each request does

    def _stop(self, request: Request) -> dict[str, Any]:
        self._within.stop()
        return {}

    def _case_info(self, request: Request, at_work: _AtWork) -> dict[str, Any]:
        case = at_work.case
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

    def _load_case(self, request: Request, at_work: _AtWork) -> dict[str, Any]:
        """Cases are those of the launch file: a request names none of this computer's files."""
        name, known = request.args.get("case"), self._launch.cases
        if not isinstance(name, str) or name not in known:
            there = ", ".join(known) or "none: the launch file has no `cases`"
            raise RequestError("invalid", f"args.case must be one of {there}")
        if self.loading:
            raise RequestError("busy", f"{self.loading} is being loaded; health says when it is there")
        self.loading = name
        self._within.load(name)
        self._within.say_health()
        return {"loading": name}

    def _set_plan(self, request: Request, at_work: _AtWork) -> dict[str, Any]:
        names = request.args.get("trajectories")
        known = {t.name: t for t in at_work.case.plan}
        if not isinstance(names, list) or not all(n in known for n in names):
            raise RequestError(
                "invalid", f"args.trajectories must be a list of {', '.join(known) or 'nothing: no plan'}"
            )
        guidance = at_work.chain.find(GuidanceStage)
        if guidance is None:
            raise RequestError("not_available", "this launch file has no guidance stage")
        at_work.order(lambda: guidance.set_plan([known[n] for n in names]))
        return {"trajectories": names}

    def _restart_registration(self, request: Request, at_work: _AtWork) -> dict[str, Any]:
        registration = at_work.chain.find(RegistrationStage)
        if registration is None:
            raise RequestError("not_available", "this launch file has no registration stage")
        at_work.order(registration.restart)
        return {}

    def _set_mode(self, request: Request, at_work: _AtWork) -> dict[str, Any]:
        mode = request.args.get("mode")
        if mode not in ("live", "shadow"):
            raise RequestError("invalid", f"args.mode is {mode!r}; it must be live or shadow")
        at_work.loop.mode = mode
        return {"mode": mode}

    def _acknowledge(self, request: Request, at_work: _AtWork) -> dict[str, Any]:
        alert_id = request.args.get("alert")
        if not isinstance(alert_id, str):
            raise RequestError("invalid", "args.alert must be the id of an alert")
        within = self._within
        books = within.alerts, within.recording_alerts
        own = next((a for book in books if (a := book.acknowledge(alert_id, request.user))), None)
        if own is not None:
            within.send(own)
            return {"alert": alert_id}
        guidance = at_work.chain.find(GuidanceStage)
        if guidance is None or not guidance.alerts.knows(alert_id):
            raise RequestError("unknown_alert", f"no open alert has the id {alert_id!r}")
        at_work.order(lambda: within.send(guidance.alerts.acknowledge(alert_id, request.user)))
        return {"alert": alert_id}

    def _start_recording(self, request: Request, at_work: _AtWork) -> dict[str, Any]:
        within = self._within
        if within.recording.running:
            raise RequestError("busy", f"{within.recording.path} is being recorded; stop that first")
        try:
            within.recording.start()
        except OSError as error:
            raise RequestError("storage", f"the recording cannot begin: {error}") from error
        within.send(within.recording_alerts.end("storage", "recording again"))
        within.say_health()
        return {"path": str(within.recording.path)}

    def _stop_recording(self, request: Request, at_work: _AtWork) -> dict[str, Any]:
        within = self._within
        if not within.recording.running:
            raise RequestError("invalid", "nothing is being recorded")
        within.recording.stop()
        within.say_health()
        return {"path": str(within.recording.path)}
