"""Networks quantised to 8 bits: activations of 8 bits, weights of 7.

Without the instructions of VNNI, ONNX Runtime multiplies 8 bit numbers by VPMADDUBSW, which adds two products in 16
bits and saturates. Its documentation calls for weights of 7 bits there (`reduce_range`). Two products are then
255 x 64 + 255 x 64 = 32640 at most, which 16 bits hold (32767): sums are exact, and outputs alike on every CPU.
"""

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

# By LLVM's name; without it 8 bits were not measured. With it they took 0.7, with VNNI 0.45 of the time of 32 bits.
_INSTRUCTIONS = "avx2"
# Maximum ratio of the error on this CPU to that at quantisation. Chosen: integer sums are exact, so that the errors
# are equal; saturation would make them 3 and 16 times as large.
_MARGIN = 1.25
_PERCENTILE = 99.999  # of a tensor's values that are kept; chosen: larger ones are clipped, so that steps are finer


@cache
def fast_here() -> bool:
    """Whether this CPU computes faster in 8 bits; False where LLVM does not know the CPU."""
    from llvmlite.binding import get_host_cpu_features

    try:
        features = get_host_cpu_features()
    except RuntimeError:
        return False
    return bool(features.get(_INSTRUCTIONS, False))


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
    """Quantises activations to 8 bits and weights to 7 by ONNX Runtime's tool, except in the last convolution.

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
