"""A mark: a person says that a moment of the stream is to be kept; who hears it says what became of it.

The stream has no part in it. Requests come from a display or from the command line, replies from `fluoronav pacs live`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from fluoronav.wire.values import PROTOCOL_VERSION, doc

MOST_MARK_BYTES = 16384  # of a request; chosen: a note of a few pages
_LONGEST_WAIT_S = 3600.0


class MarkRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked."""

    v: Annotated[int, doc("of the protocol")] = PROTOCOL_VERSION
    seq: Annotated[int | None, doc("the frame that the person saw; without it, or once it has gone, the newest")] = None
    note: Annotated[str, doc("what is there to remember of it")] = ""
    accepted_by: Annotated[str, doc("who accepts the results, FAMILY^GIVEN; they are drafts without it")] = ""
    organization: Annotated[str, doc("that person's")] = ""
    wait_s: Annotated[
        float,
        Meta(gt=0, le=_LONGEST_WAIT_S, description="the reply comes after so long, even if no object is made yet, s"),
    ] = _LONGEST_WAIT_S


class MarkReply(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it."""

    v: Annotated[int, doc("of the protocol")] = PROTOCOL_VERSION
    error: Annotated[str, doc("for people: why nothing is kept; or empty")] = ""
    seq: Annotated[int, doc("the frame that was marked")] = 0
    age_s: Annotated[float, doc("since its exposure, s")] = 0.0
    objects: Annotated[int, doc("that are on the disk; 0 while they are being made")] = 0
