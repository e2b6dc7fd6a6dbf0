"""Which part of a frame the detection has looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Look:
    """Which part of a frame the detection has looked at; the frame record has none where no detection runs.

    Attributes
    ----------
    kind : {"whole", "part", "known", "none"}
        All of it; some areas and about the known instruments; about these alone; or nothing.
    areas_px : tuple of tuple of float
        Those areas: left, top, right and bottom edge, pixels.
    reason : {"", "time", "rest", "searching", "no_field"}
        Why it was not more than the known instruments, or nothing: too little time was left; it rests, since it has
        made a frame late; the patient is searched for; no field of view is known. Empty where none of these.
    """

    kind: Literal["whole", "part", "known", "none"]
    areas_px: tuple[tuple[float, float, float, float], ...] = ()
    reason: Literal["", "time", "rest", "searching", "no_field"] = ""
