"""Search and tracking in exposures of a subject, for the registration's benches."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fluoronav.case import Spread
from fluoronav.geometry import transform_points
from fluoronav.imaging.registration.model import RegistrationModel
from fluoronav.imaging.registration.search import InitialSearch
from fluoronav.lab.bench.subjects import Subject, errors_mm, starts
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.preprocessing.stage import AttenuationStage
from fluoronav.stream.registration.stage import RegistrationStage

Float = NDArray[np.float64]

# A jump of up to 5 mm and 3 degrees: about every axis (degrees), in the plane and in depth (mm); chosen: the patient
# moves between two frames.
_JUMP = (1.7, 2.9, 2.9)
_TRACKED_FRAMES = 6  # after it; chosen: the stage has settled


class PoseStages:
    """The two stages of the pipeline that compute a pose, called directly."""

    def __init__(self, subject: Subject) -> None:
        self.attenuation, self.registration = AttenuationStage(), RegistrationStage()
        self.attenuation.prepare(subject.case, subject.camera)
        self.registration.prepare(subject.case, subject.camera)

    def frame(self, counts: NDArray[np.uint16]) -> FrameRecord:
        """A frame with its pyramid."""
        frame = FrameRecord.of_counts(counts)
        self.attenuation.process(frame, Budget(1e6))
        self.attenuation.idle(frame, Budget(1e6))
        return frame


def kept(frame: FrameRecord) -> FrameRecord:
    """The frame with its own copy of what the stage overwrites with the next frame."""
    frame.pyramid = {side: image.copy() for side, image in frame.pyramid.items()}
    assert frame.field_mask is not None and frame.anatomy_mask is not None
    frame.field_mask, frame.anatomy_mask = frame.field_mask.copy(), frame.anatomy_mask.copy()
    return frame


def searched(
    subject: Subject, model: RegistrationModel, frames: list[FrameRecord], kind: str, start: Callable[[int], Float]
) -> list[dict[str, float]]:
    """One search per frame, around ``start(index)``: errors, agreement, time, and CPU seconds on all threads.

    The views around a start are rendered in the search. In a stream, those around the case's prior are there before.
    """
    points, centre = subject.points_ct(), subject.points_ct().mean(0)
    rows = []
    for i, frame in enumerate(tqdm(frames, f"{subject.name}: {kind}", unit="start")):
        assert frame.anatomy_mask is not None
        truth, T_start = subject.T_camera_ct[i], start(i)
        search = InitialSearch(model, subject.camera, T_start, Spread(), centre)
        begin, cpu_before = time.perf_counter(), time.process_time()
        found = search.search(frame.pyramid, frame.anatomy_mask)
        ms, cpu_s = (time.perf_counter() - begin) * 1000, time.process_time() - cpu_before
        search.close()
        assert found is not None
        space, across, _ = errors_mm(found.estimate.T_camera_ct, truth, points)
        rows.append(
            {
                "start_mm": errors_mm(T_start, truth, points)[0],
                "mtre_mm": space,
                "across_mm": across,
                "ms": ms,
                "cpu_s": cpu_s,
                "agreement": found.agreement,
            }
        )
    return rows


def tracked(subject: Subject, stages: PoseStages, frames: list[FrameRecord], dose: float) -> dict[str, Any]:
    """Tracking over a few frames after a jump: errors, stated bounds and time."""
    points, stage, target = subject.points_ct(), stages.registration, subject.case.target_ct
    rows = []
    for i, frame in enumerate(tqdm(frames, f"{subject.name}: tracking at {dose:g} photons", unit="pose")):
        truth = subject.T_camera_ct[i]
        result, status, ms = followed(stage, frame, next(starts(truth, target, *_JUMP, 900 + i)))
        if result is None:
            rows.append({"status": status, "ms": ms})
            continue
        space, across, along = errors_mm(result.T_camera_ct, truth, points)
        at = transform_points(truth, target)
        off, ray = transform_points(result.T_camera_ct, target) - at, at / np.linalg.norm(at)
        depth = float(off @ ray)
        rows.append(
            {
                "status": status, "mtre_mm": space, "across_mm": across, "along_mm": along, "ms": ms,
                "held_across": bool(np.linalg.norm(off - depth * ray) < result.tre_image_mm),
                "held_depth": bool(abs(depth) < 1.96 * result.sigma[5]),
                "claimed_across_mm": result.tre_image_mm, "sigma_depth_mm": float(result.sigma[5]),
            }
        )  # fmt: skip
    return {
        "photons": dose,
        "poses": [r for r in rows if "mtre_mm" in r],
        "lost": sum("mtre_mm" not in r for r in rows),
    }


def followed(stage: RegistrationStage, frame: FrameRecord, T: Float):
    """Registration, status and median time (ms) of the stage after a few frames from a start."""
    stage.adopt(T, frame)
    times = []
    for _ in range(_TRACKED_FRAMES):
        frame.registration, frame.status = None, "searching"
        begin = time.perf_counter()
        stage.process(frame, Budget(1e6))
        times.append((time.perf_counter() - begin) * 1000)
        stage.idle(frame, Budget(1e6))
        stage.wait_for_background()
    return frame.registration, frame.status, float(np.median(times))
