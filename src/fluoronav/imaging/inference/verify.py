"""Every network on an engine and on the CPU: difference of the outputs, time and memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fluoronav.imaging.inference.eight_bits import off_by
from fluoronav.imaging.inference.manifest import approved_in_8_bits, shipped_models
from fluoronav.imaging.inference.model import Model
from fluoronav.imaging.inference.runner import Runner
from fluoronav.imaging.inference.sessions import Arrays
from fluoronav.imaging.inference.settings import InferenceSettings


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Maximum difference of the outputs, relative to the largest; chosen: a wrong graph differs by more."""

    fp32: float = 5e-3
    sixteen_bits: float = 3e-2  # fp16 on a GPU; OpenVINO uses bfloat16 where the CPU has it
    int8: float = 0.1  # of the RMS, since single values at an edge differ by more


TOLERANCE = Tolerance()
_RUNS = 50  # that are timed


def verify(engine: str, precision: str = "fp32") -> dict[str, Any]:
    """Runs every shipped network on an engine, without a fall-back, and on the CPU.

    Parameters
    ----------
    engine : str
        As in a launch file.
    precision : {"fp32", "fp16"}
        The same.

    Returns
    -------
    dict
        ``engine``, and for each of ``models``: ``name``, ``provider``, ``largest_difference``, ``relative`` (to the
        largest output; in 8 bits, the root mean square of the difference to that of the output), ``within``, ``ms``
        (median), ``load_ms``, ``memory_mb`` (growth of the process). On the CPU those that ship in 8 bits come twice;
        where 8 bits are wrong and so not used, ``provider`` says so the second time.

    Raises
    ------
    ModelError
        The engine is not available.
    """
    settings = InferenceSettings.model_validate(
        {"engine": engine, "precision": precision, "fallback": "refuse", "cpu_precision": "fp32"}
    )
    models = [_network(path, settings) for path in shipped_models()]
    if engine == "cpu":
        in_8_bits = settings.model_copy(update={"cpu_precision": "int8", "fallback": "allow"})
        models += [_network(path, in_8_bits) for path in shipped_models() if approved_in_8_bits(path)]
    return {"engine": engine, "models": models}


def _network(path: Path, settings: InferenceSettings) -> dict[str, Any]:
    def load(settings: InferenceSettings) -> tuple[Runner, Arrays]:
        model = Model(path, settings)
        example = path.with_suffix(".parity.npz")
        if example.exists():
            model.input[...] = np.load(example)["given"]
        else:  # a model of somebody's own
            model.input[...] = np.random.default_rng(0).normal(0, 0.5, model.input.shape)
        return model, {"output": model.output}

    return compared(path.name, load, settings)


def compared(
    name: str, load: Callable[[InferenceSettings], tuple[Runner, Arrays]], settings: InferenceSettings
) -> dict[str, Any]:
    """One graph on an engine and on the CPU, on the same input.

    Parameters
    ----------
    name : str
    load : callable
        Takes settings; returns a runner with its inputs set, and the outputs to compare.
    settings : InferenceSettings
        Of the engine.

    Returns
    -------
    dict
        One of the rows of :func:`verify`.
    """
    reference, expected = load(InferenceSettings(cpu_precision="fp32"))
    before, start = _resident_mb(), time.perf_counter()
    runner, made = load(settings)
    load_ms = (time.perf_counter() - start) * 1000
    reference.run()
    times = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        runner.run()
        times.append((time.perf_counter() - start) * 1000)
    differences = {key: float(np.abs(made[key] - expected[key]).max()) for key in made}
    relative = max(d / max(float(np.abs(expected[key]).max()), 1e-9) for key, d in differences.items())
    tolerance = (
        TOLERANCE.sixteen_bits if settings.engine == "openvino" or settings.precision == "fp16" else TOLERANCE.fp32
    )
    if settings.cpu_precision == "int8":
        tolerance = TOLERANCE.int8
        relative = max(off_by(made[key], expected[key]) for key in made)
    return {
        "name": name,
        "provider": runner.provider,
        "largest_difference": max(differences.values()),
        "relative": relative,
        "within": relative < tolerance,
        "ms": float(np.median(times)),
        "load_ms": load_ms,
        "memory_mb": max(_resident_mb() - before, 0.0),
    }


def table(result: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [f"{'network':42}{'runs on':44}{'difference':>12}{'relative':>10}{'ms':>8}{'load ms':>9}{'MB':>7}"]
    lines += [
        f"{m['name']:42}{m['provider']:44}{m['largest_difference']:12.2e}{m['relative']:10.1e}{m['ms']:8.2f}"
        f"{m['load_ms']:9.0f}{m['memory_mb']:7.0f}" + ("" if m["within"] else "  TOO FAR FROM THE CPU")
        for m in result["models"]
    ]
    return "\n".join(lines)


def _resident_mb() -> float:
    """The highest resident size so far; Linux counts it in kB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
