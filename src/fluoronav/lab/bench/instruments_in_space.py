"""What becomes of detections: tips in space by method, and a tracker's drift."""

from __future__ import annotations

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

_TWO_VIEWS_DEG = (30.0, 60.0)
_ISOCENTRE_MM = np.array([0.0, 0.0, 620.0])
_DRIFT_MM, _STEADY_FRAMES, _DRIFT_FRAMES = 2.0, 20, 60


def depths(maker: SceneMaker, count: int, photons: float, seed: int) -> dict[str, Any]:
    """Tips in space from two views 30 to 60 degrees apart, and from the width of a shadow in one; poses known.

    Returns
    -------
    dict
        ``two_views`` and ``width``: ``mm`` (median and 95 % of the error), ``held`` (share within 1.96 claimed sigmas
        of the worst direction), ``count``.
    """
    stage, attenuation = DetectionStage(), AttenuationStage()
    stage.prepare(None, maker.camera)
    camera, rng = maker.camera, np.random.default_rng(seed)
    two: list[tuple[float, float]] = []
    one: list[tuple[float, float]] = []

    def looked(counts: NDArray[np.uint16], p: Placed) -> Detection | None:
        frame = FrameRecord.of_counts(counts)
        attenuation.prepare(None, camera)
        attenuation.process(frame, Budget(1e6))
        found = stage.find(frame)
        match = nearest(found, p.axis_px[0], p.tip_direction)
        return None if match is None else found[match[0]]

    for _ in tqdm(range(count), "tips from two views", unit="pair"):
        turn = np.deg2rad(rng.choice([-1, 1]) * rng.uniform(*_TWO_VIEWS_DEG))
        T_second_first = moved_about(_ISOCENTRE_MM, [0, turn, 0, 0, 0, 0])
        pair = maker.pair(rng, T_second_first, photons)
        found = [looked(counts, p) for counts, p in pair]
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
            if metal.kind in ("k-wire", "needle") and d.width_px > 2:
                placed = tip_from_width(camera, s, d.width_px, diameter)
                one.append((float(np.linalg.norm(placed.tip_ct - truth)), placed.sigma_mm))
        if all(x is not None for x in observations):
            space = triangulate(camera, [x for x in observations if x is not None])
            if space is not None:
                two.append((float(np.linalg.norm(space.tip_ct - truth)), space.sigma_mm))
    return {"two_views": _error(two), "width": _error(one)}


def drift(runs: int, seed: int) -> dict[str, Any]:
    """A tracker that is 2 mm off all at once, before pictures that show the tool to 0.7 px.

    Returns
    -------
    dict
        ``noticed_frames`` (median, highest), ``corrected_mm`` (median and 95 % across the ray, tracker alone),
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
        shift = T_camera_ct[:3, :3].T @ np.append(_DRIFT_MM * across / np.linalg.norm(across), 0.0)
        said = None
        tool = exp_se3([0.9, 0.1, 0, *(np.array(case.target_ct) + rng.uniform(-25, 25, 3))])
        for k in range(_STEADY_FRAMES + _DRIFT_FRAMES):
            off = shift if k >= _STEADY_FRAMES else np.zeros(3)
            frame = _tracked_frame(stage, case, camera, T_camera_ct, tool, off, k, rng, True)
            if said is None and k >= _STEADY_FRAMES and frame.drift is not None and frame.drift.size_mm > 1.0:
                said = k - _STEADY_FRAMES
        if said is not None:
            noticed.append(said)
        # The picture is gone: what is left is the tracker, corrected.
        (last,) = _tracked_frame(
            stage, case, camera, T_camera_ct, tool, shift, _STEADY_FRAMES + _DRIFT_FRAMES, rng, False
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
    """One frame of a tool that tracker and, where `visible`, picture see."""
    t = k * 33_000_000
    T_tracker_ct = exp_se3([0.3, 0.2, 0.1, 100, -200, 1500])
    field_mask = T_ct_tool.copy()
    field_mask[:3, 3] += off_ct
    marker = np.array(case.file.tracker.T_ct_reference)
    for name, T in ((case.file.tracker.reference, marker), (case.tools[0].id, field_mask)):
        T_tracker = T_tracker_ct @ T
        T_tracker[:3, 3] += rng.normal(0, 0.1, 3)
        stage.observe(ToolSample(name, t, T_tracker, 0.2))
    frame = FrameRecord.of_counts(np.zeros((2, 2), np.uint16), seq=k, t_acq=t)
    frame.status = "tracking"
    frame.registration = RegistrationResult(T_camera_ct, 0.9, np.full(6, 0.1), 1.5, 0.4, 0)
    if visible:
        ends = transform_points(T_ct_tool, np.array([[0, 0, 0], [0, 0, -150.0]]))
        tip, tail = camera.project(transform_points(T_camera_ct, ends))
        axis = (tip - tail) / np.linalg.norm(tip - tail)
        d = Detection("image-1", "k-wire", 0.9, tip + rng.normal(0, 0.7, 2), tail, axis, 7.0, 0.7, 0.1, 0.0, 0)
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
