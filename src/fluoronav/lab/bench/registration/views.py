"""Two views of one patient: registered together, and one after the other as in the stream."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fluoronav.geometry import ArmJoints, Camera, moved_about, transform_points
from fluoronav.imaging.registration.model import RegistrationModel
from fluoronav.imaging.registration.offline import OfflineRegistration, XrayView
from fluoronav.lab.bench.poses import PoseStages, followed
from fluoronav.lab.bench.subjects import Subject, errors_mm, starts
from fluoronav.stream.frame import FrameRecord, RegistrationResult

Float = NDArray[np.float64]

_APART_DEG = 30  # chosen: from here on two views fix the depth
_MOST_PAIRS = 10  # per subject; chosen: for the bench's time


def two_views(subject: Subject, model: RegistrationModel, frames: list[FrameRecord], photons: float) -> list[float]:
    """Mean error in space of pairs of views at least 30 degrees apart, registered together from 2 mm and 2 degrees."""
    points, errors = subject.points_ct(), []
    for i in range(len(frames) - 1):
        j = next((j for j in range(i + 1, len(frames)) if _apart_deg(subject, i, j) >= _APART_DEG), None)
        if j is None or len(errors) >= _MOST_PAIRS:
            continue
        views = []
        for k in (i, j):
            T, anatomy_mask = subject.T_camera_ct[k], frames[k].anatomy_mask
            assert anatomy_mask is not None
            counts = subject.counts(k, photons, 1).astype(np.float32)
            counts -= np.percentile(counts, 0.5)  # the dark level, as it is outside the aperture
            camera = replace(subject.camera, T_camera_world=T)
            views.append(XrayView(camera, -np.log(np.maximum(counts, 1)), anatomy_mask))
        registration = OfflineRegistration(model.tissue.grid, model.bones.grid, views, segmented=False)
        start = next(starts(subject.T_camera_ct[i], registration.centre_ct, 2, 2, 2, i))
        found = registration.refine_near(start)
        errors.append(errors_mm(found.views[0].T_camera_ct, subject.T_camera_ct[i], points)[0])
    return errors


@dataclass(frozen=True, slots=True)
class StatedPose(ArmJoints):
    """Joints that state the camera's pose in the room directly."""

    T: Float | None = None

    def T_camera_room(self, source_to_isocentre_mm: float) -> Float:
        assert self.T is not None
        return self.T


def fused(subject: Subject, stages: PoseStages, frames: list[FrameRecord], seed: int) -> list[dict[str, Any]]:
    """Every view after another one at least 30 degrees away, fused as in the stream, with joints that err."""
    points, target, stage = subject.points_ct(), subject.case.target_ct, stages.registration
    # The arm turns about the target.
    T_ct_room = np.eye(4)
    T_ct_room[:3, 3] = target
    rng = np.random.default_rng(seed)
    rows = []

    def pose(k: int, joints: ArmJoints | None) -> RegistrationResult | None:
        frames[k].joints = joints
        return followed(stage, frames[k], next(starts(subject.T_camera_ct[k], target, 1, 1, 1, k)))[0]

    pairs = [(i, j) for i in range(len(frames)) for j in range(len(frames)) if _apart_deg(subject, i, j) >= _APART_DEG]
    for i, j in tqdm(pairs, f"{subject.name}: fused views", unit="pair"):
        stage.restart()
        alone = pose(i, None)
        for k in (j, i):
            T_stated = stated(subject.T_camera_ct[k] @ T_ct_room, subject.camera, rng)
            together = pose(k, StatedPose(0, 0, T=T_stated))
        if alone is None or together is None:
            continue
        truth = subject.T_camera_ct[i]
        off = transform_points(together.T_camera_ct, target) - transform_points(truth, target)
        rows.append(
            {
                "alone_mm": errors_mm(alone.T_camera_ct, truth, points)[0],
                "mtre_mm": errors_mm(together.T_camera_ct, truth, points)[0],
                "alone_bound_mm": alone.tre_mm,
                "bound_mm": together.tre_mm,
                "held": bool(np.linalg.norm(off) < together.tre_mm),
            }
        )
    for frame in frames:
        frame.joints = None
    return rows


def stated(T_camera_room: Float, camera: Camera, rng: np.random.Generator) -> Float:
    """A view's pose by joints that err as much as the camera file allows."""
    twist = np.concatenate([rng.normal(0, np.deg2rad(camera.arm_deg), 3), rng.normal(0, camera.arm_mm, 3)])
    return moved_about(T_camera_room[:3, 3], twist / np.sqrt(2)) @ T_camera_room


def _apart_deg(subject: Subject, i: int, j: int) -> float:
    """Angle between the rays of two views."""
    a, b = (subject.T_camera_ct[k][2, :3] for k in (i, j))
    return float(np.rad2deg(np.arccos(np.clip(a @ b, -1, 1))))
