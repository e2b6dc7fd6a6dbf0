"""Associations that we open: small messages go at once, and no answer is lost."""

from __future__ import annotations

import socket
import threading

from pynetdicom import evt


class Checkpoint(threading.Event):
    """Where pynetdicom's association thread stands while a request waits for its answer.

    The library (3.0.4) takes a thread that it has let pass, and that has not yet run on, for one that still stands. The
    thread then takes the answer to the next request off the queue: a C-FIND finds less, a C-STORE waits until its
    time-out. Here :meth:`clear` returns when the thread really stands.

    Parameters
    ----------
    passing : threading.Thread
        The association's.
    """

    def __init__(self, passing: threading.Thread) -> None:
        super().__init__()
        self._passing = passing
        self._changed = threading.Condition()
        self._is_open, self._stands = True, False

    def is_set(self) -> bool:
        """Whether the thread may pass."""
        return self._is_open

    def set(self) -> None:
        """Lets the thread pass."""
        with self._changed:
            self._is_open = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Stops the thread, and returns when it stands or has ended; at once where it is the thread that asks."""
        with self._changed:
            self._is_open = False
            while not (self._stands or self._is_open) and self._passing.is_alive():
                if threading.current_thread() is self._passing:
                    return
                self._changed.wait(0.01)  # it may end without passing here

    def wait(self, timeout: float | None = None) -> bool:
        """What the thread calls: returns when it may pass."""
        with self._changed:
            self._stands = True
            self._changed.notify_all()
            passes = self._changed.wait_for(lambda: self._is_open, timeout)
            self._stands = False
            return passes


def on_open(event: evt.Event) -> None:
    """To be bound to `EVT_CONN_OPEN` of every association that we open.

    With Nagle's algorithm each C-STORE would wait 40 ms for an acknowledgement.
    """
    event.assoc._reactor_checkpoint = Checkpoint(event.assoc)
    transport = event.assoc.dul.socket
    if transport is not None and transport.socket is not None:
        transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
