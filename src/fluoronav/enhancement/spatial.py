"""What noise the filter over time has left, smoothed where nothing but noise is."""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

_OPTIONS = {"fastmath": True, "error_model": "numpy", "nogil": True, "boundscheck": False, "cache": True}

# At half dose windows of 7 and 5 pixels made the wire's edge 3.8 and 3.5 pixels wide (3.1 unfiltered).
_WINDOW = 5
# So many times the expected noise variance is taken for noise: the variance in a window is itself uncertain.
_NOISE_MARGIN = 1.0


class LocalWiener:
    """Draws each pixel to its window's mean as far as the window's variance is what the noise explains.

    Lee's filter (IEEE PAMI 2:165, 1980): ``mean + (v - n) / v * (x - mean)``, with v the variance in the window and n
    that of the noise, known here for each pixel from how many frames the memory is worth. An edge's variance is far
    above the noise, so it is left as it is.

    Parameters
    ----------
    rows, cols : int
    """

    def __init__(self, rows: int, cols: int) -> None:
        self._mean, self._square, self._out = (np.zeros((rows, cols), np.float32) for _ in range(3))

    def __call__(self, stabilised: Float32, worth: Float32) -> Float32:
        """The smoothed frame; valid until the next call.

        Parameters
        ----------
        stabilised : ndarray of float32, shape (rows, cols)
        worth : ndarray of float32, shape (rows, cols)
            Its noise variance is 1 over this.
        """
        size = (_WINDOW, _WINDOW)
        cv2.blur(stabilised, size, dst=self._mean)
        cv2.sqrBoxFilter(stabilised, cv2.CV_32F, size, dst=self._square)
        _shrunk(stabilised, self._mean, self._square, worth, self._out)
        return self._out


@njit(**_OPTIONS)
def _shrunk(x, mean, square, worth, out):
    margin = np.float32(_NOISE_MARGIN)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            m = mean[i, j]
            variance = max(square[i, j] - m * m, np.float32(1e-6))
            noise = margin / max(worth[i, j], np.float32(1))
            kept = max(variance - noise, np.float32(0)) / variance
            out[i, j] = m + kept * (x[i, j] - m)
