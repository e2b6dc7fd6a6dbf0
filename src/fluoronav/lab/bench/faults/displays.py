"""Browsers at the navigation display: of another site, too many, half-open, or without the key."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fluoronav.lab.bench.faults.inputs import launch_file
from fluoronav.lab.bench.faults.place import Place
from fluoronav.lab.bench.faults.row import BenchError, Fault, NotHere, Outcome
from fluoronav.lab.process import end_process


@dataclass(frozen=True)
class DisplayFaults:
    """How the faults are made, and what is allowed; chosen."""

    starts_s: float = 60.0  # until the display prints its addresses
    answers_s: float = 5.0  # until it answers
    watchers: int = 16  # screens without the key
    half_open: int = 20  # requests that never end
    closed_within_s: float = 15.0  # until they are closed
    waited_s: float = 20.0  # for that
    flood_s: float = 4.0  # of refused requests
    most_bytes: int = 2_000_000  # that they may leave on the disk


LIMITS = DisplayFaults()
_HEADERS = ("content-security-policy", "x-content-type-options", "referrer-policy")


class Display:
    """`fluoronav display` at a free port, without a pipeline.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    NotHere
        The extra `display` is not installed.
    BenchError
        It does not start.
    """

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("aiohttp") is None or importlib.util.find_spec("skimage") is None:
            raise NotHere("the display needs the extra `display`")
        self.audit = folder / "audit"
        launch = launch_file(folder)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fluoronav", "display", str(launch), "--port", "0"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], LIMITS.starts_s)
        addresses = [self._process.stdout.readline().split() for _ in range(2)] if ready else []
        if len(addresses) != 2 or not all(addresses):
            self.close()
            raise BenchError("the display does not start")
        control = urlsplit(addresses[1][1])
        self.port, self.key = control.port or 80, control.query
        self._sockets: list[socket.socket] = []

    def open(self, path: str = "/stream", host: str = "", origin: str = "") -> tuple[int, str, socket.socket]:
        """Asks for a WebSocket; returns the status, the answer's head, and the socket."""
        host = host or f"127.0.0.1:{self.port}"
        lines = [
            f"GET {path} HTTP/1.1", f"Host: {host}", f"Origin: {origin or 'http://' + host}", "Upgrade: websocket",
            "Connection: Upgrade", f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            "Sec-WebSocket-Version: 13",
        ]  # fmt: skip
        return self.send("\r\n".join(lines) + "\r\n\r\n")

    def get(self, path: str) -> tuple[int, str, socket.socket]:
        """Asks for a page; returns the status, the answer's head, and the socket."""
        return self.send(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n\r\n")

    def send(self, text: str) -> tuple[int, str, socket.socket]:
        """Sends the beginning of a request, and reads the answer's head."""
        client = self.connect()
        client.sendall(text.encode())
        head = b""
        with contextlib.suppress(OSError):
            while b"\r\n\r\n" not in head:
                some = client.recv(1)
                if not some:
                    break
                head += some
        words = head.decode(errors="replace").split(" ", 2)
        return (int(words[1]) if len(words) > 1 and words[1].isdigit() else 0), head.decode(errors="replace"), client

    def connect(self) -> socket.socket:
        """A connection, closed at the end."""
        client = socket.create_connection(("127.0.0.1", self.port), LIMITS.answers_s)
        self._sockets.append(client)
        return client

    def close(self) -> None:
        """Ends it."""
        for client in getattr(self, "_sockets", []):
            client.close()
        end_process(self._process)
        if self._process.stdout:
            self._process.stdout.close()


@contextlib.contextmanager
def _display(place: Place) -> Iterator[Display]:
    display = Display(place.folder())
    try:
        yield display
    finally:
        display.close()


def frame(text: str) -> bytes:
    """A masked text frame of the WebSocket protocol (RFC 6455, 5.2)."""
    data, mask = text.encode(), os.urandom(4)
    length = bytes([128 | len(data)]) if len(data) < 126 else bytes([128 | 126]) + len(data).to_bytes(2, "big")
    return b"\x81" + length + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data))


def _refused(outcome: Outcome, begin: float) -> Outcome:
    """Adds the time until the refusal, if there was one."""
    if not outcome.problems:
        outcome.said_after_ms = (time.time() - begin) * 1000
    return outcome


def _rebinding(place: Place) -> Outcome:
    """DNS rebinding: a page of another site whose name resolves to this computer."""
    with _display(place) as display:
        begin = time.time()
        foreign = f"attacker.example:{display.port}"
        status = display.open(host=foreign, origin=f"http://{foreign}")[0]
        page = display.send(f"GET / HTTP/1.1\r\nHost: {foreign}\r\n\r\n")[0]
        own = display.open()[0]
        outcome = Outcome(seen=f"stream {status}, page {page}, its own {own}")
    if status in (0, 101):
        outcome.problems.append("a foreign name is admitted to the stream")
    if page in (0, 200):
        outcome.problems.append("a foreign name is given the page")
    if own != 101:
        outcome.problems.append("its own page is refused")
    return _refused(outcome, begin)


def _watchers(place: Place) -> Outcome:
    with _display(place) as display:
        admitted = sum(display.open()[0] == 101 for _ in range(LIMITS.watchers))
        control = display.open(f"/stream?{display.key}")[0]
        outcome = Outcome(seen=f"{admitted} watchers, control: {control}")
    if control != 101:
        outcome.problems.append("the control screen is locked out")
    return outcome


def _half_open(place: Place) -> Outcome:
    """Requests that never end."""
    with _display(place) as display:
        begin = time.time()
        clients = [display.connect() for _ in range(LIMITS.half_open)]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        left = set(clients)
        while left and time.time() - begin < LIMITS.waited_s:
            for client in select.select(list(left), [], [], 0.2)[0]:
                with contextlib.suppress(OSError):
                    if client.recv(4096):
                        continue
                left.discard(client)
        after = time.time() - begin
        answers = display.get("/")[0]
    outcome = Outcome(seen=f"{len(left)} of {LIMITS.half_open} are open after {after:.0f} s; the page then: {answers}")
    if left or after > LIMITS.closed_within_s:
        outcome.problems.append("half-open requests live on")
    else:
        outcome.said_after_ms = after * 1000
    if answers != 200:
        outcome.problems.append("the page is not served meanwhile")
    return outcome


def _error_pages(place: Place) -> Outcome:
    with _display(place) as display:
        status, head, _ = display.get("/no-such-page")
        outcome = Outcome(seen=f"status {status}")
    missing = [h for h in _HEADERS if h not in head.lower()]
    if missing:
        outcome.problems.append(f"without {', '.join(missing)}")
    return outcome


def _refused_requests(place: Place) -> Outcome:
    """A screen without the key that floods the display with requests."""
    with _display(place) as display:
        _, _, client = display.open()
        asked = {"op": "mode.set", "args": {"mode": "x" * 40_000}, "user": "nobody"}
        begin, sent = time.time(), 0
        client.settimeout(0.2)
        while time.time() - begin < LIMITS.flood_s:
            with contextlib.suppress(TimeoutError):
                client.sendall(frame(json.dumps(asked | {"id": sent})))
                sent += 1
            with contextlib.suppress(OSError):
                while select.select([client], [], [], 0)[0] and client.recv(1 << 16):
                    pass
        written = (
            sum(p.stat().st_size for p in display.audit.rglob("*") if p.is_file()) if display.audit.exists() else 0
        )
        modes = {oct(p.stat().st_mode & 0o777) for p in display.audit.rglob("*") if p.is_file()}
    outcome = Outcome(seen=f"{sent} requests sent, {written / 1e6:.2f} MB written, files of mode {sorted(modes)}")
    if written > LIMITS.most_bytes:
        outcome.problems.append(f"{written / 1e6:.0f} MB in {LIMITS.flood_s:.0f} s")
    if any(int(m, 8) & 0o077 for m in modes):
        outcome.problems.append("the trail is readable for everybody")
    return outcome


FAULTS = (
    Fault(
        "refused-requests-bounded-on-disk",
        f"at most {LIMITS.most_bytes / 1e6:.0f} MB, for its owner alone",
        _refused_requests,
    ),
    Fault("display-dns-rebinding", "refused: neither stream nor page", _rebinding),
    Fault("display-sixteen-watchers", "the control screen is let in", _watchers),
    Fault("display-half-open-http", f"closed within {LIMITS.closed_within_s:.0f} s; the page is served", _half_open),
    Fault("display-error-pages", "with the security headers of the other pages", _error_pages),
)
