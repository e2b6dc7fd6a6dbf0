"""Ends of a process: SIGTERM and Ctrl-C, heard whatever the main thread waits for; a closed standard input."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable


def on_end_signals(end: Callable[[signal.Signals], None]) -> None:
    """Calls `end` with each SIGTERM and SIGINT, in a thread of its own; call it from the main thread.

    A handler in Python runs in the main thread, between two of its instructions. A main thread that has just begun to
    wait for a lock hears nothing until the lock comes, and one that holds the lock of an event waits for ever if its
    handler sets that event. The number that the interpreter's own handler writes into a socket is read in any case.

    Parameters
    ----------
    end : callable
        May take locks and set events.
    """
    heard, told = socket.socketpair()
    told.setblocking(False)  # the interpreter asks for it: a handler must not wait
    signal.set_wakeup_fd(told.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)

    def listen() -> None:
        while number := heard.recv(1):
            if number[0] in (signal.SIGTERM, signal.SIGINT):
                end(signal.Signals(number[0]))

    # The thread's arguments keep the socket open that the interpreter knows by its number.
    threading.Thread(target=lambda _told: listen(), args=(told,), name="signals", daemon=True).start()


def until_stopped() -> threading.Event:
    """An event that SIGTERM and Ctrl-C set."""
    stop = threading.Event()
    on_end_signals(lambda _number: stop.set())
    return stop


def stop_when_input_ends(stop: threading.Event) -> None:
    """Sets `stop` when standard input is closed, which is when the parent process ends."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        stop.set()

    threading.Thread(target=wait, name="input", daemon=True).start()
