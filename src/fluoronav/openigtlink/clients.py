"""The clients of an OpenIGTLink server: each gets the newest of everything at its own pace, and every alert."""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import sys
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass

from fluoronav.openigtlink.protocol import LONG_NAME, MessageReader, pack_message

log = logging.getLogger("fluoronav")


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """What the server keeps for its clients; all are chosen."""

    max_clients: int = 16
    stuck_s: float = 10.0  # a client that takes nothing for so long is disconnected
    max_alerts: int = 1000  # that wait for one client; a client with more does not read them
    send_buffer_bytes: int = 1 << 18  # less than a second of pictures, so that a slow client gets no old ones
    read_bytes: int = 1 << 16


LIMITS = ClientLimits()


class Outgoing:
    """A message for all clients, packed once for each header version.

    Parameters
    ----------
    kind, name : str
        OpenIGTLink's type, and the device name of at most 20 letters.
    long : str
        The full name; clients of protocol 3 get it as metadata.
    content : bytes
    t_ns : int, optional
        ns since 1970; now by default.
    """

    def __init__(self, kind: str, name: str, long: str, content: bytes, t_ns: int | None = None) -> None:
        self.kind, self.name, self._long, self._content = kind, name, long, content
        self._t_ns = time.time_ns() if t_ns is None else t_ns
        self._packed: dict[bool, bytes] = {}

    def packed(self, version: int) -> bytes:
        """The bytes for a client that sends headers of this version."""
        metadata = version > 1 and self._long != self.name
        if metadata not in self._packed:
            more = {LONG_NAME: self._long} if metadata else None
            self._packed[metadata] = pack_message(self.kind, self.name, self._content, self._t_ns, more)
        return self._packed[metadata]


class _Client:
    def __init__(self, connection: socket.socket, address: str) -> None:
        self.socket, self.address = connection, address
        self.reader = MessageReader({})
        self.alerts: deque[Outgoing] = deque()
        self.newest: OrderedDict[tuple[str, str], Outgoing] = OrderedDict()
        self.sending = memoryview(b"")
        self.progress_s = time.monotonic()

    @property
    def waiting(self) -> bool:
        return bool(self.sending or self.alerts or self.newest)


class Clients:
    """Accepts clients and sends to them.

    Parameters
    ----------
    host : str
        Address to listen at.
    port : int
        0 for any free port.

    Attributes
    ----------
    port : int
    counts : Counter
        Messages sent, by type; ``skipped``: replaced by a newer one before a slow client took it; ``stuck``: clients
        that took nothing; ``refused``: clients beyond the limit; ``clients``: all that have come.

    Raises
    ------
    OSError
        The address cannot be listened at.
    """

    def __init__(self, host: str, port: int) -> None:
        self._listener = socket.create_server((host, port), backlog=LIMITS.max_clients)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._clients: dict[int, _Client] = {}
        self.counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._clients)

    def watched(self) -> dict[int, int]:
        """File descriptors, and the events of :func:`select.poll` to wait for at each."""
        wanted = {fd: select.POLLIN | (select.POLLOUT if c.waiting else 0) for fd, c in self._clients.items()}
        return wanted | {self._listener.fileno(): select.POLLIN}

    def step(self, ready: Iterable[int]) -> bool:
        """Reads and sends without waiting; returns whether a client has come."""
        ready, came = set(ready), False
        for fd in ready & set(self._clients):
            self._read(self._clients[fd])
        now = time.monotonic()
        for client in list(self._clients.values()):
            self._send(client)
            if client.waiting and now - client.progress_s > LIMITS.stuck_s:
                self.counts["stuck"] += 1
                self._drop(client, f"took nothing for {LIMITS.stuck_s:g} s")
        if self._listener.fileno() in ready:
            came = self._accept()
        return came

    def newest(self, message: Outgoing) -> None:
        """Sends to every client; replaces an older message of the same device that was not sent yet."""
        key = (message.kind, message.name)
        for client in self._clients.values():
            if key in client.newest:
                self.counts["skipped"] += 1
            self._begin_to_wait(client)
            client.newest[key] = message

    def alert(self, message: Outgoing) -> None:
        """Sends to every client, before everything else; never skipped."""
        for client in list(self._clients.values()):
            self._begin_to_wait(client)
            client.alerts.append(message)
            if len(client.alerts) > LIMITS.max_alerts:
                self.counts["stuck"] += 1
                self._drop(client, "reads no alerts")

    def newcomer(self, message: Outgoing) -> None:
        """Sends an alert that was raised before to the newest client."""
        if self._clients:
            client = next(reversed(self._clients.values()))
            self._begin_to_wait(client)
            client.alerts.append(message)

    def close(self) -> None:
        for client in list(self._clients.values()):
            client.socket.close()
        self._clients.clear()
        self._listener.close()

    @staticmethod
    def _begin_to_wait(client: _Client) -> None:
        if not client.waiting:
            client.progress_s = time.monotonic()

    def _accept(self) -> bool:
        try:
            connection, (host, port, *_) = self._listener.accept()
        except OSError:  # it has left already
            return False
        if len(self._clients) >= LIMITS.max_clients:
            self.counts["refused"] += 1
            log.warning("OpenIGTLink: %s:%d is refused: %d clients are connected", host, port, LIMITS.max_clients)
            connection.close()
            return False
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LIMITS.send_buffer_bytes)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, int(LIMITS.stuck_s))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, int(LIMITS.stuck_s))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        self._clients[connection.fileno()] = _Client(connection, f"{host}:{port}")
        self.counts["clients"] += 1
        log.info("OpenIGTLink: a client has come, %s:%d", host, port)
        return True

    def _read(self, client: _Client) -> None:
        try:
            data = client.socket.recv(LIMITS.read_bytes)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._drop(client, error.strerror or str(error))
            return
        if not data:
            self._drop(client, "it ended the connection")
            return
        client.reader.feed(data)
        if client.reader.lost is not None:
            self.counts["not_openigtlink"] += 1
            self._drop(client, f"it sends what is not OpenIGTLink: {client.reader.lost}")

    def _send(self, client: _Client) -> None:
        while client.waiting:
            if not client.sending:
                message = client.alerts.popleft() if client.alerts else client.newest.popitem(last=False)[1]
                client.sending = memoryview(message.packed(client.reader.newest_version))
                self.counts[message.kind] += 1
            try:
                sent = client.socket.send(client.sending)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._drop(client, error.strerror or str(error))
                return
            client.sending, client.progress_s = client.sending[sent:], time.monotonic()

    def _drop(self, client: _Client, why: str) -> None:
        if self._clients.pop(client.socket.fileno(), None) is None:
            return
        with contextlib.suppress(OSError):
            client.socket.shutdown(socket.SHUT_RDWR)
        client.socket.close()
        log.info("OpenIGTLink: the client %s has gone: %s", client.address, why)
