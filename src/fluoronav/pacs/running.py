"""Whether a process runs: it holds a lock on a file with its number, and the lock ends with it, however it ends."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

LOCK = ".lock"  # its name in a folder that one process works in
_PATIENCE_S = 1.0  # chosen: a look takes microseconds


class AlreadyRunning(RuntimeError):
    """Another process holds the lock; the text names it."""


def held(path: Path) -> int:
    """Takes the lock, and writes this process's number into it; the open file, which holds it.

    Raises
    ------
    AlreadyRunning
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    until_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            # Who only looks holds it for a moment, too.
            if time.monotonic() < until_s:
                time.sleep(0.05)
                continue
            os.close(file)
            raise AlreadyRunning(
                f"{path.parent}: process {_number(path)} works in this folder; end it first"
            ) from error
    os.ftruncate(file, 0)
    os.write(file, str(os.getpid()).encode())
    return file


def holder(path: Path) -> int | None:
    """The number of the process that holds the lock; None where none does."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _number(path)
    finally:
        os.close(file)
    return None


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
