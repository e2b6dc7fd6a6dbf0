"""A network in a file, with one input and one output of fixed shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fluoronav.inference.eight_bits import fast_here
from fluoronav.inference.manifest import ModelError, approved, approved_in_8_bits
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

    Raises
    ------
    ModelError
        No such file, another hash, other shapes than the manifest says, no memory; or, where a fall-back is refused,
        what was asked for cannot be had.
    """

    def __init__(self, path: Path, settings: InferenceSettings | None = None) -> None:
        settings = settings or InferenceSettings()
        model = approved(path)
        short = settings.cpu_precision == "int8" or (settings.cpu_precision == "auto" and fast_here())
        ((given, in_shape),), ((made, out_shape),) = model.inputs.items(), model.outputs.items()
        try:
            self.input, self.output = np.zeros(in_shape, np.float32), np.zeros(out_shape, np.float32)
        except MemoryError as error:
            raise ModelError(f"{path}: this computer has no memory left for its input and output: {error}") from error
        on_cpu = approved_in_8_bits(path) if short else None
        super().__init__(model, settings, {given: self.input}, {made: self.output}, on_cpu=on_cpu)
