"""A tracker's gateway for tests, written from the specification and independent of our own packing."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

import numpy as np
import pytest
import zmq
from tests import ports

from fluoronav.openigtlink.tracker import TrackerBridge
from fluoronav.wire import decode_tools


def reference_crc(data: bytes) -> int:
    """CRC-64 of ECMA-182, bit by bit."""
    crc = 0
    for byte in data:
        crc ^= byte << 56
        for _ in range(8):
            crc = ((crc << 1) ^ (0x42F0E1EBA9EA3693 if crc >> 63 else 0)) & (2**64 - 1)
    return crc


def packed(kind, name, content, metadata=None, t=None, version=None):
    """A message, packed independently."""
    body = content
    if metadata is not None:
        index = struct.pack("> H", len(metadata))
        index += b"".join(struct.pack("> H H I", len(k.encode()), 3, len(v.encode())) for k, v in metadata.items())
        values = b"".join(k.encode() + v.encode() for k, v in metadata.items())
        body = struct.pack("> H H I I", 12, len(index), len(values), 0) + content + index + values
    t = time.time() if t is None else t
    version = (1 if metadata is None else 2) if version is None else version
    name = name if isinstance(name, bytes) else name.encode()
    head = (version, kind.encode(), name, int(t), int(t % 1 * 2**32), len(body), reference_crc(body))
    return struct.pack("> H 12s 20s I I Q Q", *head) + body


def matrix(T):
    return struct.pack("> 12f", *np.asarray(T, float)[:3].T.ravel())


def tracking(tools):
    return b"".join(struct.pack("> 20s B B", name.encode(), 2, 0) + matrix(T) for name, T in tools)


def at(x, y=0.0, z=-900.0):
    T = np.eye(4)
    T[:3, 3] = x, y, z
    return T


class GatewayStandIn:
    """Plays a script to one client after the other; ``connections`` counts them."""

    def __init__(self, script) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.script, self.connections = script, 0
        self.received = b""
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._ending.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            reader = threading.Thread(target=self._read, args=(client,), daemon=True)
            reader.start()
            with contextlib.suppress(OSError):
                self.script(client.sendall, self.connections, self._ending)
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_WR)
            reader.join(0.2)
            client.close()

    def _read(self, client) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(4096):
                self.received += data

    def close(self) -> None:
        self._ending.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # ends an accept that waits
        self._listener.close()
        # A script that plays on ends with its next message.
        self._thread.join(5)


class Heard:
    """A bridge in this process, and what it publishes."""

    def __init__(self, folder, port, names=None, host="127.0.0.1") -> None:
        endpoint = f"ipc://{folder}/tools"
        self.bridge = TrackerBridge(host, port, endpoint, "igtl", names or {}, 0.3)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"tool/")
        self._socket.connect(endpoint)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.bridge.run, args=(self._stop.is_set,))
        time.sleep(0.1)
        self._thread.start()
        self.messages = []

    @property
    def counts(self):
        return self.bridge.counts

    def poses(self, tool):
        """Of a tool: (t_acq, x), x None where it is not visible."""
        return [
            (m.t_acq, None if t.T_tracker_tool is None else round(t.T_tracker_tool[3], 3))
            for m in self.messages for t in m.tools if t.id == tool
        ]  # fmt: skip

    def until(self, condition, seconds=60.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (dict(self.counts), [m.tools for m in self.messages[-3:]])
            self.listen(0.05)
        return self

    def listen(self, seconds):
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._socket.poll(left * 1000):
                self.messages.append(decode_tools(self._socket.recv_multipart()))

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)
        assert not self._thread.is_alive(), "the bridge does not end"
        self.bridge.close()
        self._socket.close()
        self._context.term()


@pytest.fixture
def free_port():
    return ports.free_port()


@pytest.fixture
def heard(tmp_path):
    """``heard(script, names)``: a gateway that plays a script, and a bridge that listens to it."""
    opened = []

    def start(script, names=None):
        gateway = GatewayStandIn(script)
        opened.append(gateway)
        listener = Heard(tmp_path, gateway.port, names)
        listener.gateway = gateway
        opened.append(listener)
        return listener

    yield start
    for thing in reversed(opened):
        thing.close()


def repeating(make, hz=100.0):
    """A script that sends ``make(k)`` for ever."""

    def script(send, n, ending):
        k = 0
        while not ending.is_set():
            send(make(k))
            k += 1
            time.sleep(1 / hz)

    return script
