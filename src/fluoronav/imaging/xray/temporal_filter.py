"""A recursive temporal filter that restarts where something has moved."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.imaging.xray.noise import NoiseModel, estimated_noise
from fluoronav.kernels import njit

Float32 = NDArray[np.float32]

_OPTIONS = {"fastmath": True, "error_model": "numpy", "nogil": True, "boundscheck": False, "cache": True}


@dataclass(frozen=True, slots=True)
class TemporalSettings:
    """Settings of the filter; chosen, and checked by `fluoronav bench enhancement`."""

    newest: float = 0.3  # weight a of the newest frame where nothing moves: noise falls to sqrt(a / (2 - a)) = 0.42
    still_sigmas: float = 1.4  # up to here noise explains a difference, summed over the window
    moved_sigmas: float = 2.4  # from here on it is motion; between them the weight falls linearly
    radius_px: int = 2  # of the window
    model_every_frames: int = 60  # between two estimates of the noise model
    # Change of the noise model that restarts the filter.
    gain_ratio: tuple[float, float] = (0.8, 1.25)
    dark_gains: float = 20.0  # of the dark level, in gains
    # Shift of the whole image, by phase correlation of small images.
    shift_side: int = 256  # pixels of the longer side
    least_shift_px: float = 0.3  # smaller shifts are ignored
    most_shift_px: float = 24.0  # larger ones restart the filter
    least_response: float = 0.1  # of the phase correlation
    noise_ratio: float = 1.3  # RMS difference to that of the noise, below which no shift is estimated
    clip_sigmas: float = 3.0  # of a difference: a moving wire must not look like a shift of the image
    # A shift must reduce the median difference over the steepest pixels.
    steep_fraction: float = 0.3
    reduced_to: float = 0.8
    smoothing_px: float = 1.0  # Gaussian sigma, since interpolation alone would lower the noise


SETTINGS = TemporalSettings()
# Numba compiles module-level scalars in.
_NEWEST, _STILL, _MOVED = SETTINGS.newest, SETTINGS.still_sigmas, SETTINGS.moved_sigmas
_RADIUS = SETTINGS.radius_px
_RING = 2 * _RADIUS + 2  # rows of differences that are kept: the window's, and the one that leaves it


class TemporalFilter:
    """Averages over time where nothing moves, and shows the newest frame where something does.

    Counts are stabilised to a noise of 1 (:class:`.noise.NoiseModel`). The difference between frame and memory is
    compared with the noise in a window of 5 x 5 pixels. A wire that has moved by its own width differs by many sigmas,
    so the memory has no weight where it was and where it is. The memory follows a shift of the whole image.

    Parameters
    ----------
    rows, cols : int

    Attributes
    ----------
    shift_px : tuple of float
        Shift of the memory at the last frame: columns, rows.
    """

    def __init__(self, rows: int, cols: int) -> None:
        self._memory, self._moved = (np.zeros((rows, cols), np.float32) for _ in range(2))
        # Number of frames averaged, by pixel: the noise is 1 over its root.
        self._worth = np.zeros((rows, cols), np.float32)
        self._ring = np.zeros((_RING, cols), np.float32)
        self._sums = np.zeros(cols + 2 * _RADIUS, np.float32)
        self._small_shape = tuple(max(round(n * SETTINGS.shift_side / max(rows, cols)), 1) for n in (rows, cols))
        self._small: Float32 | None = None
        self._window = cv2.createHanningWindow(self._small_shape[::-1], cv2.CV_32F)
        self._before: NDArray | None = None
        self._frames = 0
        self.shift_px = (0.0, 0.0)
        self._used = NoiseModel(1.0, 0.0, 1.0)
        self.model: NoiseModel | None = None

    def __call__(self, counts: NDArray, dark: float, field_mask: NDArray[np.bool_] | None = None) -> Float32:
        """The filtered frame.

        Parameters
        ----------
        counts : ndarray of uint8 or uint16, shape (rows, cols)
        dark : float
            Counts without X-rays.
        field_mask : ndarray of bool, optional
            Field of view, any size.

        Returns
        -------
        ndarray of float32, shape (rows, cols)
            Stabilised counts: the memory itself, valid until the next call.
        """
        if self._before is not None:
            found = estimated_noise(self._before, counts, dark, field_mask)
            self._before = None
            if found is not None and self._differs(found):
                self.model = found
                self._begin_anew(found)
        elif self.model is None:
            # Until a second frame comes, one count is taken for one photon.
            self._begin_anew(NoiseModel(1.0, dark, 1.0))
        if self.model is None or self._frames % SETTINGS.model_every_frames == 0:
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
        """Number of frames averaged, by pixel: the noise variance is 1 over it."""
        return self._worth

    def _differs(self, found: NoiseModel) -> bool:
        now = self.model
        if now is None:
            return True
        low, high = SETTINGS.gain_ratio
        dark_moved = abs(found.dark - now.dark) > SETTINGS.dark_gains * now.gain
        return not low < found.gain / now.gain < high or dark_moved

    def _begin_anew(self, model: NoiseModel) -> None:
        """Restarts with another noise model, since counts stabilised by the old one cannot be compared."""
        self._used = model
        self._worth[:] = 0
        self._small = None

    def _follow_shift(self, counts: NDArray) -> None:
        """Moves the memory with the image."""
        self.shift_px = (0.0, 0.0)
        binned = cv2.resize(counts, self._small_shape[::-1], interpolation=cv2.INTER_AREA)
        scale, slope, offset = (np.float32(x) for x in self._used.root())
        small = scale * np.sqrt(np.maximum(slope * binned.astype(np.float32) + offset, np.float32(0)))
        before, self._small = self._small, small
        if before is None:
            return
        # Noise of a difference of two means, each over so many pixels.
        expected = np.float32(max(np.sqrt(2.0 * small.size / counts.size), 0.05))
        difference = np.abs(small - before)
        np.minimum(difference, np.float32(SETTINGS.clip_sigmas) * expected, out=difference)
        most = (SETTINGS.noise_ratio * float(expected)) ** 2 * difference.size
        if float(np.vdot(difference, difference)) < most:
            return
        # Copies: OpenCV multiplies its input by the window in place where the size needs no padding.
        (dx, dy), response = cv2.phaseCorrelate(before.copy(), small.copy(), self._window)
        per_small = counts.shape[1] / small.shape[1]
        size = per_small * float(np.hypot(dx, dy))
        if (
            size < SETTINGS.least_shift_px
            or response < SETTINGS.least_response
            or not _explains((dx, dy), before, small)
        ):
            return
        dx, dy = per_small * dx, per_small * dy
        if size > SETTINGS.most_shift_px:
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
    """Whether the whole image has moved, and not only a dark object in it.

    A wire that moves in front of a patient at rest attracts the peak of the phase correlation. So the shift must reduce
    the median difference over the steeper pixels, each of which counts once, however dark it is. Both images are
    smoothed first, since interpolation alone lowers the noise.
    """
    a, b = (cv2.GaussianBlur(x, (0, 0), SETTINGS.smoothing_px) for x in (before, now))
    M = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
    moved = cv2.warpAffine(a, M, a.shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    steep = np.abs(cv2.Sobel(b, cv2.CV_32F, 1, 0)) + np.abs(cv2.Sobel(b, cv2.CV_32F, 0, 1))
    there = steep > np.quantile(steep[::4, ::4], 1 - SETTINGS.steep_fraction)
    still, shifted = (np.abs(x - b)[there] for x in (a, moved))
    return float(np.median(shifted)) < SETTINGS.reduced_to * float(np.median(still))


@njit(**_OPTIONS)
def _blend(counts, scale, slope, offset, memory, worth, ring, sums):
    """Moves the memory towards the frame: by 1 / (n + 1) at first, by _NEWEST later, wholly where something moved.

    Row by row, so that the data stays in the first-level cache: `ring` holds the differences of the window's rows, and
    `sums` their column sums, padded by the window's radius on either side.
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
