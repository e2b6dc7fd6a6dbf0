"""Runs a web server at a port until it is interrupted: the navigation display's, and the workspace's."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from socket import create_server
from socket import socket as Socket
from typing import Protocol


class Listening(Protocol):
    """A server that answers at an open socket as long as a context lasts."""

    def listening(self, at: Socket) -> AbstractAsyncContextManager[None]:
        """The context; at its end requests that are being answered are finished."""
        ...


def serve(server: Listening, host: str, port: int, started: Callable[[int], None] = lambda port: None) -> None:
    """Runs until SIGTERM or Ctrl-C.

    Parameters
    ----------
    server : Listening
    host : str
    port : int
        0 for any free port.
    started : callable
        Called with the port, once it is open.

    Raises
    ------
    OSError
        The port is in use.
    """
    asyncio.run(_serve(server, create_server((host, port)), started))


async def _serve(server: Listening, at: Socket, started: Callable[[int], None]) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with server.listening(at):
        started(int(at.getsockname()[1]))
        await stop.wait()
