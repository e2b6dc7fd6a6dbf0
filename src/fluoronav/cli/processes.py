"""Ends of a process: signals, a closed standard input."""

from __future__ import annotations

import os
import signal
import sys
import threading


def until_stopped() -> threading.Event:
    """An event that SIGTERM and Ctrl-C set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def stop_when_input_ends(stop: threading.Event) -> None:
    """Sets `stop` when standard input is closed, which is when the parent process ends."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        stop.set()

    threading.Thread(target=wait, name="input", daemon=True).start()
