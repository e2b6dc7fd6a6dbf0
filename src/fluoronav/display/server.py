"""The navigation display's web server: one page, one WebSocket for each viewer."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import logging
import re
import secrets
import time
from collections.abc import Callable
from functools import partial
from importlib import resources
from socket import create_server
from typing import Any

import msgpack
import zmq
import zmq.asyncio
from aiohttp import WSMsgType, web

from fluoronav.audit import AuditError, AuditTrail
from fluoronav.case import Case, CaseError
from fluoronav.display.case_view import camera_head, case_head, ct_box, surfaces
from fluoronav.display.hub import Hub, Viewer, packed
from fluoronav.geometry import Camera
from fluoronav.wire import make_request
from fluoronav.wire.messages import PROTOCOL_VERSION

log = logging.getLogger("fluoronav")

PAGE = resources.files("fluoronav.display") / "page"
# What a viewer may ask, by role; `watch` only looks. All but the last goes on to the pipeline; a moment is noted here.
ROLES: dict[str, frozenset[str]] = {
    "watch": frozenset({"status", "case.info"}),
    "control": frozenset(
        {"status", "case.info", "alert.acknowledge", "plan.set", "mode.set", "registration.start",
         "registration.accept", "registration.reject", "case.load", "record.start", "record.stop", "moment.mark"}
    ),
}  # fmt: skip
MOST_VIEWERS = 16
# Health comes once a second.
_HEARD_EVERY_S, _SILENT_S, _REPLY_S = 0.2, 1.4, 2.0
_MOST_BYTES = 65536
# What a page says of the pixels that a picture's longer side takes on its screen.
_SIDE = re.compile(r"^side (\d{2,5})$", re.ASCII)
_SECURITY = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


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
    """

    def __init__(
        self, hub: Hub, requests: str, camera: Camera, load_case: Callable[[str], Case], trail: AuditTrail,
        control_key: str | None = None,
    ) -> None:  # fmt: skip
        self.hub = hub
        self._camera = camera_head(camera)
        self._load_case, self._trail = load_case, trail
        self._case: tuple[str, asyncio.Task[dict[str, bytes]]] | None = None
        self._requests = requests
        self.control_key = control_key or secrets.token_urlsafe(12)
        self.app = web.Application(client_max_size=_MOST_BYTES, middlewares=[_secured])
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
            silent = time.monotonic() - self.hub.last_heard if self.hub.last_heard else None
            link = {"heard": silent is not None and silent < _SILENT_S, "silent_s": silent}
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

    def _role(self, request: web.Request) -> str:
        key = request.query.get("key", "")
        return "control" if secrets.compare_digest(key.encode(), self.control_key.encode()) else "watch"

    async def _stream(self, request: web.Request) -> web.WebSocketResponse:
        origin = request.headers.get("Origin")
        if origin is not None and origin.split("//")[-1] != request.host:
            raise web.HTTPForbidden(text="another site's page may not watch")
        if len(self.hub.viewers) >= MOST_VIEWERS:
            raise web.HTTPServiceUnavailable(text=f"{MOST_VIEWERS} viewers are watching; close one")
        socket = web.WebSocketResponse(heartbeat=5.0, max_msg_size=_MOST_BYTES, compress=False)
        await socket.prepare(request)
        viewer, role = Viewer(), self._role(request)
        viewer.say(packed("hello", {"role": role, "protocol": PROTOCOL_VERSION, "camera": self._camera}))
        self.hub.greet(viewer)
        self.hub.viewers.add(viewer)
        sending = asyncio.create_task(_send(socket, viewer))
        try:
            async for message in socket:
                if message.type == WSMsgType.TEXT and message.data == "taken":
                    viewer.taken()
                elif message.type == WSMsgType.TEXT and (said := _SIDE.match(message.data)):
                    viewer.side = int(said[1])
                elif message.type == WSMsgType.TEXT:
                    viewer.say(packed("reply", await self._asked(message.data, role)))
        finally:
            self.hub.viewers.discard(viewer)
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await sending
        return socket

    async def _asked(self, text: str, role: str) -> dict[str, Any]:
        """The reply to a viewer's request, ``{id, op, args, user}`` as JSON."""
        asked_id: Any = None
        try:
            asked = json.loads(text)
            asked_id, op = asked["id"], str(asked["op"])
            args, user = dict(asked.get("args") or {}), str(asked.get("user") or "")
        except (ValueError, KeyError, TypeError):
            return _refused(asked_id, "invalid", "a request is {id, op, args, user} as JSON")
        told = {"op": op[:64], "args": args, "user": user[:64], "role": role}
        if op not in ROLES[role]:
            log.warning("display: %s was asked for by a viewer that may not (%s)", op[:40], role)
            return await self._noted(asked_id, {"event": "forbidden", **told}) or _refused(
                asked_id, "forbidden", f"{op}: this screen only watches; open the controlling address"
            )
        if op == "moment.mark":
            now = {"case": self.hub.health.get("case"), "mode": self.hub.health.get("mode")}
            done = {"id": asked_id, "ok": True, "result": {}, "error": None}
            return await self._noted(asked_id, {"event": "marked", **told, **now}) or done
        # Pages count from 1 each: the pipeline takes an id once.
        return await self._passed_on(make_request(op, args, user[:64])) | {"id": asked_id}

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
            socket.connect(self._requests)
            await socket.send(msgpack.packb(request))
            reply = msgpack.unpackb(await asyncio.wait_for(socket.recv(), _REPLY_S), raw=False)
        except TimeoutError:
            return _refused(request["id"], "unreachable", "the pipeline does not answer")
        except (ValueError, TypeError) as error:
            return _refused(request["id"], "invalid", str(error)[:200])
        finally:
            socket.close()
        return {k: reply.get(k) for k in ("id", "ok", "result", "error")}


def _packed_case(load: Callable[[str], Case], name: str) -> dict[str, bytes]:
    case = load(name)
    made = {"/case": json.dumps(case_head(case)).encode(), "/case/surfaces": surfaces(case), "/case/ct": ct_box(case)}
    return {address: gzip.compress(content, 1) for address, content in made.items()}


def _refused(request_id: Any, code: str, text: str) -> dict[str, Any]:
    return {"id": request_id, "ok": False, "result": None, "error": {"code": code, "text": text}}


async def _send(socket: web.WebSocketResponse, viewer: Viewer) -> None:
    """Sends what waits; while a slow viewer's socket is full, newer pictures replace older ones."""
    while not socket.closed:
        for message in await viewer.next(1.0):
            await socket.send_bytes(message)


@web.middleware
async def _secured(request: web.Request, handler):
    response = await handler(request)
    if not isinstance(response, web.WebSocketResponse):
        response.headers.update(_SECURITY)
    return response


def serve(server: DisplayServer, host: str, port: int, started: Callable[[int], None] = lambda port: None) -> None:
    """Runs until interrupted. Nothing is logged of requests: their addresses hold the key.

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
    web.run_app(server.app, sock=socket, print=None, access_log=None, handle_signals=True, shutdown_timeout=1.0)
