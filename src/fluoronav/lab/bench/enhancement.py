"""The picture for the display at falling dose, beside what a user would otherwise pick.

A wire moves in front of real anatomy that stands still; the exposure without noise is the truth. All filters get the
same stabilised frames (noise 1 everywhere), and all figures are taken in them: none is judged by its brightness.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fluoronav.geometry import Camera
from fluoronav.imaging.inference import InferenceSettings
from fluoronav.imaging.xray.contrast import DisplayContrast
from fluoronav.imaging.xray.denoiser import SIDE, LearnedDenoiser
from fluoronav.imaging.xray.detector import DetectorCalibration, DetectorCorrection
from fluoronav.imaging.xray.field_of_view import find_field_of_view
from fluoronav.imaging.xray.file import read_xray
from fluoronav.imaging.xray.noise import NoiseModel
from fluoronav.imaging.xray.spatial_filter import LocalWiener
from fluoronav.imaging.xray.temporal_filter import TemporalFilter
from fluoronav.lab.bench.subjects import load_subject, view_poses
from fluoronav.lab.simulation.detector import Detector, ImageChain
from fluoronav.lab.simulation.metal import axis_points, k_wire, steel_mm
from fluoronav.lab.simulation.sequence import Anatomy
from fluoronav.lab.simulation.xray import transmission
from fluoronav.paths import shipped
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.preprocessing.stage import AttenuationStage

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

FULL_PHOTONS, SHARES = 80.0, (1.0, 0.5, 0.25, 0.125)
SEED, FRAMES, _SETTLED = 61, 24, 8
_SPEED_PX, _WIRE_MM = 4.0, 2.0
_REAL = ("knee/frame0138_cam1.tif", "wrist/frame0099_cam1.tif")
Smoother = Callable[[Float32, Float32], Float32]
Filter = Callable[[NDArray[np.uint16], Float32, float], Float32]


@dataclass
class _Scene:
    """Frames without noise, where the wire is in each, and where bone edges are."""

    clean: list[NDArray[np.uint16]]
    on_wire: list[NDArray[np.bool_]]
    axis: list[tuple[Float, Float]]  # a point on the wire, and its direction, pixels
    bone: Float32
    field_mask: NDArray[np.bool_]


def bench_enhancement(data: Path, frames: int = FRAMES, pictures: Path | None = None) -> dict[str, Any]:
    """Measures denoising by dose and filter.

    Parameters
    ----------
    data : Path
        Holds ``knee/`` and ``wrist/``, for the sheet of pictures.
    frames : int
        Of each run; the first eight let a filter over time settle.
    pictures : Path, optional
        Folder for ``enhancement.jpg``.

    Returns
    -------
    dict
        ``doses``: for each dose and filter PSNR (dB, of the range inside the aperture), SSIM, contrast-to-noise at the
        wire and at bone edges, edge width (pixels), ghost energy (share of the wire's contrast), ms.
        ``display_ms``; ``stage_ms``: medians of ``correction`` (offset, gain and dead pixels), ``attenuation`` (with
        the correction), ``temporal``, ``spatial``.
    """
    scene, chain_of = _scene(frames)
    rows: list[dict[str, Any]] = []
    sheet: list[NDArray[np.uint8]] = []
    display = DisplayContrast(*scene.clean[0].shape)
    display_ms: list[float] = []
    for share in SHARES:
        photons = FULL_PHOTONS * share
        settings, chain, beams = chain_of(photons)
        full = 2**settings.bits - 1
        per_photon = full * (1 - settings.offset_share) / (settings.headroom * photons)
        dark = settings.offset_share * full
        model = NoiseModel(per_photon, dark, (per_photon * settings.electronic_photons) ** 2)
        noisy = [chain.counts(beam, 1000 + k) for k, beam in enumerate(beams)]
        truth = [model.stabilised(c).astype(np.float32) for c in scene.clean]
        out = truth[0]
        for name, make in _filters(scene.field_mask, dark).items():
            run, results, times = make(), [], []
            for k, counts in enumerate(tqdm(noisy, f"{name} at {share:g} of the dose", unit="frame")):
                stabilised = model.stabilised(counts).astype(np.float32)
                begin = time.perf_counter()
                out = run(counts, stabilised, dark)
                times.append((time.perf_counter() - begin) * 1000)
                if k >= _SETTLED:
                    results.append(_figures(scene, k, np.array(out), truth))
            rows.append(
                {"dose": share, "filter": name, "ms": float(np.median(times[_SETTLED:]))}
                | {key: float(np.median([r[key] for r in results])) for key in results[0]}
            )
            if name in ("none", "fluoronav", "with network") and share in (1.0, 0.25):
                for _ in range(3):
                    begin = time.perf_counter()
                    display(np.array(out), scene.field_mask)
                    display_ms.append((time.perf_counter() - begin) * 1000)
                sheet.append(display(np.array(out), scene.field_mask).copy())
        if share in (1.0, 0.25):
            sheet.append(display(truth[-1], scene.field_mask).copy())
    if pictures is not None:
        _draw(sheet, data, pictures / "enhancement.jpg")
    _, chain, beams = chain_of(FULL_PHOTONS)
    stages = _stage_ms([chain.counts(beam, 1000 + k) for k, beam in enumerate(beams)], scene.field_mask)
    return {"doses": rows, "display_ms": float(np.median(display_ms)), "stage_ms": stages}


def _stage_ms(frames: list[NDArray[np.uint16]], field_mask: NDArray[np.bool_]) -> dict[str, float]:
    rows, cols = frames[0].shape
    rng = np.random.default_rng(SEED)
    dead = rng.random((rows, cols)) < 1e-4
    gain = (1 + 0.02 * rng.standard_normal((rows, cols))).astype(np.float32)
    calibration = DetectorCalibration(np.full((rows, cols), 1300.0, np.float32), gain, dead)
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
            smooth = timed("temporal", lambda counts=counts: temporal(counts, 1300.0, field_mask))
            assert smooth is not None
            timed("spatial", lambda smooth=smooth: spatial(smooth, temporal.worth))
    return {name: float(np.median(values)) for name, values in times.items()}


def _scene(frames: int):
    """The moving wire before the embedded case, and a maker of chains: photons to (settings, chain, beams)."""
    camera = Camera.load(shipped("calibration/demo-carm.yaml"))
    case = load_subject("embedded", 1, Path()).case
    half = Anatomy(case, camera.scaled(0.5))
    T = view_poses(case, 1, SEED)[0]
    water, bone = (
        cv2.resize(p, (camera.cols, camera.rows), interpolation=cv2.INTER_CUBIC).clip(0) for p in half.paths(T)
    )
    wire = k_wire(_WIRE_MM, 120.0)
    beams, on_wire, axes = [], [], []
    depth = 650.0
    for k in range(frames):
        tip = camera.rays(np.array([330.0 + 1.0 * k, 380.0 + _SPEED_PX * k])) * depth
        points = axis_points(wire, tip, np.array([-0.97, 0.24, 0.0]), np.array([0.0, 0.0, 1.0]))
        steel = np.zeros((camera.rows, camera.cols), np.float32)
        steel_mm(wire, points, camera, steel)
        beam = np.empty(steel.size, np.float32)
        transmission(water.ravel(), bone.ravel(), steel.ravel(), beam)
        beams.append(beam.reshape(steel.shape))
        on_wire.append(steel > 0.5)
        ends = camera.project(points)
        axes.append((ends[0], (ends[-1] - ends[0]) / np.linalg.norm(ends[-1] - ends[0])))

    def chain_of(photons: float, noiseless: bool = False):
        electronic = 0.0 if noiseless else Detector().electronic_photons
        settings = Detector(photons=photons, electronic_photons=electronic, fixed_pattern=0.0)
        return settings, ImageChain(settings, camera.rows, camera.cols, 3), beams

    _, perfect, _ = chain_of(1e7, True)
    clean = [perfect.counts(beam, 1) for beam in beams]
    edges = np.asarray(cv2.GaussianBlur(bone.astype(np.float32), (0, 0), 2), np.float32)
    return _Scene(clean, on_wire, axes, edges, perfect.field_mask), chain_of


def _filters(field_mask: NDArray[np.bool_], dark: float) -> dict[str, Callable[[], Filter]]:
    """Each a maker, since some have a memory."""

    def ours(spatial: Smoother) -> Filter:
        temporal = TemporalFilter(*field_mask.shape)

        def run(counts: NDArray[np.uint16], stabilised: Float32, dark: float) -> Float32:
            return spatial(_restabilised(temporal, counts, stabilised, dark, field_mask), temporal.worth)

        return run

    def recursive() -> Filter:
        memory: list[Float32] = []

        def run(counts: NDArray[np.uint16], stabilised: Float32, dark: float) -> Float32:
            if not memory:
                memory.append(stabilised.copy())
            cv2.accumulateWeighted(stabilised, memory[0], 0.3)
            return memory[0]

        return run

    def eight_bits(run: Callable[[NDArray[np.uint8]], NDArray]) -> Filter:
        """For what OpenCV only does in 8 bits: 4 steps to a sigma of the noise."""

        def filtered(counts: NDArray[np.uint16], stabilised: Float32, dark: float) -> Float32:
            low = float(stabilised.min())
            step = max(float(stabilised.max() - low) / 255, 1e-6)
            return run(((stabilised - low) / step).astype(np.uint8)).astype(np.float32) * step + low

        return filtered

    def bilateral(sigmas: float, reach_px: float) -> Filter:
        def run(counts: NDArray[np.uint16], stabilised: Float32, dark: float) -> Float32:
            return np.asarray(cv2.bilateralFilter(stabilised, 7, sigmas, reach_px), np.float32)

        return run

    return {
        "none": lambda: lambda counts, stabilised, dark: stabilised,
        "fluoronav": lambda: ours(LocalWiener(*field_mask.shape)),
        "with network": lambda: ours(LearnedDenoiser(field_mask.shape[0], field_mask.shape[1], InferenceSettings())),
        "recursive 0.3": recursive,
        "bilateral": lambda: bilateral(3.0, 2.0),
        # With edges nearly as narrow as ours.
        "bilateral, fine": lambda: bilateral(2.0, 1.0),
        "NLM": lambda: eight_bits(lambda image: cv2.fastNlMeansDenoising(image, None, 6, 5, 11)),
        "CLAHE": lambda: eight_bits(lambda image: cv2.createCLAHE(2.0, (8, 8)).apply(image)),
    }


def _restabilised(
    temporal: TemporalFilter,
    counts: NDArray[np.uint16],
    stabilised: Float32,
    dark: float,
    field_mask: NDArray[np.bool_],
) -> Float32:
    """Our filter reads the noise off the frames itself; its answer in the bench's own scale."""
    out = temporal(counts, dark, field_mask)
    model = temporal.model
    if model is None:
        return out
    # Both scales are root-like in the counts; where they differ a straight line joins them.
    a, b = np.polyfit(model.stabilised(counts[::16, ::16]).ravel(), stabilised[::16, ::16].ravel(), 1)
    return (np.float32(a) * out + np.float32(b)).astype(np.float32)


def _figures(scene: _Scene, k: int, out: Float32, truth: list[Float32]) -> dict[str, float]:
    inside, wire = scene.field_mask, scene.on_wire[k]
    off = out - truth[k]
    span = float(np.ptp(np.percentile(truth[k][inside], [1, 99])))
    psnr = 20 * np.log10(span / float(np.sqrt((off[inside] ** 2).mean())))
    near = cv2.dilate(wire.astype(np.uint8), np.ones((25, 25), np.uint8)) > 0
    beside = near & ~(cv2.dilate(wire.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0)
    contrast = float(out[beside].mean() - out[wire].mean())
    detrended = off[beside] - off[beside].mean()
    cnr_wire = contrast / max(float(detrended.std()), 1e-9)
    slope = np.hypot(cv2.Sobel(scene.bone, cv2.CV_32F, 1, 0), cv2.Sobel(scene.bone, cv2.CV_32F, 0, 1))
    edge = inside & ~near & (slope > np.percentile(slope[inside], 97))
    steep = np.hypot(cv2.Sobel(truth[k], cv2.CV_32F, 1, 0), cv2.Sobel(truth[k], cv2.CV_32F, 0, 1))[edge].mean() / 8
    cnr_edge = 10 * float(steep) / max(float(off[edge].std()), 1e-9)
    before = scene.on_wire[k - 1] & ~(cv2.dilate(wire.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
    true_contrast = float(truth[k][beside].mean() - truth[k][wire].mean())
    ghost = abs(float(off[before].mean())) / true_contrast if before.any() else 0.0
    return {
        "psnr_db": float(psnr),
        "ssim": _ssim(out, truth[k], span, inside),
        "cnr_wire": cnr_wire,
        "cnr_bone_edge": cnr_edge,
        "edge_px": _edge_width(out, *scene.axis[k]),
        "ghost": ghost,
    }


def _ssim(a: Float32, b: Float32, span: float, inside: NDArray[np.bool_]) -> float:
    """Wang et al., IEEE TIP 13:600, 2004, with its Gaussian window of 1.5 pixels."""

    def mean(image: NDArray) -> NDArray:
        return cv2.GaussianBlur(image, (11, 11), 1.5)

    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    value = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
    return float(value[inside].mean())


def _edge_width(image: Float32, tip: Float, direction: Float) -> float:
    """Of the wire's shadow: from 10 to 90 % of its depth, pixels, on the mean profile across its shaft; both sides."""
    normal = np.array([-direction[1], direction[0]])
    along, across = np.arange(40.0, 300.0), np.arange(-16, 16.1, 0.25)
    at = tip + along[:, None, None] * direction + across[None, :, None] * normal
    x, y = (np.ascontiguousarray(at[..., i], np.float32) for i in (0, 1))
    profile = cv2.remap(image, x, y, cv2.INTER_CUBIC).mean(0)
    ends = (profile[:12].mean() + profile[-12:].mean()) / 2
    depth = np.clip((ends - profile) / max(float(ends - profile.min()), 1e-9), 0, 1)
    middle = int(depth.argmax())
    widths = []
    for side in (depth[: middle + 1][::-1], depth[middle:]):
        places = []
        for level in (0.9, 0.1):
            k = max(int(np.argmax(side < level)), 1)
            places.append(k - (level - side[k]) / max(float(side[k - 1] - side[k]), 1e-9))
        widths.append(places[1] - places[0])
    return 0.25 * float(np.mean(widths))


def _draw(sheet: list[NDArray[np.uint8]], data: Path, path: Path) -> None:
    """Full and quarter dose, and real frames at a quarter: as it comes, filtered, with the network, without noise."""
    side = 480
    tiles = [cv2.resize(s[200:850, 200:850], (side, side), interpolation=cv2.INTER_AREA) for s in sheet]
    for name in _REAL:
        if (data / name).exists():
            tiles += [cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in _real(data / name)]
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet_rows = [np.hstack(tiles[k : k + 4]) for k in range(0, len(tiles), 4)]
    cv2.imwrite(str(path), np.vstack(sheet_rows), [cv2.IMWRITE_JPEG_QUALITY, 85])


def _real(path: Path) -> list[NDArray[np.uint8]]:
    """A real X-ray exposed again at a quarter of the dose, eight times: its last frame, by each way, and as it came."""
    beam = np.exp(-read_xray(path, with_camera=True).attenuation)
    if max(beam.shape) > SIDE:
        share = SIDE / max(beam.shape)
        beam = cv2.resize(beam, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    rows, cols = beam.shape
    field_mask = find_field_of_view(
        cv2.resize((60000 * beam / beam.max()).astype(np.float32), (128, 128), interpolation=cv2.INTER_AREA)
    ).field_mask
    photons = FULL_PHOTONS * 0.25 * beam / beam.mean()
    gain, dark, rng = 200.0, 1000.0, np.random.default_rng(SEED)
    model = NoiseModel(gain, dark, 0.0)
    temporal, display = TemporalFilter(rows, cols), DisplayContrast(rows, cols)
    counts = out = np.zeros((rows, cols), np.float32)
    for _ in range(_SETTLED):
        counts = np.clip(gain * rng.poisson(photons) + dark, 0, 65535).astype(np.uint16)
        out = temporal(counts, dark, field_mask)
    ways: list[Float32] = [model.stabilised(counts).astype(np.float32), LocalWiener(rows, cols)(out, temporal.worth)]
    learned = LearnedDenoiser(rows, cols, InferenceSettings())
    ways += [learned(out, temporal.worth), model.stabilised(gain * photons + dark).astype(np.float32)]
    return [display(way, field_mask).copy() for way in ways]


def table(result: dict[str, Any]) -> str:
    """The figures for people."""
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
