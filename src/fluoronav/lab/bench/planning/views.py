"""`plan views` against real registrations of the embedded case: predicted, stated and measured errors at some views."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.case import Case, load_case
from fluoronav.geometry import Camera, CArmPose, inverse, transform_points
from fluoronav.lab.bench.poses import PoseStages, followed, kept
from fluoronav.lab.bench.registration.views import StatedPose, stated
from fluoronav.lab.bench.subjects import Subject, rendered, starts
from fluoronav.paths import shipped
from fluoronav.planning.plan.schema import Plan, Screw
from fluoronav.planning.plan.source import whole_numbers
from fluoronav.planning.screws.catalogue import read_catalogue
from fluoronav.planning.screws.proposals import propose, with_proposals
from fluoronav.planning.screws.spine import spine_of_names
from fluoronav.planning.screws.vertebra import Vertebra
from fluoronav.planning.views.choice import NORMAL_95, towards_canal_ct
from fluoronav.planning.views.prediction import Covariances, ViewPredictor, sigma_mm, together

Float = NDArray[np.float64]

_LEVEL = "T8"
# Orbital and angular angles; chosen: AP, obliques on both sides, tilted ones, lateral.
_VIEWS = ((0, 0), (25, 0), (-25, 10), (-40, 0), (60, 0), (0, -20), (-10, 30), (90, 0))
_PAIRS = ((0, 4), (0, 7), (3, 4))  # of the views
_EXPOSURES = 12  # at each view; chosen: a root mean square to 20 %
_PHOTONS = 80.0  # that of `bench registration`
# Around each view: degrees of each angle and of the swivel, mm of the isocentre and of depth; chosen: placed by eye.
_AROUND = (1.0, 5.0, 10.0, 20.0)
_SEED = 71


def measure(data: Path, say: Callable[[str], object]) -> dict[str, Any]:
    """Registers exposures at some views, and compares with what was predicted there; needs no data."""
    del data
    case, camera = load_case("embedded"), Camera.load(shipped("calibration/demo-carm.yaml"))
    screws, vertebra = _screws(case)
    poses = _poses(case)
    say(f"views: {len(poses)} exposures")
    subject = Subject("embedded", case, camera, poses, rendered(case, camera, poses, "views"))
    stages = PoseStages(subject)
    frames = [kept(stages.frame(subject.counts(k, _PHOTONS, _SEED))) for k in range(len(poses))]
    say("views: registrations")
    predictor = ViewPredictor(case, camera, case.target_ct)
    of_views = [_at_view(v, subject, stages, frames, predictor, screws, vertebra) for v in range(len(_VIEWS))]
    say("views: pairs")
    rng = np.random.default_rng(_SEED)
    of_pairs = [_at_pair(p, subject, stages, frames, predictor, screws, vertebra, rng) for p in _PAIRS]
    return {"views": of_views, "pairs": of_pairs, "all": _together(of_views), "all_pairs": _together(of_pairs)}


def _screws(case: Case) -> tuple[list[Screw], Vertebra]:
    assert case.labels is not None
    spine = spine_of_names(whole_numbers(case.labels), {s.label: s.name for s in case.structures})
    found = propose(spine, [_LEVEL], read_catalogue())
    plan, _ = with_proposals(Plan(case="bench", revision=1, ct_hash="0" * 64, made=""), found.screws)
    return [i for i in plan.items if isinstance(i, Screw)], found.vertebrae[_LEVEL]


def _poses(case: Case) -> Float:
    rng = np.random.default_rng(_SEED)
    turn, swivel, shift, depth = _AROUND
    poses = []
    for orbital, angular in _VIEWS:
        for _ in range(_EXPOSURES):
            u = rng.uniform(-1, 1, 7)
            isocentre = np.asarray(case.prior.isocentre_ct) + shift * u[:3]
            pose = CArmPose(
                (isocentre[0], isocentre[1], isocentre[2]), case.prior.source_to_isocentre_mm + depth * u[3],
                orbital + turn * u[4], angular + turn * u[5], swivel * u[6],
            )  # fmt: skip
            poses.append(pose.T_camera_ct())
    return np.array(poses)


def _of_view(v: int) -> range:
    return range(v * _EXPOSURES, (v + 1) * _EXPOSURES)


def _sigmas_mm(
    covariances: Covariances, centre_ct: Float, screws: list[Screw], vertebra: Vertebra
) -> list[list[float]]:
    """Standard deviations of each tip towards the canal, mm: expected and stated."""
    return [
        [sigma_mm(C, centre_ct, np.array(s.tip_ct), towards_canal_ct(s, vertebra)) for s in screws]
        for C in (covariances.expected, covariances.stated)
    ]


def _tip_errors_mm(T_camera_ct: Float, truth: Float, screws: list[Screw], vertebra: Vertebra) -> list[float]:
    """Signed error of each screw's tip towards the canal, mm: how far the display would show it beside its place."""
    moved = inverse(truth) @ T_camera_ct
    return [
        float((transform_points(moved, s.tip_ct) - np.asarray(s.tip_ct)) @ towards_canal_ct(s, vertebra))
        for s in screws
    ]


def _at_view(
    v: int, subject: Subject, stages: PoseStages, frames: list, predictor: ViewPredictor, screws: list[Screw],
    vertebra: Vertebra,
) -> dict[str, Any]:  # fmt: skip
    target = subject.case.target_ct
    ratios, predicted, measured, lost = [], [], [], 0
    for k in _of_view(v):
        truth = subject.T_camera_ct[k]
        stages.registration.restart()
        found, _, _ = followed(stages.registration, frames[k], next(starts(truth, target, 1, 1, 1, k)))
        if found is None:
            lost += 1
            continue
        view = predictor.at_pose(truth)
        assert view is not None
        of_view = np.sqrt(np.diag(view.stated))
        of_view[:3] = np.rad2deg(of_view[:3])
        ratios.append(of_view / found.sigma)
        predicted.append(_sigmas_mm(view.both, target, screws, vertebra))
        measured.append(_tip_errors_mm(found.T_camera_ct, truth, screws, vertebra))
    return {"view": _VIEWS[v], "lost": lost, **_row(predicted, measured), **_stated_ratios(ratios)}


def _stated_ratios(ratios: list[Float]) -> dict[str, Any]:
    """Predicted over really stated standard deviation, medians: of the rotation, across the ray, and along it."""
    if not ratios:
        return {"of_stated": None}
    r = np.median(ratios, axis=0)
    return {
        "of_stated": {
            "rotation": float(np.exp(np.log(r[:3]).mean())),
            "across": float(np.sqrt(r[3] * r[4])),
            "along": float(r[5]),
        }
    }  # fmt: skip


def _row(predicted: list, measured: list) -> dict[str, Any]:
    if not predicted:
        return {"predicted_mm": None, "bound_mm": None, "measured_mm": None, "held": None, "errors": 0, "errors_mm": []}
    errors = np.array(measured)
    expected, bounds = NORMAL_95 * np.moveaxis(np.array(predicted), 1, 0)
    return {
        "predicted_mm": float(np.sqrt((expected**2).mean())),
        "bound_mm": float(np.sqrt((bounds**2).mean())),
        "measured_mm": NORMAL_95 * float(np.sqrt((errors**2).mean())),
        "held": float((np.abs(errors) < bounds).mean()),
        "errors": errors.size,
        "errors_mm": errors.ravel().tolist(),
    }


def _at_pair(
    pair: tuple[int, int], subject: Subject, stages: PoseStages, frames: list, predictor: ViewPredictor,
    screws: list[Screw], vertebra: Vertebra, rng: np.random.Generator,
) -> dict[str, Any]:  # fmt: skip
    """The first view after the second, as in the stream, with joints that err as the camera file says."""
    target, stage, camera = subject.case.target_ct, stages.registration, subject.camera
    T_ct_room = np.eye(4)
    T_ct_room[:3, 3] = target
    predicted, measured, lost = [], [], 0
    for k, j in zip(_of_view(pair[0]), _of_view(pair[1]), strict=True):
        stage.restart()
        found = None
        for n in (j, k):
            truth = subject.T_camera_ct[n]
            frames[n].joints = StatedPose(0, 0, T=stated(truth @ T_ct_room, camera, rng))
            found, _, _ = followed(stage, frames[n], next(starts(truth, target, 1, 1, 1, n)))
            frames[n].joints = None
        if found is None:
            lost += 1
            continue
        first, second = (predictor.at_pose(subject.T_camera_ct[n]) for n in (k, j))
        assert first is not None
        assert second is not None
        both = together(first, second, camera.arm_deg, camera.arm_mm)
        predicted.append(_sigmas_mm(both, target, screws, vertebra))
        measured.append(_tip_errors_mm(found.T_camera_ct, subject.T_camera_ct[k], screws, vertebra))
    return {"views": [_VIEWS[v] for v in pair], "lost": lost, **_row(predicted, measured)}


def _together(rows: list[dict[str, Any]]) -> dict[str, Any]:
    good = [r for r in rows if r["errors"]]
    n = np.array([r["errors"] for r in good])
    predicted, bound, measured = (
        float(np.sqrt(np.average([r[key] ** 2 for r in good], weights=n)))
        for key in ("predicted_mm", "bound_mm", "measured_mm")
    )
    return {
        "predicted_mm": predicted, "bound_mm": bound, "measured_mm": measured, "ratio": predicted / measured,
        "held": float(np.average([r["held"] for r in good], weights=n)), "errors": int(n.sum()),
    }  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """What was measured, for people."""
    lines = [
        f"views of the embedded case, tips of two screws of {_LEVEL}, towards the spinal canal, 95 %",
        f"{'orbital, angular':24}{'predicted':>10}{'measured':>11}{'bound':>10}{'held':>7}   "
        "predicted / stated sigma: rotation, across, along",
    ]
    for r in result["views"]:
        of = r["of_stated"]
        ratios = f"{of['rotation']:.2f}, {of['across']:.2f}, {of['along']:.2f}" if of else "none"
        lines.append(f"{_angles([r['view']]):24}{_figures(r)}   {ratios}")
    lines += [f"{_angles(r['views']):24}{_figures(r)}" for r in result["pairs"]]
    for key, name in (("all", "all views"), ("all_pairs", "all pairs")):
        a = result[key]
        lines.append(f"{name:24}{_figures(a)}   predicted over measured {a['ratio']:.2f} ({a['errors']} errors)")
    return "\n".join(lines)


def _angles(views: list) -> str:
    return " and ".join(f"{o:g}, {a:g}" for o, a in views)


def _figures(r: dict[str, Any]) -> str:
    if r["predicted_mm"] is None:
        return f"{'lost':>10}"
    return f"{r['predicted_mm']:7.2f} mm{r['measured_mm']:8.2f} mm{r['bound_mm']:7.2f} mm{r['held']:7.0%}"
