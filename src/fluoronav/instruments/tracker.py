"""The poses of a tool as an external tracker sent them, and its pose at any moment between."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import exp_se3, inverse, log_se3
from fluoronav.records import ToolSample

Float = NDArray[np.float64]

# A pose older than this is not shown: at a hand's 100 mm/s it would be 10 mm wrong.
STALE_NS = 100_000_000


class ToolTrack:
    """The last seconds of one tool, and its pose at any moment of them."""

    def __init__(self) -> None:
        self._samples: deque[ToolSample] = deque(maxlen=32)

    def add(self, sample: ToolSample) -> bool:
        """Keeps a sample; False where it is not newer than the one before."""
        if self._samples and sample.t_acq <= self._samples[-1].t_acq:
            return False
        self._samples.append(sample)
        return True

    def pose_at(self, t_acq: int) -> tuple[Float, float, int] | None:
        """``T_tracker_tool``, error (mm, 1 sigma) and age (ns) at a time, or None where it is hidden or stale.

        Between two samples the pose is interpolated along the screw that joins them; after the last it is held.
        """
        before = after = None
        for sample in reversed(self._samples):
            if sample.t_acq <= t_acq:
                before = sample
                break
            after = sample
        if before is None or before.T_tracker_tool is None:
            return None
        age = t_acq - before.t_acq
        if after is not None and after.T_tracker_tool is not None and after.t_acq - before.t_acq <= STALE_NS:
            share = age / (after.t_acq - before.t_acq)
            step = log_se3(inverse(before.T_tracker_tool) @ after.T_tracker_tool)
            return before.T_tracker_tool @ exp_se3(share * step), max(before.error_mm, after.error_mm), 0
        if age > STALE_NS:
            return None
        return before.T_tracker_tool, before.error_mm, age
