"""The requests of one screen: what it may ask, and the answers of the pipeline and the audit trail."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import msgpack
import msgspec
import zmq
import zmq.asyncio

from fluoronav.display.hub import Hub
from fluoronav.display.viewer import Viewer, packed
from fluoronav.site.audit import AuditError, AuditTrail, Rate
from fluoronav.wire import make_request
from fluoronav.wire.marks import MarkReply, MarkRequest

log = logging.getLogger("fluoronav")

# What a viewer may ask, by role; `watch` only looks. All go on to the pipeline, but `patient.info`, which is answered
# here, and `moment.mark`, which is noted here and told to who hears marks.
ROLES: dict[str, frozenset[str]] = {
    "watch": frozenset({"status", "case.info", "patient.info"}),
    "control": frozenset(
        {"status", "case.info", "patient.info", "alert.acknowledge", "plan.set", "mode.set", "registration.start",
         "registration.accept", "registration.reject", "case.load", "case.confirm", "record.start", "record.stop",
         "moment.mark"}
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Times and numbers of requests; all are chosen."""

    reply_s: float = 1.2  # the pipeline answers within this: the page says so within 1.5 s
    mark_s: float = 0.9  # a mark's results are made within this, or said to be on their way
    heard_s: float = 1.2  # who hears marks answers within this: the page says so within 1.5 s
    max_waiting: int = 16  # requests of one screen; more are refused
    forbidden_logged: int = 8  # refusals for want of the key that are logged
    forbidden_window_s: float = 10.0  # in so long
    max_name_chars: int = 64  # of a request's id, operation and user
    max_note_chars: int = 200  # of what a person says of a moment
    max_why_chars: int = 400  # of the reason why a mark is not kept


LIMITS = RequestLimits()


@dataclass(frozen=True)
class Person:
    """Who lies there, as the top of a screen says it; texts are empty where they are not known.

    Attributes
    ----------
    name, patient_id : str
    birth_date : str
        YYYY-MM-DD.
    """

    name: str = ""
    patient_id: str = ""
    birth_date: str = ""


@dataclass(frozen=True)
class ScreenRequest:
    """A screen's request, with the screen's own id of it."""

    id: int | str
    op: str
    args: dict[str, Any]
    user: str


Waiting = asyncio.Queue[ScreenRequest | None]


class ScreenRequests:
    """Answers screens' requests.

    Parameters
    ----------
    hub : Hub
        Its health is noted with a marked moment.
    endpoint : str
        Of the pipeline's requests.
    trail : AuditTrail
        Takes marked moments, and requests that were refused for want of the key.
    marks : str
        Endpoint of who hears marks.
    who : callable
        Given `health.case`, the person behind it. Only screens that control are told; others see the pseudonym.
    """

    def __init__(
        self,
        hub: Hub,
        endpoint: str,
        trail: AuditTrail,
        marks: str,
        who: Callable[[str], Person] = lambda case: Person(),
    ) -> None:
        self._hub, self._endpoint, self._trail, self._marks = hub, endpoint, trail, marks
        self._who = who
        self._forbidden_logged = Rate(LIMITS.forbidden_logged, LIMITS.forbidden_window_s)

    async def answer(self, viewer: Viewer, waiting: Waiting) -> None:
        """Answers one screen's requests in their order, until it is cancelled."""
        while True:
            asked = await waiting.get()
            if asked is None:
                viewer.reply(packed("reply", refusal(None, "invalid", "a request is {id, op, args, user} as JSON")))
                continue
            try:
                reply = await self._reply(asked, viewer.role)
            except Exception as error:  # one request's failure is that request's answer
                log.exception("display: %s failed", asked.op[:40])
                reply = refusal(asked.id, "failed", f"the display failed at it: {type(error).__name__}")
            viewer.reply(packed("reply", reply))

    async def _reply(self, asked: ScreenRequest, role: str) -> dict[str, Any]:
        event = {"op": asked.op, "args": asked.args, "user": asked.user, "role": role}
        if asked.op not in ROLES[role]:
            return await self._forbid(asked, role)
        if asked.op == "patient.info":
            return {"id": asked.id, "ok": True, "result": await self._patient(role), "error": None}
        if asked.op == "moment.mark":
            now = {"case": self._hub.health.get("case"), "mode": self._hub.health.get("mode")}
            noted = await self._note(asked.id, {"event": "marked", **event, **now})
            return noted or {"id": asked.id, "ok": True, "result": await self._mark(asked), "error": None}
        # Screens number their requests by themselves: two of them may send the same number.
        return await self._pass_on(make_request(asked.op, asked.args, asked.user)) | {"id": asked.id}

    async def _patient(self, role: str) -> dict[str, str]:
        """The patient of the pipeline's case: the pseudonym, and for a screen that controls who that is."""
        case = str(self._hub.health.get("case") or "")
        person = await asyncio.to_thread(self._who, case) if role == "control" else Person()
        return {"pseudonym": case.partition("@")[0], **asdict(person)}

    async def _forbid(self, asked: ScreenRequest, role: str) -> dict[str, Any]:
        """The refusal for want of the key; the trail bounds how many of these it writes."""
        if self._forbidden_logged.admits():
            log.warning("display: %s was asked for by a viewer that may not (%s)", asked.op[:40], role)
        event: dict[str, Any] = {"event": "forbidden", "op": asked.op, "user": asked.user, "role": role}
        refused = refusal(asked.id, "forbidden", f"{asked.op}: this screen only watches; open the controlling address")
        return await self._note(asked.id, event) or refused

    async def _note(self, asked_id: Any, event: dict[str, Any]) -> dict[str, Any] | None:
        """Writes an event to the trail; returns a refusal where that fails."""
        try:
            await asyncio.to_thread(self._trail.add, event)
        except AuditError as error:
            return refusal(asked_id, "storage", str(error))
        return None

    async def _mark(self, asked: ScreenRequest) -> dict[str, Any]:
        """Tells who hears marks; `heard`, and how many `objects` are made or `why` none will be."""
        seq = asked.args.get("seq")
        mark = MarkRequest(
            seq=seq if isinstance(seq, int) else None,
            note=str(asked.args.get("text") or "")[: LIMITS.max_note_chars],
            wait_s=LIMITS.mark_s,
        )
        socket = zmq.asyncio.Context.instance().socket(zmq.REQ)
        socket.setsockopt(zmq.LINGER, 0)
        try:
            socket.connect(self._marks)
            await socket.send(msgspec.msgpack.encode(mark))
            answer = await asyncio.wait_for(socket.recv(), LIMITS.heard_s)
            reply = msgspec.msgpack.decode(answer, type=MarkReply)
        except TimeoutError:
            return {"heard": False}
        except (msgspec.MsgspecError, zmq.ZMQError) as error:
            return {"heard": True, "objects": 0, "why": f"the answer cannot be read ({type(error).__name__})"}
        finally:
            socket.close()
        return {"heard": True, "objects": reply.objects, "why": reply.error[: LIMITS.max_why_chars], "seq": reply.seq}

    async def _pass_on(self, request: dict[str, Any]) -> dict[str, Any]:
        socket = zmq.asyncio.Context.instance().socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        try:
            body = msgpack.packb(request)
            socket.connect(self._endpoint)
            await socket.send(body)
            reply = msgpack.unpackb(await asyncio.wait_for(socket.recv(), LIMITS.reply_s), raw=False)
        except TimeoutError:
            return refusal(
                request["id"], "unreachable",
                f"the pipeline did not answer within {LIMITS.reply_s:g} s: it is not known whether this was done",
            )  # fmt: skip
        except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
            return refusal(request["id"], "invalid", str(error)[:200])
        finally:
            socket.close()
        if not isinstance(reply, dict) or not isinstance(reply.get("ok"), bool):
            return refusal(request["id"], "invalid", "the pipeline's answer is none of this protocol")
        error = reply.get("error")
        if not reply["ok"] and not (isinstance(error, dict) and isinstance(error.get("text"), str)):
            return refusal(request["id"], "refused", "the pipeline refused this and gave no reason")
        return {k: reply.get(k) for k in ("id", "ok", "result", "error")}


def put(waiting: Waiting, viewer: Viewer, text: str) -> None:
    """Queues a screen's request, None for a malformed one; refuses it at once where the queue is full."""
    try:
        asked = _read(text)
    except (ValueError, KeyError, TypeError, RecursionError):
        asked = None
    try:
        waiting.put_nowait(asked)
    except asyncio.QueueFull:
        text = f"{LIMITS.max_waiting} requests of this screen wait for their answers"
        viewer.reply(packed("reply", refusal(asked.id if asked else None, "busy", text)))


def refusal(request_id: Any, code: str, text: str) -> dict[str, Any]:
    """The reply to a request that is refused."""
    return {"id": request_id, "ok": False, "result": None, "error": {"code": code, "text": text}}


def _read(text: str) -> ScreenRequest:
    """A screen's request, ``{id, op, args, user}`` as JSON."""
    content = json.loads(text, parse_constant=_refuse_constant)
    most, asked_id = LIMITS.max_name_chars, content["id"]
    if not isinstance(asked_id, (int, str)):
        raise TypeError("an id is a number or a text")
    return ScreenRequest(
        asked_id if isinstance(asked_id, int) else asked_id[:most],
        str(content["op"])[:most],
        dict(content.get("args") or {}),
        str(content.get("user") or "")[:most],
    )


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")
