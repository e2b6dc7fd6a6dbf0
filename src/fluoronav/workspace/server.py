"""The workspace's web server: one page, its API, and a WebSocket for each page that is open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from importlib import resources
from pathlib import Path, PurePosixPath
from socket import socket as Socket

from aiohttp import web

from fluoronav.display.admission import SECURITY, Admission, AdmissionLimits
from fluoronav.workspace.cases import CaseStore
from fluoronav.workspace.desk import Desk
from fluoronav.workspace.people import People
from fluoronav.workspace.requests import STORE_ROOT, errors_as_json
from fluoronav.workspace.routes_cases import CaseRoutes
from fluoronav.workspace.routes_jobs import MOST_UPLOAD, JobRoutes
from fluoronav.workspace.routes_levels import LevelRoutes
from fluoronav.workspace.routes_plan import PlanRoutes
from fluoronav.workspace.routes_session import SessionRoutes

PAGE = resources.files("fluoronav.workspace") / "page"
# Chosen: a stroke or an operation of the page is at most some megabytes; a CT over a hospital's network takes a minute.
LIMITS = AdmissionLimits(max_bytes=32 << 20, idle_s=30.0, answer_s=600.0)
_KINDS = {
    ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".json": "application/json",
    ".wasm": "application/wasm", ".map": "application/json", ".svg": "image/svg+xml", ".png": "image/png",
    ".txt": "text/plain",
}  # fmt: skip
# The page draws by WebGL, decodes in workers, and compiles WebAssembly; it takes nothing from elsewhere.
_HEADERS = SECURITY | {
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self' blob: data:; img-src 'self' blob: data:; "
    "frame-ancestors 'none'",
    "Cross-Origin-Embedder-Policy": "require-corp",
}


class WorkspaceServer:
    """Serves the page and its API.

    Parameters
    ----------
    store : CaseStore
    people : People
    allowed_hosts : collection of str
        Host names of the server, besides addresses and ``localhost``.
    instruments : Path, optional
        The operating room's tools and tracker, which exported cases name.
    """

    def __init__(
        self,
        store: CaseStore,
        people: People,
        allowed_hosts: Collection[str] = (),
        instruments: Path | None = None,
    ) -> None:
        self.desk = Desk(store, people, instruments)
        limits = AdmissionLimits(max_bytes=MOST_UPLOAD, idle_s=LIMITS.idle_s, answer_s=LIMITS.answer_s)
        self._admission = Admission(allowed_hosts, limits, lambda path: path.endswith("/events"))
        self.app = web.Application(
            client_max_size=LIMITS.max_bytes, middlewares=[errors_as_json, self._admission.guard, _small_bodies]
        )
        self.app[STORE_ROOT] = str(store.root)
        self.app.on_response_prepare.append(_add_security)
        self.app.router.add_get("/", self._page)
        self.app.router.add_get("/page/{path:.+}", self._file)
        for routes in (CaseRoutes, SessionRoutes, LevelRoutes, PlanRoutes, JobRoutes):
            routes(self.desk).add(self.app)
        self.app.cleanup_ctx.append(self.desk.background)

    def listening(self, at: Socket) -> AbstractAsyncContextManager[None]:
        """Serves at an open socket, as long as the context lasts."""
        return self._admission.listening(self.app, at)

    async def _page(self, request: web.Request) -> web.StreamResponse:
        return await self._sent("index.html")

    async def _file(self, request: web.Request) -> web.StreamResponse:
        return await self._sent(request.match_info["path"])

    async def _sent(self, name: str) -> web.StreamResponse:
        """A file of the page; nothing else in the package is served."""
        parts = PurePosixPath(name).parts
        kind = _KINDS.get(PurePosixPath(name).suffix)
        file = PAGE.joinpath(*parts)
        if kind is None or any(p in ("/", "..") or p.startswith(".") or "\\" in p for p in parts) or not file.is_file():
            raise web.HTTPNotFound(text=f"no such file: {name[:80]}")
        return web.Response(body=await asyncio.to_thread(file.read_bytes), content_type=kind)


@web.middleware
async def _small_bodies(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuses bodies that are larger than the page sends, before they are read; uploads have their own limit."""
    size = request.content_length or 0
    if size > LIMITS.max_bytes and request.method != "PUT":
        raise web.HTTPRequestEntityTooLarge(LIMITS.max_bytes, size)
    return await handler(request)


async def _add_security(request: web.BaseRequest, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
