"""The listening side of DIMSE, which no connection can hold up: handshakes in threads, bounded in number and time."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, cast

from pynetdicom.transport import ThreadedAssociationServer

from fluoronav.pacs.tls import explained

log = logging.getLogger(__name__)


class BoundedServer(ThreadedAssociationServer):
    """pynetdicom's server, with three differences.

    A TLS handshake runs in the connection's own thread and ends within a time; the library's runs in the accepting
    thread, where one silent caller holds up all. Reads end after a silence. Connections above a number are closed at
    once, before they cost a thread.

    Parameters
    ----------
    most_connections : int
    handshake_s, silence_s : float
    counted : callable
        Takes the name of what was refused.
    """

    daemon_threads = True

    def __init__(
        self,
        *args: Any,
        most_connections: int,
        handshake_s: float,
        silence_s: float,
        counted: Callable[[str], None],
        **named: Any,
    ) -> None:
        self._most, self._handshake_s, self._silence_s = most_connections, handshake_s, silence_s
        self._counted = counted
        self._shaking = threading.Semaphore(most_connections)
        super().__init__(*args, **named)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accepts; without the handshake."""
        connection, address = cast(socket.socket, self.socket).accept()
        connection.settimeout(self._handshake_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room for another connection."""
        if len(self.active_associations) < self._most:
            return True
        self._counted("connection above the limit")
        return False

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Does the handshake, then what the library does."""
        if self.ssl_context is not None:
            wrapped = self._shaken(request)
            if wrapped is None:
                self.shutdown_request(request)
                return
            request = wrapped
        request.settimeout(self._silence_s)
        super().process_request_thread(request, client_address)

    def _shaken(self, request: socket.socket) -> ssl.SSLSocket | None:
        if not self._shaking.acquire(blocking=False):
            self._counted("connection above the limit")
            return None
        try:
            return cast(ssl.SSLContext, self.ssl_context).wrap_socket(request, server_side=True)
        except ssl.SSLError as error:
            self._counted("TLS handshake failed")
            log.warning("a caller was refused: %s", explained(error))
        except OSError:
            self._counted("TLS handshake ended or timed out")
        finally:
            self._shaking.release()
        return None
