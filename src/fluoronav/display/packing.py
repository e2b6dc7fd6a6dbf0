"""How a header and bytes travel to the page together, over the WebSocket and over HTTP."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

_DEEPEST = 12  # of what stands in a header; deeper is nothing that the protocol knows


def with_head(head: dict[str, Any], payload: bytes = b"") -> bytes:
    """Length of the head (uint32, little-endian), the head as JSON, and what it describes, aligned to four bytes.

    What JSON cannot say becomes null: numbers that are not finite, and the whole list of numbers that holds one, since
    a point or a pose without one of its numbers is none.
    """
    try:
        text = _json(head)
    except (ValueError, TypeError):
        text = _json(_sayable(head, _DEEPEST))
    text += b" " * (-len(text) % 4)
    return struct.pack("<I", len(text)) + text + payload


def _json(head: dict[str, Any]) -> bytes:
    return json.dumps(head, separators=(",", ":"), allow_nan=False).encode()


def _sayable(value: Any, depth: int) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (list, tuple)) and depth:
        if any(isinstance(x, float) and not math.isfinite(x) for x in value):
            return None
        return [_sayable(x, depth - 1) for x in value]
    if isinstance(value, dict) and depth:
        return {k: _sayable(v, depth - 1) for k, v in value.items() if isinstance(k, str)}
    return None
