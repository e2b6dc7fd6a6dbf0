"""The audit trail of a case, ``provenance.jsonl``: one file to which several processes append.

Its lines are those of :mod:`fluoronav.site.audit`, and ``fluoronav audit verify`` checks them.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fluoronav.durable import digest_from, locked, sync_folder, written
from fluoronav.paths import private_opener
from fluoronav.site.audit import START, AuditError, AuditLimits, bounded, chained

NAME = "provenance.jsonl"
_BEFORE = "provenance.before"  # lines without hashes, which were there before
_TAIL_BYTES = 65536  # longer than any line


class CaseTrail:
    """The trail of one case.

    Parameters
    ----------
    folder : Path
        The case's folder.
    limits : AuditLimits
    """

    def __init__(self, folder: Path, limits: AuditLimits | None = None) -> None:
        self.path = folder / NAME
        self._limits = limits or AuditLimits()

    def add(self, event: str, **what: Any) -> int:
        """Appends an event; it is on the disk when this returns.

        Returns
        -------
        int
            The line's number.

        Raises
        ------
        AuditError
            It could not be written.
        """
        try:
            with self._locked() as file:
                number, previous, size = _end(file, self.path)
                if number < 0:
                    number, previous, size = self._write(file, self._set_aside(file), 0, START, 0)
                self._write(file, {"event": event, **what}, number, previous, size)
                return number
        except OSError as error:
            raise AuditError(f"{self.path}: the audit trail cannot be written: {error}") from error

    def last(self, most: int) -> list[dict[str, Any]]:
        """The last events, oldest first; an unfinished line is left out.

        Raises
        ------
        AuditError
        """
        try:
            with self.path.open("rb") as file:
                lines = _last_lines(file, most)
        except FileNotFoundError:
            return []
        return [self._event(line) for line in lines]

    def events(self) -> Iterator[dict[str, Any]]:
        """All events, oldest first; an unfinished line is left out.

        Raises
        ------
        AuditError
        """
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield self._event(line)

    def _event(self, line: bytes) -> dict[str, Any]:
        try:
            event = json.loads(line)
        except ValueError as error:
            raise AuditError(f"{self.path}: a line is not an event; `fluoronav audit verify` says which") from error
        if not isinstance(event, dict):
            raise AuditError(f"{self.path}: a line is not an event; `fluoronav audit verify` says which")
        return event

    @contextmanager
    def _locked(self) -> Iterator[int]:
        with locked(self.path.parent, f".{NAME}.lock"):
            is_new = not self.path.exists()
            file = private_opener(str(self.path), os.O_RDWR | os.O_CREAT)
            try:
                if is_new:
                    sync_folder(self.path.parent)
                yield file
            finally:
                os.close(file)

    def _set_aside(self, file: int) -> dict[str, Any]:
        """Moves lines without hashes to another file; the event that says so."""
        before = self.path.parent / _BEFORE
        written(before, os.pread(file, os.fstat(file).st_size, 0))
        os.ftruncate(file, 0)
        return {"event": "continues", "file": _BEFORE, "sha256": digest_from(before, 0)}

    def _write(self, file: int, event: dict[str, Any], number: int, previous: str, size: int) -> tuple[int, str, int]:
        line, digest = chained(bounded(event, self._limits), number, previous, time.time_ns())
        try:
            at = size
            rest = memoryview(line)
            while rest:
                done = os.pwrite(file, rest, at)
                rest, at = rest[done:], at + done
            os.fsync(file)
        except OSError:
            os.ftruncate(file, size)  # half a line would break the trail
            raise
        return number + 1, digest, at


def _end(file: int, path: Path) -> tuple[int, str, int]:
    """The next number, the hash of the last line, and where the next begins; number -1: lines without hashes.

    An unfinished line, which a crash left, is taken back.
    """
    size = os.fstat(file).st_size
    tail = os.pread(file, _TAIL_BYTES, max(size - _TAIL_BYTES, 0))
    end = tail.rfind(b"\n") + 1
    if end < len(tail):
        size -= len(tail) - end
        os.ftruncate(file, size)
        tail = tail[:end]
    if not size:
        return 0, START, 0
    line = tail[tail.rfind(b"\n", 0, len(tail) - 1) + 1 :]
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise AuditError(
            f"{path}: its last line is not an event: {error}; `fluoronav audit verify` says more"
        ) from error
    if not isinstance(entry, dict) or "previous" not in entry:
        return -1, START, size
    return int(entry["n"]) + 1, hashlib.sha256(line).hexdigest(), size


def _last_lines(file: Any, most: int) -> list[bytes]:
    size = file.seek(0, os.SEEK_END)
    tail, at = b"", size
    while at and tail.count(b"\n") <= most:
        step = min(_TAIL_BYTES, at)
        at -= step
        file.seek(at)
        tail = file.read(step) + tail
    lines = tail[: tail.rfind(b"\n") + 1].splitlines()
    return lines[-most:]
