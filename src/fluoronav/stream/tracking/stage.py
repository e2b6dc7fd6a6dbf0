"""One estimate for each instrument, from the tracker, the image, or both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import inverse, transform_points
from fluoronav.stream.frame import (
    RADIUS_95_2D,
    Budget,
    Curvature,
    Detection,
    FrameRecord,
    Instrument,
    RegistrationResult,
    ToolSample,
)
from fluoronav.stream.tracking.drift import DriftFilter, unexplained
from fluoronav.stream.tracking.observation_memory import ObservationMemory
from fluoronav.stream.tracking.tool_track import ToolTrack
from fluoronav.stream.tracking.tracker_registration import Correspondence, TrackerRegistration
from fluoronav.stream.tracking.triangulation import ImageObservation, TipEstimate, tip_from_width

Float = NDArray[np.float64]


@dataclass(frozen=True)
class FusionLimits:
    """How tracker and image are combined; all chosen on simulated tools and drifts (`bench instruments`)."""

    fresh_ns: int = 40_000_000  # a pose extrapolated over longer counts as aged
    fit_ns: int = 5_000_000  # a pose extrapolated over longer is excluded from the tracker's registration
    # A tool and a detection are the same where tip and axis are this near; pixels of a 1024 image.
    same_px: float = 60.0
    same_deg: float = 12.0
    expected_sigmas: float = 2.0  # offsets of the image from the tracker within this are explained by their errors
    across_sigma_px: float = 0.5  # largest error of a tip across its shaft, 1 sigma
    min_width_px: float = 2.0  # of a shadow that tells the depth
    # An image shows the projection of a sagitta: towards the source it may be as large again.
    sagitta_in_space: float = float(np.sqrt(2))


LIMITS = FusionLimits()
# A tracker states the root mean square of its error in space; along one axis it is so much less.
_SPACE_TO_AXIS = float(np.sqrt(1 / 3))


class InstrumentStage:
    """Places the case's tools in the patient and in the image.

    The tracker sees the tool and a reference marker that is fixed to the patient, so patient and tracker may move:
    ``T_ct_tool = T_ct_reference inverse(T_tracker_reference) T_tracker_tool``. Where the case does not give the
    marker's place on the patient, it is estimated from images of the tool. Where the image shows the same tool, the tip
    moves onto its ray, and the offset that neither error explains is the tracker's drift.
    """

    name = "instruments"
    engine = "cpu"
    reads = frozenset({"detections", "registration", "status"})
    writes = frozenset({"instruments", "drift", "tool_faults"})

    def __init__(self) -> None:
        self._tracks: dict[str, ToolTrack] = {}
        self._rejected: dict[str, int] = {}
        self._marker: TrackerRegistration | None = None

    def prepare(self, case, camera, progress: Callable[[str], None] = lambda _: None) -> None:
        self._tools = case.tools
        self._camera = camera
        self._same_px = LIMITS.same_px * max(camera.rows, camera.cols) / 1024
        self._reference = case.file.tracker
        self._drift = DriftFilter()
        self._memory = ObservationMemory(camera)
        self._centre_ct = case.target_ct
        wanted = [t.id for t in case.tools] + ([self._reference.reference] if self._reference else [])
        self._tracks = {name: ToolTrack() for name in wanted}
        self._rejected = {}
        self._T_tool_tip = {t.id: t.T_tool_tip() for t in case.tools}
        # The only tool of its kind: a detection of that kind has its diameter.
        kinds = [t.kind for t in case.tools]
        self._diameters_mm = {t.kind: t.diameter_mm for t in case.tools if kinds.count(t.kind) == 1}
        self.close()
        self._T_ct_reference: Float | None = None
        if self._reference is not None and self._reference.T_ct_reference is None:
            self._marker = TrackerRegistration(camera)
        elif self._reference is not None:
            self._T_ct_reference = np.array(self._reference.T_ct_reference, dtype=np.float64)

    def observe(self, sample: ToolSample) -> None:
        """Takes a tracker's sample; unknown tools are ignored, rejected samples are counted by reason."""
        track = self._tracks.get(sample.tool)
        if track is not None and not track.add(sample):
            # Added up here and not where it is read, which is in every frame.
            self._rejected = dict(sum((t.rejected for t in self._tracks.values()), Counter[str]()))

    @property
    def rejected(self) -> dict[str, int]:
        """Numbers of rejected samples by reason; replaced with each, never changed."""
        return self._rejected

    def process(self, frame: FrameRecord, budget: Budget) -> None:
        left = list(frame.detections)
        self._drift.predict()
        tracked = self._tracked(frame, left)
        found = []
        for instrument in tracked:
            detection = self._matching(instrument, left)
            if detection is None or frame.registration is None:
                found.append(self._drift_corrected(frame, instrument))
            else:
                left = [d for d in left if d is not detection]
                found.append(self._fused(instrument, detection, frame.registration))
        frame.drift = self._drift.drift
        frame.tool_faults = {name: track.fault for name, track in self._tracks.items() if track.fault}
        frame.instruments = (*found, *(self._from_image(frame, d, left) for d in left))

    def idle(self, frame: FrameRecord, budget: Budget) -> None:
        if self._marker is not None:
            self._marker.idle()

    def close(self) -> None:
        if self._marker is not None:
            self._marker.close()
            self._marker = None

    def _tracked(self, frame: FrameRecord, detections: list[Detection]) -> list[Instrument]:
        """The tools by the tracker alone."""
        if self._reference is None:
            return []
        marker = self._tracks[self._reference.reference].pose_at(frame.t_local)
        if marker is None:
            return []
        T_reference_tracker = inverse(marker.T_tracker_tool)
        poses = []
        for tool in self._tools:
            pose = self._tracks[tool.id].pose_at(frame.t_local)
            if pose is not None:
                poses.append((tool, pose, T_reference_tracker @ pose.T_tracker_tool @ self._T_tool_tip[tool.id]))
        if self._marker is not None:
            # Predicted poses are excluded from the fit, since they add no information.
            if len(poses) == 1 and max(poses[0][1].age_ns, marker.age_ns) < LIMITS.fit_ns:
                self._add_correspondence(frame, poses[0][2], detections)
            self._T_ct_reference = None if self._marker.found is None else self._marker.found.T_ct_reference
        if self._T_ct_reference is None:
            return []
        found = []
        for tool, pose, T_reference_tip in poses:
            T_ct_tip = self._T_ct_reference @ T_reference_tip
            # Copies: kernels were compiled for contiguous arrays.
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
            aged = 1 if age_ns > LIMITS.fresh_ns else 0
            found.append(
                Instrument(
                    tool.id, tool.kind, tip_px, tail_px, tip_ct, axis_ct, sigma, "tracker", aged, age_ms=age_ns / 1e6
                )
            )
        return found

    def _add_correspondence(self, frame: FrameRecord, T_reference_tip: Float, detections: list[Detection]) -> None:
        """Adds the tool, by image and tracker at one time, to the estimate of the marker's place on the patient."""
        fresh = [d for d in detections if d.age == 0]
        if self._marker is None or len(fresh) != 1 or frame.registration is None or frame.status != "tracking":
            return
        image = self._observation(frame.registration, fresh[0])
        self._marker.add(Correspondence(image, T_reference_tip[:3, 3].copy(), T_reference_tip[:3, 2].copy()))

    def _observation(self, r: RegistrationResult, d: Detection) -> ImageObservation:
        """A detection in a registered image; its sigmas include the registration's error across the ray."""
        depth = float(transform_points(r.T_camera_ct, self._centre_ct)[2])
        error_px = r.tre_image_mm / RADIUS_95_2D * self._camera.focal_px / depth
        turn_deg = float(np.hypot(d.sigma_deg, r.sigma[2]))
        return ImageObservation(r.T_camera_ct, d.tip_px, d.direction, float(np.hypot(d.sigma_px, error_px)), turn_deg)

    def _matching(self, instrument: Instrument, detections: list[Detection]) -> Detection | None:
        """The nearest detection of a tracked tool in this frame; carried-on detections add no information."""
        if instrument.tip_px is None or instrument.tail_px is None:
            return None
        axis = instrument.tip_px - instrument.tail_px
        length = float(np.linalg.norm(axis))
        best, nearest = None, self._same_px
        for d in detections:
            off = float(np.linalg.norm(d.tip_px - instrument.tip_px))
            turn = np.rad2deg(np.arccos(np.clip(d.direction @ axis / max(length, 1e-9), -1, 1)))
            if d.age == 0 and off < nearest and turn < LIMITS.same_deg:
                best, nearest = d, off
        return best

    def _from_image(self, frame: FrameRecord, d: Detection, others: list[Detection]) -> Instrument:
        """An instrument that only the image shows: placed by two views, by its shadow's width, or only on its ray."""
        tip: TipEstimate | None = None
        r = frame.registration
        # The kind identifies it in all views: two of a kind could be confused.
        alone = sum(o.kind == d.kind for o in others) == 1
        if r is not None and frame.status == "tracking" and d.age == 0 and alone:
            observation = self._observation(r, d)
            tip = self._memory.place(frame.t_local, d.kind, observation)
            diameter_mm = self._diameters_mm.get(d.kind)
            if tip is None and diameter_mm is not None and d.width_px > LIMITS.min_width_px:
                tip = tip_from_width(self._camera, observation, d.width_px, diameter_mm)
        curvature = Curvature(d.sagitta_px) if d.sagitta_px else None
        if tip is None:
            return Instrument(
                d.id, d.kind, d.tip_px, d.tail_px, None, None, d.sigma_px, "image", d.age, None, curvature, d.age_ms
            )
        method = "two_views" if tip.views > 1 else "width"
        return Instrument(
            d.id, d.kind, d.tip_px, d.tail_px, tip.tip_ct, tip.axis_ct, tip.sigma_mm, "image", d.age, method,
            curvature, d.age_ms,
        )  # fmt: skip

    def _drift_corrected(self, frame: FrameRecord, instrument: Instrument) -> Instrument:
        """A tool that the image does not show now, corrected by the tracker's drift."""
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

    def _fused(self, instrument: Instrument, d: Detection, registration: RegistrationResult) -> Instrument:
        """Mean of tracker and image, weighted by their variances; across the ray that is mostly the image."""
        assert instrument.tip_ct is not None
        T = registration.T_camera_ct
        tip = transform_points(T, instrument.tip_ct)
        mm_px = tip[2] / self._camera.focal_px
        ray = self._camera.rays(d.tip_px)
        # Rows along the shaft and across it: a tip's errors differ tenfold.
        axes = np.array([d.direction, [-d.direction[1], d.direction[0]]])
        sigma_detection = mm_px * np.array([d.sigma_px, min(d.sigma_px, LIMITS.across_sigma_px)])
        # In the patient the image is no more accurate than the registration.
        sigma_registration = registration.tre_image_mm / RADIUS_95_2D
        sigma_image = np.hypot(sigma_detection, sigma_registration)
        off = axes @ (ray[:2] * tip[2] - tip[:2])
        # Errors of the registration, and of a detection along the shaft, are the same for many frames: no filter
        # averages them out, and an offset within them is no drift.
        explained = np.hypot([sigma_detection[0], 0], LIMITS.expected_sigmas * sigma_registration)
        beyond = unexplained(off, explained)
        variances = np.diag(sigma_image**2 + (_SPACE_TO_AXIS * instrument.sigma_mm) ** 2)
        self._drift.update(T[:3, :3], axes.T @ beyond, axes.T @ variances @ axes)
        drift = self._drift.drift
        tracked = tip + _across_the_ray(T[:3, :3] @ self._drift.offset_ct, tip)
        off = axes @ (ray[:2] * tracked[2] - tracked[:2])
        # The weight of a tracker that has drifted and cannot be corrected is small.
        sigma = instrument.sigma_mm if drift is None or drift.corrected else max(drift.size_mm, instrument.sigma_mm)
        # An offset larger than both errors explain is a wrong detection, or one of something else: its weight falls.
        sigma_tracker = _SPACE_TO_AXIS * sigma
        expected = LIMITS.expected_sigmas * np.hypot(sigma_tracker, sigma_image)
        sigma_image *= max(1.0, float((np.abs(off) / expected).max()) ** 2)
        weight = sigma_tracker**2 / (sigma_tracker**2 + sigma_image**2)
        tracked[:2] += axes.T @ (weight * off)
        across = float((np.sqrt(weight) * sigma_image).max())
        tip_ct = transform_points(inverse(T), tracked)
        return replace(
            instrument,
            tip_px=d.tip_px,
            tail_px=d.tail_px,
            tip_ct=tip_ct,
            # Along the ray only the tracker counts, with its drift.
            sigma_mm=float(max(across, sigma)),
            origin="fused",
            age=0,
            age_ms=0.0,
            curvature=_curvature(d, mm_px),
        )


def _curvature(d: Detection, mm_px: float) -> Curvature | None:
    """A tracked tool's curvature by the image, at its tip's depth."""
    if not d.sagitta_px:
        return None
    chord_px = float(np.linalg.norm(d.tip_px - d.tail_px))
    return Curvature(d.sagitta_px, LIMITS.sagitta_in_space * abs(d.sagitta_px) * mm_px, chord_px * mm_px)


def _across_the_ray(offset_camera: Float, tip_camera: Float) -> Float:
    """The part of an offset across the ray.

    The part along it comes from small turns of the C-arm and the registration's errors in each, not from drift.
    """
    ray = tip_camera / np.linalg.norm(tip_camera)
    return offset_camera - (offset_camera @ ray) * ray
