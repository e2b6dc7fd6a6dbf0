"""ONNX Runtime with what an operating room asks of it: the file that was approved, or none."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fluoronav.paths import shipped

Float32 = NDArray[np.float32]

_THREADS = 2


class ModelError(ValueError):
    """A model that cannot be used; the text names the file, what is wrong and what to do."""


class Model:
    """One graph with one input and one output of fixed shapes.

    Parameters
    ----------
    path : Path
        ``.onnx``; its entry in ``manifest.json`` beside it gives SHA-256 and shapes.

    Attributes
    ----------
    input, output : ndarray of float32
        Written before, and read after, each :meth:`run`; allocated once.
    sha256 : str
    provider : str
        What ONNX Runtime truly runs it on.

    Raises
    ------
    ModelError
        No ONNX Runtime, no such file, another hash, or other shapes than the manifest says.
    """

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ModelError(f"{path.name}: needs ONNX Runtime: pip install 'fluoronav[cpu]'") from error
        entry = _entry(path)
        content = path.read_bytes()
        self.sha256 = hashlib.sha256(content).hexdigest()
        if self.sha256 != entry["sha256"]:
            raise ModelError(
                f"{path}: its SHA-256 is {self.sha256[:12]}..., the manifest says {str(entry['sha256'])[:12]}...: it "
                "is not the file that was approved; restore it, or approve it by its hash in manifest.json"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _THREADS
        options.inter_op_num_threads = 1
        # A thread that spins while it waits takes a core from the frame path.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelError(f"{path}: ONNX Runtime cannot load it: {str(error).splitlines()[0]}") from error
        (given,), (made,) = self._session.get_inputs(), self._session.get_outputs()
        shapes = {given.name: list(given.shape), made.name: list(made.shape)}
        for name, shape in {**entry["inputs"], **entry["outputs"]}.items():
            if shapes.get(name) != shape:
                raise ModelError(f"{path}: {name} has shape {shapes.get(name)}, the manifest says {shape}")
        self.provider = str(self._session.get_providers()[0])
        self.input, self.output = np.zeros(given.shape, np.float32), np.zeros(made.shape, np.float32)
        self._binding = self._session.io_binding()
        for bind, name, array in (
            (self._binding.bind_input, given.name, self.input),
            (self._binding.bind_output, made.name, self.output),
        ):
            bind(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)

    def run(self) -> None:
        """`input` to `output`."""
        self._session.run_with_iobinding(self._binding)


def engine(name: str) -> Path:
    """A model that ships with the package."""
    return shipped(f"engines/{name}")


def _entry(path: Path) -> dict:
    manifest = path.parent / "manifest.json"
    if not path.exists():
        raise ModelError(f"{path}: no such file")
    try:
        return json.loads(manifest.read_text())[path.name]
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{manifest}: says nothing of {path.name}: a model is loaded by its hash or not at all"
        ) from error
