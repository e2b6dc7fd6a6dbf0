"""Which HTTP requests are admitted: by host name, origin, size and time."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from socket import socket
from typing import Any, cast
from urllib.parse import urlsplit

from aiohttp import web


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """What one client may take; all are chosen."""

    max_bytes: int = 65536  # of a request's body, and of one message of a WebSocket
    idle_s: float = 5.0  # a connection without a whole request for so long is closed
    answer_s: float = 60.0  # a request that is not answered and read within this is ended; a case takes some seconds
    linger_s: float = 1.0  # the rest of a request's body is read for so long after its answer
    max_connections: int = 128  # at a time, without streams; beyond that the oldest is closed


LIMITS = AdmissionLimits()
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
    """Refuses requests by their ``Host`` and ``Origin``, and bounds connections.

    Another site may resolve its own name to this computer's address (DNS rebinding). The browser then takes this server
    for that site's, and only the name in ``Host`` shows it. An address cannot be forged in this way.

    Parameters
    ----------
    names : collection of str
        Host names of the server, besides addresses and ``localhost``.
    limits : AdmissionLimits
    is_stream : callable
        Whether an address is that of a WebSocket.
    """

    def __init__(
        self,
        names: Collection[str] = (),
        limits: AdmissionLimits = LIMITS,
        is_stream: Callable[[str], bool] = lambda path: path == "/stream",
    ) -> None:
        self._names = {"localhost", *(name.lower() for name in names)}
        self._limits, self._is_stream = limits, is_stream
        self._plain: OrderedDict[_Connection, None] = OrderedDict()

    def refusal(self, request: web.BaseRequest) -> web.HTTPException | None:
        """Why a request is refused; None where it is admitted."""
        hosts, origins = request.headers.getall("Host", []), request.headers.getall("Origin", [])
        if len(hosts) != 1 or not self._is_known(hosts[0]):
            return web.HTTPForbidden(
                text="this server is not asked for by that name; use its address, or start it with --allowed-host NAME"
            )
        # Browsers send the origin of a WebSocket or a POST; a client without one is no page.
        if origins and (len(origins) > 1 or not _is_same_site(origins[0], hosts[0])):
            return web.HTTPForbidden(text="another site's page may not watch")
        if (request.content_length or 0) > self._limits.max_bytes:
            return web.HTTPRequestEntityTooLarge(self._limits.max_bytes, request.content_length or 0)
        return None

    def _is_known(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        return match is not None and (match[1].lower() in self._names or _is_address(match[1].strip("[]")))

    @web.middleware
    async def guard(self, request: web.Request, handler) -> web.StreamResponse:
        """Answers admitted requests, and ends those that take too long; streams have their own limits."""
        if (refused := self.refusal(request)) is not None:
            refused.force_close()
            raise refused
        try:
            async with asyncio.timeout(self._limits.answer_s):
                response = await _answered(request, handler) if not self._is_stream(request.path) else None
                if response is not None:
                    # Written here, so that the time limit also holds for a client that does not read.
                    await response.prepare(request)
                    with suppress(ConnectionResetError):  # who asked has gone: aiohttp ends the connection
                        await response.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            raise web.HTTPServiceUnavailable(text=f"not answered within {self._limits.answer_s:.0f} s") from None
        return response if response is not None else await handler(request)

    def becomes_stream(self, request: web.Request) -> None:
        """Removes a connection from those that are counted here: streams are counted apart."""
        self._plain.pop(cast("_Connection", request.protocol), None)

    @asynccontextmanager
    async def listening(self, app: web.Application, at: socket) -> AsyncIterator[None]:
        """Serves an app at an open socket. Requests are not logged, since their addresses hold the key."""
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        manager, loop = runner.server, asyncio.get_running_loop()
        assert manager is not None
        most = self._limits
        limits = {"access_log": None, "keepalive_timeout": most.idle_s, "lingering_time": most.linger_s}
        opened = await loop.create_server(
            lambda: _Connection(self._plain, most.max_connections, manager, loop=loop, **limits), sock=at
        )
        try:
            yield
        finally:
            opened.close()
            await runner.cleanup()


async def _answered(request: web.Request, handler) -> web.StreamResponse:
    """What a handler answers; where who asked has gone while it wrote, an answer that nobody reads."""
    try:
        return await handler(request)
    except ConnectionResetError:
        return web.Response(status=499)


async def add_security(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Adds the security headers to every answer, errors included (a signal of aiohttp)."""
    response.headers.update(SECURITY)


class _Connection(web.RequestHandler):
    """One connection; malformed requests, which aiohttp answers without the app, get the security headers too."""

    __slots__ = ("_most", "_others")

    def __init__(self, others: OrderedDict[_Connection, None], most: int, manager: web.Server, **settings: Any) -> None:
        super().__init__(manager, **settings)
        self._others, self._most = others, most

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._others[self] = None
        if len(self._others) > self._most:
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
        else:  # not logged: any client could fill the disk
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


def _is_same_site(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()
