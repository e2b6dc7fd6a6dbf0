"""A network in a file, with one input and one output of fixed shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fluoronav.inference.manifest import ModelError, approved
from fluoronav.inference.runner import Runner
from fluoronav.inference.settings import InferenceSettings


class Model(Runner):
    """A verified network, and the arrays that it reads and writes.

    Parameters
    ----------
    path : Path
        ``.onnx``; its entry in ``manifest.json`` beside it gives SHA-256 and shapes.
    settings : InferenceSettings, optional
        The CPU by default.

    Attributes
    ----------
    input, output : ndarray of float32
        Written before, and read after, each :meth:`run`; allocated once.
    sha256 : str

    Raises
    ------
    ModelError
        No such file, another hash, other shapes than the manifest says, no memory; or, where a fall-back is refused,
        what was asked for cannot be had.
    """

    def __init__(self, path: Path, settings: InferenceSettings | None = None) -> None:
        model = approved(path)
        self.sha256 = model.sha256
        ((given, in_shape),), ((made, out_shape),) = model.inputs.items(), model.outputs.items()
        try:
            self.input, self.output = np.zeros(in_shape, np.float32), np.zeros(out_shape, np.float32)
        except MemoryError as error:
            raise ModelError(f"{path}: this computer has no memory left for its input and output: {error}") from error
        super().__init__(model, settings or InferenceSettings(), {given: self.input}, {made: self.output})
