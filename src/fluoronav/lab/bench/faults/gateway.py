"""A tracker's OpenIGTLink gateway, and a client such as 3D Slicer; an implementation apart from the product's."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

# CRC-64 of ECMA-182, most significant bit first (openigtlink.org/protocols/v3_protocol).
_POLYNOMIAL = 0x42F0E1EBA9EA3693
_MASK = 2**64 - 1
HEAD = struct.Struct(">H12s20sIIQQ")
Play = Callable[[Callable[[bytes], None], int], None]


def _table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte << 56
        for _ in range(8):
            crc = ((crc << 1) ^ _POLYNOMIAL if crc >> 63 else crc << 1) & _MASK
        table.append(crc)
    return table


_CRC = _table()


def crc64(data: bytes) -> int:
    """The checksum of a message's body."""
    crc = 0
    for byte in data:
        crc = ((crc << 8) & _MASK) ^ _CRC[(crc >> 56) ^ byte]
    return crc


def message(kind: str, name: str, content: bytes, meta: Mapping[str, str] | None = None) -> bytes:
    """One message; with `meta`, of protocol 3 (header version 2).

    Parameters
    ----------
    kind, name : str
        Type and device.
    content : bytes
    meta : mapping, optional
    """
    version, body = 1, content
    if meta is not None:
        version = 2
        pairs = [(k.encode(), v.encode()) for k, v in meta.items()]
        index = struct.pack(">H", len(pairs)) + b"".join(struct.pack(">HHI", len(k), 3, len(v)) for k, v in pairs)
        values = b"".join(k + v for k, v in pairs)
        body = struct.pack(">HHII", 12, len(index), len(values), 0) + content + index + values
    t = time.time()
    return HEAD.pack(
        version, kind.encode(), name.encode()[:20], int(t), int((t % 1) * 2**32), len(body), crc64(body)
    ) + body  # fmt: skip


def transform(T: NDArray) -> bytes:
    """TRANSFORM's content: the rotation's columns, then the translation."""
    return struct.pack(">12f", *np.asarray(T, float)[:3].T.ravel())


def tracking_data(tools: Mapping[str, NDArray]) -> bytes:
    """TDATA's content; names are cut to 20 letters."""
    return tracking_rows([(name, T) for name, T in tools.items()])


def tracking_rows(rows: list[tuple[str, NDArray]]) -> bytes:
    """The same from pairs, whose names may be equal."""
    return b"".join(struct.pack(">20sBB", name.encode()[:20], 2, 0) + transform(T) for name, T in rows)


def at(x: float, y: float, z: float) -> NDArray:
    """A pose without rotation, mm."""
    T = np.eye(4)
    T[:3, 3] = x, y, z
    return T


class Gateway:
    """Accepts one client after the other and sends messages to it.

    Parameters
    ----------
    play : callable
        Called with a function that sends bytes, and the number of the connection from 1; the connection ends with it.
    """

    def __init__(self, play: Play) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self.connections = 0
        self._play, self._ending = play, False
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        """Takes no more clients."""
        self._ending = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _run(self) -> None:
        while not self._ending:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            with client, contextlib.suppress(OSError):
                reader = threading.Thread(target=_swallow, args=(client,), daemon=True)
                reader.start()
                self._play(client.sendall, self.connections)
                client.shutdown(socket.SHUT_WR)
                reader.join(0.3)


def _swallow(client: socket.socket) -> None:
    """Reads the client's requests: unread bytes would turn the end of the connection into a reset."""
    with contextlib.suppress(OSError):
        while client.recv(4096):
            pass


class Client:
    """Reads the messages of an OpenIGTLink server, and reconnects.

    Parameters
    ----------
    port : int

    Attributes
    ----------
    heard : list of (kind, name, body)
    ends : int
        Number of connections that the server ended.
    """

    def __init__(self, port: int) -> None:
        self.heard: list[tuple[str, bytes, bytes]] = []
        self.ends = 0
        self._port, self._stopping = port, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends it."""
        self._stopping.set()
        self._thread.join(3)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                client = socket.create_connection(("127.0.0.1", self._port), 2)
            except OSError:
                time.sleep(0.2)
                continue
            with client:
                client.settimeout(0.3)
                self._read(client)
            self.ends += not self._stopping.is_set()

    def _read(self, client: socket.socket) -> None:
        buffer = bytearray()
        while not self._stopping.is_set():
            try:
                some = client.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError:
                return
            if not some:
                return
            buffer += some
            while len(buffer) >= HEAD.size:
                _, kind, name, _, _, size, _ = HEAD.unpack_from(buffer)
                if len(buffer) < HEAD.size + size:
                    break
                body = bytes(buffer[HEAD.size : HEAD.size + size])
                self.heard.append((kind.rstrip(b"\0").decode(errors="replace"), name.rstrip(b"\0"), body))
                del buffer[: HEAD.size + size]
