"""Instruments from an external tracker, brought into the patient's frame through the reference marker."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import exp_se3, inverse, log_se3, transform_points
from fluoronav.records import Budget, FrameRecord, Instrument, ToolSample

Float = NDArray[np.float64]

# A pose older than this is not shown: at a hand's 100 mm/s it would be 10 mm wrong.
STALE_NS = 100_000_000
# Beyond the newest sample the last pose is held; further than this it counts as aged.
_FRESH_NS = 40_000_000
_DEFAULT_ERROR_MM = 0.3


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


class InstrumentStage:
    """Puts the case's tools into the patient and into the image.

    A tool's own frame has its origin at the tip and z along the shaft towards the tip. The tracker sees the tool and a
    reference marker that is fixed to the patient, so neither the patient nor the tracker has to hold still:
    ``T_ct_tool = T_ct_reference inverse(T_tracker_reference) T_tracker_tool``.
    """

    name = "instruments"
    engine = "cpu"

    def __init__(self) -> None:
        self._tracks: dict[str, ToolTrack] = {}
        self.rejected = 0

    def prepare(self, case, camera, progress: Callable[[str], None] = lambda _: None) -> None:
        self._tools = case.tools
        self._camera = camera
        self._reference = case.file.tracker
        wanted = [t.id for t in case.tools] + ([self._reference.reference] if self._reference else [])
        self._tracks = {name: ToolTrack() for name in wanted}
        if self._reference:
            self._T_ct_reference = np.array(self._reference.T_ct_reference, dtype=np.float64)

    def observe(self, sample: ToolSample) -> None:
        """Takes a tracker's sample; unknown tools are ignored, samples that go back in time counted."""
        track = self._tracks.get(sample.tool)
        if track is not None and not track.add(sample):
            self.rejected += 1

    def process(self, frame: FrameRecord, budget: Budget) -> None:
        if self._reference is None:
            return
        marker = self._tracks[self._reference.reference].pose_at(frame.t_acq)
        if marker is None:
            return
        T_tracker_reference, marker_error, marker_age = marker
        T_ct_tracker = self._T_ct_reference @ inverse(T_tracker_reference)
        found = []
        for tool in self._tools:
            seen = self._tracks[tool.id].pose_at(frame.t_acq)
            if seen is None:
                continue
            T_tracker_tool, error, age = seen
            T_ct_tool = T_ct_tracker @ T_tracker_tool
            # Copies, so that kernels see contiguous arrays and were compiled for them.
            tip_ct, axis_ct = T_ct_tool[:3, 3].copy(), T_ct_tool[:3, 2].copy()
            tip_px = tail_px = None
            if frame.registration is not None:
                ends = np.stack([tip_ct, tip_ct - tool.length_mm * axis_ct])
                uv = self._camera.project(transform_points(frame.registration.T_camera_ct, ends))
                tip_px, tail_px = (p if np.isfinite(p).all() else None for p in uv)
            found.append(
                Instrument(
                    tool.id,
                    tool.kind,
                    tip_px,
                    tail_px,
                    tip_ct,
                    axis_ct,
                    float(np.hypot(error or _DEFAULT_ERROR_MM, marker_error or _DEFAULT_ERROR_MM)),
                    "tracker",
                    1 if max(age, marker_age) > _FRESH_NS else 0,
                )
            )
        frame.instruments = tuple(found)

    def idle(self) -> None: ...

    def close(self) -> None: ...
