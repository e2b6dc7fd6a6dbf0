"""The instrument detector on exposures outside its training: another region, other shapes, two doses.

Real X-rays of a knee and a wrist, with beads and edges but without instruments, give false detections.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fluoronav.geometry import Camera
from fluoronav.imaging.xray.file import read_xray
from fluoronav.lab import machine
from fluoronav.lab.bench.alerts import bench_alerts
from fluoronav.lab.bench.instruments.figures import at_other_end, compared, figures
from fluoronav.lab.bench.instruments.sheets import Sheets, write_sheet
from fluoronav.lab.bench.instruments_in_space import depths, drift
from fluoronav.lab.bench.moving import moving
from fluoronav.lab.bench.subjects import load_subject, view_poses
from fluoronav.lab.simulation.instrument_scenes import Background, SceneMaker, unseen_shape
from fluoronav.lab.simulation.sequence import Anatomy
from fluoronav.paths import cache_folder, shipped
from fluoronav.stream.detection.stage import DetectionStage
from fluoronav.stream.frame import Budget, Detection, FrameRecord
from fluoronav.stream.preprocessing.stage import AttenuationStage

SEED = 97
DOSES = (80.0, 20.0)  # mean detected photons per pixel; chosen: a usual dose and a quarter of it
_REAL = (*(f"knee/frame{t}_cam{c}.tif" for t in ("0138", "0180") for c in (1, 2)),
         *(f"wrist/frame{t}_cam{c}.tif" for t in ("0099", "0158") for c in (1, 2)))  # fmt: skip


@dataclass(frozen=True)
class InstrumentBenchSettings:
    """Sizes of the bench's parts; all chosen."""

    views: int = 16  # of T11, as backgrounds
    real_variants: int = 25  # of each real frame: as it is, and mirrored, turned, darker and noisier
    drifts: int = 50
    moving_frames: int = 16


SETTINGS = InstrumentBenchSettings()


def bench_instruments(
    data: Path,
    frames: int,
    approaches: int,
    say: Callable[[str], None] = lambda text: None,
    pictures: Path | None = None,
) -> dict[str, Any]:
    """Measures detections and tips by kind and dose, real frames, moving instruments, depth, drift and alerts.

    Parameters
    ----------
    data : Path
        Holds ``chest/``, ``knee/`` and ``wrist/``.
    frames : int
        Exposures at each dose.
    approaches : int
        Of :func:`.alerts.bench_alerts`.
    pictures : Path, optional
        Folder for sheets of right and wrong exposures.
    """
    camera = Camera.load(shipped("calibration/demo-carm.yaml"))
    backgrounds = unseen_backgrounds(data, camera)
    maker = SceneMaker(camera, backgrounds, unseen_shape)
    stage = DetectionStage()
    stage.prepare(None, camera)
    by_dose, sheets = zip(*(_at_dose(maker, stage, frames, dose) for dose in DOSES), strict=True)
    if pictures is not None:
        write_sheet(pictures / "instruments-right.jpg", [image for s in sheets for image in s.right])
        write_sheet(pictures / "instruments-wrong.jpg", [image for s in sheets for image in s.wrong()])
    say("real X-rays without instruments")
    normal = by_dose[0]
    copied = ("tip_px", "tip_mm", "direction_deg", "detection_rate", "false_per_frame", "ms")
    return {
        **{key: normal[key] for key in copied},
        "by_dose": list(by_dose),
        "real": _real(data, stage),
        "moving": [moving(camera, backgrounds, frames, SETTINGS.moving_frames, dose, SEED) for dose in DOSES],
        "depth_mm": depths(maker, max(frames // 2, 1), DOSES[0], SEED),
        "drift": drift(SETTINGS.drifts, SEED),
        "alerts": bench_alerts(approaches, SEED),
        "machine": machine.description(),
    }


def _at_dose(maker: SceneMaker, stage: DetectionStage, frames: int, dose: float) -> tuple[dict[str, Any], Sheets]:
    """Figures and sheets of exposures at one dose."""
    rng = np.random.default_rng(SEED + round(dose))
    attenuation, sheets = AttenuationStage(), Sheets()
    rows: list[dict[str, Any]] = []
    false: list[Detection] = []
    other_ends, times = 0, []
    for _ in tqdm(range(frames), f"exposures at {dose:g} photons", unit="frame"):
        counts, placed, _ = maker.scene(rng, dose)
        frame = FrameRecord.of_counts(counts)
        attenuation.prepare(None, maker.camera)
        attenuation.process(frame, Budget(1e6))
        begin = time.perf_counter()
        found = stage.find(frame)
        times.append((time.perf_counter() - begin) * 1000)
        matched, extra = compared(found, placed, maker.camera.focal_px)
        rows += matched
        false += extra
        other_ends += sum(at_other_end(d, placed) for d in extra)
        if placed or extra:
            kind = "false" if extra else "right" if all(r["found"] for r in matched) else "missed"
            sheets.add(counts, found, placed, kind)
    # Of the false detections, those at the other end of an instrument, or where it leaves the view.
    others = {"other_end_per_frame": other_ends / frames, "ms": float(np.median(times)), "instruments": rows}
    return figures(rows, false, frames, dose) | others, sheets


def unseen_backgrounds(data: Path, camera: Camera) -> list[Background]:
    """Views of T11, cached."""
    path = cache_folder("subjects") / f"instruments-T11-{SEED}-{SETTINGS.views}.npz"
    if not path.exists():
        case = load_subject("T11", 1, data).case
        anatomy = Anatomy(case, camera.scaled(0.5))
        paths = [anatomy.paths(T) for T in tqdm(view_poses(case, SETTINGS.views, SEED), "anatomy: T11", unit="view")]
        np.savez(
            path, water=np.array([p[0] for p in paths], np.float16), bone=np.array([p[1] for p in paths], np.float16)
        )
    kept = np.load(path)
    return [Background(w, b) for w, b in zip(kept["water"], kept["bone"], strict=True)]


def _real(data: Path, stage: DetectionStage) -> dict[str, Any]:
    """False detections on real frames, each as it is and in variants."""
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
        for k in range(SETTINGS.real_variants):
            shown_beam = beam
            if k:
                shown_beam = np.rot90(beam[:, ::-1] if k % 2 else beam, 2 * int(rng.integers(2)))
                photons = np.exp(rng.uniform(np.log(200), np.log(3000)))
                shown_beam = rng.poisson(shown_beam * photons) / photons * rng.uniform(0.6, 1)
            counts = np.clip(shown_beam * 60000, 0, 65535).astype(np.uint16)
            frame = FrameRecord.of_counts(np.ascontiguousarray(counts))
            attenuation.prepare(None, camera)
            attenuation.process(frame, Budget(1e6))
            found = len(stage.find(frame))
            by_file[name] = by_file.get(name, 0) + found
            alarms, shown = alarms + found, shown + 1
    return {"frames": shown, "false": alarms, "by_file": by_file}
