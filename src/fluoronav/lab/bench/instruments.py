"""The instrument detector on exposures that its training never saw: another region, other shapes, several doses.

And on real X-rays of a knee and a wrist, which show beads and edges but no instrument.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fluoronav.geometry import Camera
from fluoronav.imaging.xray.file import read_xray
from fluoronav.lab.bench.alerts import bench_alerts
from fluoronav.lab.bench.instruments_in_space import depths, drift
from fluoronav.lab.bench.matching import SAME_PX, nearest, off_px
from fluoronav.lab.bench.moving import moving
from fluoronav.lab.bench.subjects import load_subject, view_poses
from fluoronav.lab.simulation.instrument_scenes import Background, Placed, SceneMaker, unseen_shape
from fluoronav.lab.simulation.sequence import Anatomy
from fluoronav.paths import cache_folder, shipped
from fluoronav.stream.detection.network_input import KINDS
from fluoronav.stream.detection.stage import DetectionStage
from fluoronav.stream.frame import RADIUS_95_2D, Budget, Detection, FrameRecord
from fluoronav.stream.preprocessing.stage import AttenuationStage

Float = NDArray[np.float64]

SEED, _VIEWS = 97, 16
DOSES = (80.0, 20.0)
# One is bent when the middle of what is in view of it stands off by so much.
_BENT_PX = 5.0
_REAL = (*(f"knee/frame{t}_cam{c}.tif" for t in ("0138", "0180") for c in (1, 2)),
         *(f"wrist/frame{t}_cam{c}.tif" for t in ("0099", "0158") for c in (1, 2)))  # fmt: skip
# Each real frame is shown mirrored, turned, darker and noisier, too.
_REAL_VARIANTS = 25
_DRIFTS, _MOVING_FRAMES = 50, 16
# Pictures of each dose on a sheet, and how large.
_OF_A_DOSE, _SHEET_SIDE = 4, 420


def bench_instruments(
    data: Path,
    frames: int,
    approaches: int,
    say: Callable[[str], None] = lambda text: None,
    pictures: Path | None = None,
) -> dict[str, Any]:
    """Measures detection and tip, by kind and dose.

    Parameters
    ----------
    data : Path
        Holds ``chest/``, ``knee/`` and ``wrist/``.
    frames : int
        Exposures at each dose.
    approaches : int
        Of :func:`.alerts.bench_alerts`.
    pictures : Path, optional
        Folder for sheets of exposures that went right and that went wrong.
    """
    camera = Camera.load(shipped("calibration/demo-carm.yaml"))
    backgrounds = unseen_backgrounds(data, camera)
    maker = SceneMaker(camera, backgrounds, unseen_shape)
    stage, attenuation = DetectionStage(), AttenuationStage()
    stage.prepare(None, camera)
    by_dose: list[dict[str, Any]] = []
    sheets: dict[str, list[NDArray[np.uint8]]] = {"right": [], "wrong": []}
    for dose in DOSES:
        right, missed, called = [], [], []
        rng = np.random.default_rng(SEED + round(dose))
        rows: list[dict[str, Any]] = []
        false: list[Detection] = []
        other_ends, times = 0, []
        for _ in tqdm(range(frames), f"exposures at {dose:g} photons", unit="frame"):
            counts, placed, _ = maker.scene(rng, dose)
            frame = FrameRecord.of_counts(counts)
            attenuation.prepare(None, camera)
            attenuation.process(frame, Budget(1e6))
            begin = time.perf_counter()
            found = stage.find(frame)
            times.append((time.perf_counter() - begin) * 1000)
            matched, extra = compared(found, placed, camera.focal_px)
            rows += matched
            false += extra
            other_ends += sum(_other_end(d, placed) for d in extra)
            if placed or extra:
                sheet = called if extra else right if all(r["found"] for r in matched) else missed
                if len(sheet) < _OF_A_DOSE:
                    sheet.append(_small(picture(counts, found, placed)))
        sheets["right"] += right
        # What was seen where none is tells more than what was missed, and is rarer.
        sheets["wrong"] += [*called[: _OF_A_DOSE // 2], *missed, *called[_OF_A_DOSE // 2 :]][:_OF_A_DOSE]
        by_dose.append(
            _figures(rows, false, frames, dose)
            # Of the false ones: where an instrument ends, or leaves the view, was taken for its tip.
            | {"other_end_per_frame": other_ends / frames, "ms": float(np.median(times)), "instruments": rows}
        )
    for name, sheet in sheets.items():
        if sheet and pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
            sheet += [np.zeros_like(sheet[0])] * (-len(sheet) % 4)
            rows_of_4 = [np.hstack(sheet[k : k + 4]) for k in range(0, len(sheet), 4)]
            cv2.imwrite(str(pictures / f"instruments-{name}.jpg"), np.vstack(rows_of_4), [cv2.IMWRITE_JPEG_QUALITY, 85])
    say("real X-rays without instruments")
    normal, low = by_dose
    return {
        "tip_px": normal["tip_px"],
        "tip_mm": normal["tip_mm"],
        "direction_deg": normal["direction_deg"],
        "detection_rate": normal["detection_rate"],
        "false_per_frame": normal["false_per_frame"],
        "ms": normal["ms"],
        "by_dose": [normal, low],
        "real": _real(data, stage),
        "moving": [moving(camera, backgrounds, frames, _MOVING_FRAMES, dose, SEED) for dose in DOSES],
        "depth_mm": depths(maker, max(frames // 2, 1), DOSES[0], SEED),
        "drift": drift(_DRIFTS, SEED),
        "alerts": bench_alerts(approaches, SEED),
    }


def unseen_backgrounds(data: Path, camera: Camera) -> list[Background]:
    """Views of T11, cached."""
    path = cache_folder("subjects") / f"instruments-T11-{SEED}-{_VIEWS}.npz"
    if not path.exists():
        case = load_subject("T11", 1, data).case
        anatomy = Anatomy(case, camera.scaled(0.5))
        paths = [anatomy.paths(T) for T in tqdm(view_poses(case, _VIEWS, SEED), "anatomy: T11", unit="view")]
        np.savez(
            path, water=np.array([p[0] for p in paths], np.float16), bone=np.array([p[1] for p in paths], np.float16)
        )
    kept = np.load(path)
    return [Background(w, b) for w, b in zip(kept["water"], kept["bone"], strict=True)]


def compared(
    found: list[Detection], placed: tuple[Placed, ...], focal_px: float
) -> tuple[list[dict[str, Any]], list[Detection]]:
    """One row for each instrument of a scene, and the detections that are of none."""
    left, rows = list(found), []
    for p in placed:
        tip, direction = p.axis_px[0], p.tip_direction
        row: dict[str, Any] = {
            "kind": p.kind, "found": False, "visible_px": len(p.axis_px), "bend_mm": p.metal.bend_mm,
            "tip_hidden": p.tip_hidden, "visible_bend_px": _standing_off_px(p.axis_px),
        }  # fmt: skip
        match = nearest(left, tip, direction)
        if match is not None:
            k, off = match
            d = left.pop(k)
            row |= {
                "found": True,
                "tip_px": off,
                "tip_mm": off * float(p.points_camera[0, 2]) / focal_px,
                "direction_deg": float(np.rad2deg(np.arccos(np.clip(d.direction @ direction, -1, 1)))),
                "called": d.kind,
                "sigma_px": d.sigma_px,
                "score": d.score,
                "bend_px": d.sagitta_px,
            }
        rows.append(row)
    return rows, left


def _other_end(d: Detection, placed: tuple[Placed, ...]) -> bool:
    """Whether a detection is of the other end of what is in view of an instrument."""
    return any(off_px(d, p.axis_px[-1], p.tail_direction) < SAME_PX for p in placed)


def _standing_off_px(axis_px: Float) -> float:
    """How far an axis, tip first, stands off the chord from its tail to its tip; towards that turned by a quarter."""
    chord = axis_px[0] - axis_px[-1]
    off = (axis_px - axis_px[-1]) @ np.array([-chord[1], chord[0]]) / max(float(np.hypot(*chord)), 1e-9)
    return float(off[np.abs(off).argmax()])


def picture(counts: NDArray[np.uint16], found: list[Detection], placed: tuple[Placed, ...]) -> NDArray[np.uint8]:
    """A frame with what was found (yellow: axis, tip and kind) and what is there (red: tips)."""
    shown = np.log(np.maximum(counts.astype(np.float64), 1))
    low, high = np.percentile(shown, [5, 99.5])
    grey = np.clip(255 * (shown - low) / max(high - low, 1e-6), 0, 255).astype(np.uint8)
    image = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    for p in placed:
        cv2.drawMarker(image, _at(p.axis_px[0]), (60, 60, 255), cv2.MARKER_TILTED_CROSS, 34, 2, cv2.LINE_AA)
    for d in found:
        cv2.line(image, _at(d.tip_px), _at(d.tip_px - 160 * d.direction), (60, 220, 255), 2, cv2.LINE_AA)
        cv2.circle(image, _at(d.tip_px), 12, (60, 220, 255), 2, cv2.LINE_AA)
        at = _at(d.tip_px + [18, -12])
        cv2.putText(image, f"{d.kind} {d.score:.2f}", at, cv2.FONT_HERSHEY_SIMPLEX, 1.1, (60, 220, 255), 2, cv2.LINE_AA)
    return np.asarray(image, dtype=np.uint8)


def _small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(image, (_SHEET_SIDE, _SHEET_SIDE), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _at(uv: Float) -> tuple[int, int]:
    x, y = np.rint(uv).astype(int).tolist()
    return x, y


def _figures(rows: list[dict[str, Any]], false: list[Detection], frames: int, dose: float) -> dict[str, Any]:
    def of(those: list[dict[str, Any]]) -> dict[str, Any]:
        hit = [r for r in those if r["found"]]
        in_sight = [r for r in those if not r["tip_hidden"]]

        def q(key: str, percent: float) -> float | None:
            return float(np.percentile([r[key] for r in hit], percent)) if hit else None

        return {
            "instruments": len(those),
            "detection_rate": len(hit) / max(len(those), 1),
            "detection_rate_95": interval_95(len(hit), len(those)),
            # Of those whose tip does not lie behind thicker metal, and can be told from the noise.
            "detection_rate_tip_in_sight": sum(r["found"] for r in in_sight) / max(len(in_sight), 1),
            "tip_px": {"median": q("tip_px", 50), "p95": q("tip_px", 95)},
            "tip_mm": {"median": q("tip_mm", 50), "p95": q("tip_mm", 95)},
            "direction_deg": q("direction_deg", 50),
            "kind_right": float(np.mean([r["kind"] == r["called"] for r in hit])) if hit else None,
            "held": float(np.mean([r["tip_px"] < RADIUS_95_2D * r["sigma_px"] for r in hit])) if hit else None,
        }

    whole = of(rows)
    whole["count"] = whole.pop("instruments")
    hit = [r for r in rows if r["found"]]
    bent = [r for r in hit if abs(r["visible_bend_px"]) >= _BENT_PX]
    straight = [r for r in hit if abs(r["visible_bend_px"]) < 1]
    off = [abs(r["bend_px"] - r["visible_bend_px"]) for r in bent if r["bend_px"]]
    whole["bent"] = {
        "count": len(bent),
        "called_bent": sum(r["bend_px"] != 0 for r in bent) / max(len(bent), 1),
        "px_off": float(np.median(off)) if off else None,
        "straight": len(straight),
        "straight_called_bent": sum(r["bend_px"] != 0 for r in straight) / max(len(straight), 1),
    }
    return whole | {
        "photons": dose,
        "false_per_frame": len(false) / frames,
        "false_per_frame_95": interval_95(min(len(false), frames), frames),
        "kinds": {
            kind: of([r for r in rows if r["kind"] == kind])
            # By what they were called.
            | {"false_per_frame": sum(d.kind == kind for d in false) / frames}
            for kind in KINDS
        },
    }


def interval_95(count: int, of: int) -> tuple[float, float]:
    """Where a share lies of which a sample has so many of so many: Wilson, J. Am. Stat. Assoc. 22:209, 1927."""
    if not of:
        return 0.0, 1.0
    z2, share = 1.96**2, count / of
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = np.sqrt(z2 * (share * (1 - share) / of + z2 / (4 * of**2))) / (1 + z2 / of)
    return max(float(middle - half), 0.0), min(float(middle + half), 1.0)


def _real(data: Path, stage: DetectionStage) -> dict[str, Any]:
    """False alarms on real frames, each as it is and altered."""
    rng, alarms, shown = np.random.default_rng(SEED), 0, 0
    by_file: dict[str, int] = {}
    for name in tqdm([n for n in _REAL if (data / n).exists()], "real X-rays", unit="file"):
        attenuation_of_file = read_xray(data / name, with_camera=True).attenuation
        side = max(attenuation_of_file.shape)
        rows, cols = attenuation_of_file.shape
        camera = Camera(rows, cols, np.array([[4.0 * side, 0, cols / 2], [0, 4.0 * side, rows / 2], [0, 0, 1]]))
        stage.prepare(None, camera)
        attenuation = AttenuationStage()
        beam = np.exp(-attenuation_of_file)
        beam /= beam.max()
        for k in range(_REAL_VARIANTS):
            picture = beam
            if k:
                picture = np.rot90(beam[:, ::-1] if k % 2 else beam, 2 * int(rng.integers(2)))
                photons = np.exp(rng.uniform(np.log(200), np.log(3000)))
                picture = rng.poisson(picture * photons) / photons * rng.uniform(0.6, 1)
            counts = np.clip(picture * 60000, 0, 65535).astype(np.uint16)
            frame = FrameRecord.of_counts(np.ascontiguousarray(counts))
            attenuation.prepare(None, camera)
            attenuation.process(frame, Budget(1e6))
            found = len(stage.find(frame))
            by_file[name] = by_file.get(name, 0) + found
            alarms, shown = alarms + found, shown + 1
    return {"frames": shown, "false": alarms, "by_file": by_file}


def table(result: dict[str, Any]) -> str:
    """The figures for people."""

    def px(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    a = result["alerts"]
    lines = [
        f"{'photons':>8} {'kind':8}{'shown':>6}{'found':>8}{'(95 %)':>12}{'tip in sight':>14}{'tip med / 95 %':>18}"
        f"{'direction':>11}{'kind right':>12}{'false a frame':>15}"
    ]
    for dose in result["by_dose"]:
        for kind, f in (("all", dose | {"instruments": dose["count"]}), *dose["kinds"].items()):
            right = "-" if f["kind_right"] is None else f"{f['kind_right']:.0%}"
            low, high = f["detection_rate_95"]
            lines.append(
                f"{dose['photons']:8g} {kind:8}{f['instruments']:6}{f['detection_rate']:8.1%}"
                f"{f'{low:.0%} to {high:.0%}':>12}{f['detection_rate_tip_in_sight']:14.1%}"
                f"{px(f['tip_px']['median']):>9} / {px(f['tip_px']['p95'])} px{px(f['direction_deg']):>9}°{right:>12}"
                f"{f['false_per_frame']:15.4f}"
            )
    lines += [
        *(
            f"bent by {_BENT_PX:g} px or more, {d['photons']:g} photons: {d['bent']['called_bent']:.0%} of "
            f"{d['bent']['count']} called bent, off by {px(d['bent']['px_off'])} px (median); of "
            f"{d['bent']['straight']} straight ones {d['bent']['straight_called_bent']:.1%}"
            for d in result["by_dose"]
        ),
        *(
            f"false, {d['photons']:g} photons: {d['false_per_frame']:.4f} a frame (95 %: "
            f"{d['false_per_frame_95'][0]:.4f} to {d['false_per_frame_95'][1]:.4f}), {d['other_end_per_frame']:.4f} "
            "of it the other end of an instrument"
            for d in result["by_dose"]
        ),
        f"real frames without instruments: {result['real']['false']} false in {result['real']['frames']}",
        f"tip at its own depth: median {px(result['tip_mm']['median'])} mm, 95 % {px(result['tip_mm']['p95'])}",
        *(
            f"moving, {m['photons']:g} photons, {m['frames']} frames of {m['sequences']} scenes: {m['shown']:.1%} "
            f"shown (95 %: {m['shown_95'][0]:.1%} to {m['shown_95'][1]:.1%}; {m['shown_tip_in_sight']:.1%} with the "
            f"tip in sight), tip {px(m['tip_px']['median'])} / {px(m['tip_px']['p95'])} px, {m['switches']} changes of "
            f"identity, {m['false_per_frame']:.4f} false a frame ({m['false_per_1000_frames']:.1f} different ones in "
            "1000 frames)"
            for m in result["moving"]
        ),
        *(
            f"tip in space by {name.replace('_', ' ')}: median {d['mm']['median']:.2f} mm, 95 % {d['mm']['p95']:.2f} "
            f"(claimed {d['sigma_mm']:.2f}, 1 sigma; held {d['held']:.0%} of {d['count']})"
            for name, d in result["depth_mm"].items()
            if d["mm"] is not None
        ),
        f"drift of 2 mm: noticed after {result['drift']['noticed_frames']['median']:.0f} frames (at most "
        f"{result['drift']['noticed_frames']['max']}), then {result['drift']['corrected_mm']['median']:.2f} mm, 95 % "
        f"{result['drift']['corrected_mm']['p95']:.2f}; unnoticed {result['drift']['unnoticed']} of "
        f"{result['drift']['runs']}",
        f"{result['ms']:.1f} ms a frame",
        f"proximity alerts over {a['approaches']} approaches: {a['missed']:.2%} missed of {a['due']}, {a['late']:.2%} "
        f"more than a frame late, {a['false']:.2%} false of {a['raised']}, flutter in {a['flutter']:.2%}",
    ]
    return "\n".join(lines)
