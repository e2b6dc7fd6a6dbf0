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

from fluoronav.openigtlink.protocol import LONG_NAME, MessageReader, pack_message

log = logging.getLogger("fluoronav")

MOST_CLIENTS = 16
# A client that takes nothing for so long is gone, or as good as gone.
_STUCK_S = 10.0
# Alerts wait for a client, however slow; beyond so many it does not read them.
_MOST_ALERTS = 1000
# So that the system holds no second of old pictures for a slow client.
_SEND_BUFFER = 1 << 18
_CHUNK = 1 << 16


class Outgoing:
    """A message for all clients, packed once for each header version that one of them needs.

    Parameters
    ----------
    kind, name : str
        OpenIGTLink's type, and the device's name in 20 letters.
    long : str
        What the name is short for; clients of protocol 3 get it as metadata.
    content : bytes
    t_ns : int, optional
        ns since 1970; now by default.
    """

    def __init__(self, kind: str, name: str, long: str, content: bytes, t_ns: int | None = None) -> None:
        self.kind, self.name, self._long, self._content = kind, name, long, content
        self._t_ns = time.time_ns() if t_ns is None else t_ns
        self._packed: dict[bool, bytes] = {}

    def packed(self, version: int) -> bytes:
        """The bytes for a client that has sent headers of a version."""
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
    """Listens, and sends to whoever is connected.

    Parameters
    ----------
    host : str
        Address to listen at.
    port : int
        0 for any that is free.

    Attributes
    ----------
    port : int
    counts : Counter
        Messages sent, by type; ``skipped``: left out for a newer one that a client had no time for; ``stuck``: clients
        that took nothing; ``refused``: clients beyond the most; ``clients``.

    Raises
    ------
    OSError
        The address cannot be listened at.
    """

    def __init__(self, host: str, port: int) -> None:
        self._listener = socket.create_server((host, port), backlog=MOST_CLIENTS)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._clients: dict[int, _Client] = {}
        self.counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._clients)

    def watched(self) -> dict[int, int]:
        """File descriptors and what to wait for at each (as :func:`select.poll` has it)."""
        wanted = {fd: select.POLLIN | (select.POLLOUT if c.waiting else 0) for fd, c in self._clients.items()}
        return wanted | {self._listener.fileno(): select.POLLIN}

    def step(self, ready: Iterable[int]) -> bool:
        """Reads and sends what can be without waiting; whether somebody has come."""
        ready, came = set(ready), False
        for fd in ready & set(self._clients):
            self._read(self._clients[fd])
        now = time.monotonic()
        for client in list(self._clients.values()):
            self._send(client)
            if client.waiting and now - client.progress_s > _STUCK_S:
                self.counts["stuck"] += 1
                self._drop(client, f"took nothing for {_STUCK_S:g} s")
        if self._listener.fileno() in ready:
            came = self._accept()
        return came

    def newest(self, message: Outgoing) -> None:
        """For everybody; takes the place of an older one of the same device that was not sent yet."""
        key = (message.kind, message.name)
        for client in self._clients.values():
            if key in client.newest:
                self.counts["skipped"] += 1
            self._begin_to_wait(client)
            client.newest[key] = message

    def alert(self, message: Outgoing) -> None:
        """For everybody, before everything else; never left out."""
        for client in list(self._clients.values()):
            self._begin_to_wait(client)
            client.alerts.append(message)
            if len(client.alerts) > _MOST_ALERTS:
                self.counts["stuck"] += 1
                self._drop(client, "reads no alerts")

    def newcomer(self, message: Outgoing) -> None:
        """An alert that was raised before, for whoever has come last."""
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
        except OSError:  # it has gone again
            return False
        if len(self._clients) >= MOST_CLIENTS:
            self.counts["refused"] += 1
            log.warning("OpenIGTLink: %s:%d is refused: %d clients are connected", host, port, MOST_CLIENTS)
            connection.close()
            return False
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, int(_STUCK_S))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, int(_STUCK_S))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        self._clients[connection.fileno()] = _Client(connection, f"{host}:{port}")
        self.counts["clients"] += 1
        log.info("OpenIGTLink: a client has come, %s:%d", host, port)
        return True

    def _read(self, client: _Client) -> None:
        try:
            data = client.socket.recv(_CHUNK)
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
