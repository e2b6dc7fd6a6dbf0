"""The learned denoiser: in the place of the local filter, where a GPU makes it free or somebody asks for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluoronav.imaging.inference import InferenceSettings, Model, engine
from fluoronav.imaging.xray.spatial_filter import LocalWiener

Float32 = NDArray[np.float32]

SIDE = 1024  # of the network's input: the largest frame that it takes
# What the network takes off is given back where it is more than so many times the noise variance explains (bench
# enhancement, half dose: edge 3.5 pixels instead of 4.7 with all of it taken off, ghost 4.4 instead of 11.6 %).
_NOISE_MARGIN = 1.5


class LearnedDenoiser:
    """Predicts the noise that the filter over time has left, and takes it off as far as it can be noise.

    A network that was trained for small errors on the whole smooths the edge of a wire now and then. So what it takes
    off goes through :class:`.spatial.LocalWiener`: where that has structure beyond the noise, it is given back.

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
        self._guess = self.model.output[0, 0, :rows, :cols]
        self._taken, self._out = np.empty((rows, cols), np.float32), np.empty((rows, cols), np.float32)
        self._given_back = LocalWiener(rows, cols, _NOISE_MARGIN)
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
        np.subtract(stabilised, self._guess, out=self._taken)
        np.add(self._guess, self._given_back(self._taken, worth), out=self._out)
        return self._out
