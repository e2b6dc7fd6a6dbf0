"""What clients ask of the running pipeline: each request is kept, granted or refused in words, and answered."""

from __future__ import annotations

import logging
from typing import Any

import zmq

from fluoronav.site.audit import AuditError, AuditTrail, Rate
from fluoronav.site.launch import LaunchFile
from fluoronav.stream.pipeline.freshness import Freshness
from fluoronav.stream.pipeline.operations import Operations
from fluoronav.stream.pipeline.work import RequestError, Work
from fluoronav.wire import Health, InvalidMessage, Request, decode_args, decode_request, encode
from fluoronav.wire.requests import Reply, ReplyError
from fluoronav.wire.values import PROTOCOL_VERSION

log = logging.getLogger("fluoronav")

_MOST_AT_ONCE = 16
# A REQ or DEALER behind a few proxies; each part of the envelope is sent back.
_MOST_PARTS = 8
# Changing requests that are kept with a line of their own in a window; people at a few screens stay far below.
_MOST_CHANGES, _CHANGES_WINDOW_S = 200, 10.0
_MOST_ERROR_TEXT = 400


class RequestDesk:
    """Answers what comes by the request socket, one request after the other, on the thread that calls it.

    Whatever is sent gets a reply: granted, or refused with a code and a text; an error in what it does is that
    request's own.

    Parameters
    ----------
    launch : LaunchFile
    router : zmq.Socket
        ROUTER, bound.
    operations : Operations

    Attributes
    ----------
    work : Work or None
        What requests are about.
    """

    def __init__(self, launch: LaunchFile, router: zmq.Socket[bytes], operations: Operations) -> None:
        self._router, self._operations, self._table = router, operations, operations.table()
        self._trail = AuditTrail(launch.audit_folder, f"pipeline-{launch.source}")
        self._changes = Rate(_MOST_CHANGES, _CHANGES_WINDOW_S)
        self._stumbles = Rate(5, 10.0)
        self._freshness = Freshness(must_have_time=launch.unauthenticated)
        self.work: Work | None = None

    def close(self) -> None:
        """Writes what is left to write."""
        self._operations.keeper.keep(self.work)
        if not self._trail.close():
            log.error("%d events of the audit trail are lost: %s", self._trail.held, self._trail.fault)

    def tend(self) -> None:
        """Now and then: writes what had no room, and the session where alerts or the pose have changed."""
        self._trail.flush()
        self._operations.keeper.tend(self.work)
        self._say_storage()

    def poll(self, timeout_ms: int) -> bool:
        """Waits for a request; whether one has come."""
        return bool(self._router.poll(timeout_ms))

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

    def _say_storage(self) -> None:
        self._operations.watchdog.say_storage(self._trail.fault or self._operations.keeper.fault)

    def _send(self, parts: list[bytes]) -> None:
        try:
            self._router.send_multipart(parts, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            # Who does not fetch replies, or has gone, does without.
            if self._stumbles.admits():
                log.warning("a reply could not be sent: %s", error)

    def _encoded(self, reply: Reply) -> bytes:
        try:
            return encode(reply)
        except Exception as error:
            return encode(_refused(reply.id, self._stumbled(error)))

    def _stumbled(self, error: Exception) -> ReplyError:
        if self._stumbles.admits():
            log.error("a request has failed", exc_info=error)
        text = f"the pipeline failed at it: {type(error).__name__}: {error}"
        return ReplyError(code="internal", text=text[:_MOST_ERROR_TEXT])

    def _reply(self, body: bytes) -> Reply:
        request = None
        try:
            request = decode_request(body)
            return Reply(v=PROTOCOL_VERSION, id=request.id, ok=True, result=self._granted(request))
        except Exception as error:
            refusal = self._refusal(error)
        try:
            self._note_refusal(request, refusal.text, len(body))
        except Exception as error:
            # Whoever asks gets the reply, whatever becomes of the trail.
            self._stumbled(error)
        return _refused(None if request is None else request.id, refusal)

    def _refusal(self, error: Exception) -> ReplyError:
        if isinstance(error, InvalidMessage):
            return ReplyError(code="invalid", text=str(error))
        if isinstance(error, RequestError):
            return ReplyError(code=error.code, text=str(error))
        if isinstance(error, AuditError):
            return ReplyError(code="storage", text=str(error))
        return self._stumbled(error)

    def _note_refusal(self, request: Request | None, why: str, size: int) -> None:
        if request is None:
            self._trail.keep({"event": "refused", "why": why, "bytes": size})
        elif self._table[request.op].changes:
            self._trail.keep({"event": "refused", **self._circumstances(request), "why": why})
        self._say_storage()

    def _granted(self, request: Request) -> dict[str, Any] | Health:
        """The result of a request; what cannot be kept is not done, unless it is in the safe direction."""
        operation, work = self._table[request.op], self.work
        try:
            args = decode_args(request)
        except InvalidMessage as error:
            raise RequestError("invalid", f"{error}{self._operations.expected(request.op, work)}") from error
        if work is None and not operation.at_any_time:
            raise RequestError("not_ready", "the service is still starting; ask again when health says ready")
        fault = self._freshness.fault(request, operation.changes)
        if fault is not None:
            raise RequestError(*fault)
        do = operation.look(request, args, work)
        if not operation.changes:
            return do()
        self._keep(request, safe=operation.safe(args))
        result = do()
        self._operations.keeper.keep(self.work)
        self._say_storage()
        return result

    def _keep(self, request: Request, *, safe: bool) -> None:
        """Writes a request to the trail before it is done."""
        asked = {"event": "asked", **self._circumstances(request)}
        if self._changes.admits():
            if safe:
                self._trail.keep(asked)
            else:
                self._trail.add(asked)
        elif safe:
            self._trail.tally("asked")
        else:
            raise RequestError("busy", f"more than {_MOST_CHANGES} requests in {_CHANGES_WINDOW_S:.0f} s; ask later")

    def _circumstances(self, request: Request) -> dict[str, Any]:
        work = self.work
        latest = work.loop.standing.pose if work else None
        return {
            "id": request.id,
            "op": request.op,
            "args": request.args,
            "user": request.user,
            "case": work.case.id if work else "",
            "mode": work.loop.mode if work else "shadow",
            "seq": work.loop.last_seq if work else None,
            "T_camera_ct": latest.T_camera_ct.ravel().tolist() if latest else None,
        }


def _refused(request_id: int | str | None, error: ReplyError) -> Reply:
    return Reply(v=PROTOCOL_VERSION, id=request_id, ok=False, error=error)
