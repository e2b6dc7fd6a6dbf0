"""Networks in 8 bits, for CPUs with instructions that multiply and add four such numbers at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.imaging.inference.manifest import Approved, Example, ModelError

# By LLVM's names. Without them 8 bits are slower than 32, and ONNX Runtime's fastest kernels saturate at 16 bits.
_INSTRUCTIONS = ("avx512vnni", "avxvnni")
# Times what it was off where it was made. Sums of integers are exact, so any processor is off by as much; saturation
# was 3 and 16 times as far off.
_MARGIN = 1.25
# Of all values of a tensor; the few beyond are clipped, and all others get finer steps.
_PERCENTILE = 99.999


@cache
def fast_here() -> bool:
    """Whether this CPU has instructions for it; of one that cannot be asked, that it has none."""
    from llvmlite.binding import get_host_cpu_features

    try:
        features = get_host_cpu_features()
    except RuntimeError:
        return False
    return any(features.get(name, False) for name in _INSTRUCTIONS)


def off_by(said: NDArray[np.float32], whole: NDArray[np.float32]) -> float:
    """The root mean square of a difference, over that of the whole network's answer."""
    return _rms(said - whole) / max(_rms(whole), 1e-9)


def why_wrong(said: NDArray[np.float32], example: Example) -> str:
    """Why an answer in 8 bits to an example is not the one that it should be; empty where it is.

    Parameters
    ----------
    said : ndarray
        The answer on this computer.
    example : Example
    """
    off = off_by(said, example.made)
    if off <= example.off * _MARGIN:  # false for NaN, too
        return ""
    return f"8 bits are {off:.1%} off on this CPU, {example.off:.1%} where they were made"


def _rms(values: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


def quantised(model: Approved, inputs: Iterable[NDArray[np.float32]]) -> Approved:
    """Weights and activations in 8 bits, by ONNX Runtime's own tool; but for the last convolution.

    That makes the answer, and is little work.

    Parameters
    ----------
    model : Approved
        With one input.
    inputs : iterable of ndarray of float32
        What it is shown in use: the ranges of what is computed are taken from these.

    Raises
    ------
    ModelError
        The tool needs onnx, which is not installed.
    """
    try:
        import onnx
        from onnxruntime.quantization import (
            CalibrationDataReader,
            CalibrationMethod,
            QuantFormat,
            QuantType,
            quantize_static,
        )
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise ModelError(f"{model.path.name}: 8 bits need onnx: pip install 'fluoronav[graph]' ({error})") from error
    (name,) = model.inputs

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(inputs)

        def get_next(self) -> Any:
            value = next(self._left, None)
            return None if value is None else {name: value}

    with tempfile.TemporaryDirectory() as folder:
        plain, prepared, small = (Path(folder) / f"{n}.onnx" for n in ("plain", "prepared", "small"))
        plain.write_bytes(model.content)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)  # shapes are fixed
        nodes = onnx.load(prepared).graph.node
        last = max(k for k, node in enumerate(nodes) if node.op_type == "Conv")
        quantize_static(
            prepared, small, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod.Percentile,
            # What follows, too: a convolution between 8 bits is made in 8 bits, whatever its weights are.
            nodes_to_exclude=[node.name for node in nodes[last:]], extra_options={"CalibPercentile": _PERCENTILE},
        )  # fmt: skip
        return replace(model, content=small.read_bytes(), bits=8)
