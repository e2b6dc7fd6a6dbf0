"""How the patient breathes, and whether the patient has slipped, as the poses of the last half minute show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BreathingState = Literal["breathing", "still", "irregular"]


@dataclass(frozen=True, slots=True)
class Breathing:
    """Motion of the target across the ray, against the room where the C-arm's joints are known.

    Attributes
    ----------
    state : str
        ``breathing`` is periodic motion; ``still`` is none, as in a breath hold; ``irregular`` is any other.
    of : str
        What moves: the ``target``, or the ``chest`` around a target that rests.
    amplitude_mm : float or None
        Of a breath, peak to peak; None where it is not periodic.
    period_s : float or None
        Of a breath.
    phase : float or None
        Part of the period since the target was farthest towards the head, 0 to 1.
    slip_mm : float
        How far the patient has moved otherwise, at once and for good; 0 where it has not.
    """

    state: BreathingState
    of: Literal["target", "chest"] = "target"
    amplitude_mm: float | None = None
    period_s: float | None = None
    phase: float | None = None
    slip_mm: float = 0.0
