"""One estimate for each instrument, from the tracker, the picture, or both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import inverse, transform_points
from fluoronav.stream.frame import Budget, Curvature, Detection, FrameRecord, Instrument, RegistrationResult, ToolSample
from fluoronav.stream.tracking.drift import DriftFilter
from fluoronav.stream.tracking.tool_track import ToolTrack
from fluoronav.stream.tracking.tracker_registration import Pair, TrackerRegistration
from fluoronav.stream.tracking.triangulation import SIGMA_WIDTH_PX, InSpace, Sighting, from_width
from fluoronav.stream.tracking.view_memory import SightingMemory

Float = NDArray[np.float64]

# Beyond the newest sample the last pose is held; further than this it counts as aged.
_FRESH_NS, _TEACHES_NS = 40_000_000, 5_000_000
_DEFAULT_ERROR_MM = 0.3
# A tool and what the picture shows are the same when tip (pixels of a 1024 image) and axis (degrees) are this close.
_SAME_PX, _SAME_DEG = 60.0, 12.0
# 95 % of a circular normal error lie within so many sigmas.
_SIGMAS_95 = 2.45
_EXPLAINED_SIGMAS = 2.0
_ACROSS_SIGMA_PX = 0.5  # of a tip across its shaft, as far as it is not known better
# A picture shows a bend as its projection: towards the source it may be bent as much again.
_BEND_IN_SPACE = float(np.sqrt(2))


class InstrumentStage:
    """Puts the case's tools into the patient and into the image.

    The tracker sees the tool and a reference marker that is fixed to the patient, so neither the patient nor the
    tracker has to hold still: ``T_ct_tool = T_ct_reference inverse(T_tracker_reference) T_tracker_tool``. Where the
    case does not say where the marker is on the patient, it is found from pictures of the tool. Where the picture
    shows the same tool, the tip moves onto the ray on which it is seen, and what remains between the two is the
    tracker's drift.
    """

    name = "instruments"
    engine = "cpu"
    reads = frozenset({"detections", "registration", "status"})
    writes = frozenset({"instruments", "drift", "tool_faults"})

    def __init__(self) -> None:
        self._tracks: dict[str, ToolTrack] = {}
        self._marker: TrackerRegistration | None = None

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
        self._T_tool_tip = {t.id: t.T_tool_tip() for t in case.tools}
        # One tool of a kind: what the picture shows of that kind is as thick as it is.
        kinds = [t.kind for t in case.tools]
        self._diameters_mm = {t.kind: t.diameter_mm for t in case.tools if kinds.count(t.kind) == 1}
        self.close()
        self._T_ct_reference: Float | None = None
        if self._reference is not None and self._reference.T_ct_reference is None:
            self._marker = TrackerRegistration(camera)
        elif self._reference is not None:
            self._T_ct_reference = np.array(self._reference.T_ct_reference, dtype=np.float64)

    def observe(self, sample: ToolSample) -> None:
        """Takes a tracker's sample; unknown tools are ignored, what cannot be believed is counted by reason."""
        track = self._tracks.get(sample.tool)
        if track is not None:
            track.add(sample)

    @property
    def rejected(self) -> dict[str, int]:
        """Samples that were not believed, by reason."""
        total: Counter[str] = Counter()
        for track in list(self._tracks.values()):
            total.update(track.rejected)
        return dict(total)

    def process(self, frame: FrameRecord, budget: Budget) -> None:
        left = list(frame.detections)
        self._drift.predict()
        tracked = self._tracked(frame, left)
        found = []
        for instrument in tracked:
            seen = self._seen(instrument, left)
            if seen is None or frame.registration is None:
                found.append(self._corrected(frame, instrument))
            else:
                left = [d for d in left if d is not seen]
                found.append(self._fused(instrument, seen, frame.registration))
        frame.drift = self._drift.drift
        frame.tool_faults = {name: track.fault for name, track in self._tracks.items() if track.fault}
        frame.instruments = (*found, *(self._of_picture(frame, d, left) for d in left))

    def idle(self, frame: FrameRecord, budget: Budget) -> None:
        if self._marker is not None:
            self._marker.idle()

    def close(self) -> None:
        if self._marker is not None:
            self._marker.close()
            self._marker = None

    def _tracked(self, frame: FrameRecord, detections: list[Detection]) -> list[Instrument]:
        """The tools that the tracker sees, as it sees them."""
        if self._reference is None:
            return []
        marker = self._tracks[self._reference.reference].pose_at(frame.t_local, _DEFAULT_ERROR_MM)
        if marker is None:
            return []
        T_reference_tracker = inverse(marker.T_tracker_tool)
        seen = []
        for tool in self._tools:
            pose = self._tracks[tool.id].pose_at(frame.t_local, _DEFAULT_ERROR_MM)
            if pose is not None:
                seen.append((tool, pose, T_reference_tracker @ pose.T_tracker_tool @ self._T_tool_tip[tool.id]))
        if self._marker is not None:
            # A predicted pose teaches what was predicted.
            if len(seen) == 1 and max(seen[0][1].age_ns, marker.age_ns) < _TEACHES_NS:
                self._learn(frame, seen[0][2], detections)
            self._T_ct_reference = None if self._marker.found is None else self._marker.found.T_ct_reference
        if self._T_ct_reference is None:
            return []
        found = []
        for tool, pose, T_reference_tip in seen:
            T_ct_tip = self._T_ct_reference @ T_reference_tip
            # Copies, so that kernels see contiguous arrays and were compiled for them.
            tip_ct, axis_ct = T_ct_tip[:3, 3].copy(), T_ct_tip[:3, 2].copy()
            tip_px = tail_px = None
            if frame.registration is not None:
                ends = np.stack([tip_ct, tip_ct - tool.length_mm * axis_ct])
                uv = self._camera.project(transform_points(frame.registration.T_camera_ct, ends))
                tip_px, tail_px = (p if np.isfinite(p).all() else None for p in uv)
            sigma = float(np.hypot(pose.error_mm, marker.error_mm))
            if self._marker is not None and self._marker.found is not None:
                sigma = float(np.hypot(sigma, self._marker.found.sigma_mm(tip_ct)))
            age_ns = max(pose.age_ns, marker.age_ns)
            aged = 1 if age_ns > _FRESH_NS else 0
            found.append(
                Instrument(
                    tool.id, tool.kind, tip_px, tail_px, tip_ct, axis_ct, sigma, "tracker", aged, age_ms=age_ns / 1e6
                )
            )
        return found

    def _learn(self, frame: FrameRecord, T_reference_tip: Float, detections: list[Detection]) -> None:
        """Picture and tracker show one tool at one moment: a pair for the marker's place on the patient."""
        fresh = [d for d in detections if d.age == 0]
        if self._marker is None or len(fresh) != 1 or frame.registration is None or frame.status != "tracking":
            return
        seen = self._sighting(frame.registration, fresh[0])
        self._marker.add(Pair(seen, T_reference_tip[:3, 3].copy(), T_reference_tip[:3, 2].copy()))

    def _sighting(self, r: RegistrationResult, d: Detection) -> Sighting:
        """A detection in a registered view, with the registration's error across the ray in its sigmas."""
        depth = float(transform_points(r.T_camera_ct, self._centre_ct)[2])
        error_px = r.tre_image_mm / _SIGMAS_95 * self._camera.focal_px / depth
        turn_deg = float(np.hypot(d.sigma_deg, r.sigma[2]))
        return Sighting(r.T_camera_ct, d.tip_px, d.direction, float(np.hypot(d.sigma_px, error_px)), turn_deg)

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
        """An instrument that only the picture shows: one view says on which ray its tip is, another where on it.

        With one view only, and a tool of known thickness, the width of its shadow says to centimetres where on the ray.
        """
        placed: InSpace | None = None
        r = frame.registration
        # From one view to another the kind is what names it: two of a kind could be taken for one another.
        alone = sum(o.kind == d.kind for o in others) == 1
        if r is not None and frame.status == "tracking" and d.age == 0 and alone:
            sighting = self._sighting(r, d)
            placed = self._sightings.place(frame.t_local, d.kind, sighting)
            diameter_mm = self._diameters_mm.get(d.kind)
            if placed is None and diameter_mm is not None and d.width_px > 2:
                placed = from_width(self._camera, sighting, d.width_px, diameter_mm, SIGMA_WIDTH_PX)
        curvature = Curvature(d.sagitta_px) if d.sagitta_px else None
        if placed is None:
            return Instrument(
                d.id,
                d.kind,
                d.tip_px,
                d.tail_px,
                None,
                None,
                d.sigma_px,
                "image",
                d.age,
                curvature=curvature,
                age_ms=d.age_ms,
            )
        method = "two_views" if placed.views > 1 else "width"
        return Instrument(
            d.id, d.kind, d.tip_px, d.tail_px, placed.tip_ct, placed.axis_ct, placed.sigma_mm, "image", d.age, method,
            curvature, d.age_ms,
        )  # fmt: skip

    def _corrected(self, frame: FrameRecord, instrument: Instrument) -> Instrument:
        """A tool that the picture does not show now, moved by what the tracker is known to have drifted."""
        offset = self._drift.offset_ct
        if instrument.tip_ct is None or not offset.any():
            return instrument
        tip_px = instrument.tip_px
        if frame.registration is None:
            tip_ct = instrument.tip_ct + offset
        else:
            T = frame.registration.T_camera_ct
            tip = transform_points(T, instrument.tip_ct)
            tip = tip + _across_the_ray(T[:3, :3] @ offset, tip)
            tip_ct = transform_points(inverse(T), tip)
            uv = self._camera.project(tip)
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
        # Along the shaft and across it, rows: there a tip's errors differ tenfold.
        axes = np.array([seen.direction, [-seen.direction[1], seen.direction[0]]])
        own = mm_px * np.array([seen.sigma_px, min(seen.sigma_px, _ACROSS_SIGMA_PX)])
        # The picture's word on where the tip is in the patient is no better than the registration.
        sigma_picture = np.hypot(own, registration.tre_image_mm / _SIGMAS_95)
        off = axes @ (ray[:2] * tip[2] - tip[:2])
        # How far a point is seen along its shaft is wrong in the same way for as long as the view is the same: what
        # that explains is not the tracker's drift.
        unexplained = np.sign(off) * np.maximum(np.abs(off) - [own[0], 0], 0)
        variances = np.diag(sigma_picture**2 + instrument.sigma_mm**2)
        self._drift.update(T[:3, :3], axes.T @ unexplained, axes.T @ variances @ axes)
        drift = self._drift.drift
        tracked = tip + _across_the_ray(T[:3, :3] @ self._drift.offset_ct, tip)
        off = axes @ (ray[:2] * tracked[2] - tracked[:2])
        # A tracker that has drifted and cannot be corrected has no say.
        sigma = instrument.sigma_mm if drift is None or drift.corrected else max(drift.size_mm, instrument.sigma_mm)
        # A picture that is farther off than both errors explain is wrong itself, or shows something else: the farther
        # it is, the less it has to say.
        expected = _EXPLAINED_SIGMAS * np.hypot(sigma, sigma_picture)
        sigma_picture *= max(1.0, float((np.abs(off) / expected).max()) ** 2)
        share = sigma**2 / (sigma**2 + sigma_picture**2)
        tracked[:2] += axes.T @ (share * off)
        across = float((np.sqrt(share) * sigma_picture).max())
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
            age_ms=0.0,
            curvature=_bend(seen, mm_px),
        )


def _bend(d: Detection, mm_px: float) -> Curvature | None:
    """What a picture shows of a tracked tool's bend, at its tip's depth."""
    if not d.sagitta_px:
        return None
    over_px = float(np.linalg.norm(d.tip_px - d.tail_px))
    return Curvature(d.sagitta_px, _BEND_IN_SPACE * abs(d.sagitta_px) * mm_px, over_px * mm_px)


def _across_the_ray(offset_camera: Float, tip_camera: Float) -> Float:
    """The part of an offset that this view can confirm.

    Along the ray it comes from small turns of the C-arm and the registration's errors in each, which are no drift.
    """
    ray = tip_camera / np.linalg.norm(tip_camera)
    return offset_camera - (offset_camera @ ray) * ray
