"""The navigation display's web server: one page, one WebSocket for each viewer."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import re
import secrets
import signal
import time
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from importlib import resources
from socket import create_server
from socket import socket as Socket
from typing import Any

import msgpack
import zmq
import zmq.asyncio
from aiohttp import WSMsgType, web

from fluoronav.case import Case, CaseError
from fluoronav.display.admission import MOST_BYTES, Admission, add_security
from fluoronav.display.case_view import camera_head, case_head, ct_box, surfaces
from fluoronav.display.hub import Hub, Viewer, packed
from fluoronav.geometry import Camera
from fluoronav.site.audit import AuditError, AuditTrail, Rate
from fluoronav.wire import make_request
from fluoronav.wire.messages import PROTOCOL_VERSION

log = logging.getLogger("fluoronav")

PAGE = resources.files("fluoronav.display") / "page"
# What a viewer may ask, by role; `watch` only looks. All but the last goes on to the pipeline; a moment is noted here.
ROLES: dict[str, frozenset[str]] = {
    "watch": frozenset({"status", "case.info"}),
    "control": frozenset(
        {"status", "case.info", "alert.acknowledge", "plan.set", "mode.set", "registration.start",
         "registration.accept", "registration.reject", "case.load", "case.confirm", "record.start", "record.stop",
         "moment.mark"}
    ),
}  # fmt: skip
# Streams at a time, by role: watchers never take the place of a screen that controls.
MOST_STREAMS = {"watch": 16, "control": 8}
# Why a stream is closed (RFC 6455 leaves 4000 and more to applications): its screen has opened another.
REPLACED = 4001
# Health comes once a second.
_HEARD_EVERY_S, _SILENT_S, _REPLY_S = 0.2, 1.4, 2.0
# Requests of one screen that wait for their turn; beyond that they are refused.
_MOST_ASKED = 16
# Refusals for want of the key that are logged: so many in so many seconds.
_FORBIDDEN_LOGGED = 8, 10.0
# What a page says of the pixels that a picture's longer side takes on its screen.
_SIDE = re.compile(r"^side (\d{2,5})$", re.ASCII)


@dataclass(frozen=True)
class Asked:
    """A screen's request, and the id by which the screen knows it."""

    id: int | str
    op: str
    args: dict[str, Any]
    user: str


class DisplayServer:
    """Serves the page and carries requests.

    Parameters
    ----------
    hub : Hub
    requests : str
        Endpoint of the pipeline's requests.
    camera : Camera
        Of the C-arm.
    load_case : callable
        Returns a case by its name in the launch file, the first one's being empty; for the 3D view, called when
        somebody looks at it.
    trail : AuditTrail
        Takes marked moments, and requests that were refused for want of the key.
    control_key : str, optional
        Who has it may control; a new one is drawn by default.
    allowed_hosts : collection of str
        Names under which browsers may ask for the display, besides its addresses and ``localhost``.
    """

    def __init__(
        self, hub: Hub, requests: str, camera: Camera, load_case: Callable[[str], Case], trail: AuditTrail,
        control_key: str | None = None, allowed_hosts: Collection[str] = (),
    ) -> None:  # fmt: skip
        self.hub = hub
        self._camera = camera_head(camera)
        self._load_case, self._trail = load_case, trail
        self._case: tuple[str, asyncio.Task[dict[str, bytes]]] | None = None
        self._requests = requests
        self.control_key = control_key or secrets.token_urlsafe(12)
        self._admission = Admission(allowed_hosts)
        self._closing: set[asyncio.Task[bool]] = set()
        self._sockets: dict[Viewer, web.WebSocketResponse] = {}
        self._forbiddings = Rate(*_FORBIDDEN_LOGGED)
        self.app = web.Application(client_max_size=MOST_BYTES, middlewares=[self._admission.guard])
        self.app.on_response_prepare.append(add_security)
        self.app.router.add_get("/", self._page)
        self.app.router.add_get("/stream", self._stream)
        self.app.router.add_get("/page/{name}", self._file)
        for address in ("/case", "/case/surfaces", "/case/ct"):
            self.app.router.add_get(address, partial(self._of_case, address))
        self.app.cleanup_ctx.append(self._background)

    async def _background(self, app: web.Application):
        tasks = [asyncio.create_task(self.hub.run()), asyncio.create_task(self._watch())]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self) -> None:
        """Tells viewers whether the pipeline is heard: a display that shows its last picture must say so."""
        while True:
            await asyncio.sleep(_HEARD_EVERY_S)
            now = time.monotonic()
            silent = now - self.hub.last_heard if self.hub.last_heard else None
            health = now - self.hub.last_health if self.hub.last_health else None
            link = {"heard": silent is not None and silent < _SILENT_S, "silent_s": silent, "health_s": health}
            self.hub.say("link", link)

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(text=(PAGE / "index.html").read_text("utf-8"), content_type="text/html")

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
        suffix = name.rsplit(".", 1)[-1]
        file = PAGE / name
        if "/" in name or name.startswith(".") or suffix not in kinds or not file.is_file():
            raise web.HTTPNotFound(text=f"no such file: {name[:80]}")
        return web.Response(text=file.read_text("utf-8"), content_type=kinds[suffix])

    async def _of_case(self, address: str, request: web.Request) -> web.Response:
        """The pipeline's case in space; made once, when somebody first looks at it."""
        name = str(self.hub.health.get("case_name") or "")
        if self._case is None or self._case[0] != name or (self._case[1].done() and self._case[1].exception()):
            self._case = name, asyncio.create_task(asyncio.to_thread(_packed_case, self._load_case, name))
        try:
            parts = await asyncio.shield(self._case[1])
        except (CaseError, OSError) as error:
            raise web.HTTPServiceUnavailable(text=str(error)[:400]) from error
        kind = "application/json" if address == "/case" else "application/octet-stream"
        return web.Response(body=parts[address], content_type=kind, headers={"Content-Encoding": "gzip"})

    def listening(self, at: Socket) -> AbstractAsyncContextManager[None]:
        """Serves at an open socket, as long as the context lasts."""
        return self._admission.listening(self.app, at)

    def _role(self, request: web.Request) -> str:
        key = request.query.get("key", "")
        return "control" if secrets.compare_digest(key.encode(), self.control_key.encode()) else "watch"

    async def _stream(self, request: web.Request) -> web.WebSocketResponse:
        role, screen = self._role(request), request.query.get("screen", "")[:64]
        viewer = Viewer(role, screen)
        twin = next((v for v in self._sockets if screen and (v.screen, v.role) == (screen, role)), None)
        if twin is not None:
            self._end(twin)
        if sum(v.role == role for v in self._sockets) >= MOST_STREAMS[role]:
            raise web.HTTPServiceUnavailable(text=f"{MOST_STREAMS[role]} such screens are open; close one")
        socket = web.WebSocketResponse(heartbeat=5.0, timeout=2.0, max_msg_size=MOST_BYTES, compress=False)
        self._sockets[viewer] = socket  # before anything is waited for: places are counted by it
        waiting: asyncio.Queue[Asked | None] = asyncio.Queue(_MOST_ASKED)
        tasks = []
        try:
            await socket.prepare(request)
            self._admission.becomes_stream(request)
            viewer.say(packed("hello", {"role": role, "protocol": PROTOCOL_VERSION, "camera": self._camera}))
            self.hub.greet(viewer)
            self.hub.viewers.add(viewer)
            tasks = [asyncio.create_task(_send(socket, viewer)), asyncio.create_task(self._answer(viewer, waiting))]
            async for message in socket:
                if message.type == WSMsgType.TEXT and message.data == "taken":
                    viewer.taken()
                elif message.type == WSMsgType.TEXT and (said := _SIDE.match(message.data)):
                    viewer.side = int(said[1])
                elif message.type == WSMsgType.TEXT:
                    _put(waiting, viewer, message.data)
        finally:
            self._sockets.pop(viewer, None)
            self.hub.viewers.discard(viewer)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return socket

    def _end(self, viewer: Viewer) -> None:
        """Ends the stream of a screen that has opened another; a dead one says nothing to that."""
        socket = self._sockets.pop(viewer)
        self.hub.viewers.discard(viewer)
        closing = asyncio.create_task(socket.close(code=REPLACED, message=b"this screen has opened another stream"))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _answer(self, viewer: Viewer, waiting: asyncio.Queue[Asked | None]) -> None:
        """Answers one screen's requests, in their order."""
        while True:
            asked = await waiting.get()
            if asked is None:
                viewer.say(packed("reply", _refused(None, "invalid", "a request is {id, op, args, user} as JSON")))
                continue
            try:
                reply = await self._granted(asked, viewer.role)
            except Exception as error:  # one request's failure is that request's answer
                log.exception("display: %s failed", asked.op[:40])
                reply = _refused(asked.id, "failed", f"the display failed at it: {type(error).__name__}")
            viewer.say(packed("reply", reply))

    async def _granted(self, asked: Asked, role: str) -> dict[str, Any]:
        told = {"op": asked.op, "args": asked.args, "user": asked.user, "role": role}
        if asked.op not in ROLES[role]:
            return await self._forbidden(asked, role)
        if asked.op == "moment.mark":
            now = {"case": self.hub.health.get("case"), "mode": self.hub.health.get("mode")}
            done = {"id": asked.id, "ok": True, "result": {}, "error": None}
            return await self._noted(asked.id, {"event": "marked", **told, **now}) or done
        # Screens count their requests by themselves: two of them would send the same number.
        return await self._passed_on(make_request(asked.op, asked.args, asked.user)) | {"id": asked.id}

    async def _forbidden(self, asked: Asked, role: str) -> dict[str, Any]:
        """The refusal for want of the key; what outsiders can have written into the trail is bounded there."""
        if self._forbiddings.admits():
            log.warning("display: %s was asked for by a viewer that may not (%s)", asked.op[:40], role)
        event: dict[str, Any] = {"event": "forbidden", "op": asked.op, "user": asked.user, "role": role}
        refused = _refused(asked.id, "forbidden", f"{asked.op}: this screen only watches; open the controlling address")
        return await self._noted(asked.id, event) or refused

    async def _noted(self, asked_id: Any, event: dict[str, Any]) -> dict[str, Any] | None:
        """Keeps an event; the refusal where that fails."""
        try:
            await asyncio.to_thread(self._trail.add, event)
        except AuditError as error:
            return _refused(asked_id, "storage", str(error))
        return None

    async def _passed_on(self, request: dict[str, Any]) -> dict[str, Any]:
        socket = zmq.asyncio.Context.instance().socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        try:
            body = msgpack.packb(request)
            socket.connect(self._requests)
            await socket.send(body)
            reply = msgpack.unpackb(await asyncio.wait_for(socket.recv(), _REPLY_S), raw=False)
        except TimeoutError:
            return _refused(
                request["id"], "unreachable",
                f"the pipeline did not answer within {_REPLY_S:.0f} s: it is not known whether this was done",
            )  # fmt: skip
        except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
            return _refused(request["id"], "invalid", str(error)[:200])
        finally:
            socket.close()
        if not isinstance(reply, dict) or not isinstance(reply.get("ok"), bool):
            return _refused(request["id"], "invalid", "the pipeline's answer is none of this protocol")
        error = reply.get("error")
        if not reply["ok"] and not (isinstance(error, dict) and isinstance(error.get("text"), str)):
            return _refused(request["id"], "refused", "the pipeline refused this and gave no reason")
        return {k: reply.get(k) for k in ("id", "ok", "result", "error")}


def _put(waiting: asyncio.Queue[Asked | None], viewer: Viewer, text: str) -> None:
    """Puts a screen's request in the queue, None for what is none; where that is full it is refused at once."""
    try:
        asked = _read(text)
    except (ValueError, KeyError, TypeError, RecursionError):
        asked = None
    try:
        waiting.put_nowait(asked)
    except asyncio.QueueFull:
        text = f"{_MOST_ASKED} requests of this screen wait for their answers"
        viewer.say(packed("reply", _refused(asked.id if asked else None, "busy", text)))


def _read(text: str) -> Asked:
    """A screen's request, ``{id, op, args, user}`` as JSON."""
    said = json.loads(text, parse_constant=_not_finite)
    if not isinstance(said["id"], (int, str)):
        raise TypeError("an id is a number or a text")
    asked_id = said["id"] if isinstance(said["id"], int) else said["id"][:64]
    return Asked(asked_id, str(said["op"])[:64], dict(said.get("args") or {}), str(said.get("user") or "")[:64])


def _not_finite(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _packed_case(load: Callable[[str], Case], name: str) -> dict[str, bytes]:
    case = load(name)
    made = {"/case": json.dumps(case_head(case)).encode(), "/case/surfaces": surfaces(case), "/case/ct": ct_box(case)}
    return {address: gzip.compress(content, 1) for address, content in made.items()}


def _refused(request_id: Any, code: str, text: str) -> dict[str, Any]:
    return {"id": request_id, "ok": False, "result": None, "error": {"code": code, "text": text}}


async def _send(socket: web.WebSocketResponse, viewer: Viewer) -> None:
    """Sends what waits; while a slow viewer's socket is full, newer pictures replace older ones."""
    try:
        while not socket.closed:
            for message in await viewer.next(1.0):
                await socket.send_bytes(message)
    except ConnectionError:
        return  # it has gone: the stream's own loop ends
    finally:
        # Nobody may look at a stream on which nothing comes any more.
        await socket.close()


def serve(server: DisplayServer, host: str, port: int, started: Callable[[int], None] = lambda port: None) -> None:
    """Runs until interrupted.

    Parameters
    ----------
    server : DisplayServer
    host : str
    port : int
        0 takes one that is free.
    started : callable
        Told the port, once it is open.

    Raises
    ------
    OSError
        The port is in use.
    """
    socket = create_server((host, port))
    started(int(socket.getsockname()[1]))
    asyncio.run(_serve(server, socket))


async def _serve(server: DisplayServer, at: Socket) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with server.listening(at):
        await stop.wait()
