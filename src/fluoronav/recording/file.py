"""A recording: one MessagePack object after the other, the first of which says what follows.

The head is a map: ``format``, ``version``, ``started`` (ns), ``fluoronav`` (version), ``source`` and ``case``. Each of
the others is ``[t, parts]``: when a message of the wire protocol was received (ns since the epoch), and its parts as
they came.
A recording that was cut off is whole up to its last complete message.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgpack

from fluoronav import __version__

FORMAT, VERSION = "fluoronav-recording", 1
_pack: Any = msgpack.packb
_MOST_BYTES = 2**29  # of one message, when reading


class RecordingError(ValueError):
    """A file that is no recording; the text names it."""


def write_head(file: BinaryIO, source: str, case: str) -> None:
    """Begins a recording."""
    head = {
        "format": FORMAT, "version": VERSION, "started": time.time_ns(), "fluoronav": __version__, "source": source,
        "case": case,
    }  # fmt: skip
    file.write(_pack(head))


def write_message(file: BinaryIO, t: int, parts: Sequence[bytes | memoryview]) -> None:
    """One message of the wire protocol, received at `t` (ns since the epoch)."""
    file.write(_pack([t, list(parts)]))


def read_recording(path: Path) -> tuple[dict[str, Any], Iterator[tuple[int, list[bytes]]]]:
    """Opens a recording.

    Returns
    -------
    head : dict
    messages : iterator of (int, list of bytes)
        Time of reception (ns) and parts, in the order in which they came.

    Raises
    ------
    RecordingError
        It is none, or another version's.
    OSError
    """
    messages = _objects(path)
    head = next(messages, None)
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise RecordingError(f"{path}: is not a recording of fluoronav")
    if head.get("version") != VERSION:
        raise RecordingError(f"{path}: is a recording of version {head.get('version')}; this program reads {VERSION}")
    return head, (_message(path, item) for item in messages)


def _message(path: Path, item: Any) -> tuple[int, list[bytes]]:
    match item:
        case [int(t), [*parts]] if all(isinstance(part, bytes) for part in parts):
            return t, parts
    raise RecordingError(f"{path}: is damaged: what follows the head is not a time and the parts of a message")


def _objects(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        unpacker = msgpack.Unpacker(file, raw=False, max_buffer_size=_MOST_BYTES)
        while True:
            try:
                yield unpacker.unpack()
            except msgpack.OutOfData:
                return  # the end, or where it was cut off
            except (ValueError, msgpack.UnpackException) as error:
                raise RecordingError(f"{path}: is not a recording of fluoronav, or damaged: {error}") from error
