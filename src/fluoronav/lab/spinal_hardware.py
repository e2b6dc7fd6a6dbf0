"""Pedicle screws and rods as metal bars: sizes and places, for every renderer of the lab."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HardwareSizes:
    """Sizes of a usual set, mm: thoracic to lumbar pedicle screws of 5.5 and 6.5 mm, rods of 5.5 mm."""

    thread_mm: float = 5.8  # diameter
    head_mm: float = 12.0  # diameter
    head_long_mm: float = 15.0  # behind the entry
    rod_mm: float = 5.5  # diameter


SIZES = HardwareSizes()


@dataclass(frozen=True)
class Bar:
    """A metal cylinder in the patient, LPS mm."""

    from_ct: Float
    to_ct: Float
    radius_mm: float


def construct(sides: Iterable[Sequence[tuple[Float, Float]]]) -> tuple[Bar, ...]:
    """Screws with heads, and a rod through the heads of each side.

    Parameters
    ----------
    sides : iterable of sequence of tuple
        Entry and tip of each screw, LPS mm, for the left and for the right; in any order along the spine.
    """
    bars = []
    for screws in sides:
        heads = []
        for entry, tip in screws:
            top = entry - SIZES.head_long_mm * (tip - entry) / np.linalg.norm(tip - entry)
            bars += [Bar(entry, tip, SIZES.thread_mm / 2), Bar(top, entry, SIZES.head_mm / 2)]
            heads.append((top + entry) / 2)
        heads.sort(key=lambda point: float(point[2]))
        bars += [Bar(a, b, SIZES.rod_mm / 2) for a, b in pairwise(heads)]
    return tuple(bars)
