"""Wakes a loop of the node from any process: a named pipe in the node's folder, so that nobody polls for what comes."""

from __future__ import annotations

import os
import select
import stat
import time
from contextlib import suppress
from pathlib import Path

_NONE_S = 0.2  # between looks where there are no named pipes; chosen


class Bell:
    """The listening side; belongs to one thread.

    Parameters
    ----------
    path : Path
        Of the pipe; made, readable by this user alone.
    """

    def __init__(self, path: Path) -> None:
        self._file: int | None = None
        if hasattr(os, "mkfifo"):
            path.unlink(missing_ok=True)
            os.mkfifo(path, 0o600)
            # Open for writing, too: without a writer the pipe would always be at its end.
            self._file = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def wait(self, seconds: float) -> None:
        """Returns when somebody rings, or after a time; what rang before counts, too."""
        if self._file is None:
            time.sleep(min(seconds, _NONE_S))
            return
        select.select([self._file], [], [], seconds)
        with suppress(BlockingIOError):
            os.read(self._file, 4096)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def ring(path: Path) -> None:
    """Wakes who listens; does nothing where nobody does."""
    with suppress(OSError):
        file = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        try:
            if stat.S_ISFIFO(os.fstat(file).st_mode):
                os.write(file, b".")
        finally:
            os.close(file)
