"""TensorRT and TensorRT-RTX through their Python interfaces: engines are built ahead of time, then run.

Building for TensorRT-RTX needs no GPU and is tested; of running, all but TensorRT itself was, once (docs/gpu.md).
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from typing import Any

from fluoronav.imaging.inference.cache import EngineKey, built_engine
from fluoronav.imaging.inference.cuda import OnGpu, checked, cudart, this_gpu
from fluoronav.imaging.inference.half import half
from fluoronav.imaging.inference.manifest import Approved, ModelError
from fluoronav.imaging.inference.sessions import Arrays, check_shapes
from fluoronav.imaging.inference.settings import Precision, Unavailable

_MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_EXTRA = {"tensorrt": "gpu", "tensorrt-rtx": "rtx"}


def module(kind: str) -> Any:
    """The Python module of a kind; raises :class:`Unavailable` with the extra that brings it."""
    try:
        return importlib.import_module(_MODULES[kind])
    except ImportError as error:
        raise Unavailable(f"{kind} is not installed: pip install 'fluoronav[{_EXTRA[kind]}]' ({error})") from error


def build(model: Approved, kind: str, target: str, precision: Precision = "fp32") -> tuple[EngineKey, bytes]:
    """Compiles a graph for a GPU of one compute capability.

    Parameters
    ----------
    model : Approved
    kind : str
        ``tensorrt-rtx`` builds for any target, without a GPU; ``tensorrt`` only for the GPU of this computer.
    target : str
        Such as ``sm89``.
    precision : {"fp32", "fp16"}

    Returns
    -------
    EngineKey, bytes

    Raises
    ------
    ModelError
        The graph cannot be built for the target; the text has the parser's first error.
    Unavailable
    """
    trt = module(kind)
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    if not parser.parse((half(model) if precision == "fp16" else model).content):
        first = parser.get_error(0) if parser.num_errors else "no reason given"
        raise ModelError(f"{model.path.name}: {kind} cannot read it: {first}")
    config = builder.create_builder_config()
    if kind == "tensorrt-rtx":
        config.num_compute_capabilities = 1
        config.set_compute_capability(_capability(trt, target), 0)
    elif target != this_gpu():
        raise ModelError(f"tensorrt builds only for the GPU at hand, {this_gpu()}, not for {target}")
    built = builder.build_serialized_network(network, config)
    if built is None:
        raise ModelError(f"{model.path.name}: {kind} {trt.__version__} cannot build it for {target}")
    return EngineKey(model.path.stem, model.sha256, kind, trt.__version__, target, precision), bytes(built)


def _capability(trt: Any, target: str) -> Any:
    found = getattr(trt.ComputeCapability, target.upper(), None)
    if found is None:
        known = ", ".join(x.lower() for x in dir(trt.ComputeCapability) if x.startswith("SM"))
        raise ModelError(f"target {target!r} is unknown to TensorRT-RTX {trt.__version__}; it knows {known}")
    return found


class TensorRtSession:
    """An engine built ahead of time, with buffers on the GPU and its launch recorded as a CUDA graph.

    Parameters
    ----------
    model : Approved
    kind : str
    given, made : mapping of ndarray of float32
        Inputs and outputs by name, read and written by :meth:`run`.
    resident : collection of str
        Inputs that never change, and are copied once.
    precision : {"fp32", "fp16"}
        Of the engine.

    Raises
    ------
    Unavailable
        No GPU, or no TensorRT.
    ModelError
        No engine was built for this GPU and version.
    """

    def __init__(
        self, model: Approved, kind: str, given: Arrays, made: Arrays, resident: Collection[str] = (),
        precision: Precision = "fp32",
    ) -> None:  # fmt: skip
        trt, self._cuda = module(kind), cudart()
        target = this_gpu()
        content = built_engine(model, kind, trt.__version__, target, precision)
        engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(content)
        if engine is None:
            raise ModelError(f"{model.path.name}: its {kind} engine for {target} cannot be loaded; build it again")
        names = [engine.get_tensor_name(k) for k in range(engine.num_io_tensors)]
        check_shapes(model, {n: list(engine.get_tensor_shape(n)) for n in names})
        self._engine, self._context = engine, engine.create_execution_context()
        self._there = OnGpu(given, made, resident)
        for name, address in self._there.address.items():
            self._context.set_tensor_address(name, address)
        self.provider = f"{kind} {trt.__version__} {target} {precision}"
        self._enqueue()  # the allocations of the first run must not be recorded
        self._there.wait()
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        checked(self._cuda.cudaStreamBeginCapture(self._there.stream, mode))
        self._enqueue()
        graph = checked(self._cuda.cudaStreamEndCapture(self._there.stream))
        self._graph = checked(self._cuda.cudaGraphInstantiate(graph, 0))

    def run(self) -> None:
        """Input to output."""
        self._there.send()
        checked(self._cuda.cudaGraphLaunch(self._graph, self._there.stream))
        self._there.fetch()

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._there.stream):
            raise RuntimeError("TensorRT did not take the frame")
