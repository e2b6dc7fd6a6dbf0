"""The learned denoiser: in the place of the local filter, where a GPU makes it free or somebody asks for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluoronav.inference import InferenceSettings, Model, engine

Float32 = NDArray[np.float32]

SIDE = 1024  # of the network's input: the largest frame that it takes


class LearnedDenoiser:
    """Predicts the noise that the filter over time has left, and takes it off.

    Parameters
    ----------
    rows, cols : int
        Of the frames; at most 1024.
    inference : InferenceSettings

    Raises
    ------
    ModelError
        The network is not as ``engines/manifest.json`` says, or nothing runs it.
    ValueError
        Frames are larger than its input.
    """

    def __init__(self, rows: int, cols: int, inference: InferenceSettings) -> None:
        if max(rows, cols) > SIDE:
            raise ValueError(f"the denoiser takes frames up to {SIDE} x {SIDE}; these have {cols} x {rows}")
        self.model = Model(engine("denoiser.onnx"), inference)
        self._frame, self._worth = self.model.input[0, :, :rows, :cols]
        self._out = self.model.output[0, 0, :rows, :cols]
        self.model.run()

    def __call__(self, stabilised: Float32, worth: Float32) -> Float32:
        """The frame without noise, as far as it can be told; valid until the next call.

        Parameters
        ----------
        stabilised : ndarray of float32, shape (rows, cols)
        worth : ndarray of float32, shape (rows, cols)
            Its noise variance is 1 over this.
        """
        np.copyto(self._frame, stabilised)
        np.copyto(self._worth, worth)
        self.model.run()
        return self._out
