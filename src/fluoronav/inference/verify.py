"""Every network on an engine and on the CPU: whether they say the same, how fast, and with how much memory."""

from __future__ import annotations

import resource
import time
from typing import Any

import numpy as np

from fluoronav.inference.manifest import shipped_models
from fluoronav.inference.model import Model
from fluoronav.inference.settings import InferenceSettings

# Of the largest output; a wrong graph is wrong by more. OpenVINO computes in bfloat16 where the CPU has it; half
# precision has three bits more.
_TOLERANCE, _SHORT = 5e-3, 3e-2
_RUNS = 50


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
        largest output), ``within``, ``ms`` (median), ``load_ms``, ``memory_mb`` (growth of the process).

    Raises
    ------
    ModelError
        The engine cannot be had.
    """
    settings = InferenceSettings.model_validate({"engine": engine, "precision": precision, "fallback": "refuse"})
    rows = []
    for path in shipped_models():
        reference = Model(path)
        before, start = _resident_mb(), time.perf_counter()
        model = Model(path, settings)
        load_ms = (time.perf_counter() - start) * 1000
        example = path.with_suffix(".parity.npz")
        if example.exists():
            given = np.load(example)["given"].astype(np.float32)
        else:  # an installed package has the models alone
            given = np.random.default_rng(0).normal(0, 0.5, model.input.shape).astype(np.float32)
        reference.input[...] = model.input[...] = given
        reference.run()
        times = []
        for _ in range(_RUNS):
            start = time.perf_counter()
            model.run()
            times.append((time.perf_counter() - start) * 1000)
        difference = float(np.abs(model.output - reference.output).max())
        relative = difference / max(float(np.abs(reference.output).max()), 1e-9)
        rows.append(
            {
                "name": path.name,
                "provider": model.provider,
                "largest_difference": difference,
                "relative": relative,
                "within": relative < (_SHORT if engine == "openvino" or precision == "fp16" else _TOLERANCE),
                "ms": float(np.median(times)),
                "load_ms": load_ms,
                "memory_mb": max(_resident_mb() - before, 0.0),
            }
        )
    return {"engine": engine, "models": rows}


def table(result: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [f"{'network':24}{'runs on':44}{'difference':>12}{'relative':>10}{'ms':>8}{'load ms':>9}{'MB':>7}"]
    lines += [
        f"{m['name']:24}{m['provider']:44}{m['largest_difference']:12.2e}{m['relative']:10.1e}{m['ms']:8.2f}"
        f"{m['load_ms']:9.0f}{m['memory_mb']:7.0f}" + ("" if m["within"] else "  TOO FAR FROM THE CPU")
        for m in result["models"]
    ]
    return "\n".join(lines)


def _resident_mb() -> float:
    """The highest resident size so far; Linux counts it in kB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
