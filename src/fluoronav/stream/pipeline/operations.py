"""What each kind of request does: one entry of the table, and one function, for each `op`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fluoronav.site.launch import LaunchFile
from fluoronav.stream.pipeline.health import Health
from fluoronav.stream.pipeline.recording_process import RecordingProcess
from fluoronav.stream.pipeline.session import Accepted, Mark
from fluoronav.stream.pipeline.session_keeper import SessionKeeper
from fluoronav.stream.pipeline.watchdog import Watchdog
from fluoronav.stream.pipeline.work import RequestError, Work
from fluoronav.wire import Health as HealthMessage
from fluoronav.wire import Request
from fluoronav.wire.requests import AlertAcknowledge, Args, CaseConfirm, CaseLoad, ModeSet, PlanSet

Done = Callable[[], dict[str, Any] | HealthMessage]


@dataclass(frozen=True)
class Operation:
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


@dataclass(frozen=True)
class Operations:
    """The operations, and what they reach.

    Attributes
    ----------
    launch : LaunchFile
    health : Health
    watchdog : Watchdog
    recording : RecordingProcess
    keeper : SessionKeeper
    stop : callable
        Ends the service.
    load : callable
        Has another case of the launch file loaded, by its name there.
    """

    launch: LaunchFile
    health: Health
    watchdog: Watchdog
    recording: RecordingProcess
    keeper: SessionKeeper
    stop: Callable[[], None]
    load: Callable[[str], None]

    def table(self) -> Mapping[str, Operation]:
        """By `op`."""
        return {
            "status": Operation(self._status, changes=False, at_any_time=True),
            "stop": Operation(self._stop, at_any_time=True, safe=_always),
            "case.info": Operation(self._case_info, changes=False),
            "case.load": Operation(self._load_case),
            "case.confirm": Operation(self._confirm_case),
            "plan.set": Operation(self._set_plan),
            "registration.start": Operation(self._restart_registration, safe=_always),
            "registration.reject": Operation(self._restart_registration, safe=_always),
            "registration.accept": Operation(self._accept_registration),
            "mode.set": Operation(self._set_mode, safe=lambda args: args.mode == "shadow"),
            "alert.acknowledge": Operation(self._acknowledge, safe=_always),
            "record.start": Operation(self._start_recording),
            "record.stop": Operation(self._stop_recording, safe=_always),
        }

    def expected(self, op: str, work: Work | None) -> str:
        """What the arguments of an operation must be, to be said after an error in them."""
        if op == "case.load":
            return f"; args.case must be one of {self._known_cases()}"
        if op == "mode.set":
            return "; args.mode must be live or shadow"
        if op == "plan.set" and work is not None:
            return f"; args.trajectories must be a list of {_known_plan(work)}"
        return ""

    def _known_cases(self) -> str:
        return ", ".join(self.launch.cases) or "none: the launch file has no `cases`"

    def _status(self, request: Request, args: Args, work: Work | None) -> Done:
        return self.health.message

    def _stop(self, request: Request, args: Args, work: Work | None) -> Done:
        def do() -> dict[str, Any]:
            self.keeper.end()
            self.stop()
            return {}

        return do

    def _case_info(self, request: Request, args: Args, work: Work) -> Done:
        case = work.case
        return lambda: {
            "case": case.id,
            "name": case.file.name,
            "procedure": case.file.procedure,
            "cases": list(self.launch.cases),
            "structures": [
                {"name": s.name, "color": s.color, "caution_mm": s.caution_mm, "danger_mm": s.danger_mm}
                for s in case.structures
            ],
            "no_go": [n.name for n in case.file.no_go],
            "plan": [t.model_dump() for t in case.plan],
            "tools": [t.model_dump() for t in case.tools],
        }

    def _load_case(self, request: Request, args: CaseLoad, work: Work) -> Done:
        """Cases are those of the launch file: a request names none of this computer's files."""
        name, health = args.case, self.health
        if name not in self.launch.cases:
            raise RequestError("invalid", f"args.case must be one of {self._known_cases()}")
        if health.loading:
            raise RequestError("busy", f"{health.loading} is being loaded; health says when it is there")

        def do() -> dict[str, Any]:
            health.loading, health.session_fault = name, ""
            self.load(name)
            health.say()
            return {"loading": name}

        return do

    def _confirm_case(self, request: Request, args: CaseConfirm, work: Work) -> Done:
        case_id = work.case.id
        if args.case != case_id:
            raise RequestError("another_case", f"the case at hand is {case_id}, not {args.case}: look at it again")

        def do() -> dict[str, Any]:
            work.confirmed = Mark(user=request.user, t=time.time_ns())
            work.loop.mode = self.keeper.mode
            self.health.session_fault = ""
            self.health.say()
            return {"confirmed": case_id}

        return do

    def _set_plan(self, request: Request, args: PlanSet, work: Work) -> Done:
        names, known = args.trajectories, {t.name: t for t in work.case.plan}
        if not all(name in known for name in names):
            raise RequestError("invalid", f"args.trajectories must be a list of {_known_plan(work)}")
        set_plan = work.handler(request.op)

        def do() -> dict[str, Any]:
            work.order(lambda: set_plan([known[name] for name in names]))
            work.plan = tuple(names)
            return {"trajectories": names}

        return do

    def _restart_registration(self, request: Request, args: Args, work: Work) -> Done:
        restart = work.handler(request.op)

        def do() -> dict[str, Any]:
            work.order(restart)
            work.accepted = None
            return {}

        return do

    def _accept_registration(self, request: Request, args: Args, work: Work) -> Done:
        accept, standing = work.handler(request.op), work.loop.standing
        latest = standing.pose
        if standing.status != "tracking" or latest is None:
            raise RequestError("no_registration", f"the registration is {standing.status}: nothing to accept")

        def do() -> dict[str, Any]:
            pose = tuple(latest.T_camera_ct.ravel().tolist())
            work.accepted = accepted = Accepted(user=request.user, t=time.time_ns(), T_camera_ct=pose)

            def accept_now() -> None:
                if not accept() and work.accepted is accepted:  # lost since it was looked at
                    work.accepted = None

            work.order(accept_now)
            return {"accepted": True}

        return do

    def _set_mode(self, request: Request, args: ModeSet, work: Work) -> Done:
        mode = args.mode
        if mode == "live" and work.confirmed is None:
            text = f"nobody has confirmed the patient: case.confirm {work.case.id} comes first"
            raise RequestError("not_confirmed", text)

        def do() -> dict[str, Any]:
            self.keeper.mode = work.loop.mode = mode
            return {"mode": mode}

        return do

    def _acknowledge(self, request: Request, args: AlertAcknowledge, work: Work) -> Done:
        watchdog, alert_id, user = self.watchdog, args.alert, request.user
        book = watchdog.alerts.book_of(alert_id)
        if book is None and not any(a.id == alert_id for a in work.loop.standing.alerts):
            raise RequestError("unknown_alert", f"no open alert has the id {alert_id!r}")
        acknowledge = book.acknowledge if book is not None else work.handler(request.op)

        def do() -> dict[str, Any]:
            if book is not None:
                watchdog.send(acknowledge(alert_id, user))
            else:
                work.order(lambda: watchdog.send(acknowledge(alert_id, user)))
            return {"alert": alert_id}

        return do

    def _start_recording(self, request: Request, args: Args, work: Work) -> Done:
        recording, watchdog = self.recording, self.watchdog
        if recording.running:
            raise RequestError("busy", f"{recording.path} is being recorded; stop that first")

        def do() -> dict[str, Any]:
            try:
                recording.start()
            except OSError as error:
                raise RequestError("storage", f"the recording cannot begin: {error}") from error
            watchdog.send(watchdog.alerts.recording.end("storage", "recording again"))
            self.health.say()
            return {"path": str(recording.path)}

        return do

    def _stop_recording(self, request: Request, args: Args, work: Work) -> Done:
        if not self.recording.running:
            raise RequestError("invalid", "nothing is being recorded")

        def do() -> dict[str, Any]:
            self.recording.stop()
            self.health.say()
            return {"path": str(self.recording.path)}

        return do


def _known_plan(work: Work) -> str:
    return ", ".join(t.name for t in work.case.plan) or "nothing: no plan"
