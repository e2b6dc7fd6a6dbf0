"""The audit trail: who asked for what, and the outcome. Each line holds the hash of the line before."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import platformdirs

from fluoronav.paths import private_folder, private_opener

START = "0" * 64  # in place of a hash before the first line
# Any sender can cause these, as often as they like: their number is bounded.
_REFUSALS = frozenset({"refused", "forbidden"})


@dataclass(frozen=True)
class AuditLimits:
    """Limits of a trail; all are chosen.

    Attributes
    ----------
    refusals : int
        Refusals in a window that get a line each; the others are counted, and their number gets one line.
    window_s : float
    line_bytes, refusal_bytes : int
        Longest line, and longest line of a refusal; longer ones are cut argument by argument.
    text_chars : int
        Longest text inside an event.
    depth : int
        Deepest nesting of lists and maps.
    file_bytes : int
        A file of this size is continued in another.
    held_events : int
        Events kept in memory while the disk takes none; the others are counted.
    """

    refusals: int = 8
    window_s: float = 10.0
    line_bytes: int = 8192
    refusal_bytes: int = 1024
    text_chars: int = 512
    depth: int = 6
    file_bytes: int = 2**26
    held_events: int = 512


class AuditError(ValueError):
    """A trail that cannot be written or was changed; the text names the file and the line."""


class TornTrail(AuditError):
    """A trail whose last line is incomplete after a crash or on a full disk; `events` is the number before it."""

    def __init__(self, text: str, events: int) -> None:
        super().__init__(text)
        self.events = events


def audit_folder() -> Path:
    """Folder of trails, unless a launch file names another."""
    return Path(platformdirs.user_state_dir("fluoronav")) / "audit"


class Rate:
    """Admits the first few events of each window.

    Parameters
    ----------
    most : int
    window_s : float
    """

    def __init__(self, most: int, window_s: float) -> None:
        self._most, self._window_s = most, window_s
        self._begun_s, self._count = -math.inf, 0

    def admits(self) -> bool:
        """Counts an event; returns whether it is among the first of its window."""
        now = time.monotonic()
        if now - self._begun_s > self._window_s:
            self._begun_s, self._count = now, 0
        self._count += 1
        return self._count <= self._most

    @property
    def over(self) -> bool:
        """Whether its window has ended."""
        return time.monotonic() - self._begun_s > self._window_s


class AuditTrail:
    """Appends events as JSON lines, each with the SHA-256 of the line before.

    Values that JSON does not know become text, and long ones are cut, so that every line can be read again. Refusals
    (``refused``, ``forbidden``) are limited in number.

    Parameters
    ----------
    folder : Path
        Created with the first event; each process writes its own file, which only this user may read.
    name : str
        Start of the file's name, before date and process id.
    limits : AuditLimits
    """

    def __init__(self, folder: Path, name: str, limits: AuditLimits | None = None) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise ValueError(f"a trail cannot be named {name!r}: letters, digits, _, - and .")
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self._limits = limits or AuditLimits()
        self._stem = f"{name}-{stamp}-{os.getpid()}"
        self.path = folder / f"{self._stem}.jsonl"
        self._made = False
        self._previous, self._count, self._size = START, 0, 0
        self._torn = False
        self._link: dict[str, Any] | None = None
        self._held: list[tuple[int, dict[str, Any]]] = []
        self._more: Counter[str] = Counter()
        self._refusals = Rate(self._limits.refusals, self._limits.window_s)
        self._lock = threading.Lock()
        self.fault = ""

    @property
    def held(self) -> int:
        """Number of events that wait in memory for the disk."""
        return len(self._held)

    def add(self, event: dict[str, Any]) -> None:
        """Writes an event to the disk before it returns.

        Raises
        ------
        AuditError
            It could not be written.
        """
        with self._lock:
            if self._counted(event):
                return
            self._write_held()
            self._write(time.time_ns(), event)

    def keep(self, event: dict[str, Any]) -> bool:
        """Writes an event, or keeps it in memory until the disk takes it; returns whether it is on the disk.

        `fault` is the reason why not.
        """
        with self._lock:
            if self._counted(event):
                return True
            if len(self._held) < self._limits.held_events:
                self._held.append((time.time_ns(), bounded(event, self._limits)))
            else:
                self._more[str(event.get("event"))] += 1
            return self._tried()

    def tally(self, name: str) -> None:
        """Counts an event of this name without a line of its own; the number is written later."""
        with self._lock:
            self._more[name] += 1

    def flush(self) -> bool:
        """Writes the events in memory and the numbers of counted ones; returns whether nothing is left."""
        with self._lock:
            if self.fault and not self._held:
                self._held.append((time.time_ns(), {"event": "resumed"}))  # tests the disk
            return self._tried(counts=self._refusals.over)

    def close(self) -> bool:
        """Writes all that is left; returns whether that succeeded."""
        with self._lock:
            return self._tried(counts=True)

    def _counted(self, event: dict[str, Any]) -> bool:
        name = str(event.get("event"))
        if name not in _REFUSALS or self._refusals.admits():
            return False
        self._more[name] += 1
        return True

    def _tried(self, counts: bool = False) -> bool:
        try:
            self._write_held(counts)
        except AuditError:
            return False
        return True

    def _write_held(self, counts: bool = False) -> None:
        while self._held:
            self._write(*self._held[0])
            del self._held[0]
        if self._more and (counts or self._refusals.over):
            self._write(time.time_ns(), {"event": "more", "of": dict(self._more)})
            self._more.clear()

    def _write(self, t: int, event: dict[str, Any]) -> None:
        if self._size > self._limits.file_bytes:
            # The first event of the next file holds the hash of the last line of this one.
            self._link = {"event": "continues", "file": self.path.name, "hash": self._previous}
            self._made, self._previous, self._count, self._size = False, START, 0, 0
        if self._link is not None and event is not self._link:
            self._write(t, self._link)
            self._link = None
        line, digest = chained(bounded(event, self._limits), self._count, self._previous, t)
        try:
            self._append(line)
        except OSError as error:
            self.fault = f"{self.path}: the audit trail cannot be written: {error}"
            raise AuditError(self.fault) from error
        self.fault = ""
        self._previous, self._count = digest, self._count + 1
        self._size += len(line)

    def _append(self, line: bytes) -> None:
        private_folder(self.path.parent)
        if not self._made:
            self._make()
        file = private_opener(str(self.path), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            if self._torn and os.fstat(file).st_size > self._size:
                os.ftruncate(file, self._size)
            self._torn = False
            try:
                rest = memoryview(line)
                while rest:
                    rest = rest[os.write(file, rest) :]
                os.fsync(file)
            except OSError:
                # Half a line would break the trail for good: it is removed, now or before the next line.
                self._torn = True
                os.ftruncate(file, self._size)
                self._torn = False
                raise
        finally:
            os.close(file)

    def _make(self) -> None:
        """Creates the file; in containers two processes may have the same id and start in the same second."""
        for number in count():
            self.path = self.path.with_name(f"{self._stem}-{number}.jsonl" if number else f"{self._stem}.jsonl")
            try:
                os.close(private_opener(str(self.path), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            self._made = True
            return


def bounded(event: dict[str, Any], limits: AuditLimits) -> dict[str, Any]:
    """An event that JSON can hold, and whose line is not longer than the limits."""
    safe = {str(k): _plain(v, limits.text_chars, limits.depth) for k, v in event.items()}
    most = limits.refusal_bytes if event.get("event") in _REFUSALS else limits.line_bytes
    if len(json.dumps(safe)) <= most:
        return safe
    chars = max(most // (2 * len(safe)), 16)
    return {k: v if len(text := json.dumps(v)) <= chars else text[:chars] + "..." for k, v in safe.items()}


def chained(event: dict[str, Any], number: int, previous: str, t: int) -> tuple[bytes, str]:
    """The line of a bounded event, which holds the hash of the line before, and the line's own hash."""
    entry = {"n": number, "t": t, **event, "previous": previous}
    line = json.dumps(entry, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    return line, hashlib.sha256(line).hexdigest()


def _plain(value: Any, chars: int, depth: int) -> Any:
    """A value that JSON can hold."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**64 else str(value)[:chars]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return value if len(value) <= chars else value[:chars] + "..."
    if isinstance(value, bytes | bytearray | memoryview):
        return f"({len(value)} bytes)"
    if depth == 0:
        return "(deeper)"
    if isinstance(value, Mapping):
        return {str(k)[:chars]: _plain(v, chars, depth - 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, chars, depth - 1) for v in value]
    return str(value)[:chars]


def verify_trail(path: Path) -> int:
    """Checks that no line of a trail was changed, removed or inserted. Lines removed from its end are not noticed.

    Returns
    -------
    int
        Number of events.

    Raises
    ------
    TornTrail
        It is unchanged, but its last line is incomplete.
    AuditError
    """
    previous, events = START, 0
    try:
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    text = (
                        f"{path}: line {events + 1} was not finished: a crash or a full disk; the trail is whole before"
                    )
                    raise TornTrail(text, events)
                try:
                    entry = json.loads(line)
                    right = entry["n"] == events and entry["previous"] == previous
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    raise AuditError(f"{path}: line {events + 1} is not an event: {error}") from error
                if not right:
                    text = f"{path}: line {events + 1} does not continue the line before it: the trail was changed"
                    raise AuditError(text)
                previous, events = hashlib.sha256(line).hexdigest(), events + 1
    except OSError as error:
        raise AuditError(f"{path}: cannot be read: {error}") from error
    return events
