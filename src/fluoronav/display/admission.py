"""Which HTTP requests are let in: to which names, from which pages, how large, and for how long."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from socket import socket
from typing import Any, cast
from urllib.parse import urlsplit

from aiohttp import web

MOST_BYTES = 65536  # of a request's body, and of one message of a WebSocket
# A connection that has sent no whole request for so long is closed, s.
IDLE_S = 5.0
# A request that is not answered, or whose answer is not taken, after so long is ended, s (a case is read in some).
ANSWER_S = 60.0
# What is left of a request's body is read for so long after its answer, s.
_LINGER_S = 1.0
# Connections at a time, without the streams: beyond that the one that has been open longest is closed.
_MOST_CONNECTIONS = 128
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:/@\s]+)(:\d{1,5})?", re.ASCII)
SECURITY = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class Admission:
    """Refuses requests by what they say of where they go and where they are from.

    A page elsewhere may give its own name this computer's address (DNS rebinding): then the browser takes it for that
    page's server, and only the name in ``Host`` tells. Nobody can do so with an address.

    Parameters
    ----------
    names : collection of str
        Under which the display may be asked for, besides addresses and ``localhost``.
    """

    def __init__(self, names: Collection[str] = ()) -> None:
        self._names = {"localhost", *(name.lower() for name in names)}
        self._plain: OrderedDict[_Connection, None] = OrderedDict()

    def refusal(self, request: web.BaseRequest) -> web.HTTPException | None:
        """Why a request is not let in; None where it is."""
        hosts, origins = request.headers.getall("Host", []), request.headers.getall("Origin", [])
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return web.HTTPForbidden(
                text="this display is not asked for by that name; use its address, or start it with --allowed-host NAME"
            )
        # Browsers say which page a WebSocket or a POST is from; who says nothing is no page.
        if origins and (len(origins) > 1 or not _is_of(origins[0], hosts[0])):
            return web.HTTPForbidden(text="another site's page may not watch")
        if (request.content_length or 0) > MOST_BYTES:
            return web.HTTPRequestEntityTooLarge(MOST_BYTES, request.content_length or 0)
        return None

    def _is_ours(self, host: str) -> bool:
        said = _HOST.fullmatch(host)
        return said is not None and (said[1].lower() in self._names or _is_address(said[1].strip("[]")))

    @web.middleware
    async def guard(self, request: web.Request, handler) -> web.StreamResponse:
        """Answers what is let in, and ends what takes too long; streams have their own measures."""
        if (refused := self.refusal(request)) is not None:
            refused.force_close()
            raise refused
        try:
            async with asyncio.timeout(ANSWER_S):
                response = await handler(request) if request.path != "/stream" else None
                if response is not None:
                    # Here, so that the limit holds for whoever does not read, too.
                    await response.prepare(request)
                    await response.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            raise web.HTTPServiceUnavailable(text=f"not answered within {ANSWER_S:.0f} s") from None
        return response if response is not None else await handler(request)

    def becomes_stream(self, request: web.Request) -> None:
        """Takes a connection out of those that are bounded here: streams have places of their own."""
        self._plain.pop(cast("_Connection", request.protocol), None)

    @asynccontextmanager
    async def listening(self, app: web.Application, at: socket) -> AsyncIterator[None]:
        """Serves an app at an open socket. Nothing is logged of requests: their addresses hold the key."""
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        manager, loop = runner.server, asyncio.get_running_loop()
        assert manager is not None
        limits = {"access_log": None, "keepalive_timeout": IDLE_S, "lingering_time": _LINGER_S}
        opened = await loop.create_server(lambda: _Connection(self._plain, manager, loop=loop, **limits), sock=at)
        try:
            yield
        finally:
            opened.close()
            await runner.cleanup()


async def add_security(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Puts the security headers on whatever is answered, errors included (a signal of aiohttp)."""
    response.headers.update(SECURITY)


class _Connection(web.RequestHandler):
    """One connection; what is malformed, which aiohttp answers before it has an app, is answered as all else."""

    __slots__ = ("_others",)

    def __init__(self, others: OrderedDict[_Connection, None], manager: web.Server, **settings: Any) -> None:
        super().__init__(manager, **settings)
        self._others = others

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._others[self] = None
        if len(self._others) > _MOST_CONNECTIONS:
            next(iter(self._others)).force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._others.pop(self, None)
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500:
            response = super().handle_error(request, status, exc, message)
        else:  # not logged: anybody could fill the disk with it
            response = web.Response(status=status, text="this is no HTTP request")
            response.force_close()
        response.headers.update(SECURITY)
        return response


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_of(origin: str, host: str) -> bool:
    try:
        said = urlsplit(origin)
    except ValueError:
        return False
    return said.scheme in ("http", "https") and said.netloc.lower() == host.lower()
