"""A connection to an OpenIGTLink server that is opened again whenever it is lost, and never blocks for long."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fluoronav.openigtlink.protocol import Message, MessageReader


@dataclass(frozen=True, slots=True)
class GatewayLimits:
    """When a connection is given up and opened again; all are chosen."""

    connect_s: float = 3.0
    silence_s: float = 3.0  # between two messages: a server that has gone does not say so
    stalled_s: float = 2.0  # inside a message
    slowest_bytes_per_s: float = 2e6  # a long message may take longer, by its size
    first_pause_s: float = 0.2  # between two attempts; doubled each time
    longest_pause_s: float = 2.0
    good_messages: int = 10  # after so many in a row the pause is the first one again
    read_bytes: int = 1 << 16


LIMITS = GatewayLimits()


class Gateway:
    """Reads messages from an OpenIGTLink server.

    Parameters
    ----------
    host : str
    port : int
    wanted : mapping
        Types of messages that are read, and the maximum bytes of a body of each.
    greeting : sequence of bytes
        Messages that are sent on every new connection.

    Attributes
    ----------
    counts : Counter
        ``connected``; by reason, connections that failed or were given up (``unreachable``, ``closed``, ``silent``,
        ``stalled``, ``header``, ``too_long``) and messages that were not used (``checksum``, ``metadata``,
        ``not_read``).
    passed_over : set
        Types of messages that have come and are not read.
    connected : bool
    why : str
        Text of why the last connection ended or failed.
    """

    def __init__(self, host: str, port: int, wanted: Mapping[str, int], greeting: Sequence[bytes]) -> None:
        self._host, self._port, self._wanted, self._greeting = host, port, wanted, b"".join(greeting)
        self._socket: socket.socket | None = None
        self._lookup: _Lookup | None = None
        self._reader = MessageReader(wanted)
        self._good = 0
        self._pause = LIMITS.first_pause_s
        self._not_before = 0.0
        self._deadline = self._heard = 0.0
        self._to_send = b""
        self.connected = False
        self.counts: Counter[str] = Counter()
        self.passed_over: set[str] = set()
        self.why = ""

    def take(self, seconds: float) -> list[Message]:
        """The messages that have come; waits for at most this long."""
        now = time.monotonic()
        if self._socket is None:
            if now < self._not_before:
                time.sleep(min(seconds, self._not_before - now))
            else:
                self._dial(seconds)
            return []
        if not self.connected:
            self._finish_dialling(seconds)
            return []
        return self._receive(seconds)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket, self.connected = None, False

    def _dial(self, seconds: float) -> None:
        if self._lookup is None:
            self._lookup = _Lookup(self._host, self._port)
        if not self._lookup.ended.wait(seconds):
            return
        found, self._lookup = self._lookup, None
        if not found.addresses:
            self._failed("unreachable", found.error)
            return
        # Each address in turn: a name may also have addresses at which nobody listens.
        family, address = found.addresses[self.counts["unreachable"] % len(found.addresses)]
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._deadline = time.monotonic() + LIMITS.connect_s
        error = self._socket.connect_ex(address)
        if error not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            self._failed("unreachable", os.strerror(error))

    def _finish_dialling(self, seconds: float) -> None:
        assert self._socket is not None
        if not self._ready(select.POLLOUT, seconds):
            if time.monotonic() > self._deadline:
                self._failed("unreachable", f"no answer within {LIMITS.connect_s:g} s")
            return
        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._failed("unreachable", os.strerror(error))
            return
        self.connected, self._heard, self._good = True, time.monotonic(), 0
        self._reader = MessageReader(self._wanted)
        self._to_send = self._greeting
        self.counts["connected"] += 1

    def _receive(self, seconds: float) -> list[Message]:
        assert self._socket is not None
        if self._to_send:
            with contextlib.suppress(BlockingIOError, ConnectionError):  # noticed by the next read
                self._to_send = self._to_send[self._socket.send(self._to_send) :]
        reader, messages = self._reader, []
        if self._ready(select.POLLIN, seconds):
            try:
                data = self._socket.recv(LIMITS.read_bytes)
            except (BlockingIOError, InterruptedError):
                return []
            except OSError as error:
                self._failed("closed", error.strerror or str(error))
                return []
            if not data:
                inside = " in the middle of a message" if reader.begun_at is not None else ""
                self._failed("closed", f"the server ended the connection{inside}")
                return []
            self._heard = time.monotonic()
            messages = reader.feed(data)
            self._tally(len(messages))
            if reader.lost is not None:
                self._failed(reader.lost.reason, str(reader.lost))
                return messages
        self._watch_time()
        return messages

    def _tally(self, good: int) -> None:
        bad = sum(self._reader.counts[r] for r in ("checksum", "metadata"))
        self._good = 0 if bad else self._good + good
        self.counts.update(self._reader.counts)
        self.passed_over = self._reader.passed_over
        self._reader.counts.clear()
        if self._good >= LIMITS.good_messages:
            self._pause = LIMITS.first_pause_s

    def _watch_time(self) -> None:
        now, begun = time.monotonic(), self._reader.begun_at
        if begun is not None and (now - self._heard > LIMITS.stalled_s or now - begun > self._longest_message_s()):
            self._failed("stalled", "a message has begun and does not end")
        elif now - self._heard > LIMITS.silence_s:
            self._failed("silent", f"nothing came for {LIMITS.silence_s:g} s")

    def _longest_message_s(self) -> float:
        return LIMITS.stalled_s + self._reader.body_bytes / LIMITS.slowest_bytes_per_s

    def _ready(self, what: int, seconds: float) -> bool:
        assert self._socket is not None
        poller = select.poll()
        poller.register(self._socket, what)
        return bool(poller.poll(max(seconds, 0) * 1000))

    def _failed(self, reason: str, why: str) -> None:
        self.close()
        self.counts[reason] += 1
        self.why = why
        self._not_before = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LIMITS.longest_pause_s)


class _Lookup:
    """Looks an address up in a thread of its own, since a name server may not answer."""

    def __init__(self, host: str, port: int) -> None:
        self.addresses: list[tuple[int, tuple]] = []
        self.error = ""
        self.ended = threading.Event()
        threading.Thread(target=self._ask, args=(host, port), daemon=True).start()

    def _ask(self, host: str, port: int) -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            self.addresses = [(family, address) for family, _, _, _, address in found]
        except (OSError, UnicodeError) as error:
            self.error = f"{host} is not known ({error})"
        finally:
            self.ended.set()
