"""The display's enhanced image at falling dose, compared with filters in common use.

A wire moves in front of real anatomy at rest; the exposure without noise is the truth. All filters get the same
stabilised frames (noise 1 everywhere), and all figures are computed in them, so that brightness has no influence.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fluoronav.geometry import Camera
from fluoronav.imaging.xray.contrast import DisplayContrast
from fluoronav.imaging.xray.detector import DetectorCalibration, DetectorCorrection
from fluoronav.imaging.xray.noise import NoiseModel
from fluoronav.imaging.xray.spatial_filter import LocalWiener
from fluoronav.imaging.xray.temporal_filter import TemporalFilter
from fluoronav.lab import machine
from fluoronav.lab.bench.enhancement.filters import Filter, filters
from fluoronav.lab.bench.enhancement.measures import figures
from fluoronav.lab.bench.enhancement.scene import FULL_PHOTONS, SEED, SETTINGS, MovingWire, moving_wire
from fluoronav.lab.bench.enhancement.sheet import write_sheet
from fluoronav.paths import shipped
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.preprocessing.stage import AttenuationStage

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

DOSES = (1.0, 0.5, 0.25, 0.125)  # fractions of the full dose
FRAMES = 24
_SHOWN_DOSES, _SHOWN_FILTERS = (1.0, 0.25), ("none", "fluoronav", "with network")  # on the sheet


def bench_enhancement(data: Path, frames: int = FRAMES, pictures: Path | None = None) -> dict[str, Any]:
    """Measures denoising by dose and filter.

    Parameters
    ----------
    data : Path
        Holds ``knee/`` and ``wrist/``, for the sheet.
    frames : int
        Of each run; the first eight let a temporal filter settle.
    pictures : Path, optional
        Folder for ``enhancement.jpg``.

    Returns
    -------
    dict
        ``doses``: for each dose and filter PSNR (dB, of the range inside the aperture), SSIM, contrast-to-noise at the
        wire and at bone edges, edge width (pixels), ghost energy (fraction of the wire's contrast), ms.
        ``display_ms``; ``stage_ms``: medians of ``correction`` (offset, gain and dead pixels), ``attenuation`` (with
        the correction), ``temporal``, ``spatial``.
    """
    scene, chain_of = moving_wire(frames)
    rows: list[dict[str, Any]] = []
    sheet: list[NDArray[np.uint8]] = []
    display = DisplayContrast(*scene.clean[0].shape)
    display_ms: list[float] = []
    for dose in DOSES:
        noisy, truth, model, dark = _exposed(scene, chain_of, dose)
        for name, make in filters(scene.field_mask, dark).items():
            row, out = _measured(scene, make(), noisy, truth, model, dark, f"{name} at {dose:g} of the dose")
            rows.append({"dose": dose, "filter": name} | row)
            if name in _SHOWN_FILTERS and dose in _SHOWN_DOSES:
                for _ in range(3):
                    begin = time.perf_counter()
                    display(out, scene.field_mask)
                    display_ms.append((time.perf_counter() - begin) * 1000)
                sheet.append(display(out, scene.field_mask).copy())
        if dose in _SHOWN_DOSES:
            sheet.append(display(truth[-1], scene.field_mask).copy())
    if pictures is not None:
        write_sheet(sheet, data, pictures / "enhancement.jpg")
    _, chain, beams = chain_of(FULL_PHOTONS)
    stages = _stage_ms([chain.counts(beam, 1000 + k) for k, beam in enumerate(beams)], scene.field_mask)
    return {
        "doses": rows,
        "display_ms": float(np.median(display_ms)),
        "stage_ms": stages,
        "machine": machine.description(),
    }


def _exposed(
    scene: MovingWire, chain_of: Callable[..., Any], dose: float
) -> tuple[list[NDArray[np.uint16]], list[Float32], NoiseModel, float]:
    """Counts at a dose, the stabilised truth, the true noise model, and the dark level."""
    photons = FULL_PHOTONS * dose
    settings, chain, beams = chain_of(photons)
    full = 2**settings.bits - 1
    per_photon = full * (1 - settings.offset_fraction) / (settings.headroom * photons)
    dark = settings.offset_fraction * full
    model = NoiseModel(per_photon, dark, (per_photon * settings.electronic_photons) ** 2)
    noisy = [chain.counts(beam, 1000 + k) for k, beam in enumerate(beams)]
    return noisy, [model.stabilised(c).astype(np.float32) for c in scene.clean], model, dark


def _measured(
    scene: MovingWire,
    run: Filter,
    noisy: list[NDArray[np.uint16]],
    truth: list[Float32],
    model: NoiseModel,
    dark: float,
    title: str,
) -> tuple[dict[str, float], Float32]:
    """Median time and figures of a filter after it has settled, and its last image."""
    out = truth[0]
    results, times = [], []
    for k, counts in enumerate(tqdm(noisy, title, unit="frame")):
        stabilised = model.stabilised(counts).astype(np.float32)
        begin = time.perf_counter()
        out = run(counts, stabilised, dark)
        times.append((time.perf_counter() - begin) * 1000)
        if k >= SETTINGS.settled:
            results.append(figures(scene, k, np.array(out), truth))
    medians = {key: float(np.median([r[key] for r in results])) for key in results[0]}
    return {"ms": float(np.median(times[SETTINGS.settled :]))} | medians, np.array(out)


def _stage_ms(frames: list[NDArray[np.uint16]], field_mask: NDArray[np.bool_]) -> dict[str, float]:
    rows, cols = frames[0].shape
    rng = np.random.default_rng(SEED)
    dead = rng.random((rows, cols)) < 1e-4
    gain = (1 + 0.02 * rng.standard_normal((rows, cols))).astype(np.float32)
    calibration = DetectorCalibration(np.full((rows, cols), SETTINGS.dark_counts, np.float32), gain, dead)
    correct, temporal, spatial = DetectorCorrection(calibration), TemporalFilter(rows, cols), LocalWiener(rows, cols)
    attenuation = AttenuationStage()
    with tempfile.TemporaryDirectory() as folder:
        calibration.save(Path(folder) / "detector.npz")
        camera = Camera.load(shipped("calibration/demo-carm.yaml"))
        attenuation.prepare(None, replace(camera, detector=str(Path(folder) / "detector.npz")))
    times: dict[str, list[float]] = {}

    def timed(name: str, run: Callable[[], Float32 | None]) -> Float32 | None:
        begin = time.perf_counter()
        made = run()
        times.setdefault(name, []).append((time.perf_counter() - begin) * 1000)
        return made

    for _ in range(3):
        for k, counts in enumerate(frames):
            timed("correction", lambda counts=counts: correct(counts, 16))
            frame = FrameRecord.of_counts(counts, seq=k)
            timed("attenuation", lambda frame=frame: attenuation.process(frame, Budget(1e6)))
            smooth = timed("temporal", lambda counts=counts: temporal(counts, SETTINGS.dark_counts, field_mask))
            assert smooth is not None
            timed("spatial", lambda smooth=smooth: spatial(smooth, temporal.worth))
    return {name: float(np.median(values)) for name, values in times.items()}


def table(result: dict[str, Any]) -> str:
    """The figures as text."""
    lines = [
        f"{'dose':>6} {'filter':15}{'PSNR':>8}{'SSIM':>8}{'CNR wire':>10}{'CNR edge':>10}{'edge px':>9}"
        f"{'ghost':>8}{'ms':>8}"
    ]
    lines += [
        f"{r['dose']:6.3g} {r['filter']:15}{r['psnr_db']:8.1f}{r['ssim']:8.3f}{r['cnr_wire']:10.2f}"
        f"{r['cnr_bone_edge']:10.2f}{r['edge_px']:9.2f}{r['ghost']:8.1%}{r['ms']:8.1f}"
        for r in result["doses"]
    ]
    s = result["stage_ms"]
    return "\n".join(
        [
            *lines,
            f"display picture {result['display_ms']:.1f} ms; correction {s['correction']:.1f} ms, with attenuation "
            f"{s['attenuation']:.1f}; filter over time {s['temporal']:.1f}, local filter {s['spatial']:.1f}",
        ]
    )
