"""How the patient moves, as an overlay says it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from fluoronav.wire.values import Fraction, NotNegative, doc


class Breathing(msgspec.Struct, kw_only=True):
    """Motion of the target across the ray, against the room where the frames say the C-arm's angles."""

    state: Annotated[Literal["breathing", "still", "irregular"], doc("periodic; none, as in a breath hold; any other")]
    of: Annotated[Literal["target", "chest"], doc("what moves: the target, or the chest around one that rests")]
    amplitude_mm: Annotated[NotNegative | None, doc("of a breath, peak to peak, mm; null where it is not periodic")]
    period_s: Annotated[NotNegative | None, doc("of a breath, s")]
    phase: Annotated[Fraction | None, doc("part of the period since the target was farthest towards the head")]
    slip_mm: Annotated[NotNegative, doc("how far the patient has moved otherwise, at once and for good, mm; else 0")]
