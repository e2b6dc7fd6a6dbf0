"""A recursive filter over time that forgets where something has moved."""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from fluoronav.enhancement.noise import NoiseModel, estimated_noise

Float32 = NDArray[np.float32]

_OPTIONS = {"fastmath": True, "error_model": "numpy", "nogil": True, "boundscheck": False, "cache": True}

# Share of the newest frame where nothing moves: noise falls to sqrt(a / (2 - a)), 0.42 of a frame's.
_NEWEST = 0.3
# A difference that the noise explains up to here, and no more from there on (sigmas of a 5 x 5 mean).
_STILL, _MOVED = 1.8, 3.6
_WINDOW = 5
# The whole picture is moved when it has shifted by more than this (pixels), and begun anew beyond that.
_LEAST_SHIFT_PX, _MOST_SHIFT_PX, _SHIFT_SIDE = 0.3, 24.0, 256
_MODEL_EVERY_FRAMES = 60


class TemporalFilter:
    """Averages what stands still over time and shows what moves as it is.

    In counts that were stabilised to a noise of 1 (:class:`.noise.NoiseModel`) the difference of frame and memory is
    compared with the noise, in a window of 5 x 5 pixels: a wire that has moved by its own width differs by many sigmas,
    so neither where it was nor where it is does the memory count. The memory follows a shift of the whole picture.

    Parameters
    ----------
    rows, cols : int
    """

    def __init__(self, rows: int, cols: int) -> None:
        self._x, self._difference = (np.zeros((rows, cols), np.float32) for _ in range(2))
        self._memory, self._moved = (np.zeros((rows, cols), np.float32) for _ in range(2))
        # How many frames the memory is worth, for each pixel: its noise is 1 / sqrt of that.
        self._worth = np.zeros((rows, cols), np.float32)
        self._table = np.zeros(65536, np.float32)
        self._small: Float32 | None = None
        self._window = cv2.createHanningWindow((_SHIFT_SIDE, _SHIFT_SIDE), cv2.CV_32F)
        self._before: NDArray | None = None
        self._frames = 0
        self.model: NoiseModel | None = None

    def __call__(self, counts: NDArray, dark: float, seen: NDArray[np.bool_] | None = None) -> Float32:
        """The frame with less noise.

        Parameters
        ----------
        counts : ndarray of uint8 or uint16, shape (rows, cols)
        dark : float
            Counts without X-rays.
        seen : ndarray of bool, optional
            Inside the aperture, any size.

        Returns
        -------
        ndarray of float32, shape (rows, cols)
            Stabilised counts; the memory itself, valid until the next call.
        """
        if self._before is not None and (self.model is None or self._frames % _MODEL_EVERY_FRAMES == 1):
            found = estimated_noise(self._before, counts, dark, seen)
            if found is not None and self._differs(found):
                self._adopt(found)
        if self.model is None:
            # Until a second frame has told: as if every count were a photon.
            self._adopt(NoiseModel(1.0, dark, 1.0))
            self.model = None
        self._before = np.array(counts) if self._before is None else self._before
        np.copyto(self._before, counts)
        self._frames += 1
        _looked_up(counts, self._table, self._memory, self._x, self._difference)
        if self._follow_shift():
            np.subtract(self._x, self._memory, out=self._difference)
        cv2.blur(self._difference, (_WINDOW, _WINDOW), dst=self._moved)
        _blend(self._x, self._memory, self._worth, self._moved, np.float32(_WINDOW))
        return self._memory

    @property
    def worth(self) -> Float32:
        """How many frames the memory is worth, by pixel: its noise variance is 1 over that."""
        return self._worth

    def _differs(self, found: NoiseModel) -> bool:
        now = self.model
        return now is None or not 0.8 < found.gain / now.gain < 1.25 or abs(found.dark - now.dark) > 20 * now.gain

    def _adopt(self, model: NoiseModel) -> None:
        """Begins anew with another noise model: what was stabilised by the old one cannot be compared."""
        self.model = model
        self._table[:] = model.stabilised(np.arange(65536))
        self._worth[:] = 0
        self._small = None

    def _follow_shift(self) -> bool:
        """Moves the memory with the picture; False where that was not needed."""
        small = np.asarray(cv2.resize(self._x, (_SHIFT_SIDE, _SHIFT_SIDE), interpolation=cv2.INTER_AREA), np.float32)
        before, self._small = self._small, small
        if before is None:
            return False
        (dx, dy), response = cv2.phaseCorrelate(before, small, self._window)
        scale = self._x.shape[1] / _SHIFT_SIDE
        dx, dy = dx * scale, dy * scale
        size = float(np.hypot(dx, dy))
        if size < _LEAST_SHIFT_PX or response < 0.1:
            return False
        if size > _MOST_SHIFT_PX:
            self._worth[:] = 0
            return False
        M = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
        shape = self._x.shape[::-1]
        for image in (self._memory, self._worth):
            cv2.warpAffine(image, M, shape, dst=self._moved, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
            np.copyto(image, self._moved)
        np.maximum(self._worth, 0, out=self._worth)
        return True


@njit(**_OPTIONS)
def _looked_up(counts, table, memory, x, difference):
    for i in range(counts.shape[0]):
        for j in range(counts.shape[1]):
            value = table[counts[i, j]]
            x[i, j] = value
            difference[i, j] = value - memory[i, j]


@njit(**_OPTIONS)
def _blend(x, memory, worth, mean_difference, window):
    """Memory towards the frame: by 1 / (n + 1) at first, by _NEWEST in the long run, wholly where something moved."""
    still, moved = np.float32(_STILL), np.float32(_MOVED)
    newest = np.float32(_NEWEST)
    most = np.float32((2 - _NEWEST) / _NEWEST)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            n = worth[i, j]
            # Noise of the difference of frame and memory, in the mean over the window.
            sigma = np.sqrt(np.float32(1) + np.float32(1) / max(n, np.float32(1))) / window
            z = abs(mean_difference[i, j]) / sigma
            trust = min(max((moved - z) / (moved - still), np.float32(0)), np.float32(1))
            n = n * trust
            share = max(np.float32(1) / (n + np.float32(1)), newest)
            memory[i, j] += share * (x[i, j] - memory[i, j])
            worth[i, j] = min(n + np.float32(1), most)
