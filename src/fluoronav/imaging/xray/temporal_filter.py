"""A recursive filter over time that forgets where something has moved."""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from fluoronav.imaging.xray.noise import NoiseModel, estimated_noise

Float32 = NDArray[np.float32]

_OPTIONS = {"fastmath": True, "error_model": "numpy", "nogil": True, "boundscheck": False, "cache": True}

# Share of the newest frame where nothing moves: noise falls to sqrt(a / (2 - a)), 0.42 of a frame's.
_NEWEST = 0.3
# A difference that the noise explains up to here, and no more from there on (sigmas of a sum over 5 x 5 pixels).
_STILL, _MOVED = 1.4, 2.4
_RADIUS = 2
_RING = 2 * _RADIUS + 2  # rows of differences that are kept: the window's, and the one that leaves it
# The whole picture is moved when it has shifted by more than this (pixels), and begun anew beyond that. Shifts are not
# looked for while a small picture differs from the last one by little more than the noise.
_LEAST_SHIFT_PX, _MOST_SHIFT_PX, _SHIFT_SIDE, _RESTLESS = 0.3, 24.0, 256, 1.3
# What a shift of the whole picture must improve: the median difference over this share of the small picture, to this.
_STEEP_SHARE, _BETTER, _SMOOTHED_PX = 0.3, 0.8, 1.0
_MODEL_EVERY_FRAMES = 60


class TemporalFilter:
    """Averages what stands still over time and shows what moves as it is.

    In counts that were stabilised to a noise of 1 (:class:`.noise.NoiseModel`) the difference of frame and memory is
    compared with the noise, in a window of 5 x 5 pixels: a wire that has moved by its own width differs by many sigmas,
    so neither where it was nor where it is does the memory count. The memory follows a shift of the whole picture.

    Parameters
    ----------
    rows, cols : int

    Attributes
    ----------
    shift_px : tuple of float
        By how much the last frame's memory was moved: columns, rows.
    """

    def __init__(self, rows: int, cols: int) -> None:
        self._memory, self._moved = (np.zeros((rows, cols), np.float32) for _ in range(2))
        # How many frames the memory is worth, for each pixel: its noise is 1 / sqrt of that.
        self._worth = np.zeros((rows, cols), np.float32)
        self._ring = np.zeros((_RING, cols), np.float32)
        self._sums = np.zeros(cols + 2 * _RADIUS, np.float32)
        self._small_shape = tuple(max(round(n * _SHIFT_SIDE / max(rows, cols)), 1) for n in (rows, cols))
        self._small: Float32 | None = None
        self._window = cv2.createHanningWindow(self._small_shape[::-1], cv2.CV_32F)
        self._before: NDArray | None = None
        self._frames = 0
        self.shift_px = (0.0, 0.0)
        self._used = NoiseModel(1.0, 0.0, 1.0)
        self.model: NoiseModel | None = None

    def __call__(self, counts: NDArray, dark: float, field_mask: NDArray[np.bool_] | None = None) -> Float32:
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
        if self._before is not None:
            found = estimated_noise(self._before, counts, dark, field_mask)
            self._before = None
            if found is not None and self._differs(found):
                self.model = found
                self._begin_anew(found)
        elif self.model is None:
            # Until a second frame has told: as if every count were a photon.
            self._begin_anew(NoiseModel(1.0, dark, 1.0))
        if self.model is None or self._frames % _MODEL_EVERY_FRAMES == 0:
            self._before = np.array(counts)
        self._frames += 1
        self._follow_shift(counts)
        scale, slope, offset = self._used.root()
        _blend(
            counts, np.float32(scale), np.float32(slope), np.float32(offset), self._memory, self._worth, self._ring,
            self._sums,
        )  # fmt: skip
        return self._memory

    @property
    def worth(self) -> Float32:
        """How many frames the memory is worth, by pixel: its noise variance is 1 over that."""
        return self._worth

    def _differs(self, found: NoiseModel) -> bool:
        now = self.model
        return now is None or not 0.8 < found.gain / now.gain < 1.25 or abs(found.dark - now.dark) > 20 * now.gain

    def _begin_anew(self, model: NoiseModel) -> None:
        """With another noise model: what was stabilised by the old one cannot be compared."""
        self._used = model
        self._worth[:] = 0
        self._small = None

    def _follow_shift(self, counts: NDArray) -> None:
        """Moves the memory with the picture."""
        self.shift_px = (0.0, 0.0)
        binned = cv2.resize(counts, self._small_shape[::-1], interpolation=cv2.INTER_AREA)
        scale, slope, offset = (np.float32(x) for x in self._used.root())
        small = scale * np.sqrt(np.maximum(slope * binned.astype(np.float32) + offset, np.float32(0)))
        before, self._small = self._small, small
        if before is None:
            return
        # A small pixel's noise is that of a pixel over the root of how many it is the mean of; twice, in a difference.
        expected = np.float32(max(np.sqrt(2.0 * small.size / counts.size), 0.05))
        off = np.abs(small - before)
        # What stands out, as a moving wire does, counts no more than three sigmas: it is the whole that is looked at.
        np.minimum(off, 3 * expected, out=off)
        if float(np.vdot(off, off)) < (_RESTLESS * float(expected)) ** 2 * off.size:
            return
        # Copies: OpenCV multiplies what it is given by the window, in place where the size needs no padding.
        (dx, dy), response = cv2.phaseCorrelate(before.copy(), small.copy(), self._window)
        per_small = counts.shape[1] / small.shape[1]
        size = per_small * float(np.hypot(dx, dy))
        if size < _LEAST_SHIFT_PX or response < 0.1 or not _explains((dx, dy), before, small):
            return
        dx, dy = per_small * dx, per_small * dy
        if size > _MOST_SHIFT_PX:
            self._worth[:] = 0
            return
        self.shift_px = dx, dy
        M = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
        shape = counts.shape[::-1]
        for image in (self._memory, self._worth):
            cv2.warpAffine(image, M, shape, dst=self._moved, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
            np.copyto(image, self._moved)
        np.maximum(self._worth, 0, out=self._worth)


def _explains(shift: tuple[float, float], before: Float32, now: Float32) -> bool:
    """Whether the picture as a whole has moved, and not just something that stands out in it.

    A wire that moves before a patient who does not draws the peak of the phase correlation to itself. So the shift must
    make the steeper parts of the picture fit better than no shift does, each of which counts once, however dark it is.
    Both pictures are smoothed, or what is interpolated would fit better for having less noise.
    """
    a, b = (cv2.GaussianBlur(x, (0, 0), _SMOOTHED_PX) for x in (before, now))
    M = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
    moved = cv2.warpAffine(a, M, a.shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    steep = np.abs(cv2.Sobel(b, cv2.CV_32F, 1, 0)) + np.abs(cv2.Sobel(b, cv2.CV_32F, 0, 1))
    there = steep > np.quantile(steep[::4, ::4], 1 - _STEEP_SHARE)
    still, shifted = (np.abs(x - b)[there] for x in (a, moved))
    return float(np.median(shifted)) < _BETTER * float(np.median(still))


@njit(**_OPTIONS)
def _blend(counts, scale, slope, offset, memory, worth, ring, sums):
    """Memory towards the frame: by 1 / (n + 1) at first, by _NEWEST in the long run, wholly where something moved.

    Row by row, so that what is read stays in the processor's nearest cache: differences of the window's rows lie in
    `ring`, their sums by column in `sums`, with the window's radius to either side.
    """
    rows, cols = counts.shape
    ring[:] = 0
    sums[:] = 0
    for i in range(rows + _RADIUS):
        if i < rows:
            leaves = ring[(i + 1) % _RING]
            _differences(counts[i], scale, slope, offset, memory[i], leaves, ring[i % _RING], sums)
        else:
            _taken_off(ring[(i + 1) % _RING], sums)
        k = i - _RADIUS
        if k >= 0:
            for j in range(_RADIUS):
                sums[j] = sums[_RADIUS]
                sums[cols + _RADIUS + j] = sums[cols + _RADIUS - 1]
            in_window = min(k + _RADIUS, rows - 1) - max(k - _RADIUS, 0) + 1
            sigmas = np.float32(1 / np.sqrt(in_window * (2 * _RADIUS + 1)))
            _blend_row(ring[k % _RING], sums, sigmas, memory[k], worth[k])


@njit(**_OPTIONS)
def _differences(counts, scale, slope, offset, memory, leaves, difference, sums):
    zero = np.float32(0)
    for j in range(counts.shape[0]):
        d = scale * np.sqrt(max(np.float32(counts[j]) * slope + offset, zero)) - memory[j]
        sums[j + _RADIUS] += d - leaves[j]
        difference[j] = d


@njit(**_OPTIONS)
def _taken_off(leaves, sums):
    for j in range(leaves.shape[0]):
        sums[j + _RADIUS] -= leaves[j]


@njit(**_OPTIONS)
def _blend_row(difference, sums, sigmas, memory, worth):
    zero, one, newest = np.float32(0), np.float32(1), np.float32(_NEWEST)
    most = np.float32((2 - _NEWEST) / _NEWEST)
    moved, per_sigma = np.float32(_MOVED), np.float32(1 / (_MOVED - _STILL))
    for j in range(difference.shape[0]):
        n = worth[j]
        # The noise of a difference of frame and memory has the variance 1 + 1 / n.
        z = abs(sums[j] + sums[j + 1] + sums[j + 2] + sums[j + 3] + sums[j + 4]) * sigmas * np.sqrt(n / (n + one))
        n *= min(max((moved - z) * per_sigma, zero), one)
        memory[j] += max(one / (n + one), newest) * difference[j]
        worth[j] = min(n + one, most)
