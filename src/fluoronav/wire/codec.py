"""Bytes to validated messages and back."""

# msgpack ships no types.
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

import msgpack  # pyright: ignore[reportMissingTypeStubs]
import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from fluoronav.wire.messages import FrameHeader, ToolsMessage
from fluoronav.wire.requests import ARGS, Args, Request
from fluoronav.wire.values import PROTOCOL_VERSION

# A header is a few hundred bytes; what is much longer is a mistake or an attack, and is not even decoded.
MAX_HEADER_BYTES = 65536
_LIMITS = {"max_str_len": 4096, "max_bin_len": 4096, "max_array_len": 4096, "max_map_len": 256, "max_ext_len": 0}

_unpack: Any = msgpack.unpackb
# How msgspec says where: "Expected `int` >= 1 - at `$.tools[0].id`".
_STEP = re.compile(r"\.([^.\[]+)|\[([^\]]+)\]")
_MISSING = re.compile("Object missing required field `(.+)`")
_NOT_FINITE = re.compile(rf"[<>]= -?{re.escape(str(sys.float_info.max))}")

_DTYPES = {"u1": np.dtype("u1"), "u2": np.dtype("<u2")}

Model = TypeVar("Model", bound=Struct)
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


def _plain(value: Any) -> Any:
    """Numbers and texts of derived types, such as NumPy's float64, as what they are derived from."""
    for kind in (float, int, str):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"{type(value).__name__} cannot be sent")


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)


def encode(message: Struct | dict[str, Any]) -> bytes:
    """A header, request or reply as MessagePack."""
    return _encoder.encode(message)


def _decode(model: type[Model], data: Buffer) -> Model:
    if len(data) > MAX_HEADER_BYTES:
        raise InvalidMessage("header", f"is {len(data)} bytes long; at most {MAX_HEADER_BYTES} are read")
    try:
        # msgspec alone has no limits: a list that claims to be huge is allocated before its items are read.
        content: Any = _unpack(data, raw=False, strict_map_key=True, **_LIMITS)
    except Exception as error:  # msgpack raises a dozen types, all of which say that this is not a message
        raise InvalidMessage("header", f"is not MessagePack: {type(error).__name__} {error}") from error
    if not isinstance(content, dict):
        raise InvalidMessage("header", f"is a {type(content).__name__}, not a map")
    keys: dict[Any, Any] = content
    try:
        return msgspec.convert(keys, model)
    except msgspec.ValidationError as error:
        field, text = _explained(str(error), keys)
        # Of a message of another version nothing else can be said.
        version = keys.get("v")
        if "v" in keys and (type(version) is not int or version != PROTOCOL_VERSION):
            field, text = "v", f"is not {PROTOCOL_VERSION}{_shown(version)}"
        seq = keys.get("seq")
        readable = seq if isinstance(seq, int) and not isinstance(seq, bool) and 0 <= seq < 2**63 else None
        raise InvalidMessage(field, text, readable) from error


def _explained(said: str, content: Any) -> tuple[str, str]:
    """The field that msgspec complains of, as a path with dots, and what is wrong with it, with what was given."""
    text, _, path = said.partition(" - at `")
    steps = [index or key for key, index in _STEP.findall(path.rpartition("$")[2].rstrip("`"))]
    missing = _MISSING.fullmatch(text)
    if missing:
        return ".".join([*steps, missing[1]]), "is missing"
    if text.startswith("Invalid enum value"):
        text = "is none of the values that the protocol names"
    given = content
    for step in steps:
        try:
            given = given[int(step) if isinstance(given, list) else step]
        except (LookupError, ValueError, TypeError):
            break
    field = ".".join(step for step in steps if step != "...") or "header"
    return field, _NOT_FINITE.sub("that is finite", text) + _shown(given)


def _shown(given: Any) -> str:
    return "" if isinstance(given, dict) else f" (is {str(given)[:40]!r})"


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
    for k, tool in enumerate(message.tools):
        fault = tool.fault()
        if fault:
            raise InvalidMessage(f"tools.{k}.T_tracker_tool", fault + _shown(tool.T_tracker_tool), message.seq)
    return message


def decode_request(data: Buffer) -> Request:
    """A client's request; raises :class:`InvalidMessage`."""
    request = _decode(Request, data)
    if not request.user.isprintable():
        raise InvalidMessage("user", f"holds characters that cannot be printed{_shown(request.user)}")
    return request


def decode_args(request: Request) -> Args:
    """The arguments of a request as its kind takes them.

    Raises
    ------
    InvalidMessage
        It names the argument.
    """
    try:
        return msgspec.convert(request.args, ARGS.get(request.op, Args))
    except msgspec.ValidationError as error:
        field, text = _explained(str(error), request.args)
        raise InvalidMessage("args" if field == "header" else f"args.{field}", text) from error
