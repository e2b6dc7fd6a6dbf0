"""Poses of a tool from an external tracker, and its pose at any time."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import exp_se3, inverse, log_se3
from fluoronav.stream.frame import ToolSample

Float = NDArray[np.float64]


@dataclass(frozen=True)
class TrackLimits:
    """Which samples are believed, and how long a pose is used; all chosen from how hands and trackers move."""

    stale_ns: int = 100_000_000  # an older pose is not used: at a hand's 100 mm/s it would be 10 mm wrong
    predicted_ns: int = 50_000_000  # after the newest sample the motion goes on for this long
    acceleration_mm_s2: float = 1500.0  # of a hand, 1 sigma
    default_error_mm: float = 0.3  # of samples without an error, 1 sigma
    # Motion is estimated between samples this far apart: what nearer samples show is mostly noise.
    min_motion_ns: int = 10_000_000
    max_motion_ns: int = 30_000_000
    # A smaller motion is noise: this many errors across, and this angle.
    min_motion_sigmas: float = 3.0
    min_motion_rad: float = 0.01
    # A pose that implies a faster motion is a jump. It is used once so many samples in a row agree.
    max_speed_mm_s: float = 1500.0
    jitter_mm: float = 5.0
    agreeing_samples: int = 3
    max_distance_mm: float = 10_000.0  # no tracker sees farther
    max_error_mm: float = 1000.0
    frozen_samples: int = 15  # the same pose to the last bit, in a row: noise does not repeat, so the sender hangs


LIMITS = TrackLimits()


@dataclass(frozen=True, slots=True)
class TrackedPose:
    """A tool at one time.

    Attributes
    ----------
    T_tracker_tool : ndarray, shape (4, 4)
        mm.
    error_mm : float
        1 sigma; grows with the time since the newest sample.
    age_ns : int
        Time since that sample; 0 between two samples.
    """

    T_tracker_tool: Float
    error_mm: float
    age_ns: int


class ToolTrack:
    """The last samples of one tool, and its pose at any time among them.

    Attributes
    ----------
    rejected : Counter
        Samples by reason: ``implausible``, ``out_of_order``, ``jumped``, ``frozen``.
    fault : str
        Why the newest sample was rejected; empty when it was not.
    """

    def __init__(self) -> None:
        self._samples: deque[ToolSample] = deque(maxlen=32)
        self._jumped: list[ToolSample] = []
        self._last: ToolSample | None = None
        self._same = 0
        self.rejected: Counter[str] = Counter()
        self.fault = ""

    def add(self, sample: ToolSample) -> bool:
        """Keeps a sample; False where it is rejected, which is counted by reason."""
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

    def pose_at(self, t_acq: int, fallback_error_mm: float = LIMITS.default_error_mm) -> TrackedPose | None:
        """The pose at a time; None where the tool is hidden or its last sample is stale.

        Between two samples it is interpolated along their screw motion. After the last it is extrapolated for 50 ms,
        then held, and None after 100 ms.

        Parameters
        ----------
        t_acq : int
            ns.
        fallback_error_mm : float
            Of samples without an error, 1 sigma.
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
        if after is not None and after.T_tracker_tool is not None and after.t_acq - before.t_acq <= LIMITS.stale_ns:
            fraction = age / (after.t_acq - before.t_acq)
            step = log_se3(inverse(before.T_tracker_tool) @ after.T_tracker_tool)
            T = before.T_tracker_tool @ exp_se3(fraction * step)
            return TrackedPose(T, max(error, after.error_mm or fallback_error_mm), 0)
        if age > LIMITS.stale_ns:
            return None
        grown = 0.5 * LIMITS.acceleration_mm_s2 * (age / 1e9) ** 2
        return TrackedPose(self._predicted(before, age), float(np.hypot(error, grown)), age)

    def _predicted(self, last: ToolSample, age: int) -> Float:
        """The pose extrapolated along the motion before the last sample."""
        assert last.T_tracker_tool is not None
        earlier = None
        for sample in reversed(self._samples):
            passed = last.t_acq - sample.t_acq
            if sample.T_tracker_tool is None or passed > LIMITS.stale_ns:
                break
            if passed >= LIMITS.min_motion_ns:
                earlier = sample
            if passed >= LIMITS.max_motion_ns:
                break
        if earlier is None or earlier.T_tracker_tool is None or age == 0:
            return last.T_tracker_tool
        fraction = min(age, LIMITS.predicted_ns) / (last.t_acq - earlier.t_acq)
        step = log_se3(inverse(earlier.T_tracker_tool) @ last.T_tracker_tool)
        noise_mm = LIMITS.min_motion_sigmas * (last.error_mm or LIMITS.default_error_mm)
        if np.linalg.norm(step[3:]) < noise_mm and np.linalg.norm(step[:3]) < LIMITS.min_motion_rad:
            return last.T_tracker_tool
        return last.T_tracker_tool @ exp_se3(fraction * step)

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
        return self._same >= LIMITS.frozen_samples

    def _reachable(self, sample: ToolSample) -> bool:
        """Whether a hand can have moved the tool there, or several samples in a row agree."""
        before = self._samples[-1] if self._samples else None
        if sample.T_tracker_tool is None or before is None or before.T_tracker_tool is None:
            self._jumped.clear()
            return True
        if sample.t_acq - before.t_acq > LIMITS.stale_ns or _reachable_from(before, sample):
            self._jumped.clear()
            return True
        if self._jumped and not _reachable_from(self._jumped[-1], sample):
            self._jumped.clear()
        self._jumped.append(sample)
        if len(self._jumped) < LIMITS.agreeing_samples:
            return False
        # Nothing is interpolated across the jump.
        self._samples.clear()
        self._jumped.clear()
        return True

    def _reject(self, reason: str, fault: str) -> bool:
        self.rejected[reason] += 1
        self.fault = fault
        return False


def _plausible(sample: ToolSample) -> bool:
    T = sample.T_tracker_tool
    if not 0 <= sample.error_mm < LIMITS.max_error_mm:
        return False
    return T is None or bool(np.isfinite(T).all() and (np.abs(T[:3, 3]) < LIMITS.max_distance_mm).all())


def _reachable_from(a: ToolSample, b: ToolSample) -> bool:
    assert a.T_tracker_tool is not None and b.T_tracker_tool is not None
    moved = float(np.linalg.norm(b.T_tracker_tool[:3, 3] - a.T_tracker_tool[:3, 3]))
    return moved <= LIMITS.jitter_mm + LIMITS.max_speed_mm_s * (b.t_acq - a.t_acq) / 1e9
