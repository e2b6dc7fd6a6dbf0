"""Who asked for what, and what became of it: a file that only grows, in which each line vouches for the one before."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import platformdirs

_START = "0" * 64


class AuditError(ValueError):
    """A trail that cannot be written, or that somebody has changed; the text names the file and the line."""


def audit_folder() -> Path:
    """Where trails are kept unless a launch file says otherwise."""
    return Path(platformdirs.user_state_dir("fluoronav")) / "audit"


class AuditTrail:
    """Appends events as JSON lines, each with the SHA-256 of the line before.

    Parameters
    ----------
    folder : Path
        Made with the first event; each process writes a file of its own.
    name : str
        Begins the file's name, before the date and the process's number.
    """

    def __init__(self, folder: Path, name: str) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self.path = folder / f"{name}-{stamp}-{os.getpid()}.jsonl"
        self._previous, self._count = _START, 0
        self._lock = threading.Lock()

    def add(self, event: dict[str, Any]) -> None:
        """Writes an event, and does not return before it is on the disk.

        Raises
        ------
        AuditError
            It could not be written.
        """
        with self._lock:
            entry = {"n": self._count, "t": time.time_ns(), **event, "previous": self._previous}
            line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("ab") as file:
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise AuditError(f"{self.path}: the audit trail cannot be written: {error}") from error
            self._previous, self._count = hashlib.sha256(line).hexdigest(), self._count + 1


def verify_trail(path: Path) -> int:
    """Checks that no line of a trail was changed, taken out or put in, but for lines cut off at its end.

    Returns
    -------
    int
        How many events it holds.

    Raises
    ------
    AuditError
    """
    previous = _START
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise AuditError(f"{path}: cannot be read: {error}") from error
    for k, line in enumerate(lines):
        try:
            entry = json.loads(line)
            right = entry["n"] == k and entry["previous"] == previous
        except (ValueError, KeyError, TypeError) as error:
            raise AuditError(f"{path}: line {k + 1} is not an event: {error}") from error
        if not right or not line.endswith(b"\n"):
            raise AuditError(f"{path}: line {k + 1} does not continue the line before it: the trail was changed")
        previous = hashlib.sha256(line).hexdigest()
    return len(lines)
