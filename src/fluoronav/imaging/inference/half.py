"""Networks in half precision, for the tensor cores of a GPU."""

from __future__ import annotations

from dataclasses import replace

from fluoronav.imaging.inference.manifest import Approved, ModelError


def half(model: Approved) -> Approved:
    """The same network with weights and activations of 16 bits, and inputs and outputs of 32 bits.

    By ONNX Runtime's converter. A test (``tests/imaging/inference``) checks the outputs on the CPU.

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
    # ONNX Runtime's converter (up to 1.31) repeats the cast of a value for each node that reads it.
    made: set[str] = set()
    nodes = [node for node in converted.graph.node if node.output[0] not in made and not made.update(node.output)]
    del converted.graph.node[:]
    converted.graph.node.extend(nodes)
    return replace(model, content=converted.SerializeToString())
