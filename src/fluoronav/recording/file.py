"""Recordings as MCAP files (mcap.dev), which Foxglove, PlotJuggler and the ``mcap`` tools open.

**Head.** A metadata record named ``fluoronav-recording``, written before any message: ``version`` (2), ``started`` (ns
since the epoch), ``fluoronav`` (version of the program), ``source`` and ``case``.

**Messages.** One channel for each topic (``frame/carm0``), one schema for each kind (``fluoronav.frame``). ``log_time``
and ``publish_time`` are the time of reception, ns since the epoch. The message encoding ``x-msgpack-parts`` is a
MessagePack array of binaries: the parts of the ZeroMQ message as they came, i.e. topic, header (a MessagePack map, see
``docs/wire-protocol.md``) and, for a frame, its pixels. A broken message is kept as it came, too.

**Chunks** have a CRC, an index, and LZ4 compression. The noise of an X-ray frame is incompressible: on simulated frames
zstd saves 5 to 10 % and takes 4 to 6 ms for 2 MB; LZ4 saves at most 2 %, takes 1 to 3 ms, and shrinks what
compresses: overlays, 8-bit frames, the dark behind the blades.

A recording that was cut off is whole up to its last complete chunk. Files of version 1 (:mod:`.fnrec`) are read, too.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import msgpack
from mcap.exceptions import EndOfFile, McapError
from mcap.records import Chunk, McapRecord, Message, Metadata
from mcap.stream_reader import StreamReader, breakup_chunk
from mcap.writer import MCAP0_MAGIC, CompressionType, Writer
from zstandard import ZstdError

from fluoronav import __version__
from fluoronav.recording.error import RecordingError
from fluoronav.recording.fnrec import FORMAT, MOST_BYTES, check_version, message_of, read_fnrec

VERSION = 2
ENCODING = "x-msgpack-parts"
_SCHEMA = b"MessagePack array of binaries: topic, header (MessagePack map, docs/wire-protocol.md), payload if any"
_OTHER_TOPICS = "other"
_pack: Any = msgpack.packb
# What a damaged record or chunk raises: the reader, its decompressors, a length that does not fit, a text.
_DAMAGE = (McapError, ZstdError, RuntimeError, struct.error, ValueError)


@dataclass(frozen=True)
class FileLimits:
    """Limits of a recording's file."""

    chunk_bytes: int = 2**24  # chosen: eight frames of 2 MB, so that an hour has 15,000 index entries, not 120,000
    channels: int = 1000  # chosen: topics beyond share one channel; MCAP has room for 65,535
    records_before_head: int = 8  # chosen: MCAP's header, and room for what other tools put before


LIMITS = FileLimits()


class RecordingWriter:
    """Writes a recording to an open file; :meth:`finish` adds the index, without which the file is still readable.

    Parameters
    ----------
    file : binary file
        At its beginning.
    source : str
        The C-arm's name in topics.
    case : str
    """

    def __init__(self, file: BinaryIO, source: str, case: str) -> None:
        self._writer = Writer(file, chunk_size=LIMITS.chunk_bytes, compression=CompressionType.LZ4)
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, int] = {}
        self._writer.start("fluoronav", f"fluoronav {__version__}")
        head = {"version": str(VERSION), "started": str(time.time_ns()), "fluoronav": __version__}
        self._writer.add_metadata(FORMAT, head | {"source": source, "case": case})

    def write(self, t: int, parts: Sequence[bytes | memoryview]) -> None:
        """Adds one message of the wire protocol, received at `t` (ns since the epoch).

        Raises
        ------
        OSError
            The file cannot be written.
        """
        topic = bytes(parts[0]).decode("utf-8", "replace") if parts else ""
        self._writer.add_message(self._channel(topic), t, _pack(list(parts)), t)

    def flush(self) -> None:
        """Ends the chunk and hands it to the operating system; raises OSError where that fails."""
        self._writer.flush()

    def finish(self) -> None:
        """Writes what is left and the index; raises OSError where that fails."""
        self._writer.finish()

    def _channel(self, topic: str) -> int:
        if topic not in self._channels and len(self._channels) >= LIMITS.channels:
            topic = _OTHER_TOPICS
        if topic not in self._channels:
            kind = topic.partition("/")[0]
            self._channels[topic] = self._writer.register_channel(topic, ENCODING, self._schema(kind))
        return self._channels[topic]

    def _schema(self, kind: str) -> int:
        if kind not in self._schemas:
            self._schemas[kind] = self._writer.register_schema(f"fluoronav.{kind}", "x-text", _SCHEMA)
        return self._schemas[kind]


def read_recording(path: Path) -> tuple[dict[str, Any], Iterator[tuple[int, list[bytes]]]]:
    """Opens a recording of any version; the first bytes tell which.

    Parameters
    ----------
    path : Path

    Returns
    -------
    head : dict
        ``format``, ``version``, ``started`` (ns), ``fluoronav``, ``source``, ``case``.
    messages : iterator of (int, list of bytes)
        Time of reception (ns) and parts, in the order in which they came. Raises RecordingError at a damaged place.

    Raises
    ------
    RecordingError
        The file is not a recording, or its version is unknown.
    OSError
    """
    with path.open("rb") as file:
        magic = file.read(len(MCAP0_MAGIC))
    if magic != MCAP0_MAGIC:
        return read_fnrec(path)
    records = _records(path)
    head = next((r for r in islice(records, LIMITS.records_before_head) if _is_head(r)), None)
    if not isinstance(head, Metadata):
        raise RecordingError(f"{path}: is not a recording of fluoronav")
    values: dict[str, Any] = {"format": FORMAT, **head.metadata}
    try:
        values |= {name: int(values[name]) for name in ("version", "started")}
    except (KeyError, ValueError) as error:
        raise RecordingError(f"{path}: is not a recording of fluoronav: its head has no {error}") from error
    check_version(path, values["version"], VERSION)
    return values, _messages(path, records)


def _is_head(record: McapRecord) -> bool:
    return isinstance(record, Metadata) and record.name == FORMAT


def _messages(path: Path, records: Iterator[McapRecord]) -> Iterator[tuple[int, list[bytes]]]:
    for record in records:
        for inner in _within(path, record) if isinstance(record, Chunk) else (record,):
            if isinstance(inner, Message):
                try:
                    parts = msgpack.unpackb(inner.data)
                except (ValueError, msgpack.UnpackException):
                    parts = None
                yield message_of(path, [inner.log_time, parts])


def _within(path: Path, chunk: Chunk) -> list[McapRecord]:
    """A chunk's records; its checksum is verified."""
    try:
        return breakup_chunk(chunk, validate_crc=True)
    except _DAMAGE as error:
        raise RecordingError(f"{path}: is damaged: {error}") from error


def _records(path: Path) -> Iterator[McapRecord]:
    with path.open("rb") as file:
        stream = cast("IO[bytes]", _WholeReads(file))
        try:
            yield from StreamReader(stream, emit_chunks=True, record_size_limit=MOST_BYTES).records
        except EndOfFile:
            return  # where the file was cut off
        except _DAMAGE as error:
            raise RecordingError(f"{path}: is damaged: {error}") from error


class _WholeReads:
    """A file whose reads give all the bytes asked for, or raise EndOfFile: a record that was cut off is no record."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) < length:
            raise EndOfFile
        return data
