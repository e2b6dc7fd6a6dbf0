"""A network in a file, with one input and one output of fixed shapes."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from fluoronav.imaging.inference.eight_bits import fast_here, why_wrong
from fluoronav.imaging.inference.manifest import Approved, ModelError, approved, approved_in_8_bits, example_in_8_bits
from fluoronav.imaging.inference.runner import Runner
from fluoronav.imaging.inference.settings import InferenceSettings

log = logging.getLogger("fluoronav")


class Model(Runner):
    """A verified network, with its input and output arrays.

    In 8 bits it runs only after an example has given the right output on this CPU. Otherwise the CPU runs the network
    in 32 bits, and :attr:`provider` gives the reason.

    Parameters
    ----------
    path : Path
        ``.onnx``; its entry in ``manifest.json`` in its folder gives SHA-256 and shapes.
    settings : InferenceSettings, optional
        The CPU by default.

    Attributes
    ----------
    input, output : ndarray of float32
        Written before, and read after, each :meth:`run`; allocated once.
    why : str
        Why the CPU runs it in 8 bits or in 32.

    Raises
    ------
    ModelError
        No such file, another hash or other shapes than in the manifest, no memory; or the engine is not available and
        the settings refuse a fallback.
    """

    def __init__(self, path: Path, settings: InferenceSettings | None = None) -> None:
        settings = settings or InferenceSettings()
        model = approved(path)
        on_cpu, self.why = _for_the_cpu(path, settings)
        ((given, in_shape),), ((made, out_shape),) = model.inputs.items(), model.outputs.items()
        try:
            self.input, self.output = np.zeros(in_shape, np.float32), np.zeros(out_shape, np.float32)
        except MemoryError as error:
            raise ModelError(f"{path}: this computer has no memory left for its input and output: {error}") from error
        super().__init__(model, settings, {given: self.input}, {made: self.output}, on_cpu=on_cpu)
        if on_cpu is not None and (wrong := self._why_wrong(path)):
            self._refuse_8_bits(model, wrong)

    def _why_wrong(self, path: Path) -> str:
        """Why the CPU's output in 8 bits is not used; empty where the example gave the right one."""
        try:
            example = example_in_8_bits(path)
            self.input[...] = example.given
            self._on_the_cpu.run()
            return why_wrong(self.output, example)
        except ValueError as error:  # no example, or of another shape
            return f"8 bits cannot be tried: {error}"
        finally:
            self.input[...] = self.output[...] = 0

    def _refuse_8_bits(self, model: Approved, wrong: str) -> None:
        asked_for = self._settings.cpu_precision == "int8"
        text = f"{self.name}: {wrong}; the CPU runs the whole network"
        if asked_for and self._settings.fallback == "refuse":
            raise ModelError(f"{self.name}: inference.cpu_precision int8: {wrong}")
        if asked_for and self._settings.fallback == "warn":
            self.fault = self.fault or text
        log.warning(text)
        self.why = wrong
        self._instead_of_8_bits(model, wrong)


def _for_the_cpu(path: Path, settings: InferenceSettings) -> tuple[Approved | None, str]:
    """The network in 8 bits where the CPU shall run it, else None; and the reason."""
    asked = settings.cpu_precision
    if asked == "fp32":
        return None, "fp32 was asked for"
    if asked == "auto" and not fast_here():
        return None, "this CPU is not known to be faster in 8 bits (it has no AVX2)"
    if (short := approved_in_8_bits(path)) is None:
        return None, "it does not ship in 8 bits"
    return short, "this CPU is faster in 8 bits" if asked == "auto" else "int8 was asked for"
