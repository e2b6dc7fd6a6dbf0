"""How a header and bytes travel to the page together, over the WebSocket and over HTTP."""

from __future__ import annotations

import json
import struct
from typing import Any


def with_head(head: dict[str, Any], payload: bytes = b"") -> bytes:
    """Length of the head (uint32, little-endian), the head as JSON, and what it describes, aligned to four bytes."""
    text = json.dumps(head, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    return struct.pack("<I", len(text)) + text + payload
