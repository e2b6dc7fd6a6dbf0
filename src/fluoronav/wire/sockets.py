"""Endpoints, and sockets that say what is wrong when they cannot be opened."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Iterable
from types import MappingProxyType
from typing import Any, TypeVar

import zmq

Socket = TypeVar("Socket", bound="zmq.Socket[Any]")

DEFAULT_ENDPOINTS = MappingProxyType(
    {
        "frames": "tcp://127.0.0.1:5550",
        "out": "tcp://127.0.0.1:5551",
        "requests": "tcp://127.0.0.1:5552",
        "tools": "tcp://127.0.0.1:5553",
        "marks": "tcp://127.0.0.1:5554",
    }
)

_MEANING = MappingProxyType(
    {
        "frames": "frames from the grabber",
        "out": "overlays, alerts and health",
        "requests": "requests",
        "tools": "tool poses from the tracker",
        "marks": "moments that a person marks",
    }
)


# What waits for a subscriber that is slow or stopped, before more is dropped for it: two seconds of overlays, or 64 MB
# of pictures of 1024 x 1024, which all slow subscribers share. (ZeroMQ's own 1000 messages would be a gigabyte.)
OUT_HELD = 64
_TOOLS_HELD = 256
# Replies that nobody fetches.
REPLIES_HELD = 32
_LOOPBACK_NAMES = frozenset({"localhost", "lo", "lo0"})


class EndpointInUse(OSError):
    """An endpoint that another process holds, or that this computer does not have."""


def bind(socket: zmq.Socket[bytes], endpoint: str, name: str) -> None:
    """Binds a socket.

    Parameters
    ----------
    socket : zmq.Socket
    endpoint : str
        For example ``tcp://127.0.0.1:5551``.
    name : str
        The endpoint's key in the launch file, for the error.

    Raises
    ------
    EndpointInUse
    """
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        reason = (
            "is already in use: is another fluoronav running? Stop it, or give another endpoint"
            if error.errno == zmq.EADDRINUSE
            else f"cannot be bound ({error.strerror})"
        )
        raise EndpointInUse(f"endpoints.{name} {endpoint} ({_MEANING.get(name, name)}) {reason}") from error


def subscriber(
    context: zmq.Context[Socket],
    endpoint: str,
    topics: Iterable[str | bytes],
    *,
    high_water: int = 1000,
    max_bytes: int = -1,
    receive_buffer: int = -1,
) -> Socket:
    """A connected SUB socket.

    Parameters
    ----------
    context : zmq.Context or zmq.asyncio.Context
    endpoint : str
    topics : iterable of str or bytes
        What topics begin with; an empty one takes all.
    high_water : int
        Messages that wait for us before more are dropped; 0 for no limit.
    max_bytes : int
        A connection that sends a longer message part is closed; -1 for no limit.
    receive_buffer : int
        Of the kernel, bytes; -1 for the system's own.
    """
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.RCVHWM, high_water)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, max_bytes)
    socket.setsockopt(zmq.RCVBUF, receive_buffer)
    for topic in topics:
        socket.setsockopt(zmq.SUBSCRIBE, topic.encode() if isinstance(topic, str) else topic)
    socket.connect(endpoint)
    return socket


def reaches_other_computers(endpoint: str) -> bool:
    """Whether what is bound there can be reached from another computer: all but ``ipc`` and the loopback addresses.

    Parameters
    ----------
    endpoint : str
        ``ipc://path`` or ``tcp://host:port``; the host may be an address, a name, an interface or ``*``. What is not
        known to be this computer alone counts as reachable.
    """
    transport, _, address = endpoint.partition("://")
    if transport in ("ipc", "inproc"):
        return False
    host = address.rpartition(":")[0].lower()
    if host in _LOOPBACK_NAMES:
        return False
    try:
        ip = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return True
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return not (mapped or ip).is_loopback


def publisher_of_frames(context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> zmq.Socket[bytes]:
    """A bound socket for frames, which hears of subscriptions, so that it can wait for the first.

    It holds eight frames for a subscriber that falls behind, and then drops.

    Raises
    ------
    EndpointInUse
    """
    socket = context.socket(zmq.XPUB)
    socket.setsockopt(zmq.SNDHWM, 8)
    socket.setsockopt(zmq.SNDBUF, 4 * 2**20)
    socket.setsockopt(zmq.LINGER, 500)
    bind(socket, endpoint, "frames")
    return socket


def publisher_of_tools(context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> zmq.Socket[bytes]:
    """A bound socket for tool poses.

    Raises
    ------
    EndpointInUse
    """
    socket = context.socket(zmq.PUB)
    socket.setsockopt(zmq.SNDHWM, _TOOLS_HELD)
    socket.setsockopt(zmq.LINGER, 500)
    bind(socket, endpoint, "tools")
    return socket


def wait_for_subscriber(frames: zmq.Socket[bytes], stopping: threading.Event, seconds: float = 120) -> bool:
    """Until somebody listens; False when nobody came, or `stopping` was set."""
    end = time.monotonic() + seconds
    while not frames.poll(100):
        if stopping.is_set() or time.monotonic() > end:
            return False
    frames.recv()
    time.sleep(0.2)  # the tools' subscription travels on another connection
    return True
