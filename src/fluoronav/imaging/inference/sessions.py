"""ONNX Runtime's providers behind one interface: arrays that are bound once, and `run`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fluoronav.imaging.inference.manifest import Approved, MissingError, ModelError, in_a_line
from fluoronav.imaging.inference.settings import Engine, Unavailable

Float32 = NDArray[np.float32]
Arrays = Mapping[str, Float32]

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
_OPENVINO = "fluoronav-openvino"
_registered: set[str] = set()


class Session(Protocol):
    """A loaded graph; `provider` is the engine that runs it."""

    provider: str

    def run(self) -> None: ...


class OrtSession:
    """A graph in ONNX Runtime on the CPU, with its input and output bound.

    Parameters
    ----------
    model : Approved
    engine : {"cpu", "openvino"}
    threads : int
    given, made : mapping of ndarray of float32
        By name: read and written by :meth:`run`.

    Raises
    ------
    Unavailable
        The provider is not installed, or refused the graph.
    ModelError
        The graph is damaged, or has other shapes than in the manifest.
    """

    def __init__(self, model: Approved, engine: Engine, threads: int, given: Arrays, made: Arrays) -> None:
        self._session = loaded(model, engine, threads)
        self.provider = f"onnxruntime {self._session.get_providers()[0]}" + (", int8" if model.bits == 8 else "")
        self._binding = self._session.io_binding()
        for name, array in given.items():
            self._binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        for name, array in made.items():
            self._binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        self._kept = given, made  # bound arrays must not be freed
        # OpenVINO's plugin 1.8 ignores bound arrays: inputs are passed at each run, and outputs are copied.
        self._bound = engine != "openvino"

    def run(self) -> None:
        """Input to output."""
        if self._bound:
            self._session.run_with_iobinding(self._binding)
            return
        given, made = self._kept
        for name, value in zip(made, self._session.run(list(made), dict(given)), strict=True):
            made[name][...] = np.asarray(value)


def loaded(model: Approved, engine: Engine, threads: int, provider_options: Mapping[str, str] | None = None) -> Any:
    """ONNX Runtime's session of a model on one engine and no other; raises as :class:`OrtSession` does."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingError(f"{model.path.name}: needs ONNX Runtime: pip install 'fluoronav[cpu]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A thread that spins while it waits takes a core from the frame path.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    providers = _providers(onnxruntime, options, engine, threads, provider_options or {})
    try:
        session = onnxruntime.InferenceSession(model.content, options, providers=providers)
    except Exception as error:
        text = f"{model.path}: ONNX Runtime cannot load it: {in_a_line(error)}"
        raise (ModelError if engine == "cpu" else Unavailable)(text) from error
    got = session.get_providers()[0]
    if got != _PROVIDERS[engine]:
        # ONNX Runtime falls back by itself and says so only in its log.
        raise Unavailable(f"ONNX Runtime gave {got} instead of {_PROVIDERS[engine]}")
    ends = (*session.get_inputs(), *session.get_outputs())
    check_shapes(model, {x.name: list(x.shape) for x in ends})
    return session


def check_shapes(model: Approved, shapes: dict[str, list[int]]) -> None:
    """Compares a loaded graph with the manifest; raises :class:`ModelError`."""
    for name, shape in {**model.inputs, **model.outputs}.items():
        if shapes.get(name) != shape:
            raise ModelError(f"{model.path}: {name} has shape {shapes.get(name)}, the manifest says {shape}")


def _providers(
    onnxruntime: Any, options: Any, engine: Engine, threads: int, provider_options: Mapping[str, str]
) -> list[Any]:
    if engine == "openvino":
        options.add_provider_for_devices(_openvino_devices(onnxruntime), {"load_config": _openvino_config(threads)})
        return []
    name = _PROVIDERS[engine]
    if name not in onnxruntime.get_available_providers():
        raise Unavailable(f"this ONNX Runtime has no {name}; it has {', '.join(onnxruntime.get_available_providers())}")
    if engine == "cuda":  # CUDA's packages are not in the loader's path
        onnxruntime.preload_dlls()
    return [(name, dict(provider_options)), *([] if engine == "cpu" else ["CPUExecutionProvider"])]


def _openvino_devices(onnxruntime: Any) -> list[Any]:
    try:
        import onnxruntime_ep_openvino as plugin
    except ImportError as error:
        raise Unavailable("OpenVINO's provider is not installed: pip install 'fluoronav[openvino]'") from error
    if _OPENVINO not in _registered:
        onnxruntime.register_execution_provider_library(_OPENVINO, plugin.get_library_path())
        _registered.add(_OPENVINO)
    name = plugin.get_ep_name()
    found = onnxruntime.get_ep_devices()
    devices = [d for d in found if d.ep_name == name and d.ep_metadata.get("ov_device") == "CPU"]
    if not devices:
        raise Unavailable("OpenVINO's provider offers itself on CPUs of Intel only, and sees none here")
    return devices


def _openvino_config(threads: int) -> str:
    return json.dumps({"CPU": {"INFERENCE_NUM_THREADS": str(threads), "PERFORMANCE_HINT": "LATENCY"}})
