"""Networks quantised to 8 bits, for CPUs with instructions for dot products of 8 bit numbers."""

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

# Names of LLVM. Without these instructions 8 bits are slower than 32, and ONNX Runtime's fastest kernels saturate.
_INSTRUCTIONS = ("avx512vnni", "avxvnni")
# Maximum ratio of the error on this CPU to that at quantisation. Chosen: integer sums are exact, so that the errors
# should be equal; saturation made them 3 and 16 times as large.
_MARGIN = 1.25
_PERCENTILE = 99.999  # of a tensor's values that are kept; chosen: larger ones are clipped, so that steps are finer


@cache
def fast_here() -> bool:
    """Whether this CPU has the instructions; False where LLVM does not know the CPU."""
    from llvmlite.binding import get_host_cpu_features

    try:
        features = get_host_cpu_features()
    except RuntimeError:
        return False
    return any(features.get(name, False) for name in _INSTRUCTIONS)


def off_by(output: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Relative RMS difference between an output and that of the network in 32 bits."""
    return _rms(output - reference) / max(_rms(reference), 1e-9)


def why_wrong(output: NDArray[np.float32], example: Example) -> str:
    """Why the output in 8 bits for an example is wrong; empty where it is right.

    Parameters
    ----------
    output : ndarray
        The output on this computer.
    example : Example
    """
    off = off_by(output, example.made)
    if off <= example.off * _MARGIN:  # false for NaN, too
        return ""
    return f"8 bits are {off:.1%} off on this CPU, {example.off:.1%} where they were made"


def _rms(values: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


def quantised(model: Approved, inputs: Iterable[NDArray[np.float32]]) -> Approved:
    """Quantises weights and activations to 8 bits by ONNX Runtime's tool, except in the last convolution.

    The last convolution determines the output, and takes little time.

    Parameters
    ----------
    model : Approved
        With one input.
    inputs : iterable of ndarray of float32
        Typical inputs, from which the ranges of the activations are measured.

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
            # Weights of 7 bits: AVX2 adds two products in 16 bits, and two of 255 times 127 would saturate.
            weight_type=QuantType.QInt8, reduce_range=True, calibrate_method=CalibrationMethod.Percentile,
            # And all nodes after it: a convolution between quantised nodes would be quantised, too.
            nodes_to_exclude=[node.name for node in nodes[last:]], extra_options={"CalibPercentile": _PERCENTILE},
        )  # fmt: skip
        return replace(model, content=small.read_bytes(), bits=8)
