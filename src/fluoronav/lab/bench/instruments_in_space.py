"""From detections to space: tips by triangulation and by width, and the drift of a tracker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fluoronav.case import load_case
from fluoronav.geometry import Camera, exp_se3, moved_about, transform_points
from fluoronav.lab.bench.matching import nearest
from fluoronav.lab.simulation.instrument_scenes import Placed, SceneMaker
from fluoronav.paths import shipped
from fluoronav.stream.detection.stage import DetectionStage
from fluoronav.stream.frame import Budget, Detection, FrameRecord, RegistrationResult, ToolSample
from fluoronav.stream.preprocessing.stage import AttenuationStage
from fluoronav.stream.tracking.stage import InstrumentStage
from fluoronav.stream.tracking.triangulation import ImageObservation, tip_from_width, triangulate

Float = NDArray[np.float64]

_ISOCENTRE_MM = np.array([0.0, 0.0, 620.0])  # camera frame; the demo's C-arm


@dataclass(frozen=True)
class SpaceSettings:
    """What is simulated; all chosen."""

    two_views_deg: tuple[float, float] = (30.0, 60.0)  # between the views
    least_width_px: float = 2.0  # of a shadow whose width is used for depth
    drift_mm: float = 2.0  # of the tracker, at once, across the ray
    noticed_mm: float = 1.0  # estimated drift from which it counts as noticed
    steady_frames: int = 20  # before the drift
    drift_frames: int = 60  # after it
    tip_sigma_px: float = 0.7  # of the detected tip; measured by this bench's detection part


SETTINGS = SpaceSettings()


def depths(maker: SceneMaker, count: int, photons: float, seed: int) -> dict[str, Any]:
    """Tips in space from two views 30 to 60 degrees apart, and from the width of the shadow in one; poses are known.

    Returns
    -------
    dict
        ``two_views`` and ``width``: ``mm`` (median and 95 % of the error), ``held`` (fraction within 1.96 stated sigmas
        of the worst direction), ``count``.
    """
    stage, attenuation = DetectionStage(), AttenuationStage()
    stage.prepare(None, maker.camera)
    camera, rng = maker.camera, np.random.default_rng(seed)
    two: list[tuple[float, float]] = []
    one: list[tuple[float, float]] = []

    def detected(counts: NDArray[np.uint16], p: Placed) -> Detection | None:
        frame = FrameRecord.of_counts(counts)
        attenuation.prepare(None, camera)
        attenuation.process(frame, Budget(1e6))
        found = stage.find(frame)
        match = nearest(found, p.axis_px[0], p.tip_direction)
        return None if match is None else found[match[0]]

    for _ in tqdm(range(count), "tips from two views", unit="pair"):
        turn = np.deg2rad(rng.choice([-1, 1]) * rng.uniform(*SETTINGS.two_views_deg))
        T_second_first = moved_about(_ISOCENTRE_MM, [0, turn, 0, 0, 0, 0])
        pair = maker.pair(rng, T_second_first, photons)
        found = [detected(counts, p) for counts, p in pair]
        truth = pair[0][1].points_camera[0]
        poses = [np.eye(4), T_second_first]
        observations = [
            None if d is None else ImageObservation(T, d.tip_px, d.direction, d.sigma_px, d.sigma_deg)
            for d, T in zip(found, poses, strict=True)
        ]
        d, s = found[0], observations[0]
        if d is not None and s is not None:
            metal = pair[0][1].metal
            diameter = 2 * float(metal.outer_mm[len(metal.outer_mm) // 2])
            if metal.kind in ("k-wire", "needle") and d.width_px > SETTINGS.least_width_px:
                placed = tip_from_width(camera, s, d.width_px, diameter)
                one.append((float(np.linalg.norm(placed.tip_ct - truth)), placed.sigma_mm))
        if all(x is not None for x in observations):
            space = triangulate(camera, [x for x in observations if x is not None])
            if space is not None:
                two.append((float(np.linalg.norm(space.tip_ct - truth)), space.sigma_mm))
    return {"two_views": _error(two), "width": _error(one)}


def drift(runs: int, seed: int) -> dict[str, Any]:
    """A tracker that drifts by 2 mm at once, with frames that show the tool to 0.7 px.

    Returns
    -------
    dict
        ``noticed_frames`` (median, highest), ``corrected_mm`` (error across the ray of the tracker alone, median and
        95 %),
        ``runs``, ``unnoticed``.
    """
    case = load_case("embedded")
    camera = Camera.load(shipped("calibration/demo-carm.yaml"))
    rng = np.random.default_rng(seed)
    noticed: list[int] = []
    left: list[float] = []
    for _ in tqdm(range(runs), "tracker drift", unit="run"):
        stage = InstrumentStage()
        stage.prepare(case, camera)
        T_camera_ct = case.prior.T_camera_ct()
        across = rng.standard_normal(2)
        shift = T_camera_ct[:3, :3].T @ np.append(SETTINGS.drift_mm * across / np.linalg.norm(across), 0.0)
        said = None
        tool = exp_se3([0.9, 0.1, 0, *(np.array(case.target_ct) + rng.uniform(-25, 25, 3))])
        for k in range(SETTINGS.steady_frames + SETTINGS.drift_frames):
            off = shift if k >= SETTINGS.steady_frames else np.zeros(3)
            frame = _tracked_frame(stage, case, camera, T_camera_ct, tool, off, k, rng, True)
            if (
                said is None
                and k >= SETTINGS.steady_frames
                and frame.drift is not None
                and frame.drift.size_mm > SETTINGS.noticed_mm
            ):
                said = k - SETTINGS.steady_frames
        if said is not None:
            noticed.append(said)
        # Without a detection the corrected tracker remains.
        (last,) = _tracked_frame(
            stage, case, camera, T_camera_ct, tool, shift, SETTINGS.steady_frames + SETTINGS.drift_frames, rng, False
        ).instruments
        assert last.tip_ct is not None
        left.append(float(np.linalg.norm((T_camera_ct[:3, :3] @ (last.tip_ct - tool[:3, 3]))[:2])))
    return {
        "noticed_frames": {"median": float(np.median(noticed)), "max": int(max(noticed))} if noticed else None,
        "corrected_mm": {"median": float(np.median(left)), "p95": float(np.percentile(left, 95))},
        "unnoticed": runs - len(noticed),
        "runs": runs,
    }


def _tracked_frame(
    stage: InstrumentStage, case, camera: Camera, T_camera_ct: Float, T_ct_tool: Float, off_ct: Float, k: int,
    rng: np.random.Generator, visible: bool,
) -> FrameRecord:  # fmt: skip
    """One frame of a tool that the tracker measures and, if `visible`, the detector finds."""
    t = k * 33_000_000
    T_tracker_ct = exp_se3([0.3, 0.2, 0.1, 100, -200, 1500])
    T_measured = T_ct_tool.copy()
    T_measured[:3, 3] += off_ct
    marker = np.array(case.file.tracker.T_ct_reference)
    for name, T in ((case.file.tracker.reference, marker), (case.tools[0].id, T_measured)):
        T_tracker = T_tracker_ct @ T
        T_tracker[:3, 3] += rng.normal(0, 0.1, 3)
        stage.observe(ToolSample(name, t, T_tracker, 0.2))
    frame = FrameRecord.of_counts(np.zeros((2, 2), np.uint16), seq=k, t_acq=t)
    frame.status = "tracking"
    frame.registration = RegistrationResult(T_camera_ct, 0.9, np.full(6, 0.1), 1.5, 0.4, 0)
    if visible:
        ends = transform_points(T_ct_tool, np.array([[0, 0, 0], [0, 0, -150.0]]))
        tip, tail = camera.project(transform_points(T_camera_ct, ends))
        sigma = SETTINGS.tip_sigma_px
        axis = (tip - tail) / np.linalg.norm(tip - tail)
        d = Detection("image-1", "k-wire", 0.9, tip + rng.normal(0, sigma, 2), tail, axis, 7.0, sigma, 0.1, 0.0, 0)
        frame.detections = (d,)
    stage.process(frame, Budget(30))
    return frame


def _error(pairs: list[tuple[float, float]]) -> dict[str, Any]:
    if not pairs:
        return {"mm": None, "held": None, "count": 0}
    e, sigma = np.array(pairs).T
    return {
        "mm": {"median": float(np.median(e)), "p95": float(np.percentile(e, 95))},
        "sigma_mm": float(np.median(sigma)),
        "held": float((e < 1.96 * sigma).mean()),
        "count": len(pairs),
    }
