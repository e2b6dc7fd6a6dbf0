"""The journal of a working session: records that are on the disk before anybody is told that they are done.

A record is the length and the CRC-32 of what follows (two uint32), the length of its head (uint32), the head as JSON,
and the runs of its change, compressed.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fluoronav.durable import made_folder, moved, written
from fluoronav.paths import private_opener
from fluoronav.workspace.delta import NOTHING, RUN, Runs
from fluoronav.workspace.errors import DiskFull

_FRAME, _HEAD = struct.Struct("<II"), struct.Struct("<I")
_MOST_BYTES = 1 << 30  # of a record; chosen: above what changing every voxel of 1,000 slices takes


class JournalError(RuntimeError):
    """A journal that is damaged before its end; the text names the file and says what to do."""


class Journal:
    """A file of records.

    Parameters
    ----------
    path : Path
        A file that is there. A record that a crash cut off is moved to another file, ``.cut``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = _whole(path)
        with path.open("r+b") as file:
            if file.seek(0, os.SEEK_END) > self._size:
                file.seek(self._size)
                written(path.with_suffix(".cut"), file.read())
                file.truncate(self._size)
                os.fsync(file.fileno())

    @classmethod
    def made(cls, path: Path, records: list[tuple[dict[str, Any], Runs]]) -> Journal:
        """A journal that begins with these records; it replaces one that is there in one step."""
        made_folder(path.parent)
        part = path.with_name(f".{path.name}.part")
        try:
            with open(part, "wb", opener=private_opener) as file:
                for head, runs in records:
                    file.write(_packed(head, runs))
                file.flush()
                os.fsync(file.fileno())
            moved(part, path)
        except OSError as error:
            raise DiskFull(f"the working session cannot be written: {error.strerror}; nothing was changed") from error
        return cls(path)

    def append(self, head: dict[str, Any], runs: Runs = NOTHING) -> int:
        """Adds a record; returns where it begins.

        Raises
        ------
        DiskFull
            The journal is what it was before.
        """
        record, at = _packed(head, runs), self._size
        try:
            file = private_opener(str(self.path), os.O_WRONLY)
            try:
                done = 0
                while done < len(record):
                    done += os.pwrite(file, record[done:], at + done)
                os.fsync(file)
            except OSError:
                os.ftruncate(file, at)
                raise
            finally:
                os.close(file)
        except OSError as error:
            raise DiskFull(f"the edit cannot be written: {error.strerror}; it was not done") from error
        self._size += len(record)
        return at

    def records(self) -> Iterator[tuple[int, dict[str, Any], Runs]]:
        """All records: where each begins, its head and its runs."""
        with self.path.open("rb") as file:
            while file.tell() < self._size:
                at = file.tell()
                size, _ = _FRAME.unpack(file.read(_FRAME.size))
                yield at, *_unpacked(file.read(size))

    def runs(self, at: int) -> Runs:
        """The runs of the record that begins there."""
        with self.path.open("rb") as file:
            file.seek(at)
            size, _ = _FRAME.unpack(file.read(_FRAME.size))
            return _unpacked(file.read(size))[1]


def _packed(head: dict[str, Any], runs: Runs) -> bytes:
    text = json.dumps(head, separators=(",", ":"), allow_nan=False).encode()
    content = b"".join((_HEAD.pack(len(text)), text, zlib.compress(runs.tobytes(), 1) if runs.size else b""))
    return _FRAME.pack(len(content), zlib.crc32(content)) + content


def _unpacked(content: bytes) -> tuple[dict[str, Any], Runs]:
    (length,) = _HEAD.unpack_from(content)
    head, rest = content[_HEAD.size : _HEAD.size + length], content[_HEAD.size + length :]
    return json.loads(head), np.frombuffer(zlib.decompress(rest), RUN) if rest else NOTHING


def _whole(path: Path) -> int:
    """Bytes of the whole records of a journal.

    Raises
    ------
    JournalError
        A record in the middle is damaged: only the last one may have been cut off by a crash.
    """
    with path.open("rb") as file:
        end, at = os.fstat(file.fileno()).st_size, 0
        while at < end:
            frame = file.read(_FRAME.size)
            if len(frame) < _FRAME.size:
                return at
            size, crc = _FRAME.unpack(frame)
            if size > min(_MOST_BYTES, end - at - _FRAME.size):
                return at
            if zlib.crc32(file.read(size)) != crc:
                if at + _FRAME.size + size == end:
                    return at
                raise JournalError(
                    f"{path}: is damaged at byte {at} of {end}: the disk has changed it. Move it away, and "
                    "begin a new working session"
                )
            at += _FRAME.size + size
        return at
