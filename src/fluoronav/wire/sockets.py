"""Endpoints, and sockets that say what is wrong when they cannot be opened."""

from __future__ import annotations

from types import MappingProxyType

import zmq

DEFAULT_ENDPOINTS = MappingProxyType(
    {
        "frames": "tcp://127.0.0.1:5550",
        "out": "tcp://127.0.0.1:5551",
        "requests": "tcp://127.0.0.1:5552",
        "tools": "tcp://127.0.0.1:5553",
    }
)

_MEANING = MappingProxyType(
    {
        "frames": "frames from the grabber",
        "out": "overlays, alerts and health",
        "requests": "requests",
        "tools": "tool poses from the tracker",
    }
)


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
