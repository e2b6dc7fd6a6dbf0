"""How a header and bytes travel to the page together, over the WebSocket and over HTTP."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

_MAX_DEPTH = 12  # of nested lists and maps in a header; the protocol has fewer


def with_head(head: dict[str, Any], payload: bytes | memoryview = b"") -> bytes:
    """Length of the head (uint32, little-endian), the head as JSON, and the payload, aligned to four bytes.

    What JSON cannot express becomes null: numbers that are not finite, and a whole list that holds one, since a point
    or a pose is useless without one of its numbers.
    """
    try:
        text = _json(head)
    except (ValueError, TypeError):
        text = _json(_expressible(head, _MAX_DEPTH))
    text += b" " * (-len(text) % 4)
    return b"".join((struct.pack("<I", len(text)), text, payload))


def _json(head: dict[str, Any]) -> bytes:
    return json.dumps(head, separators=(",", ":"), allow_nan=False).encode()


def _expressible(value: Any, depth: int) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (list, tuple)) and depth:
        if any(isinstance(x, float) and not math.isfinite(x) for x in value):
            return None
        return [_expressible(x, depth - 1) for x in value]
    if isinstance(value, dict) and depth:
        return {k: _expressible(v, depth - 1) for k, v in value.items() if isinstance(k, str)}
    return None
