"""The registration measured after van de Kraats et al. (IEEE TMI 24:1177, 2005): starts sorted by their initial error.

Poses and exposures are others than those on which thresholds and the covariance's scale were set.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fluoronav.case import Spread, read_volume
from fluoronav.geometry import ArmJoints, Camera, inverse, moved_about, rotation_distance_deg, transform_points
from fluoronav.imaging.registration.confidence import TRACKING_AGREEMENT, TRACKING_SCORE
from fluoronav.imaging.registration.gauss_newton import DEPTH_TOLERANCE, RADIUS_MM
from fluoronav.imaging.registration.model import RegistrationModel
from fluoronav.imaging.registration.offline import OfflineRegistration, View
from fluoronav.imaging.registration.register import Request, register_files
from fluoronav.imaging.registration.search import Hypothesis, InitialSearch
from fluoronav.lab.bench.bones import bench_bones, summary
from fluoronav.lab.bench.narrow import bench_narrow
from fluoronav.lab.bench.poses import Rig, followed, kept, searched, tracked
from fluoronav.lab.bench.subjects import SUBJECTS, Subject, errors_mm, load_subject, starts
from fluoronav.stream.frame import FrameRecord, RegistrationResult

Float = NDArray[np.float64]

# The bench's own poses; the calibration had others.
POSE_SEED = 29
SUCCESS_MM, BINS_MM = 2.0, (10, 20, 30, 40, 50, 60, 70)
_DOSES = (80.0, 20.0)
_NARROWED = "embedded"  # the subject that is seen in narrower fields, too
# Starts of poses that are judged, from those that end right to those that hardly can.
_JUDGED_STARTS = ((2, 2, 2), (8, 8, 15), (15, 25, 30), (25, 40, 40), (5, 25, 5), (5, 25, 5)) * 2
# Each is followed as the stage would, round after round with new patches, until it rests; what still moves after a
# second of frames has no say.
_JUDGED_ROUNDS, _RESTS_MM = 29, 0.3


def bench_registration(
    data: Path, names: tuple[str, ...], poses: int, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Measures search, tracking and confidence on simulated exposures, and the real wrist where it is there.

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
    result: dict[str, Any] = {"subjects": subjects}
    if subjects:
        result["all"] = _together(subjects)
    if "embedded" in names:
        rows = bench_bones(2 * poses, POSE_SEED)
        result["bones"] = {"all": rows, **summary(rows)}
    if "wrist" in names:
        result["wrist"] = _wrist(data / "wrist", poses, say)
    return result


def _subject(subject: Subject, say: Callable[[str], None]) -> dict[str, Any]:
    say(f"{subject.name}: building the model")
    rig, model = Rig(subject), RegistrationModel.of_case(subject.case)
    frames = {dose: [kept(rig.frame(subject.counts(i, dose, 1))) for i in range(len(subject.beams))] for dose in _DOSES}
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
            "tracking": [tracked(subject, rig, frames[dose], dose) for dose in _DOSES],
            "judged": [j for dose in _DOSES for j in _judged(subject, model, frames[dose], dose)],
            "two_views": _two_views(subject, model, frames[_DOSES[0]]),
            "fused": _fused(subject, rig, frames[_DOSES[0]]),
            "narrow": bench_narrow(subject, rig, model, wide_start) if subject.name == _NARROWED else [],
        }
    finally:
        rig.registration.close()


def _with_error(truth: Float, points: Float, centre: Float, wanted_mm: float, seed: int) -> Float:
    """A start whose mean target error is what is wanted, half of it by rotation as far as 25 degrees go."""
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
    """Poses in which Gauss-Newton settles from near and far starts, and whether each would be called tracking."""
    points, centre = subject.points_ct(), subject.points_ct().mean(0)
    search = InitialSearch(model, subject.camera, subject.T_camera_ct[0], Spread(), centre)
    rows = []
    for i, frame in enumerate(tqdm(frames, f"{subject.name}: acceptance at {dose:g} photons", unit="pose")):
        truth = subject.T_camera_ct[i]
        assert frame.field_mask is not None
        for k, spread in enumerate(_JUDGED_STARTS):
            T = next(starts(truth, centre, *spread, 7000 + 100 * i + k))
            found, moved = _rested(search, T, frame, centre)
            T = found.estimate.T_camera_ct
            sure = bool(
                moved < _RESTS_MM and found.agreement >= TRACKING_AGREEMENT and found.estimate.score >= TRACKING_SCORE
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
    """A pose refined with new patches until it moves no more, or not to be waited for; and how it moved last.

    The move is judged as the stage does, in the plane, in depth and by its turn, and stated as mm in the plane.
    """
    assert frame.field_mask is not None
    moved, found = np.inf, search.refined(T, frame.pyramid, frame.field_mask)
    for _ in range(_JUDGED_ROUNDS):
        before = found.estimate.T_camera_ct
        found = search.refined(before, frame.pyramid, frame.field_mask)
        now = found.estimate.T_camera_ct
        shift = transform_points(now, centre_ct) - transform_points(before, centre_ct)
        turn = np.deg2rad(rotation_distance_deg(now, before)) * RADIUS_MM
        moved = max(float(np.linalg.norm(shift[:2])), abs(float(shift[2])) / DEPTH_TOLERANCE, turn)
        if moved < _RESTS_MM:
            break
    return found, moved


def _two_views(subject: Subject, model: RegistrationModel, frames: list[FrameRecord]) -> list[float]:
    """Mean error in space of pairs of views 30 degrees or more apart, solved together from 2 mm and 2 degrees."""
    points, errors = subject.points_ct(), []
    for i in range(len(frames) - 1):
        j = next((j for j in range(i + 1, len(frames)) if _apart_deg(subject, i, j) >= 30), None)
        if j is None or len(errors) >= 10:
            continue
        views = []
        for k in (i, j):
            T, field_mask = subject.T_camera_ct[k], frames[k].field_mask
            assert field_mask is not None
            counts = subject.counts(k, _DOSES[0], 1).astype(np.float32)
            counts -= np.percentile(counts, 0.5)  # the dark level, as it is outside the aperture
            camera = replace(subject.camera, T_camera_world=T)
            views.append(View(camera, -np.log(np.maximum(counts, 1)), field_mask))
        registration = OfflineRegistration(model.tissue.grid, model.bones.grid, views, segmented=False)
        start = next(starts(subject.T_camera_ct[i], registration.centre_ct, 2, 2, 2, i))
        found = registration.refine_near(start)
        errors.append(errors_mm(found.views[0].T_camera_ct, subject.T_camera_ct[i], points)[0])
    return errors


@dataclass(frozen=True, slots=True)
class _ArmAt(ArmJoints):
    """Joints that say a pose of the camera in the room outright."""

    T: Float | None = None

    def T_camera_room(self, source_to_isocentre_mm: float) -> Float:
        assert self.T is not None
        return self.T


def _fused(subject: Subject, rig: Rig, frames: list[FrameRecord]) -> list[dict[str, Any]]:
    """Every view after one other, 30 degrees or more away, as the stream fuses them: with joints that err."""
    points, target, stage = subject.points_ct(), subject.case.target_ct, rig.registration
    # The arm turns about the target; where it is, and where its joints say that it is.
    T_ct_room = np.eye(4)
    T_ct_room[:3, 3] = target
    rng = np.random.default_rng(POSE_SEED)
    rows = []

    def field_mask(k: int, joints: ArmJoints | None) -> RegistrationResult | None:
        frames[k].joints = joints
        return followed(stage, frames[k], next(starts(subject.T_camera_ct[k], target, 1, 1, 1, k)))[0]

    pairs = [(i, j) for i in range(len(frames)) for j in range(len(frames)) if _apart_deg(subject, i, j) >= 30]
    for i, j in tqdm(pairs, f"{subject.name}: fused views", unit="pair"):
        stage.restart()
        alone = field_mask(i, None)
        for k in (j, i):
            T_said = _bent(subject.T_camera_ct[k] @ T_ct_room, subject.camera, rng)
            fused = field_mask(k, _ArmAt(0, 0, T=T_said))
        if alone is None or fused is None:
            continue
        truth = subject.T_camera_ct[i]
        off = transform_points(fused.T_camera_ct, target) - transform_points(truth, target)
        rows.append(
            {
                "alone_mm": errors_mm(alone.T_camera_ct, truth, points)[0],
                "mtre_mm": errors_mm(fused.T_camera_ct, truth, points)[0],
                "alone_bound_mm": alone.tre_mm,
                "bound_mm": fused.tre_mm,
                "held": bool(np.linalg.norm(off) < fused.tre_mm),
            }
        )
    for frame in frames:
        frame.joints = None
    return rows


def _bent(T_camera_room: Float, camera: Camera, rng: np.random.Generator) -> Float:
    """What the joints say of a view, with the error that the camera file allows them."""
    twist = np.concatenate([rng.normal(0, np.deg2rad(camera.arm_deg), 3), rng.normal(0, camera.arm_mm, 3)])
    return moved_about(T_camera_room[:3, 3], twist / np.sqrt(2)) @ T_camera_room


def _apart_deg(subject: Subject, i: int, j: int) -> float:
    a, b = (subject.T_camera_ct[k][2, :3] for k in (i, j))
    return float(np.rad2deg(np.arccos(np.clip(a @ b, -1, 1))))


def _wrist(folder: Path, count: int, say: Callable[[str], None]) -> dict[str, Any]:
    """The real radius from random starts of up to 10 degrees and 10 mm, and from priors 25 degrees and 40 mm wrong."""
    reference = json.loads((folder / "reference.json").read_text())
    centre = np.mean(read_volume(folder / "radius.nrrd").corners_ct(), axis=0)
    points = centre + np.random.default_rng(0).uniform(-0.35, 0.35, (40, 3)) * 2 * centre
    out: dict[str, Any] = {"points": [], "auto": []}
    rng = np.random.default_rng(POSE_SEED)
    with tempfile.TemporaryDirectory() as temporary:
        init = Path(temporary) / "init.json"
        for time_point, cameras, auto, turn, shift, n in (
            *((t, c, False, 10, 10, count // 2) for t in reference for c in ((1, 2), (1,), (2,))),
            *((t, (1, 2), True, 25, 40, max(count // 8, 1)) for t in reference),
        ):
            say(f"wrist {time_point}, view {' and '.join(map(str, cameras))}{', auto' if auto else ''}")
            truth = np.array(reference[time_point][f"T_camera_ct_cam0{cameras[0]}"])
            for _ in range(n):
                w, v = rng.standard_normal(3), rng.standard_normal(3)
                share = 1.0 if auto else rng.uniform(0.3, 1)
                twist = np.concatenate(
                    [share * np.deg2rad(turn) * w / np.linalg.norm(w), share * shift * v / np.linalg.norm(v)]
                )
                T_start = inverse(moved_about(centre, twist) @ inverse(truth))
                init.write_text(json.dumps({"T_camera_ct": T_start.tolist()}))
                result = register_files(
                    Request(
                        folder / "radius.nrrd",
                        [folder / f"frame{time_point}_cam{c}.tif" for c in cameras],
                        [folder / f"cam{c}.yaml" for c in cameras],
                        init,
                        auto=auto,
                    )
                )
                view = result["views"][0]
                space, across, along = errors_mm(np.array(view["T_camera_ct"]), truth, points)
                out["auto" if auto else "points"].append(
                    {
                        "time_point": time_point, "cameras": list(cameras), "accepted": result["accepted"],
                        "mtre_mm": space, "across_mm": across, "along_mm": along, "ms": result["ms"],
                        "held_depth": bool(along < 1.96 * view["sigma"][5]),
                    }
                )  # fmt: skip
    return out


def _together(subjects: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures that are asked for, over all subjects."""
    searched = [r for s in subjects for r in s["search"]]
    wide = [r for s in subjects for r in s["wide"]]
    spine = [r for s in subjects if s["name"] != "ribs" for t in s["tracking"] if t["photons"] > 50 for r in t["poses"]]
    every = [r for s in subjects for t in s["tracking"] for r in t["poses"]]
    judged = [j for s in subjects for j in s["judged"]]
    wrong = [j for j in judged if not j["across_mm"] <= 3]
    good = [j for j in judged if j["across_mm"] < 1]
    pairs = [e for s in subjects for e in s["two_views"]]
    fused = [f for s in subjects for f in s["fused"]]
    return {
        "search_success": _share(searched),
        "capture_range_mm": _capture_range(searched),
        "by_start": [
            {"to_mm": high, "success": _share(rows), "starts": len(rows)}
            for high in BINS_MM
            for rows in [[r for r in searched if high - 10 <= r["start_mm"] < high + 1e-6]]
            if rows
        ],
        "search_ms": float(np.median([r["ms"] for r in searched + wide])),
        "wide_success": _share(wide),
        "wide_start_mm": float(np.median([r["start_mm"] for r in wide])),
        "tracking_across_mm": {"median": _q(spine, "across_mm", 50), "p95": _q(spine, "across_mm", 95)},
        "tracking_mtre_mm": {"median": _q(spine, "mtre_mm", 50), "p95": _q(spine, "mtre_mm", 95)},
        "tracking_ms": _q(every, "ms", 50),
        "lost": sum(t["lost"] for s in subjects for t in s["tracking"]),
        "two_views_mtre_mm": float(np.median(pairs)) if pairs else None,
        "fused": {
            "pairs": len(fused),
            **{k: _q(fused, k, 50) if fused else None for k in ("alone_mm", "mtre_mm", "alone_bound_mm", "bound_mm")},
            "alone_p95_mm": _q(fused, "alone_mm", 95) if fused else None,
            "mtre_p95_mm": _q(fused, "mtre_mm", 95) if fused else None,
            "held": float(np.mean([f["held"] for f in fused])) if fused else None,
        },
        "coverage": {
            "image": float(np.mean([r["held_across"] for r in every])),
            "depth": float(np.mean([r["held_depth"] for r in every])),
        },
        "acceptance": {
            "wrong": len(wrong),
            "wrong_called_tracking": float(np.mean([j["tracking"] for j in wrong])) if wrong else None,
            "good": len(good),
            "good_called_tracking": float(np.mean([j["tracking"] for j in good])) if good else None,
            "thresholds": {"score": TRACKING_SCORE, "agreement": TRACKING_AGREEMENT},
        },
    }


def _share(rows: list[dict[str, Any]]) -> float:
    return float(np.mean([r["across_mm"] < SUCCESS_MM for r in rows]))


def _capture_range(rows: list[dict[str, Any]]) -> float:
    """The initial error up to which at least 95 % of the starts succeed."""
    ranked = sorted(rows, key=lambda r: r["start_mm"])
    success = np.cumsum([r["across_mm"] < SUCCESS_MM for r in ranked]) / np.arange(1, len(ranked) + 1)
    reached = np.flatnonzero(success >= 0.95)
    return float(ranked[reached[-1]]["start_mm"]) if len(reached) else 0.0


def _q(rows: list[dict[str, Any]], key: str, percent: float) -> float:
    return float(np.percentile([r[key] for r in rows], percent))


def table(result: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [
        f"{'subject':10}{'found':>7}{'wide':>7}{'across med / 95 %':>20}{'in space':>10}{'at 20 ph.':>16}{'2 views':>9}"
    ]
    for s in result["subjects"]:
        t, low = s["tracking"]
        lines.append(
            f"{s['name']:10}{_share(s['search']):7.0%}{_share(s['wide']):7.0%}"
            f"{_q(t['poses'], 'across_mm', 50):11.2f} / {_q(t['poses'], 'across_mm', 95):4.2f} mm"
            f"{_q(t['poses'], 'mtre_mm', 50):7.2f} mm"
            f"{_q(low['poses'], 'across_mm', 50):8.2f} / {_q(low['poses'], 'across_mm', 95):4.2f}"
            + (f"{np.median(s['two_views']):6.2f} mm" if s["two_views"] else "")
        )
    if "all" in result:
        a, c = result["all"], result["all"]["acceptance"]
        lines += [
            f"search: {a['search_success']:.1%} within {SUCCESS_MM:g} mm across, capture range "
            f"{a['capture_range_mm']:.0f} mm, {a['search_ms']:.0f} ms",
            f"search from +-30 deg, +-100 mm and +-60 mm: {a['wide_success']:.1%}",
            f"tracking (spine): {a['tracking_across_mm']['median']:.2f} mm across, 95 % "
            f"{a['tracking_across_mm']['p95']:.2f}; {a['tracking_ms']:.1f} ms a frame",
            f"bounds hold in {a['coverage']['image']:.1%} across and {a['coverage']['depth']:.1%} in depth",
            f"wrong poses (over 3 mm) called tracking: {_percent(c['wrong_called_tracking'])} of {c['wrong']}; "
            f"good ones: {_percent(c['good_called_tracking'])} of {c['good']}",
        ]  # fmt: skip
        f = a["fused"]
        if f["pairs"]:
            lines.append(
                f"a second view in the stream, joints 0.3 deg and 1 mm off: {f['mtre_mm']:.2f} mm in space, 95 % "
                f"{f['mtre_p95_mm']:.2f} (alone {f['alone_mm']:.2f}, {f['alone_p95_mm']:.2f}); bound "
                f"{f['bound_mm']:.1f} mm (alone {f['alone_bound_mm']:.1f}) holds in {f['held']:.1%} of {f['pairs']}"
            )
    for field in (field for s in result["subjects"] for field in s["narrow"]):
        poses = field["tracking"]["poses"]
        lines.append(
            f"field of {field['share']:.0%} of the image ({field['field']}): {field['lost']:.1%} of it not seen, "
            f"{field['beyond']:.1%} beyond; found {_share(field['search']):.0%}, "
            + (
                f"tracked {_q(poses, 'across_mm', 50):.2f} mm across, 95 % {_q(poses, 'across_mm', 95):.2f}, "
                f"{_q(poses, 'mtre_mm', 50):.2f} in space, "
                if poses
                else ""
            )
            + f"bounds hold {_held(poses)}, lost {field['tracking']['lost']}"
        )
    if "bones" in result:
        b = result["bones"]
        lines.append(
            "a pose for each bone, one view: "
            + "; ".join(
                f"{kind} {b[kind]['own_mm']:.2f} mm across, 95 % {b[kind]['own_p95_mm']:.2f} (common pose "
                f"{b[kind]['common_mm']:.2f}), bound holds {b[kind]['held_across']:.0%} of {b[kind]['bones']}"
                for kind in ("moved", "still")
                if kind in b
            )
        )
    if "wrist" in result:
        for cameras in ([1, 2], [1], [2]):
            rows = [r for r in result["wrist"]["points"] if r["cameras"] == cameras]
            lines.append(
                f"wrist, view {cameras}: {np.mean([r['mtre_mm'] < 0.3 for r in rows]):.0%} within 0.3 mm; across "
                f"{_q(rows, 'across_mm', 50):.2f} mm, in space {_q(rows, 'mtre_mm', 50):.2f} mm, depth bound holds "
                f"{np.mean([r['held_depth'] for r in rows]):.0%}, accepted "
                f"{np.mean([r['accepted'] for r in rows]):.0%}, {_q(rows, 'ms', 50):.0f} ms"
            )
        auto = result["wrist"]["auto"]
        lines.append(
            f"wrist, --auto from 25 deg and 40 mm: {sum(r['mtre_mm'] < 1 for r in auto)} of {len(auto)} found, "
            f"{sum(r['accepted'] and r['mtre_mm'] > 3 for r in auto)} wrong ones accepted, {_q(auto, 'ms', 50):.0f} ms"
        )
    return "\n".join(lines)


def _held(poses: list[dict[str, Any]]) -> str:
    return f"{sum(r['held_across'] and r['held_depth'] for r in poses)} of {len(poses)}"


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{share:.2%}"
