"""Networks in half precision, for the tensor cores of a GPU."""

from __future__ import annotations

from dataclasses import replace

from fluoronav.inference.manifest import Approved, ModelError


def half(model: Approved) -> Approved:
    """The same network with weights and activations of 16 bits, and inputs and outputs of 32 as before.

    By ONNX Runtime's own converter. Whether a network bears it is a test (``tests/inference``), on the CPU.

    Raises
    ------
    ModelError
        The converter is not installed.
    """
    try:
        import onnx
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as error:
        raise ModelError(f"{model.path.name}: fp16 needs onnx: pip install 'fluoronav[graph]' ({error})") from error
    converted = convert_float_to_float16(onnx.load_from_string(model.content), keep_io_types=True)
    return replace(model, content=converted.SerializeToString())
