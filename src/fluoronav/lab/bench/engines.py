"""Every network on each engine of this computer, and in 8 bits: time, and difference from the CPU's output.

Networks that are not shipped in 8 bits are quantised here. The inputs are those of the stages for exposures of a region
outside the training set (T11).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fluoronav.geometry import Camera
from fluoronav.imaging.inference import InferenceSettings, Model, ModelError
from fluoronav.imaging.inference.eight_bits import off_by, quantised
from fluoronav.imaging.inference.manifest import Approved, approved, approved_in_8_bits, shipped_models
from fluoronav.imaging.inference.runner import Runner
from fluoronav.imaging.xray.denoiser import LearnedDenoiser
from fluoronav.imaging.xray.temporal_filter import TemporalFilter
from fluoronav.lab import machine
from fluoronav.lab.bench.instruments import unseen_backgrounds
from fluoronav.lab.simulation.instrument_scenes import SceneMaker, unseen_shape
from fluoronav.paths import shipped
from fluoronav.stream.detection.stage import DetectionStage
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.preprocessing.stage import AttenuationStage

Float32 = NDArray[np.float32]

SEED = 73
_PHOTONS = 50.0  # mean detected photons per pixel; chosen: between a usual and a low dose
_CALIBRATION_FRACTION = 0.5  # of the exposures, for the quantisation; the others are measured
_RUNS = 40  # timed, of one input; chosen: the median is stable
_ENGINES = ("cpu", "openvino", "cuda", "tensorrt", "tensorrt-rtx")


def bench_engines(data: Path, frames: int, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Measures each network on each available engine, and quantised to 8 bits on the CPU.

    Parameters
    ----------
    data : Path
        Holds ``chest/``.
    frames : int
        Exposures; half of them calibrate the quantisation, the others are measured.

    Returns
    -------
    dict
        For each of ``models``: ``name`` and ``engines``, by engine: ``provider``, ``ms`` (median), ``relative`` (the
        root mean square of the difference from the CPU's output, over that of the output), ``largest``; or ``why_not``;
        and ``cpu``: what this CPU runs by default, as ``provider`` and ``why``.
    """
    inputs = _inputs(data, max(frames, 4))
    return {
        "machine": machine.description(),
        "models": [_one(approved(path), inputs[path.name], say) for path in shipped_models()],
    }


def _inputs(data: Path, frames: int) -> dict[str, list[Float32]]:
    camera = Camera.load(shipped("calibration/demo-carm.yaml"))
    maker = SceneMaker(camera, unseen_backgrounds(data, camera), unseen_shape)
    stage, attenuation = DetectionStage(), AttenuationStage()
    stage.prepare(None, camera)
    denoiser = LearnedDenoiser(camera.rows, camera.cols, InferenceSettings())
    rng = np.random.default_rng(SEED)
    kept: dict[str, list[Float32]] = {path.name: [] for path in shipped_models()}
    with tqdm(total=frames, desc="exposures", unit="frame") as bar:
        while bar.n < frames:
            temporal = TemporalFilter(camera.rows, camera.cols)
            attenuation.prepare(None, camera)
            for k, (counts, _) in enumerate(maker.sequence(rng, 4, _PHOTONS, 1)):
                frame = FrameRecord.of_counts(counts, seq=k)
                attenuation.process(frame, Budget(1e6))
                smooth = temporal(counts, frame.dark, frame.field_mask)
                if k == 3:
                    stage.find(frame)
                    denoiser(smooth, temporal.worth)
            for model in (stage.detector.first, stage.detector.second, denoiser.model):
                kept[model.name].append(model.input.copy())
            bar.update()
    return kept


def _one(model: Approved, inputs: list[Float32], say: Callable[[str], None]) -> dict[str, Any]:
    calibrating = max(int(len(inputs) * _CALIBRATION_FRACTION), 1)
    measured = inputs[calibrating:]
    reference, rows = None, {}
    for name in (*_ENGINES, "cpu, 8 bits"):
        say(f"{model.path.name} on {name}")
        try:
            used = model
            if name.endswith("8 bits"):
                used = approved_in_8_bits(model.path) or quantised(model, inputs[:calibrating])
            settings = InferenceSettings.model_validate({"engine": name.split(",")[0], "fallback": "refuse"})
            answers, row = _run(used, settings, measured)
        except ModelError as error:
            rows[name] = {"why_not": str(error)}
            continue
        reference = answers if reference is None else reference
        row["relative"] = off_by(answers, reference)
        row["largest"] = float(np.abs(answers - reference).max())
        rows[name] = row
    chosen = Model(model.path)
    return {"name": model.path.name, "engines": rows, "cpu": {"provider": chosen.provider, "why": chosen.why}}


def _run(model: Approved, settings: InferenceSettings, inputs: list[Float32]) -> tuple[Float32, dict[str, Any]]:
    ((given, in_shape),), ((made, out_shape),) = model.inputs.items(), model.outputs.items()
    x, y = np.zeros(in_shape, np.float32), np.zeros(out_shape, np.float32)
    runner = Runner(model, settings, {given: x}, {made: y})
    answers, times = [], []
    for value in inputs:
        np.copyto(x, value)
        runner.run()
        answers.append(y.copy())
    for _ in range(_RUNS):
        begin = time.perf_counter()
        runner.run()
        times.append((time.perf_counter() - begin) * 1000)
    return np.stack(answers), {"provider": runner.provider, "ms": float(np.median(times))}


def table(result: dict[str, Any]) -> str:
    """The figures as text."""
    lines = [f"{'network':26}{'engine':14}{'ms':>8}{'difference':>12}{'largest':>10}"]
    for model in result["models"]:
        for name, row in model["engines"].items():
            if "why_not" not in row:
                lines.append(
                    f"{model['name']:26}{name:14}{row['ms']:8.2f}{row['relative']:12.1e}{row['largest']:10.1e}"
                )
    lines += [
        f"{model['name']}: the CPU runs it {'in 8 bits' if model['cpu']['provider'].endswith('int8') else 'whole'}: "
        f"{model['cpu']['why']}"
        for model in result["models"]
    ]
    missing = {name for m in result["models"] for name, row in m["engines"].items() if "why_not" in row}
    return "\n".join([*lines, f"not here: {', '.join(sorted(missing)) or 'none'}"])
