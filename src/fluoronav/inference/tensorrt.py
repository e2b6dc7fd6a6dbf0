"""TensorRT and TensorRT-RTX by their own Python interfaces: building ahead of time, and running what was built.

Building for TensorRT-RTX needs no GPU and is tested; running needs one and is not (docs/gpu.md).
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from typing import Any

from fluoronav.inference.cache import EngineKey, built_engine
from fluoronav.inference.half import half
from fluoronav.inference.manifest import Approved, ModelError
from fluoronav.inference.sessions import Arrays, Unavailable, check_shapes
from fluoronav.inference.settings import Precision

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
        The graph cannot be built for it; the text holds the parser's first complaint.
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


def this_gpu() -> str:
    """The compute capability of the first GPU, such as ``sm89``; raises :class:`Unavailable` where there is none."""
    cudart = _cudart()
    count = _checked(cudart.cudaGetDeviceCount())
    if not count:
        raise Unavailable("there is no NVIDIA GPU")
    major, minor = (
        _checked(cudart.cudaDeviceGetAttribute(getattr(cudart.cudaDeviceAttr, f"cudaDevAttrComputeCapability{x}"), 0))
        for x in ("Major", "Minor")
    )
    return f"sm{major}{minor}"


class TensorRtSession:
    """An engine that was built ahead, with buffers on the GPU and its launch recorded as a CUDA graph.

    Parameters
    ----------
    model : Approved
    kind : str
    given, made : mapping of ndarray of float32
        By name: read and written by :meth:`run`.
    resident : collection of str
        Inputs that never change; they are copied once.
    precision : {"fp32", "fp16"}
        Of the engine that was built.

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
        trt, self._cuda = module(kind), _cudart()
        target = this_gpu()
        content = built_engine(model, kind, trt.__version__, target, precision)
        engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(content)
        if engine is None:
            raise ModelError(f"{model.path.name}: its {kind} engine for {target} cannot be loaded; build it again")
        names = [engine.get_tensor_name(k) for k in range(engine.num_io_tensors)]
        check_shapes(model, {n: list(engine.get_tensor_shape(n)) for n in names})
        self._engine, self._context = engine, engine.create_execution_context()
        self._stream = _checked(self._cuda.cudaStreamCreate())
        self._kept = given, made
        there = {name: _checked(self._cuda.cudaMalloc(a.nbytes)) for name, a in {**given, **made}.items()}
        for name, pointer in there.items():
            self._context.set_tensor_address(name, int(pointer))
        to = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        for name in resident:
            _checked(self._cuda.cudaMemcpy(there[name], given[name].ctypes.data, given[name].nbytes, to))
        self._to = [(there[name], a) for name, a in given.items() if name not in resident]
        self._fro = [(there[name], a) for name, a in made.items()]
        self.provider = f"{kind} {trt.__version__} {target} {precision}"
        self._enqueue()  # what is allocated on the first run must not be recorded
        _checked(self._cuda.cudaStreamSynchronize(self._stream))
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _checked(self._cuda.cudaStreamBeginCapture(self._stream, mode))
        self._enqueue()
        graph = _checked(self._cuda.cudaStreamEndCapture(self._stream))
        self._graph = _checked(self._cuda.cudaGraphInstantiate(graph, 0))

    def run(self) -> None:
        """Input to output."""
        _checked(self._cuda.cudaGraphLaunch(self._graph, self._stream))
        _checked(self._cuda.cudaStreamSynchronize(self._stream))

    def _enqueue(self) -> None:
        kind = self._cuda.cudaMemcpyKind
        to, fro = kind.cudaMemcpyHostToDevice, kind.cudaMemcpyDeviceToHost
        for there, array in self._to:
            _checked(self._cuda.cudaMemcpyAsync(there, array.ctypes.data, array.nbytes, to, self._stream))
        if not self._context.execute_async_v3(int(self._stream)):
            raise RuntimeError("TensorRT did not take the frame")
        for there, array in self._fro:
            _checked(self._cuda.cudaMemcpyAsync(array.ctypes.data, there, array.nbytes, fro, self._stream))


def _cudart() -> Any:
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise Unavailable(
            f"CUDA's Python bindings are not installed: pip install 'fluoronav[rtx]' ({error})"
        ) from error


def _checked(answer: tuple[Any, ...]) -> Any:
    """The value of a CUDA call; raises on any error."""
    error, *values = answer
    if int(error) != 0:
        raise Unavailable(f"CUDA says {error.name}")
    return values[0] if values else None
