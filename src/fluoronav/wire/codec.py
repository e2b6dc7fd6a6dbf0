"""Bytes to validated messages and back."""

# msgpack ships no types.
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgpack  # pyright: ignore[reportMissingTypeStubs]
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from fluoronav.wire.messages import FrameHeader, Request, ToolsMessage

# A header is a few hundred bytes; what is much longer is a mistake or an attack, and is not even decoded.
MAX_HEADER_BYTES = 65536
_LIMITS = {"max_str_len": 4096, "max_bin_len": 4096, "max_array_len": 4096, "max_map_len": 256, "max_ext_len": 0}

_pack: Any = msgpack.packb
_unpack: Any = msgpack.unpackb

_DTYPES = {"u1": np.dtype("u1"), "u2": np.dtype("<u2")}

Model = TypeVar("Model", bound=BaseModel)
Buffer = bytes | memoryview


class InvalidMessage(ValueError):
    """A message that breaks the protocol.

    Attributes
    ----------
    field : str
        What was wrong: a key of the header, or ``header``, ``payload``, ``topic``, ``parts``.
    seq : int or None
        The message's number, where it can be read although the message is invalid.
    """

    def __init__(self, field: str, text: str, seq: int | None = None) -> None:
        super().__init__(f"{field}: {text}")
        self.field = field
        self.seq = seq


def encode(message: dict[str, Any]) -> bytes:
    """A header or request as MessagePack."""
    return _pack(message, use_bin_type=True)


def _decode(model: type[Model], data: Buffer) -> Model:
    if len(data) > MAX_HEADER_BYTES:
        raise InvalidMessage("header", f"is {len(data)} bytes long; at most {MAX_HEADER_BYTES} are read")
    try:
        content: Any = _unpack(data, raw=False, strict_map_key=True, **_LIMITS)
    except Exception as error:  # msgpack raises a dozen types, all of which say that this is not a message
        raise InvalidMessage("header", f"is not MessagePack: {type(error).__name__} {error}") from error
    if not isinstance(content, dict):
        raise InvalidMessage("header", f"is a {type(content).__name__}, not a map")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(x) for x in first["loc"]) or "header"
        given: Any = first.get("input")
        shown = "" if isinstance(given, dict) else f" (is {str(given)[:40]!r})"
        seq: Any = content.get("seq")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        readable = seq if isinstance(seq, int) and not isinstance(seq, bool) and 0 <= seq < 2**63 else None
        raise InvalidMessage(where, first["msg"] + shown, readable) from error


def _two_parts(parts: Sequence[Any], kind: str) -> tuple[str, Any]:
    try:
        topic = bytes(parts[0]).decode()
    except UnicodeDecodeError as error:
        raise InvalidMessage("topic", "is not UTF-8") from error
    if not topic.startswith(kind + "/"):
        raise InvalidMessage("topic", f"is {topic[:40]!r}; {kind}/<source> was expected")
    if len(parts) < 2:
        raise InvalidMessage("parts", f"are {len(parts)}; a topic and a header were expected")
    return topic.split("/", 1)[1], parts[1]


def decode_frame(parts: Sequence[Buffer]) -> tuple[FrameHeader, NDArray[np.uint8 | np.uint16]]:
    """A frame message.

    Parameters
    ----------
    parts : sequence of buffers
        ``[topic, header, payload]``.

    Returns
    -------
    header : FrameHeader
    counts : ndarray of uint8 or uint16, shape (rows, cols)
        A view of the payload, not a copy; read-only.

    Raises
    ------
    InvalidMessage
        It names the field.
    """
    source, head = _two_parts(parts, "frame")
    header = _decode(FrameHeader, head)
    if header.source != source:
        raise InvalidMessage("source", f"is {header.source!r} but the topic says {source!r}", header.seq)
    if len(parts) != 3:
        raise InvalidMessage("parts", f"are {len(parts)}; topic, header and payload were expected", header.seq)
    dtype = _DTYPES[header.dtype]
    if header.bits > 8 * dtype.itemsize:
        raise InvalidMessage("bits", f"is {header.bits}, more than {header.dtype} holds", header.seq)
    expected = header.rows * header.cols * dtype.itemsize
    if len(parts[2]) != expected:
        text = f"is {len(parts[2])} bytes; {header.rows} x {header.cols} {header.dtype} take {expected}"
        raise InvalidMessage("payload", text, header.seq)
    return header, np.frombuffer(parts[2], dtype).reshape(header.rows, header.cols)


def decode_tools(parts: Sequence[Buffer]) -> ToolsMessage:
    """A tracker's message, ``[topic, header]``; raises :class:`InvalidMessage`."""
    source, head = _two_parts(parts, "tool")
    message = _decode(ToolsMessage, head)
    if message.source != source:
        raise InvalidMessage("source", f"is {message.source!r} but the topic says {source!r}", message.seq)
    return message


def decode_request(data: Buffer) -> Request:
    """A client's request; raises :class:`InvalidMessage`."""
    return _decode(Request, data)
