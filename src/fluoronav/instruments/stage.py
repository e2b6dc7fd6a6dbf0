"""One estimate for each instrument, from the tracker, the picture, or both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import inverse, transform_points
from fluoronav.instruments.drift import DriftFilter
from fluoronav.instruments.sightings import SightingMemory
from fluoronav.instruments.space import Sighting
from fluoronav.instruments.tracker import ToolTrack
from fluoronav.records import Budget, Detection, FrameRecord, Instrument, RegistrationResult, ToolSample

Float = NDArray[np.float64]

# Beyond the newest sample the last pose is held; further than this it counts as aged.
_FRESH_NS = 40_000_000
_DEFAULT_ERROR_MM = 0.3
# A tool and what the picture shows are the same when tip (pixels of a 1024 image) and axis (degrees) are this close.
_SAME_PX, _SAME_DEG = 60.0, 12.0
# 95 % of a circular normal error lie within so many sigmas.
_SIGMAS_95 = 2.45


class InstrumentStage:
    """Puts the case's tools into the patient and into the image.

    A tool's own frame has its origin at the tip and z along the shaft towards the tip. The tracker sees the tool and a
    reference marker that is fixed to the patient, so neither the patient nor the tracker has to hold still:
    ``T_ct_tool = T_ct_reference inverse(T_tracker_reference) T_tracker_tool``. Where the picture shows the same tool,
    the tip moves onto the ray on which it is seen, and what remains between the two is the tracker's drift.
    """

    name = "instruments"
    engine = "cpu"

    def __init__(self) -> None:
        self._tracks: dict[str, ToolTrack] = {}
        self.rejected = 0

    def prepare(self, case, camera, progress: Callable[[str], None] = lambda _: None) -> None:
        self._tools = case.tools
        self._camera = camera
        self._same_px = _SAME_PX * max(camera.rows, camera.cols) / 1024
        self._reference = case.file.tracker
        self._drift = DriftFilter()
        self._sightings = SightingMemory(camera)
        self._centre_ct = case.target_ct
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
        left = list(frame.detections)
        self._drift.predict()
        found = []
        for instrument in self._tracked(frame):
            seen = self._seen(instrument, left)
            if seen is None or frame.registration is None:
                found.append(self._corrected(frame, instrument))
            else:
                left = [d for d in left if d is not seen]
                found.append(self._fused(instrument, seen, frame.registration))
        frame.drift = self._drift.drift
        frame.instruments = (*found, *(self._of_picture(frame, d, left) for d in left))

    def idle(self) -> None: ...

    def close(self) -> None: ...

    def _tracked(self, frame: FrameRecord) -> list[Instrument]:
        """The tools that the tracker sees, as it sees them."""
        if self._reference is None:
            return []
        marker = self._tracks[self._reference.reference].pose_at(frame.t_acq)
        if marker is None:
            return []
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
            sigma = float(np.hypot(error or _DEFAULT_ERROR_MM, marker_error or _DEFAULT_ERROR_MM))
            aged = 1 if max(age, marker_age) > _FRESH_NS else 0
            found.append(Instrument(tool.id, tool.kind, tip_px, tail_px, tip_ct, axis_ct, sigma, "tracker", aged))
        return found

    def _seen(self, instrument: Instrument, detections: list[Detection]) -> Detection | None:
        """The detection that shows a tracked tool; fresh ones only, since a carried-on one shows nothing."""
        if instrument.tip_px is None or instrument.tail_px is None:
            return None
        axis = instrument.tip_px - instrument.tail_px
        length = float(np.linalg.norm(axis))
        best, least = None, self._same_px
        for d in detections:
            off = float(np.linalg.norm(d.tip_px - instrument.tip_px))
            turn = np.rad2deg(np.arccos(np.clip(d.direction @ axis / max(length, 1e-9), -1, 1)))
            if d.age == 0 and off < least and turn < _SAME_DEG:
                best, least = d, off
        return best

    def _of_picture(self, frame: FrameRecord, d: Detection, others: list[Detection]) -> Instrument:
        """An instrument that only the picture shows: one view says on which ray its tip is, another where on it."""
        placed = None
        r = frame.registration
        # From one view to another the kind is what names it: two of a kind could be taken for one another.
        alone = sum(o.kind == d.kind for o in others) == 1
        if r is not None and frame.status == "tracking" and d.age == 0 and alone:
            depth = float(transform_points(r.T_camera_ct, self._centre_ct)[2])
            error_px = r.tre_image_mm / _SIGMAS_95 * self._camera.focal_px / depth
            turn_deg = float(np.hypot(d.sigma_deg, r.sigma[2]))
            sighting = Sighting(r.T_camera_ct, d.tip_px, d.direction, float(np.hypot(d.sigma_px, error_px)), turn_deg)
            placed = self._sightings.place(frame.t_acq, d.kind, sighting)
        if placed is None:
            return Instrument(d.id, d.kind, d.tip_px, d.tail_px, None, None, d.sigma_px, "image", d.age)
        return Instrument(
            d.id, d.kind, d.tip_px, d.tail_px, placed.tip_ct, placed.axis_ct, placed.sigma_mm, "image", d.age
        )

    def _corrected(self, frame: FrameRecord, instrument: Instrument) -> Instrument:
        """A tool that the picture does not show now, moved by what the tracker is known to have drifted."""
        offset = self._drift.offset_ct
        if instrument.tip_ct is None or not offset.any():
            return instrument
        tip_ct, tip_px = instrument.tip_ct + offset, instrument.tip_px
        if frame.registration is not None:
            uv = self._camera.project(transform_points(frame.registration.T_camera_ct, tip_ct))
            tip_px = uv if np.isfinite(uv).all() else None
        sigma = float(np.hypot(instrument.sigma_mm, self._drift.sigma_mm))
        return replace(instrument, tip_ct=tip_ct, tip_px=tip_px, sigma_mm=sigma)

    def _fused(self, instrument: Instrument, seen: Detection, registration: RegistrationResult) -> Instrument:
        """Tracker and picture, each as far as it is to be believed; across the ray that is mostly the picture."""
        assert instrument.tip_ct is not None
        T = registration.T_camera_ct
        tip = transform_points(T, instrument.tip_ct)
        mm_px = tip[2] / self._camera.focal_px
        ray = self._camera.rays(seen.tip_px)
        off = ray[:2] * tip[2] - tip[:2]
        # The picture's word on where the tip is in the patient is no better than the registration.
        sigma_picture = float(np.hypot(seen.sigma_px * mm_px, registration.tre_image_mm / _SIGMAS_95))
        self._drift.update(T[:3, :3], off, float(np.hypot(sigma_picture, instrument.sigma_mm)))
        drift = self._drift.drift
        tracked = transform_points(T, instrument.tip_ct + self._drift.offset_ct)
        off = ray[:2] * tracked[2] - tracked[:2]
        # A tracker that has drifted and cannot be corrected has no say.
        sigma = instrument.sigma_mm if drift is None or drift.corrected else max(drift.size_mm, instrument.sigma_mm)
        share = sigma**2 / (sigma**2 + sigma_picture**2)
        tracked[:2] += share * off
        across = np.sqrt(share) * sigma_picture
        tip_ct = transform_points(inverse(T), tracked)
        return replace(
            instrument,
            tip_px=seen.tip_px,
            tail_px=seen.tail_px,
            tip_ct=tip_ct,
            # Along the ray the picture says nothing: there it is as wrong as the tracker and its drift.
            sigma_mm=float(max(across, sigma)),
            origin="fused",
            age=0,
        )
