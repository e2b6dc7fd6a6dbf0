"""The poses of a tool as an external tracker sent them, and its pose at any moment between."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import exp_se3, inverse, log_se3
from fluoronav.stream.frame import ToolSample

Float = NDArray[np.float64]

# A pose older than this is not shown: at a hand's 100 mm/s it would be 10 mm wrong.
STALE_NS = 100_000_000
# Beyond the newest sample the tool goes on as it went, for as long as this; a hand accelerates by so much (1 sigma).
_PREDICTED_NS, _ACCELERATION_MM_S2 = 50_000_000, 1500.0
_STEADY_NS = 10_000_000  # motion between samples closer in time than this is mostly noise
# Nobody moves a tool faster; a pose that seems to is kept aside until others agree with it.
_FASTEST_MM_S, _JITTER_MM, _AGREE = 1500.0, 5.0, 3
# No tracker sees farther, and none that is so wrong says anything of a tool.
_FARTHEST_MM, _WORST_ERROR_MM = 10_000.0, 1000.0
# A real tracker's noise never repeats itself: the same pose to the last bit, so often, comes from a sender that hangs.
_FROZEN_SAMPLES = 15


@dataclass(frozen=True, slots=True)
class TrackedPose:
    """A tool at one moment.

    Attributes
    ----------
    T_tracker_tool : ndarray, shape (4, 4)
        mm.
    error_mm : float
        1 sigma; grows with the time since the newest sample.
    age_ns : int
        Since that sample; 0 between two.
    """

    T_tracker_tool: Float
    error_mm: float
    age_ns: int


class ToolTrack:
    """The last seconds of one tool, and its pose at any moment of them.

    Attributes
    ----------
    rejected : Counter
        Samples by reason: ``implausible``, ``out_of_order``, ``jumped``, ``frozen``.
    fault : str
        In words, why the newest sample is not believed; empty when it is.
    """

    def __init__(self) -> None:
        self._samples: deque[ToolSample] = deque(maxlen=32)
        self._aside: list[ToolSample] = []
        self._last: ToolSample | None = None
        self._same = 0
        self.rejected: Counter[str] = Counter()
        self.fault = ""

    def add(self, sample: ToolSample) -> bool:
        """Keeps a sample; False where it is not believed, which is counted by reason."""
        if not _plausible(sample):
            return self._reject("implausible", "its pose or error is out of all bounds: are its units mm?")
        if self._last is not None and sample.t_acq <= self._last.t_acq:
            return self._reject("out_of_order", "its times repeat or go back")
        frozen = self._frozen(sample)
        self._last = sample
        if frozen:
            return self._reject("frozen", "its pose repeats to the last bit: has the tracker stopped?")
        if not self._reachable(sample):
            return self._reject("jumped", "it jumps farther than a hand can move it")
        self.fault = ""
        self._samples.append(sample)
        return True

    def pose_at(self, t_acq: int, fallback_error_mm: float = 0.3) -> TrackedPose | None:
        """The pose at a time, or None where it is hidden or stale.

        Between two samples it is interpolated along the screw that joins them; after the last it goes on along the
        screw of the last two for 50 ms, is held then, and is none after 100 ms.

        Parameters
        ----------
        t_acq : int
            ns.
        fallback_error_mm : float
            1 sigma of samples that do not say theirs.
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
        error = before.error_mm or fallback_error_mm
        if after is not None and after.T_tracker_tool is not None and after.t_acq - before.t_acq <= STALE_NS:
            share = age / (after.t_acq - before.t_acq)
            step = log_se3(inverse(before.T_tracker_tool) @ after.T_tracker_tool)
            T = before.T_tracker_tool @ exp_se3(share * step)
            return TrackedPose(T, max(error, after.error_mm or fallback_error_mm), 0)
        if age > STALE_NS:
            return None
        grown = 0.5 * _ACCELERATION_MM_S2 * (age / 1e9) ** 2
        return TrackedPose(self._predicted(before, age), float(np.hypot(error, grown)), age)

    def _predicted(self, last: ToolSample, age: int) -> Float:
        """Where the tool is when it goes on as it went before its last sample."""
        assert last.T_tracker_tool is not None
        earlier = None
        for sample in reversed(self._samples):
            passed = last.t_acq - sample.t_acq
            if sample.T_tracker_tool is None or passed > STALE_NS:
                break
            if passed >= _STEADY_NS:
                earlier = sample
            if passed >= 3 * _STEADY_NS:
                break
        if earlier is None or earlier.T_tracker_tool is None or age == 0:
            return last.T_tracker_tool
        share = min(age, _PREDICTED_NS) / (last.t_acq - earlier.t_acq)
        step = log_se3(inverse(earlier.T_tracker_tool) @ last.T_tracker_tool)
        # What is within the noise is no motion.
        if np.linalg.norm(step[3:]) < 3 * (last.error_mm or 0.3) and np.linalg.norm(step[:3]) < 0.01:
            return last.T_tracker_tool
        return last.T_tracker_tool @ exp_se3(share * step)

    def _frozen(self, sample: ToolSample) -> bool:
        last = self._last
        pose = sample.T_tracker_tool
        same = (
            last is not None
            and pose is not None
            and last.T_tracker_tool is not None
            and np.array_equal(pose, last.T_tracker_tool)
        )
        self._same = self._same + 1 if same else 0
        return self._same >= _FROZEN_SAMPLES

    def _reachable(self, sample: ToolSample) -> bool:
        """Whether a hand can have moved the tool there, or several samples in a row say that it is there."""
        before = self._samples[-1] if self._samples else None
        if sample.T_tracker_tool is None or before is None or before.T_tracker_tool is None:
            self._aside.clear()
            return True
        if sample.t_acq - before.t_acq > STALE_NS or _close(before, sample):
            self._aside.clear()
            return True
        if self._aside and not _close(self._aside[-1], sample):
            self._aside.clear()
        self._aside.append(sample)
        if len(self._aside) < _AGREE:
            return False
        # It is there now: what was before must not be joined with it.
        self._samples.clear()
        self._aside.clear()
        return True

    def _reject(self, reason: str, fault: str) -> bool:
        self.rejected[reason] += 1
        self.fault = fault
        return False


def _plausible(sample: ToolSample) -> bool:
    T = sample.T_tracker_tool
    if not 0 <= sample.error_mm < _WORST_ERROR_MM:
        return False
    return T is None or bool(np.isfinite(T).all() and (np.abs(T[:3, 3]) < _FARTHEST_MM).all())


def _close(a: ToolSample, b: ToolSample) -> bool:
    assert a.T_tracker_tool is not None and b.T_tracker_tool is not None
    moved = float(np.linalg.norm(b.T_tracker_tool[:3, 3] - a.T_tracker_tool[:3, 3]))
    return moved <= _JITTER_MM + _FASTEST_MM_S * (b.t_acq - a.t_acq) / 1e9
