"""The values that messages are made of: numbers, names, times and points, with their limits."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from msgspec import Meta

PROTOCOL_VERSION = 1
MAX_SIDE = 8192
NAME_CHARS = 64
MOST_TOOLS = 32
# A clock may be wrong, but no message is from before 2001 or after 2200.
_EARLIEST_NS, _LATEST_NS = 1_000_000_000_000_000_000, 7_258_118_400_000_000_000
# An open beam may be brighter than what a detector can count, but not by more.
_MOST_OPEN_BEAM = 2.0**24
# NaN fails every comparison, so these bounds admit finite numbers alone.
_FINITE = sys.float_info.max


def doc(text: str) -> Meta:
    """What a field means, with its unit, for the tables of the protocol page."""
    return Meta(description=text)


Name = Annotated[str, Meta(title="name", min_length=1, max_length=NAME_CHARS)]
Time = Annotated[int, Meta(title="time", ge=_EARLIEST_NS, le=_LATEST_NS)]
TimeOrZero = Annotated[int, Meta(title="time, or 0", ge=0, le=_LATEST_NS)]
Count = Annotated[int, Meta(title="uint", ge=0, le=2**63 - 1)]
Number = Annotated[float, Meta(title="float", ge=-_FINITE, le=_FINITE)]
NotNegative = Annotated[float, Meta(title="float >= 0", ge=0, le=_FINITE)]
Fraction = Annotated[float, Meta(title="float 0..1", ge=0, le=1)]
Version = Annotated[Literal[1], doc("protocol version")]
Pose = Annotated[list[Number], Meta(title="pose, 16 floats", min_length=16, max_length=16)]
Pixel = Annotated[list[Number], Meta(title="[x, y]", min_length=2, max_length=2)]
Point = Annotated[list[Number], Meta(title="[x, y, z]", min_length=3, max_length=3)]
# Lengths that are no C-arm's are in another unit: metres, most often.
ArmLength = Annotated[float, Meta(ge=100, le=5000)]
PixelSize = Annotated[list[Annotated[float, Meta(ge=0.01, le=10)]], Meta(min_length=2, max_length=2)]
Angle = Annotated[float, Meta(ge=-360, le=360)]
OpenBeam = Annotated[float, Meta(gt=0, le=_MOST_OPEN_BEAM)]
Corners = Annotated[list[Pixel], Meta(max_length=64)]
Mode = Literal["live", "shadow"]
Source = Annotated[Name, doc("the part of the topic after its first `/`")]
FrameNumber = Annotated[Count, doc("number of the frame")]
Exposed = Annotated[Time, doc("middle of the exposure, by the grabber's clock")]
