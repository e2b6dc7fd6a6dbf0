"""OpenIGTLink messages as bytes: header, extended header, metadata, and a reader of a stream of messages.

Big-endian throughout. Header version 1 is protocols 1 and 2; version 2 (protocol 3) has an extended header before the
content and pairs of keys and values after it.
"""

from __future__ import annotations

import codecs
import struct
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fluoronav.openigtlink.checksum import crc64

Bytes = bytes | bytearray | memoryview

_HEADER = struct.Struct("> H 12s 20s I I Q Q")
_EXTENDED = struct.Struct("> H H I I")
_COUNT, _ENTRY = struct.Struct("> H"), struct.Struct("> H H I")
HEADER_BYTES = _HEADER.size
NAME_BYTES = 20
# The library's key for a device name that is longer than the header's field (igtl_header.h).
LONG_NAME = "IGTL_DEVICE_NAME"
# IANA's numbers of character sets (MIBenum).
ASCII, UTF_8 = 3, 106
# Chosen: twice a whole CT; a header with more is noise.
MOST_BODY_BYTES = 2**30

_MAX_TYPES = 32  # names of types that are kept of those that are not read


class ProtocolError(ValueError):
    """Bytes that are no message of the specification.

    Attributes
    ----------
    reason : str
        ``header``, ``too_long``, ``checksum``, ``metadata`` or ``content``; errors are counted by it.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Header:
    """The first 58 bytes of a message.

    Attributes
    ----------
    kind : str
        ``TRANSFORM``, ``TDATA`` and so on.
    name : str
        Name of the device; at most 20 bytes.
    name_full : bool
        The name fills its field: it may be the beginning of a longer one.
    t_ns : int
        ns since 1970 by the sender's clock; 0 where it sends none.
    """

    version: int
    kind: str
    name: str
    name_full: bool
    t_ns: int
    body_bytes: int
    crc: int


@dataclass(frozen=True, slots=True)
class Message:
    """A message whose checksum is right.

    Attributes
    ----------
    name : str
        The device's whole name: the metadata's, where it has one.
    cut : bool
        The name may be the beginning of a longer one.
    metadata : dict
        Values by key; empty where the header's version is 1.
    """

    header: Header
    name: str
    cut: bool
    content: bytes
    metadata: Mapping[str, str] = field(default_factory=dict)


def decode_name(data: bytes) -> str:
    """The text of a fixed field of characters: ASCII by the specification, in practice also UTF-8 or Latin-1.

    A last letter that the end of the field has cut is left out.
    """
    data = data.split(b"\0", 1)[0]
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    text = unicodedata.normalize("NFC", text)
    return "".join(c if c.isprintable() else "?" for c in text).strip()


def encode_text(text: str, most_bytes: int = 65535) -> tuple[int, bytes]:
    """Number of the character set and encoded text: ASCII where possible, else UTF-8.

    A text longer than `most_bytes` is cut between two letters.
    """
    if text.isascii():
        return ASCII, text.encode("ascii")[:most_bytes]
    data = text.encode("utf-8", errors="replace")
    return UTF_8, data if len(data) <= most_bytes else data[:most_bytes].decode(errors="ignore").encode()


def decode_text(encoding: int, data: bytes) -> str:
    """The text in the character set of this number; unknown letters are replaced."""
    if encoding in (ASCII, UTF_8):
        return data.decode("utf-8", errors="replace")
    return decode_name(data)


def pack_header(header: Header) -> bytes:
    """The 58 bytes."""
    seconds, rest = divmod(header.t_ns, 1_000_000_000)
    return _HEADER.pack(
        header.version, header.kind.encode("ascii"), header.name.encode("ascii"), seconds & 0xFFFFFFFF,
        (rest << 32) // 1_000_000_000, header.body_bytes, header.crc,
    )  # fmt: skip


def unpack_header(data: Bytes) -> Header:
    """The header in 58 bytes.

    Raises
    ------
    ProtocolError
        ``header``: this is noise, or not the beginning of a message; ``too_long``.
    """
    version, kind, name, seconds, fraction, body_bytes, crc = _HEADER.unpack(data)
    kind = kind.split(b"\0", 1)[0].rstrip(b" ")
    if not 1 <= version <= 3:
        raise ProtocolError("header", f"header version {version}; 1 and 2 are known")
    if not kind or not all(0x21 <= c <= 0x7E for c in kind):
        raise ProtocolError("header", f"message type {kind!r} is not ASCII")
    if body_bytes > MOST_BODY_BYTES:
        raise ProtocolError("too_long", f"a body of {body_bytes} bytes is announced")
    t_ns = seconds * 1_000_000_000 + ((fraction * 1_000_000_000 + 2**31) >> 32)
    return Header(version, kind.decode(), decode_name(name), b"\0" not in name, t_ns, body_bytes, crc)


def pack_message(
    kind: str, name: str, content: Bytes, t_ns: int | None = None, metadata: Mapping[str, str] | None = None
) -> bytes:
    """A whole message.

    Parameters
    ----------
    kind, name : str
        ASCII, at most 12 and 20 letters (:mod:`fluoronav.openigtlink.names`).
    content : bytes-like
    t_ns : int, optional
        ns since 1970; now by default.
    metadata : mapping, optional
        Where it is given the header's version is 2, else 1.

    Raises
    ------
    ValueError
        Type or name do not fit.
    """
    if not (kind.isascii() and 0 < len(kind) <= 12 and name.isascii() and len(name) <= NAME_BYTES):
        raise ValueError(f"{kind} {name!r}: OpenIGTLink has room for 12 and 20 ASCII letters")
    parts: list[Bytes] = [content]
    if metadata is not None:
        index, values = [_COUNT.pack(len(metadata))], []
        for key, value in metadata.items():
            encoding, data = encode_text(value)
            encoded_key = key.encode()
            index.append(_ENTRY.pack(len(encoded_key), encoding, len(data)))
            values += [encoded_key, data]
        packed, body = b"".join(index), b"".join(values)
        parts = [_EXTENDED.pack(_EXTENDED.size, len(packed), len(body), 0), content, packed, body]
    crc = 0
    for part in parts:
        crc = crc64(part, crc)
    t_ns = time.time_ns() if t_ns is None else t_ns
    size = sum(map(len, parts))
    header = Header(1 if metadata is None else 2, kind, name, len(name) == NAME_BYTES, t_ns, size, crc)
    return b"".join([pack_header(header), *parts])


def unpack_message(header: Header, body: bytes) -> Message:
    """A message from its header and body.

    Raises
    ------
    ProtocolError
        ``checksum``: the bytes were changed; ``metadata``: its sizes do not fit.
    """
    if crc64(body) != header.crc:
        raise ProtocolError("checksum", f"{header.kind} {header.name}: the checksum does not fit the body")
    if header.version == 1:
        return Message(header, header.name, header.name_full, body)
    if len(body) < _EXTENDED.size:
        raise ProtocolError("metadata", f"{header.kind} {header.name}: a body without an extended header")
    size, index_bytes, value_bytes, _ = _EXTENDED.unpack_from(body)
    end = len(body) - index_bytes - value_bytes
    if size < _EXTENDED.size or end < size:
        raise ProtocolError("metadata", f"{header.kind} {header.name}: extended header and metadata exceed the body")
    metadata = _unpack_metadata(body[end : end + index_bytes], body[end + index_bytes :]) if index_bytes else {}
    long = decode_name(metadata.get(LONG_NAME, "").encode())
    return Message(header, long or header.name, header.name_full and not long, body[size:end], metadata)


def _unpack_metadata(index: bytes, values: bytes) -> dict[str, str]:
    if len(index) < _COUNT.size:
        raise ProtocolError("metadata", "its index is cut off")
    (count,) = _COUNT.unpack_from(index)
    if _COUNT.size + count * _ENTRY.size > len(index):
        raise ProtocolError("metadata", f"its index has no room for {count} entries")
    found, at = {}, 0
    for k in range(count):
        key_bytes, encoding, value_bytes = _ENTRY.unpack_from(index, _COUNT.size + k * _ENTRY.size)
        if at + key_bytes + value_bytes > len(values):
            raise ProtocolError("metadata", "a value is longer than what is left")
        key = decode_name(values[at : at + key_bytes])
        at += key_bytes
        found[key] = decode_text(encoding, values[at : at + value_bytes])
        at += value_bytes
    return found


class MessageReader:
    """Cuts a stream of bytes into messages.

    A body of a type that is not read is checked and dropped as it comes, so that a CT takes no memory.

    Parameters
    ----------
    wanted : mapping
        Types that are read, and the maximum bytes of a body of each.

    Attributes
    ----------
    counts : Counter
        ``checksum``, ``metadata`` and ``not_read``: messages that were dropped, by reason.
    begun_at : float or None
        When the incomplete message began (monotonic, s); None between two messages.
    newest_version : int
        The highest header version that has come.
    passed_over : set
        Types that have come and are not read (the first 32).
    lost : ProtocolError or None
        Why the next message's beginning is unknown (``header``, ``too_long``): the connection has to be opened again.
    """

    def __init__(self, wanted: Mapping[str, int], clock: Callable[[], float] = time.monotonic) -> None:
        self._wanted, self._clock = dict(wanted), clock
        self._buffer = bytearray()
        self._header: Header | None = None
        self._skip, self._crc = 0, 0
        self.counts: Counter[str] = Counter()
        self.begun_at: float | None = None
        self.newest_version = 0
        self.passed_over: set[str] = set()
        self.lost: ProtocolError | None = None

    @property
    def body_bytes(self) -> int:
        """Bytes in the body of the incomplete message; 0 where that is not known."""
        return 0 if self._header is None else self._header.body_bytes

    def feed(self, data: Bytes) -> list[Message]:
        """The messages that these bytes complete; none once the reader is ``lost``."""
        found: list[Message] = []
        if self.lost is None:
            try:
                self._feed(memoryview(data), found)
            except ProtocolError as error:
                self.lost = error
        return found

    def _feed(self, rest: memoryview, found: list[Message]) -> None:
        while rest or self._complete():
            if self._skip:
                part, rest = rest[: self._skip], rest[self._skip :]
                self._crc = crc64(part, self._crc)
                self._skip -= len(part)
                if not self._skip:
                    assert self._header is not None
                    self._ended("not_read" if self._crc == self._header.crc else "checksum")
                continue
            need = (HEADER_BYTES if self._header is None else self._header.body_bytes) - len(self._buffer)
            part, rest = rest[:need], rest[need:]
            if not self._buffer and self._header is None and part:
                self.begun_at = self._clock()
            self._buffer += part
            if len(part) < need:
                return
            self._take(found)

    def _complete(self) -> bool:
        return self._header is not None and not self._skip and len(self._buffer) == self._header.body_bytes

    def _take(self, found: list[Message]) -> None:
        data = bytes(self._buffer)
        self._buffer.clear()
        if self._header is None:
            header = unpack_header(data)
            self.newest_version = max(self.newest_version, header.version)
            most = self._wanted.get(header.kind)
            if most is not None and header.body_bytes > most:
                raise ProtocolError("too_long", f"{header.kind} {header.name}: {header.body_bytes} bytes are announced")
            self._header = header
            if most is None:
                if len(self.passed_over) < _MAX_TYPES:
                    self.passed_over.add(header.kind)
                self._skip, self._crc = header.body_bytes, 0
                if not self._skip:
                    self._ended("not_read")
            return
        header, reason = self._header, ""
        try:
            found.append(unpack_message(header, data))
        except ProtocolError as error:
            reason = error.reason
        self._ended(reason)

    def _ended(self, reason: str) -> None:
        if reason:
            self.counts[reason] += 1
        self._header, self.begun_at = None, None
