"""The socket that everything leaves by."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import numpy as np
import zmq
from msgspec import Struct
from numpy.typing import NDArray

from fluoronav.stream.frame import Alert
from fluoronav.stream.pipeline.messages import alert_message
from fluoronav.wire import encode
from fluoronav.wire import messages as wire


class Publisher:
    """The one socket that everything leaves by; the lock is held for one non-blocking send.

    Attributes
    ----------
    instance : str
        Tells one start of the pipeline from another.
    """

    def __init__(self, socket: zmq.Socket[bytes], source: str) -> None:
        self._socket, self._source = socket, source
        self.instance = uuid.uuid4().hex[:16]
        self._lock = threading.Lock()
        self._said: dict[str, tuple[Alert, int, int]] = {}  # open alerts by id, with the frame that each went with
        self._topics = {kind: f"{kind}/{source}".encode() for kind in ("overlay", "alert", "health", "view")}

    def alert(self, alert: Alert, seq: int, t_acq: int) -> wire.Alert:
        """An alert's message as of a frame; 0 and 0 where there has been none.

        An alert that is said again unchanged keeps the frame that it went with, so that a repeat is no second alert.
        """
        said = self._said.get(alert.id)
        if said is None or said[0] != alert:
            said = alert, seq, t_acq
        if alert.state == "cleared":
            self._said.pop(alert.id, None)
        else:
            self._said[alert.id] = said
        return alert_message(alert, self._source, self.instance, said[1], said[2])

    def send(self, kind: str, message: Struct, payload: NDArray[np.uint8] | None = None) -> None:
        """Sends a message; `kind` is the first part of its topic."""
        parts: list[Any] = [self._topics[kind], encode(message)]
        if payload is not None:
            parts.append(payload.tobytes())  # the array is overwritten with the next one
        with self._lock:
            self._socket.send_multipart(parts)
