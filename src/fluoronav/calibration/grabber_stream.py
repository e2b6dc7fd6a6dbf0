"""What a frame grabber sends, as it arrives: heads, times, and some pictures."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from fluoronav.wire import FrameHeader, InvalidMessage, decode_frame, subscriber

_RECEIVE_BUFFER = 4 * 2**20  # room for a frame, as the pipeline has it
_POLL_MS = 100
_CONNECT_S = 1.0
_MOST_PICTURES = 12  # kept for what looks at pixels; chosen: 25 MB of 1024 x 1024


@dataclass
class HeardFrames:
    """What was heard.

    Attributes
    ----------
    headers : list of FrameHeader
        Of the valid frames of one source, in the order of arrival.
    t_recv : list of int
        When each arrived, ns since the epoch.
    pictures : list of ndarray of uint8 or uint16, shape (rows, cols)
        Some of them, spread over the time.
    used_bits : int
        Bits that are set in any pixel of any frame.
    repeated : int
        Frames whose pixels are those of the frame before.
    others : set of str
        Other sources at the same endpoint.
    invalid : Counter
        Messages that break the protocol, by what is wrong.
    answers : bool
        Something listens at the endpoint; True where that cannot be told.
    seconds : float
        How long it was listened for.
    """

    headers: list[FrameHeader] = field(default_factory=list)
    t_recv: list[int] = field(default_factory=list)
    pictures: list[NDArray[Any]] = field(default_factory=list)
    used_bits: int = 0
    repeated: int = 0
    others: set[str] = field(default_factory=set)
    invalid: Counter[str] = field(default_factory=Counter)
    answers: bool = True
    seconds: float = 0.0


def listen(endpoint: str, seconds: float, progress: Callable[[float], object] = lambda s: None) -> HeardFrames:
    """Listens to frames as the pipeline does.

    Parameters
    ----------
    endpoint : str
        At which the grabber publishes.
    seconds : float
    progress : callable
        Called with the seconds that have passed since the last call.
    """
    heard = HeardFrames(answers=_answers(endpoint))
    every, last_sum = max(seconds / _MOST_PICTURES, 1e-3), None
    with zmq.Context() as context:
        frames = subscriber(
            context, endpoint, ["frame/"], high_water=64, max_bytes=2**28, receive_buffer=_RECEIVE_BUFFER
        )
        with frames:
            began = said = time.monotonic()
            while (now := time.monotonic()) < began + seconds:
                progress(now - said)
                said = now
                if not frames.poll(_POLL_MS):
                    continue
                parts = frames.recv_multipart()
                t_recv = time.time_ns()
                try:
                    header, counts = decode_frame(parts)
                except InvalidMessage as error:
                    heard.invalid[str(error)] += 1
                    continue
                if heard.headers and header.source != heard.headers[0].source:
                    heard.others.add(header.source)
                    continue
                heard.headers.append(header)
                heard.t_recv.append(t_recv)
                heard.used_bits |= int(np.bitwise_or.reduce(counts, axis=None))
                pixels = hash(parts[2])
                heard.repeated += pixels == last_sum
                last_sum = pixels
                if now - began >= every * len(heard.pictures):
                    heard.pictures.append(counts.copy())
            heard.seconds = time.monotonic() - began
    return heard


def _answers(endpoint: str) -> bool:
    """Whether something listens there; True for transports that cannot be asked."""
    transport, _, address = endpoint.partition("://")
    host, _, port = address.rpartition(":")
    if transport != "tcp" or not port.isdigit():
        return True
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except OSError:
        return False
    return True
