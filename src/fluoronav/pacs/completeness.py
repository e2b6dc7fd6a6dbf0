"""Whether slices are missing between those of a series that are here."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class GapLimits:
    """Tolerances of a gap; chosen."""

    steps: float = 0.5  # of the median step: half a step more is a slice that is missing, or a damaged position
    decimals: int = 3  # at which direction cosines are the same
    least: int = 3  # slices, below which no step is usual


LIMITS = GapLimits()


def missing_slices(places: Sequence[str]) -> int:
    """The number of slices that are missing inside the stack.

    Localizers, slices of another plane and multi-frame objects are left out; what they mean is for the intake to say.
    What lies beyond the first and the last slice cannot be seen from geometry.

    Parameters
    ----------
    places : sequence of str
        :attr:`Header.place` of every instance.
    """
    parsed = [json.loads(p) for p in places]
    placed = [p for p in parsed if p["o"] and p["p"] and not p["l"] and p["n"] == 1]
    if len(placed) < LIMITS.least:
        return 0
    planes = Counter(tuple(np.round(p["o"], LIMITS.decimals)) for p in placed)
    plane = planes.most_common(1)[0][0]
    cosines = np.array(plane)
    normal = np.cross(cosines[:3], cosines[3:])
    along = np.sort(
        [float(np.dot(p["p"], normal)) for p in placed if tuple(np.round(p["o"], LIMITS.decimals)) == plane]
    )
    steps = np.diff(along)
    steps = steps[steps > 1e-3]  # repeats are no gap
    if len(steps) < LIMITS.least - 1:
        return 0
    step = float(np.median(steps))
    wide = steps[steps > step * (1 + LIMITS.steps)]
    return int(np.rint(wide / step - 1).sum())
