"""A connection to an OpenIGTLink server that is made again whenever it is lost, and never waits long for anything."""

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

from fluoronav.openigtlink.protocol import Message, MessageReader

_CHUNK = 1 << 16
_CONNECT_S = 3.0
# Silence between two messages: a server that has gone does not say so.
SILENCE_S = 3.0
# A message that has begun is waited for so long, and so much longer for its size.
STALLED_S, _SLOWEST_BYTES_S = 2.0, 2e6
# Between two attempts: doubled each time, until so many messages in a row were good.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _GOOD_MESSAGES = 0.2, 2.0, 10


class Gateway:
    """Reads messages from an OpenIGTLink server.

    Parameters
    ----------
    host : str
    port : int
    wanted : mapping
        Types of messages that are read, and the most bytes that a body of each may have.
    greeting : sequence of bytes
        Messages to send whenever a connection was made.

    Attributes
    ----------
    counts : Counter
        By reason: ``connected``; why there was no connection or it was given up (``unreachable``, ``closed``,
        ``silent``, ``stalled``, ``header``, ``too_long``); messages left out (``checksum``, ``metadata``,
        ``not_read``).
    passed_over : set
        Types of messages that have come and are not read.
    connected : bool
    why : str
        In words, why the last connection ended or could not be made.
    """

    def __init__(self, host: str, port: int, wanted: Mapping[str, int], greeting: Sequence[bytes]) -> None:
        self._host, self._port, self._wanted, self._greeting = host, port, wanted, b"".join(greeting)
        self._socket: socket.socket | None = None
        self._lookup: _Lookup | None = None
        self._reader = MessageReader(wanted)
        self._good = 0
        self._pause = _FIRST_PAUSE_S
        self._not_before = 0.0
        self._deadline = self._heard = 0.0
        self._to_send = b""
        self.connected = False
        self.counts: Counter[str] = Counter()
        self.passed_over: set[str] = set()
        self.why = ""

    def take(self, seconds: float) -> list[Message]:
        """The messages that have come; waits for some, but not longer than told."""
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
        # One after the other: a name may stand for an address at which nobody listens, too.
        family, address = found.addresses[self.counts["unreachable"] % len(found.addresses)]
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._deadline = time.monotonic() + _CONNECT_S
        error = self._socket.connect_ex(address)
        if error not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            self._failed("unreachable", os.strerror(error))

    def _finish_dialling(self, seconds: float) -> None:
        assert self._socket is not None
        if not self._ready(select.POLLOUT, seconds):
            if time.monotonic() > self._deadline:
                self._failed("unreachable", f"no answer within {_CONNECT_S:g} s")
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
            with contextlib.suppress(BlockingIOError, ConnectionError):  # its end is noticed in what it sends
                self._to_send = self._to_send[self._socket.send(self._to_send) :]
        reader, messages = self._reader, []
        if self._ready(select.POLLIN, seconds):
            try:
                data = self._socket.recv(_CHUNK)
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
        if self._good >= _GOOD_MESSAGES:
            self._pause = _FIRST_PAUSE_S

    def _watch_time(self) -> None:
        now, begun = time.monotonic(), self._reader.begun_at
        if begun is not None and (now - self._heard > STALLED_S or now - begun > self._longest_message_s()):
            self._failed("stalled", "a message has begun and does not end")
        elif now - self._heard > SILENCE_S:
            self._failed("silent", f"nothing came for {SILENCE_S:g} s")

    def _longest_message_s(self) -> float:
        return STALLED_S + self._reader.body_bytes / _SLOWEST_BYTES_S

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
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_S)


class _Lookup:
    """Asks for an address in a thread of its own: a name server that does not answer must hold up nobody."""

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
