"""The navigation display's web server: one page, one WebSocket for each viewer."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from importlib import resources
from socket import socket as Socket

import cv2
from aiohttp import WSMsgType, web

from fluoronav.case import Case, CaseError
from fluoronav.display.admission import LIMITS as ADMISSION
from fluoronav.display.admission import Admission, add_security
from fluoronav.display.case_view import camera_head, case_head, ct_box, surfaces
from fluoronav.display.hub import Hub
from fluoronav.display.place import is_own_address
from fluoronav.display.screen_requests import LIMITS as REQUESTS
from fluoronav.display.screen_requests import Person, ScreenRequests, Waiting, put
from fluoronav.display.viewer import DisplayPicture, Viewer, packed
from fluoronav.geometry import Camera
from fluoronav.site.audit import AuditTrail
from fluoronav.wire import DEFAULT_ENDPOINTS
from fluoronav.wire.values import PROTOCOL_VERSION

log = logging.getLogger("fluoronav")

PAGE = resources.files("fluoronav.display") / "page"
# Chosen: streams at a time, by role, so that watchers never take the place of a screen that controls.
MAX_STREAMS = {"watch": 16, "control": 8}
# Code with which a stream is closed when its screen opens another (RFC 6455 leaves 4000 and above to applications).
REPLACED = 4001


@dataclass(frozen=True, slots=True)
class ServerTimes:
    """Times of the server, s; all are chosen."""

    link_every_s: float = 0.2  # how often viewers are told whether the pipeline is heard
    silent_s: float = 1.4  # health comes once a second
    heartbeat_s: float = 5.0  # of a WebSocket
    close_s: float = 2.0  # a WebSocket that is closed waits so long for the other side


TIMES = ServerTimes()
# The page's message of the length of a picture's longer side on its screen, px.
_SIDE = re.compile(r"^side (\d{2,5})$", re.ASCII)
# How long it took the page to draw a picture, ms.
_DRAWN = re.compile(r"^drawn (\d{1,6})$", re.ASCII)


class DisplayServer:
    """Serves the page, its streams and the case.

    Parameters
    ----------
    hub : Hub
    requests : str
        Endpoint of the pipeline's requests.
    camera : Camera
        Camera of the C-arm.
    load_case : callable
        Returns a case by its name in the launch file (empty for the first one); called when a viewer opens the 3D view.
    trail : AuditTrail
        Takes marked moments, and requests that were refused for want of the key.
    control_key : str, optional
        Key of screens that control; drawn at random by default.
    allowed_hosts : collection of str
        Host names of the display, besides addresses and ``localhost``.
    marks : str
        Endpoint of who hears marked moments.
    user_min : float
        Minutes after which a controlling screen asks again who uses it; 0 for never.
    who : callable
        Given `health.case`, the person behind it, for screens that control.
    """

    def __init__(
        self, hub: Hub, requests: str, camera: Camera, load_case: Callable[[str], Case], trail: AuditTrail,
        control_key: str | None = None, allowed_hosts: Collection[str] = (), marks: str = DEFAULT_ENDPOINTS["marks"],
        user_min: float = 0.0, who: Callable[[str], Person] = lambda case: Person(),
    ) -> None:  # fmt: skip
        self.hub = hub
        self._hello = {"protocol": PROTOCOL_VERSION, "camera": camera_head(camera), "user_min": user_min}
        self._load_case = load_case
        self._case: tuple[str, asyncio.Task[dict[str, bytes]]] | None = None
        self._requests = ScreenRequests(hub, requests, trail, marks, who)
        self.control_key = control_key or secrets.token_urlsafe(12)
        self._admission = Admission(allowed_hosts)
        self._closing: set[asyncio.Task[bool]] = set()
        self._sockets: dict[Viewer, web.WebSocketResponse] = {}
        # Pictures are made beside the event loop, so that no alert waits for one; at the loop's own priority, since the
        # thread may hold the interpreter's lock.
        self._pictures = ThreadPoolExecutor(1, thread_name_prefix="pictures")
        self.app = web.Application(client_max_size=ADMISSION.max_bytes, middlewares=[self._admission.guard])
        self.app.on_response_prepare.append(add_security)
        self.app.router.add_get("/", self._page)
        self.app.router.add_get("/stream", self._stream)
        self.app.router.add_get("/page/{name}", self._file)
        for address in ("/case", "/case/surfaces", "/case/ct"):
            self.app.router.add_get(address, partial(self._of_case, address))
        self.app.cleanup_ctx.append(self._background)

    async def _background(self, app: web.Application):
        cv2.setNumThreads(1)  # the cores are the pipeline's
        tasks = [asyncio.create_task(self.hub.run()), asyncio.create_task(self._watch())]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._pictures.shutdown(wait=False, cancel_futures=True)

    async def _watch(self) -> None:
        """Tells viewers whether the pipeline is heard: a page that shows an old picture must say so."""
        while True:
            await asyncio.sleep(TIMES.link_every_s)
            now = time.monotonic()
            silent = now - self.hub.last_heard if self.hub.last_heard else None
            health = now - self.hub.last_health if self.hub.last_health else None
            link = {"heard": silent is not None and silent < TIMES.silent_s, "silent_s": silent, "health_s": health}
            self.hub.say("link", link)
            self.hub.watch(now)

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
        """The pipeline's case for the 3D view; made once, when it is first asked for."""
        name = str(self.hub.health.get("case_name") or "")
        if self._case is None or self._case[0] != name or (self._case[1].done() and self._case[1].exception()):
            self._case = name, asyncio.create_task(asyncio.to_thread(_packed_case, self._load_case, name))
        try:
            parts = await asyncio.shield(self._case[1])
        except (CaseError, OSError) as error:
            log.warning("display: the case cannot be shown in space: %s", error)
            raise web.HTTPServiceUnavailable(text=_for_people(error)) from error
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
        viewer = Viewer(role, screen, local=is_own_address(request.remote or ""))
        twin = next((v for v in self._sockets if screen and (v.screen, v.role) == (screen, role)), None)
        if twin is not None:
            self._end(twin)
        if sum(v.role == role for v in self._sockets) >= MAX_STREAMS[role]:
            raise web.HTTPServiceUnavailable(text=f"{MAX_STREAMS[role]} such screens are open; close one")
        socket = web.WebSocketResponse(
            heartbeat=TIMES.heartbeat_s, timeout=TIMES.close_s, max_msg_size=ADMISSION.max_bytes, compress=False
        )
        self._sockets[viewer] = socket  # before the first await: streams are counted by it
        waiting: Waiting = asyncio.Queue(REQUESTS.max_waiting)
        tasks = []
        try:
            await socket.prepare(request)
            self._admission.becomes_stream(request)
            viewer.reply(packed("hello", {"role": role, **self._hello}))
            self.hub.add(viewer)
            tasks = [
                asyncio.create_task(_send(socket, viewer, self._pictures)),
                asyncio.create_task(self._requests.answer(viewer, waiting)),
            ]
            async for message in socket:
                if message.type == WSMsgType.TEXT and not self._hears_screen(viewer, message.data):
                    put(waiting, viewer, message.data)
        finally:
            self._sockets.pop(viewer, None)
            self.hub.viewers.discard(viewer)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return socket

    def _hears_screen(self, viewer: Viewer, said: str) -> bool:
        """Takes what a page says of its own screen; False where it is something else."""
        if said == "taken":
            viewer.taken()
        elif said in ("hidden", "visible"):
            viewer.hidden = said == "hidden"
            self.hub.watch(time.monotonic())
            viewer.wake.set()
        elif side := _SIDE.match(said):
            viewer.side = int(side[1])
        elif drawn := _DRAWN.match(said):
            if viewer.load.take(time.monotonic(), float(drawn[1])):
                self.hub.pace()
        else:
            return False
        return True

    def _end(self, viewer: Viewer) -> None:
        """Ends the stream of a screen that has opened another, without waiting: the old one may be dead."""
        socket = self._sockets.pop(viewer)
        self.hub.viewers.discard(viewer)
        closing = asyncio.create_task(socket.close(code=REPLACED, message=b"this screen has opened another stream"))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


def _for_people(error: CaseError | OSError) -> str:
    """An error's reason without folders and numbers, which say nothing to who stands before the screen."""
    if isinstance(error, OSError):
        return f"this computer cannot read the case ({error.strerror or 'a file'})"
    return re.sub(r"\[Errno \d+\] |\S*[/\\]", "", str(error))[:400]


def _packed_case(load: Callable[[str], Case], name: str) -> dict[str, bytes]:
    case = load(name)
    made = {"/case": json.dumps(case_head(case)).encode(), "/case/surfaces": surfaces(case), "/case/ct": ct_box(case)}
    return {address: gzip.compress(content, 1) for address, content in made.items()}


async def _send(socket: web.WebSocketResponse, viewer: Viewer, pictures: ThreadPoolExecutor) -> None:
    """Sends what waits; while a slow viewer's socket is full, newer pictures replace older ones."""
    loop = asyncio.get_running_loop()
    try:
        while not socket.closed:
            for message in await viewer.next(1.0):
                if isinstance(message, DisplayPicture):
                    message = await loop.run_in_executor(pictures, viewer.made, message)
                await socket.send_bytes(message)
    except ConnectionError:
        return  # the viewer has left: the stream's own loop ends
    finally:
        # A stream on which nothing comes any more must not stay open.
        await socket.close()
