"""What clients ask of the running pipeline: each request is kept, granted or refused in words, and answered."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any, Literal

import numpy as np
import zmq

from fluoronav.case import Case
from fluoronav.site.audit import AuditError, AuditTrail, Rate
from fluoronav.site.launch import LaunchFile
from fluoronav.stream.frame import Alert
from fluoronav.stream.guidance import AlertBook, GuidanceStage
from fluoronav.stream.pipeline.chain import Chain
from fluoronav.stream.pipeline.frames import FrameLoop
from fluoronav.stream.pipeline.freshness import Freshness
from fluoronav.stream.pipeline.recording_process import RecordingProcess
from fluoronav.stream.pipeline.session import MOST_ALERTS, Accepted, Mark, Session, SessionError, SessionFile
from fluoronav.stream.registration.stage import RegistrationStage
from fluoronav.wire import InvalidMessage, Request, decode_args, decode_request, encode
from fluoronav.wire.messages import PROTOCOL_VERSION
from fluoronav.wire.requests import AlertAcknowledge, Args, CaseConfirm, CaseLoad, ModeSet, PlanSet

log = logging.getLogger("fluoronav")

_MOST_AT_ONCE = 16
# A REQ or DEALER behind a few proxies; each part of the envelope is sent back.
_MOST_PARTS = 8
# Changing requests that are kept with a line of their own in a window; people at a few screens stay far below.
_MOST_CHANGES, _CHANGES_WINDOW_S = 200, 10.0
# Commands that wait for the frame path; more wait only where it is stuck.
_MOST_WAITING = 256
# An accepted pose changes with every turn of the C-arm: a restart must know it as of so long before.
_POSE_KEPT_EVERY_S = 5.0
# A session that nothing changes is said to be of now so often.
_SESSION_KEPT_EVERY_S = 600.0


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
    alerts, picture_alerts, recording_alerts : AlertBook
    """

    stop: Callable[[], None]
    load: Callable[[str], None]
    health: Callable[[], dict[str, Any]]
    say_health: Callable[[], None]
    send: Callable[[Alert | None], None]
    recording: RecordingProcess
    alerts: AlertBook
    picture_alerts: AlertBook
    recording_alerts: AlertBook


@dataclass(eq=False)
class _AtWork:
    """What runs while one case is loaded, and what people have said of it."""

    case: Case
    case_name: str
    chain: Chain
    loop: FrameLoop
    wake: Callable[[], None]
    plan: tuple[str, ...]
    restored: bool = False
    confirmed: Mark | None = None
    accepted: Accepted | None = None

    @property
    def registration(self) -> RegistrationStage | None:
        return self.chain.find(RegistrationStage)

    @property
    def guidance(self) -> GuidanceStage | None:
        return self.chain.find(GuidanceStage)

    def follow_accepted(self) -> None:
        """Notes where the registration that was accepted is now."""
        registration, accepted = self.registration, self.accepted
        latest = registration.latest if registration is not None and registration.accepted else None
        if latest is not None and accepted is not None:
            T_camera_ct = tuple(latest.T_camera_ct.ravel().tolist())
            now = accepted.model_copy(update={"T_camera_ct": T_camera_ct})
            if self.accepted is accepted:
                self.accepted = now

    def order(self, command: Callable[[], object]) -> None:
        """Has the frame path do something between two frames; an error there is the command's own."""

        def obeyed() -> None:
            try:
                command()
            except Exception:
                log.exception("a command between two frames has failed; the frames go on")

        if len(self.loop.commands) >= _MOST_WAITING:
            raise RequestError("busy", f"{_MOST_WAITING} commands wait for the frame path already")
        self.loop.commands.append(obeyed)
        self.wake()


Done = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class _Op:
    """One kind of request.

    Attributes
    ----------
    look : callable
        Given the request, its arguments and what is at work (None only where `at_any_time`), says by a
        :class:`RequestError` why it is not granted, and otherwise returns what does it. It changes nothing itself.
    changes : bool
        Whether it is kept in the trail, and refused a second time.
    at_any_time : bool
        Whether it may be asked while nothing is loaded yet.
    safe : callable
        Whether, with these arguments, it takes guidance back or acknowledges: no disk may stand in the way of that.
    """

    look: Callable[[Request, Any, Any], Done]
    changes: bool = True
    at_any_time: bool = False
    safe: Callable[[Any], bool] = lambda args: False


def _always(args: Args) -> bool:
    return True


class RequestDesk:
    """Answers what comes by the request socket, one request after the other, on the thread that calls it.

    Whatever is sent gets a reply: granted, or refused with a code and a text; an error in what it does is that
    request's own.

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
    session_fault : str
        Why the session before a restart was not taken up, until a person has confirmed the patient.
    """

    def __init__(self, launch: LaunchFile, router: zmq.Socket[bytes], within: Within) -> None:
        self._launch, self._router, self._within = launch, router, within
        self._trail = AuditTrail(launch.audit_folder, f"pipeline-{launch.source}")
        self._changes = Rate(_MOST_CHANGES, _CHANGES_WINDOW_S)
        self._stumbles = Rate(5, 10.0)
        self._freshness = Freshness(must_have_time=launch.unauthenticated)
        self._session_file = SessionFile(launch.audit_folder, launch.source)
        self._saved: Session | None = None
        self._saving = Lock()
        self._over = False
        self._unsaved = ""
        self._pose_kept = 0.0
        self._mode: Literal["live", "shadow"] = launch.mode
        self._at_work: _AtWork | None = None
        self.loading = self.session_fault = ""
        self._ops: dict[str, _Op] = {
            "status": _Op(self._status, changes=False, at_any_time=True),
            "stop": _Op(self._stop, at_any_time=True, safe=_always),
            "case.info": _Op(self._case_info, changes=False),
            "case.load": _Op(self._load_case),
            "case.confirm": _Op(self._confirm_case),
            "plan.set": _Op(self._set_plan),
            "registration.start": _Op(self._restart_registration, safe=_always),
            "registration.reject": _Op(self._restart_registration, safe=_always),
            "registration.accept": _Op(self._accept_registration),
            "mode.set": _Op(self._set_mode, safe=lambda args: args.mode == "shadow"),
            "alert.acknowledge": _Op(self._acknowledge, safe=_always),
            "record.start": _Op(self._start_recording),
            "record.stop": _Op(self._stop_recording, safe=_always),
        }

    # The session

    def session(self) -> dict[str, Any]:
        """What `health.session` says."""
        at_work = self._at_work
        registration = at_work.registration if at_work else None
        return {
            "confirmed": at_work is not None and at_work.confirmed is not None,
            "accepted": registration is not None and registration.accepted,
            "plan": list(at_work.plan) if at_work else [],
            "restored": at_work is not None and at_work.restored,
        }

    def session_before(self) -> Session | None:
        """The session that a start of this launch file goes on with; None where there is none to be taken up."""
        try:
            session = self._session_file.read(str(self._launch.path))
        except SessionError as error:
            self.not_taken_up(str(error))
            return None
        if session is not None and session.case_name and session.case_name not in self._launch.cases:
            self.not_taken_up(f"its case {session.case_name!r} is not in the launch file any more")
            return None
        return session

    def not_taken_up(self, why: str) -> None:
        """The session before the restart is not gone on with; a person hears why."""
        self.session_fault = f"the session before the restart is not taken up: {why}; the launch file's first case is"
        log.warning("%s", self.session_fault)

    def attach(
        self, case: Case, case_name: str, chain: Chain, loop: FrameLoop, wake: Callable[[], None],
        session: Session | None = None,
    ) -> None:  # fmt: skip
        """A case is at work, of a patient whom nobody has confirmed yet.

        Parameters
        ----------
        case_name : str
            Its name among the launch file's `cases`; empty for the first.
        wake : callable
            Has its frame path look at its commands.
        session : Session, optional
            What to go on with, of the same case.
        """
        at_work = _AtWork(case, case_name, chain, loop, wake, tuple(t.name for t in case.plan))
        loop.mode = "shadow"
        if session is not None:
            self._go_on(at_work, session)
        self._at_work = at_work
        self._save()

    def _go_on(self, at_work: _AtWork, session: Session) -> None:
        at_work.restored, self._mode = True, session.mode
        known = {t.name: t for t in at_work.case.plan}
        guidance, registration = at_work.guidance, at_work.registration
        if guidance is not None:
            at_work.plan = tuple(name for name in session.plan if name in known)
            plan = [known[name] for name in at_work.plan]
            at_work.order(lambda: guidance.set_plan(plan))
            at_work.order(lambda: guidance.restore(session.alerts))
        accepted = session.accepted
        if registration is not None and accepted is not None:
            at_work.accepted = accepted
            T_camera_ct = np.array(accepted.T_camera_ct).reshape(4, 4)
            at_work.order(lambda: registration.restore_acceptance(T_camera_ct))

    def detach(self) -> None:
        """The case at hand has ended."""
        self._at_work = None

    def end_session(self) -> None:
        """The operation is over: a next start has nothing to go on with."""
        with self._saving:
            self._over = True
            try:
                self._session_file.remove()
            except SessionError as error:
                log.warning("%s", error)

    def close(self) -> None:
        """Writes what is left to write."""
        self._save()
        if not self._trail.close():
            log.error("%d events of the audit trail are lost: %s", self._trail.held, self._trail.fault)

    def tend(self) -> None:
        """Once a second: writes what had no room, and the session where alarms or the pose have changed."""
        now = time.monotonic()
        self._trail.flush()
        if self._at_work is not None and now - self._pose_kept > _POSE_KEPT_EVERY_S:
            self._pose_kept = now
            self._at_work.follow_accepted()
        self._save()
        self._say_storage()

    def _save(self) -> None:
        """Keeps the session, unless nothing has changed since it was kept."""
        at_work = self._at_work
        if at_work is None:
            return
        guidance = at_work.guidance
        alerts = guidance.alerts.open()[:MOST_ALERTS] if guidance is not None else ()
        session = Session(
            launch=str(self._launch.path),
            case_name=at_work.case_name,
            case=at_work.case.id,
            mode=self._mode,
            plan=at_work.plan,
            confirmed=at_work.confirmed,
            accepted=at_work.accepted,
            alerts=alerts,
            written=time.time_ns(),
        )
        with self._saving:
            if self._over or (self._saved is not None and _says_the_same(self._saved, session)):
                return
            try:
                self._session_file.write(session)
            except SessionError as error:
                self._unsaved, self._saved = str(error), None
            else:
                self._unsaved, self._saved = "", session

    def _say_storage(self) -> None:
        within, fault = self._within, self._trail.fault or self._unsaved
        if fault:
            within.send(within.alerts.hold("storage", "medium", time.time_ns(), fault))
        elif within.alerts.is_open("storage"):
            within.send(within.alerts.end("storage", "the audit trail is written again"))

    # Answers

    def answer(self) -> None:
        """Answers what has come, a few requests at the most."""
        for _ in range(_MOST_AT_ONCE):
            try:
                parts = self._router.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            # A REQ socket sends an empty part before its request; answer with what came before the last part.
            *envelope, body = parts
            if 0 < len(envelope) <= _MOST_PARTS:
                self._send([*envelope, self._encoded(self._reply(body))])

    def _send(self, parts: list[bytes]) -> None:
        try:
            self._router.send_multipart(parts, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            # Who does not fetch replies, or has gone, does without.
            if self._stumbles.admits():
                log.warning("a reply could not be sent: %s", error)

    def _encoded(self, reply: dict[str, Any]) -> bytes:
        try:
            return encode(reply)
        except Exception as error:
            return encode({"v": PROTOCOL_VERSION, "id": reply["id"], "ok": False, "error": self._stumbled(error)})

    def _stumbled(self, error: Exception) -> dict[str, str]:
        if self._stumbles.admits():
            log.error("a request has failed", exc_info=error)
        return {"code": "internal", "text": f"the pipeline failed at it: {type(error).__name__}: {error}"[:400]}

    def _reply(self, body: bytes) -> dict[str, Any]:
        reply: dict[str, Any] = {"v": PROTOCOL_VERSION, "id": None, "ok": False}
        request = None
        try:
            request = decode_request(body)
            reply["id"] = request.id
            result = self._granted(request)
            return reply | {"ok": True, "result": result}
        except InvalidMessage as error:
            refused = {"code": "invalid", "text": str(error)}
        except RequestError as error:
            refused = {"code": error.code, "text": str(error)}
        except AuditError as error:
            refused = {"code": "storage", "text": str(error)}
        except Exception as error:
            refused = self._stumbled(error)
        if request is None:
            self._trail.keep({"event": "refused", "why": refused["text"], "bytes": len(body)})
        elif self._ops[request.op].changes:
            self._trail.keep({"event": "refused", **self._circumstances(request), "why": refused["text"]})
        self._say_storage()
        return reply | {"error": refused}

    def _granted(self, request: Request) -> dict[str, Any]:
        """The result of a request; what cannot be kept is not done, unless it is in the safe direction."""
        op, at_work = self._ops[request.op], self._at_work
        try:
            args = decode_args(request)
        except InvalidMessage as error:
            raise RequestError("invalid", f"{error}{self._expected(request.op, at_work)}") from error
        if at_work is None and not op.at_any_time:
            raise RequestError("not_ready", "the service is still starting; ask again when health says ready")
        fault = self._freshness.fault(request, op.changes)
        if fault is not None:
            raise RequestError(*fault)
        do = op.look(request, args, at_work)
        if not op.changes:
            return do()
        asked = {"event": "asked", **self._circumstances(request)}
        if op.safe(args):
            if self._changes.admits():
                self._trail.keep(asked)
            else:
                self._trail.tally("asked")
        elif self._changes.admits():
            self._trail.add(asked)
        else:
            raise RequestError("busy", f"more than {_MOST_CHANGES} requests in {_CHANGES_WINDOW_S:.0f} s; ask later")
        result = do()
        self._save()
        self._say_storage()
        return result

    def _expected(self, op: str, at_work: _AtWork | None) -> str:
        if op == "case.load":
            return f"; args.case must be one of {self._known_cases()}"
        if op == "mode.set":
            return "; args.mode must be live or shadow"
        if op == "plan.set" and at_work is not None:
            return f"; args.trajectories must be a list of {_known_plan(at_work)}"
        return ""

    def _known_cases(self) -> str:
        return ", ".join(self._launch.cases) or "none: the launch file has no `cases`"

    def _circumstances(self, request: Request) -> dict[str, Any]:
        at_work = self._at_work
        registration = at_work.registration if at_work else None
        latest = registration.latest if registration else None
        return {
            "id": request.id,
            "op": request.op,
            "args": request.args,
            "user": request.user,
            "case": at_work.case.id if at_work else "",
            "mode": at_work.loop.mode if at_work else "shadow",
            "seq": at_work.loop.last_seq if at_work else None,
            "T_camera_ct": latest.T_camera_ct.ravel().tolist() if latest else None,
        }

    # What each request does

    def _status(self, request: Request, args: Args, at_work: _AtWork | None) -> Done:
        return self._within.health

    def _stop(self, request: Request, args: Args, at_work: _AtWork | None) -> Done:
        def do() -> dict[str, Any]:
            self.end_session()
            self._within.stop()
            return {}

        return do

    def _case_info(self, request: Request, args: Args, at_work: _AtWork) -> Done:
        case = at_work.case
        return lambda: {
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

    def _load_case(self, request: Request, args: CaseLoad, at_work: _AtWork) -> Done:
        """Cases are those of the launch file: a request names none of this computer's files."""
        name = args.case
        if name not in self._launch.cases:
            raise RequestError("invalid", f"args.case must be one of {self._known_cases()}")
        if self.loading:
            raise RequestError("busy", f"{self.loading} is being loaded; health says when it is there")

        def do() -> dict[str, Any]:
            self.loading, self.session_fault = name, ""
            self._within.load(name)
            self._within.say_health()
            return {"loading": name}

        return do

    def _confirm_case(self, request: Request, args: CaseConfirm, at_work: _AtWork) -> Done:
        case_id = at_work.case.id
        if args.case != case_id:
            raise RequestError("another_case", f"the case at hand is {case_id}, not {args.case}: look at it again")

        def do() -> dict[str, Any]:
            at_work.confirmed = Mark(user=request.user, t=time.time_ns())
            at_work.loop.mode = self._mode
            self.session_fault = ""
            self._within.say_health()
            return {"confirmed": case_id}

        return do

    def _set_plan(self, request: Request, args: PlanSet, at_work: _AtWork) -> Done:
        names, known = args.trajectories, {t.name: t for t in at_work.case.plan}
        if not all(name in known for name in names):
            raise RequestError("invalid", f"args.trajectories must be a list of {_known_plan(at_work)}")
        guidance = at_work.guidance
        if guidance is None:
            raise RequestError("not_available", "this launch file has no guidance stage")

        def do() -> dict[str, Any]:
            at_work.order(lambda: guidance.set_plan([known[name] for name in names]))
            at_work.plan = tuple(names)
            return {"trajectories": names}

        return do

    def _restart_registration(self, request: Request, args: Args, at_work: _AtWork) -> Done:
        registration = _registration_of(at_work)

        def do() -> dict[str, Any]:
            at_work.order(registration.restart)
            at_work.accepted = None
            return {}

        return do

    def _accept_registration(self, request: Request, args: Args, at_work: _AtWork) -> Done:
        registration = _registration_of(at_work)
        latest = registration.latest
        if registration.status != "tracking" or latest is None:
            raise RequestError("no_registration", f"the registration is {registration.status}: nothing to accept")

        def do() -> dict[str, Any]:
            pose = tuple(latest.T_camera_ct.ravel().tolist())
            at_work.accepted = accepted = Accepted(user=request.user, t=time.time_ns(), T_camera_ct=pose)

            def accept() -> None:
                if not registration.accept() and at_work.accepted is accepted:  # lost since it was looked at
                    at_work.accepted = None

            at_work.order(accept)
            return {"accepted": True}

        return do

    def _set_mode(self, request: Request, args: ModeSet, at_work: _AtWork) -> Done:
        mode = args.mode
        if mode == "live" and at_work.confirmed is None:
            text = f"nobody has confirmed the patient: case.confirm {at_work.case.id} comes first"
            raise RequestError("not_confirmed", text)

        def do() -> dict[str, Any]:
            self._mode = at_work.loop.mode = mode
            return {"mode": mode}

        return do

    def _acknowledge(self, request: Request, args: AlertAcknowledge, at_work: _AtWork) -> Done:
        within, alert_id, user = self._within, args.alert, request.user
        books = within.alerts, within.picture_alerts, within.recording_alerts
        book = next((b for b in books if b.knows(alert_id)), None)
        guidance = at_work.guidance
        if book is not None:
            acknowledge = book.acknowledge
        elif guidance is not None and guidance.alerts.knows(alert_id):
            acknowledge = guidance.acknowledge
        else:
            raise RequestError("unknown_alert", f"no open alert has the id {alert_id!r}")

        def do() -> dict[str, Any]:
            if book is not None:
                within.send(acknowledge(alert_id, user))
            else:
                at_work.order(lambda: within.send(acknowledge(alert_id, user)))
            return {"alert": alert_id}

        return do

    def _start_recording(self, request: Request, args: Args, at_work: _AtWork) -> Done:
        within = self._within
        if within.recording.running:
            raise RequestError("busy", f"{within.recording.path} is being recorded; stop that first")

        def do() -> dict[str, Any]:
            try:
                within.recording.start()
            except OSError as error:
                raise RequestError("storage", f"the recording cannot begin: {error}") from error
            within.send(within.recording_alerts.end("storage", "recording again"))
            within.say_health()
            return {"path": str(within.recording.path)}

        return do

    def _stop_recording(self, request: Request, args: Args, at_work: _AtWork) -> Done:
        within = self._within
        if not within.recording.running:
            raise RequestError("invalid", "nothing is being recorded")

        def do() -> dict[str, Any]:
            within.recording.stop()
            within.say_health()
            return {"path": str(within.recording.path)}

        return do


def _says_the_same(before: Session, now: Session) -> bool:
    """Whether a session that was kept need not be kept again."""
    old = now.written - before.written > _SESSION_KEPT_EVERY_S * 1e9
    return not old and now == before.model_copy(update={"written": now.written})


def _known_plan(at_work: _AtWork) -> str:
    return ", ".join(t.name for t in at_work.case.plan) or "nothing: no plan"


def _registration_of(at_work: _AtWork) -> RegistrationStage:
    registration = at_work.registration
    if registration is None:
        raise RequestError("not_available", "this launch file has no registration stage")
    return registration
