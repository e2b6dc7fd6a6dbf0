"""The learned denoiser, which replaces the local filter on a GPU or where the settings ask for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluoronav.imaging.inference import InferenceSettings, Model, engine
from fluoronav.imaging.xray.spatial_filter import LocalWiener

Float32 = NDArray[np.float32]

SIDE = 1024  # pixels of the network's input: the largest frame that it takes
# Detail that the network removed is restored where its variance exceeds the noise variance by this factor. From
# `fluoronav bench enhancement` at half dose: edge width 3.5 px with it, 4.7 px without; ghost 4.4 %, 11.6 % without.
_NOISE_MARGIN = 1.5


class LearnedDenoiser:
    """Predicts the noise that the temporal filter has left, and subtracts it as far as it can be noise.

    A network trained for a small mean error sometimes smooths the edge of a wire. So what it would subtract passes
    :class:`.spatial_filter.LocalWiener`: structure beyond the noise is not subtracted.

    Parameters
    ----------
    rows, cols : int
        Of the frames; at most 1024.
    inference : InferenceSettings

    Raises
    ------
    ModelError
        The network differs from ``engines/manifest.json``, or no engine runs it.
    ValueError
        Frames are larger than the network's input.
    """

    def __init__(self, rows: int, cols: int, inference: InferenceSettings) -> None:
        if max(rows, cols) > SIDE:
            raise ValueError(f"the denoiser takes frames up to {SIDE} x {SIDE}; these have {cols} x {rows}")
        self.model = Model(engine("denoiser.onnx"), inference)
        self._frame, self._worth = self.model.input[0, :, :rows, :cols]
        self._guess = self.model.output[0, 0, :rows, :cols]
        self._taken, self._out = np.empty((rows, cols), np.float32), np.empty((rows, cols), np.float32)
        self._given_back = LocalWiener(rows, cols, _NOISE_MARGIN)
        self.model.run()

    def __call__(self, stabilised: Float32, worth: Float32) -> Float32:
        """The denoised frame; valid until the next call.

        Parameters
        ----------
        stabilised : ndarray of float32, shape (rows, cols)
        worth : ndarray of float32, shape (rows, cols)
            Number of frames averaged: the noise variance is 1 over it.
        """
        np.copyto(self._frame, stabilised)
        np.copyto(self._worth, worth)
        self.model.run()
        np.subtract(stabilised, self._guess, out=self._taken)
        np.add(self._guess, self._given_back(self._taken, worth), out=self._out)
        return self._out
