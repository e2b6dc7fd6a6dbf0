"""The registration measured as by van de Kraats et al. (IEEE TMI 24:1177, 2005): starts sorted by initial error.

Poses and exposures differ from those on which the thresholds and the covariance's scale were fitted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fluoronav.case import Spread
from fluoronav.geometry import inverse, moved_about, rotation_distance_deg, transform_points
from fluoronav.imaging.registration.confidence import TRACKING_AGREEMENT, TRACKING_SCORE
from fluoronav.imaging.registration.gauss_newton import SETTINGS as GAUSS_NEWTON
from fluoronav.imaging.registration.model import RegistrationModel
from fluoronav.imaging.registration.search import Hypothesis, InitialSearch
from fluoronav.lab import machine
from fluoronav.lab.bench.bones import bench_bones, summary
from fluoronav.lab.bench.narrow import bench_narrow
from fluoronav.lab.bench.poses import PoseStages, kept, searched, tracked
from fluoronav.lab.bench.registration.report import BINS_MM, together
from fluoronav.lab.bench.registration.views import fused, two_views
from fluoronav.lab.bench.registration.wrist import bench_wrist
from fluoronav.lab.bench.subjects import SUBJECTS, Subject, errors_mm, load_subject, starts
from fluoronav.stream.frame import FrameRecord

Float = NDArray[np.float64]

POSE_SEED = 29  # the calibration had others
_DOSES = (80.0, 20.0)  # mean detected photons per pixel; chosen: a usual dose and a quarter of it
_NARROWED = "embedded"  # the subject that is also exposed in narrower fields


@dataclass(frozen=True)
class Judging:
    """How poses are made that the confidence has to accept or reject; all chosen."""

    # Degrees, mm in the plane and mm in depth: from starts that end right to starts that hardly can.
    starts: tuple[tuple[float, float, float], ...] = (
        ((2, 2, 2), (8, 8, 15), (15, 25, 30), (25, 40, 40), (5, 25, 5), (5, 25, 5)) * 2
    )  # fmt: skip
    rounds: int = 29  # with new patches: a second of frames, after which the stage has not settled, either
    rests_mm: float = 0.3  # step below which a pose rests


JUDGING = Judging()


def bench_registration(
    data: Path, names: tuple[str, ...], poses: int, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Measures search, tracking and confidence on simulated exposures, and on the real wrist.

    Parameters
    ----------
    data : Path
        Holds ``chest/`` and ``wrist/``.
    names : tuple of str
        Of :data:`fluoronav.lab.bench.subjects.SUBJECTS`, and ``wrist``.
    poses : int
        Exposures of each subject.
    """
    subjects = [_subject(load_subject(n, poses, data, POSE_SEED), say) for n in SUBJECTS if n in names]
    result: dict[str, Any] = {"machine": machine.description(), "subjects": subjects}
    if subjects:
        result["all"] = together(subjects)
    if "embedded" in names:
        rows = bench_bones(2 * poses, POSE_SEED)
        result["bones"] = {"all": rows, **summary(rows)}
    if "wrist" in names:
        result["wrist"] = bench_wrist(data / "wrist", poses, POSE_SEED, say)
    return result


def _subject(subject: Subject, say: Callable[[str], None]) -> dict[str, Any]:
    say(f"{subject.name}: building the model")
    stages, model = PoseStages(subject), RegistrationModel.of_case(subject.case)
    frames = {
        dose: [kept(stages.frame(subject.counts(i, dose, 1))) for i in range(len(subject.beams))] for dose in _DOSES
    }
    points, truths = subject.points_ct(), subject.T_camera_ct
    centre = points.mean(0)

    def sorted_start(i: int) -> Float:
        wanted = BINS_MM[-1] * (i + 0.5) / len(truths)
        return _with_error(truths[i], points, centre, wanted, i)

    def wide_start(i: int) -> Float:
        return next(starts(truths[i], centre, 30, 100, 60, 500 + i))

    try:
        return {
            "name": subject.name,
            "search": searched(subject, model, frames[_DOSES[0]], "search", sorted_start),
            "wide": searched(subject, model, frames[_DOSES[0]], "wide search", wide_start),
            "tracking": [tracked(subject, stages, frames[dose], dose) for dose in _DOSES],
            "judged": [j for dose in _DOSES for j in _judged(subject, model, frames[dose], dose)],
            "two_views": two_views(subject, model, frames[_DOSES[0]], _DOSES[0]),
            "fused": fused(subject, stages, frames[_DOSES[0]], POSE_SEED),
            "narrow": bench_narrow(subject, stages, model, wide_start) if subject.name == _NARROWED else [],
        }
    finally:
        stages.registration.close()


def _with_error(truth: Float, points: Float, centre: Float, wanted_mm: float, seed: int) -> Float:
    """A start with a given mean target error, half of it by rotation, up to 25 degrees."""
    rng = np.random.default_rng(seed)
    turn, shift = rng.standard_normal(3), rng.standard_normal(3)
    turn *= np.deg2rad(min(25.0, wanted_mm / 2)) / np.linalg.norm(turn)
    shift /= np.linalg.norm(shift)
    low, high = 0.0, 2.0 * wanted_mm + 1
    T = truth
    for _ in range(30):
        middle = (low + high) / 2
        T = inverse(moved_about(centre, np.concatenate([turn, middle * shift])) @ inverse(truth))
        low, high = (low, middle) if errors_mm(T, truth, points)[0] > wanted_mm else (middle, high)
    return T


def _judged(subject: Subject, model: RegistrationModel, frames: list[FrameRecord], dose: float) -> list[dict[str, Any]]:
    """Poses to which Gauss-Newton converges from near and far starts, and whether each is called tracking."""
    points, centre = subject.points_ct(), subject.points_ct().mean(0)
    search = InitialSearch(model, subject.camera, subject.T_camera_ct[0], Spread(), centre)
    rows = []
    for i, frame in enumerate(tqdm(frames, f"{subject.name}: acceptance at {dose:g} photons", unit="pose")):
        truth = subject.T_camera_ct[i]
        assert frame.anatomy_mask is not None
        for k, spread in enumerate(JUDGING.starts):
            T = next(starts(truth, centre, *spread, 7000 + 100 * i + k))
            found, moved = _rested(search, T, frame, centre)
            T = found.estimate.T_camera_ct
            sure = bool(
                moved < JUDGING.rests_mm
                and found.agreement >= TRACKING_AGREEMENT
                and found.estimate.score >= TRACKING_SCORE
            )
            rows.append(
                {
                    "across_mm": errors_mm(T, truth, points)[1],
                    "agreement": found.agreement,
                    "moved_mm": moved,
                    "tracking": sure,
                }
            )
    search.close()
    return rows


def _rested(search: InitialSearch, T: Float, frame: FrameRecord, centre_ct: Float) -> tuple[Hypothesis, float]:
    """Refines a pose with new patches until it rests, for at most `JUDGING.rounds`; returns it and its last step.

    The step is the largest of the in-plane, depth and rotation parts, mm in the plane, as in the stage.
    """
    assert frame.anatomy_mask is not None
    moved, found = np.inf, search.refined(T, frame.pyramid, frame.anatomy_mask)
    for _ in range(JUDGING.rounds):
        before = found.estimate.T_camera_ct
        found = search.refined(before, frame.pyramid, frame.anatomy_mask)
        now = found.estimate.T_camera_ct
        shift = transform_points(now, centre_ct) - transform_points(before, centre_ct)
        turn = np.deg2rad(rotation_distance_deg(now, before)) * GAUSS_NEWTON.rotation_radius_mm
        moved = max(float(np.linalg.norm(shift[:2])), abs(float(shift[2])) / GAUSS_NEWTON.depth_tolerance, turn)
        if moved < JUDGING.rests_mm:
            break
    return found, moved
