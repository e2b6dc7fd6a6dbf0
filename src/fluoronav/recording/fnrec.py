"""Reads recordings of version 1 (``.fnrec``): MessagePack objects, one after the other.

The first object, the head, is a map: ``format``, ``version``, ``started`` (ns), ``fluoronav`` (version), ``source`` and
``case``. Each of the others is ``[t, parts]``: time of reception (ns since the epoch) and the parts of the message.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack

from fluoronav.recording.error import RecordingError

FORMAT, VERSION = "fluoronav-recording", 1
MOST_BYTES = 2**29  # of one object; chosen: far above the largest frame, far below this computer's memory


def read_fnrec(path: Path) -> tuple[dict[str, Any], Iterator[tuple[int, list[bytes]]]]:
    """Opens a recording of version 1; see :func:`fluoronav.recording.read_recording`."""
    messages = _objects(path)
    head = next(messages, None)
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise RecordingError(f"{path}: is not a recording of fluoronav")
    check_version(path, head.get("version"), VERSION)
    return head, (message_of(path, item) for item in messages)


def check_version(path: Path, version: object, readable: int) -> None:
    """Raises :class:`RecordingError` where a recording has another version than the readable one."""
    if version != readable:
        raise RecordingError(f"{path}: is a recording of version {version}; this program reads {readable}")


def message_of(path: Path, item: Any) -> tuple[int, list[bytes]]:
    """Time of reception (ns) and parts from ``[t, parts]``; raises :class:`RecordingError` on anything else."""
    match item:
        case [int(t), [*parts]] if all(isinstance(part, bytes) for part in parts):
            return t, parts
    raise RecordingError(f"{path}: is damaged: what follows the head is not a time and the parts of a message")


def _objects(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        unpacker = msgpack.Unpacker(file, raw=False, max_buffer_size=MOST_BYTES)
        while True:
            try:
                yield unpacker.unpack()
            except msgpack.OutOfData:
                return  # the end, or where the file was cut off
            except (ValueError, msgpack.UnpackException) as error:
                raise RecordingError(f"{path}: is not a recording of fluoronav, or damaged: {error}") from error
