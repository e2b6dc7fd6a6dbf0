"""One pose per bone: exposures of a patient one of whose vertebrae has moved since the CT."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fluoronav.case import Bones, load_case
from fluoronav.geometry import Camera, transform_points
from fluoronav.lab.bench.subjects import errors_mm, starts, view_poses
from fluoronav.lab.simulation.flat_panel import FlatPanel, ImageChain
from fluoronav.lab.simulation.moved_bone import with_moved_bone
from fluoronav.lab.simulation.sequence import Anatomy
from fluoronav.paths import shipped
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.preprocessing.stage import AttenuationStage
from fluoronav.stream.registration.stage import RegistrationStage

Float = NDArray[np.float64]

_BONES = ("vertebrae_T7", "vertebrae_T8", "vertebrae_T9")
_MOVED_DEG, _MOVED_MM = 2.5, 2.5  # at most; chosen: from supine to prone
_FRAMES = 10  # of an exposure; chosen: the poses have settled


def bench_bones(count: int, seed: int) -> list[dict[str, Any]]:
    """Moves one vertebra of three by up to 2.5 degrees and 2.5 mm, and registers all three.

    Parameters
    ----------
    count : int
        Exposures.
    seed : int

    Returns
    -------
    list of dict
        Per exposure and bone: whether it has moved, the errors across the ray of the common pose and of its own, and
        whether the bound holds.
    """
    case, camera = load_case("embedded"), Camera.load(shipped("calibration/demo-carm.yaml"))
    labels = {s.name: s.label for s in case.structures}
    case = replace(case, objects=tuple(Bones(n, (labels[n],), None) for n in _BONES))
    chain = ImageChain(FlatPanel(), camera.rows, camera.cols, 3)
    attenuation, registration = AttenuationStage(), RegistrationStage()
    attenuation.prepare(case, camera)
    registration.prepare(case, camera)
    points = {name: bone_points_ct(case, name) for name in _BONES}
    rng, rows = np.random.default_rng(seed), []
    for k, truth in enumerate(tqdm(view_poses(case, count, seed), "bones: exposures", unit="frame")):
        moved = _BONES[k % len(_BONES)]
        w, v = rng.standard_normal(3), rng.standard_normal(3)
        size = rng.uniform(0.3, 1)
        twist = size * np.concatenate(
            [np.deg2rad(_MOVED_DEG) * w / np.linalg.norm(w), _MOVED_MM * v / np.linalg.norm(v)]
        )
        patient, T_ct_bone = with_moved_bone(case, moved, twist)
        anatomy = Anatomy(patient, camera.scaled(0.5))
        beam = anatomy.transmission(*anatomy.paths(truth))
        beam = cv2.resize(beam, (camera.cols, camera.rows), interpolation=cv2.INTER_CUBIC)
        counts = chain.counts(np.asarray(beam, dtype=np.float32), seed + k)
        frame = FrameRecord.of_counts(counts)
        attenuation.process(frame, Budget(1e6))
        attenuation.idle(frame, Budget(1e6))
        registration.restart()
        registration.adopt(next(starts(truth, case.target_ct, 1, 1, 1, seed + k)), frame)
        for _ in range(_FRAMES):
            registration.process(frame, Budget(1e6))
            registration.idle(frame, Budget(1e6))
            registration.wait_for_background()
        own = {o.name: o.registration for o in frame.objects}
        for name in _BONES:
            T = truth @ T_ct_bone if name == moved else truth
            row: dict[str, Any] = {"bone": name, "moved": name == moved, "found": name in own}
            if frame.registration is not None:
                row["common_mm"] = errors_mm(frame.registration.T_camera_ct, T, points[name])[1]
            if name in own:
                row["own_mm"] = errors_mm(own[name].T_camera_ct, T, points[name])[1]
                centre = points[name].mean(0)
                off = transform_points(own[name].T_camera_ct, centre) - transform_points(T, centre)
                row["held_across"] = bool(np.linalg.norm(off[:2]) < own[name].tre_image_mm)
            rows.append(row)
    registration.close()
    return rows


def bone_points_ct(case, structure: str) -> Float:
    """Points of one structure, LPS mm, shape (n, 3)."""
    label = next(s.label for s in case.structures if s.name == structure)
    at = np.argwhere(case.labels.voxels == label)[::97, ::-1].astype(float)
    return np.array([case.labels.image.TransformContinuousIndexToPhysicalPoint(p.tolist()) for p in at])


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians and fractions, for the moved bones and for their neighbours."""
    out: dict[str, Any] = {}
    for kind, of_kind in (("moved", True), ("still", False)):
        those = [r for r in rows if r["moved"] == of_kind and "own_mm" in r and "common_mm" in r]
        if those:
            out[kind] = {
                "bones": len(those),
                "common_mm": float(np.median([r["common_mm"] for r in those])),
                "own_mm": float(np.median([r["own_mm"] for r in those])),
                "own_p95_mm": float(np.percentile([r["own_mm"] for r in those], 95)),
                "held_across": float(np.mean([r["held_across"] for r in those])),
            }
    out["found"] = float(np.mean([r["found"] for r in rows]))
    return out
