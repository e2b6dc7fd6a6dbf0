"""Calibration of a flat panel: offset and gain of each pixel, and dead pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.kernels import njit

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CalibrationLimits:
    """Limits of a detector calibration; all are chosen."""

    gain_off: float = 0.35  # relative difference of a dead pixel's signal from its neighbourhood's
    neighbourhood_px: int = 9  # side of the neighbourhood
    offset_sigmas: float = 12.0  # robust sigmas of a dead pixel's offset from the median
    most_dead: float = 0.05  # fraction of pixels; more are an object in the beam
    most_saturated: float = 0.001  # fraction of the flat frames' pixels
    least_signal_sigmas: float = 20.0  # flat over dark frames, in the noise of the dark ones
    repair_px: int = 3  # reach of the search for good neighbours
    repair_count: int = 8  # good neighbours whose median replaces a dead pixel


LIMITS = CalibrationLimits()


class DetectorError(ValueError):
    """Frames or a file that do not calibrate a detector; the text says which and why."""


@dataclass(frozen=True)
class DetectorCalibration:
    """A detector's maps.

    Attributes
    ----------
    offset : ndarray of float32, shape (rows, cols)
        Counts without X-rays.
    gain : ndarray of float32, shape (rows, cols)
        Factor on the counts above the offset; 1 on average.
    dead : ndarray of bool, shape (rows, cols)
    """

    offset: Float32
    gain: Float32
    dead: NDArray[np.bool_]

    @classmethod
    def of_frames(cls, dark: NDArray, flat: NDArray) -> DetectorCalibration:
        """From frames without X-rays and frames of the open beam.

        Parameters
        ----------
        dark, flat : ndarray of uint8 or uint16, shape (n, rows, cols)
            Ten of each or more: their noise enters the calibration.

        Raises
        ------
        DetectorError
        """
        if dark.ndim != 3 or flat.ndim != 3 or dark.shape[1:] != flat.shape[1:]:
            raise DetectorError(
                f"dark frames are {dark.shape[1:]}, flat ones {flat.shape[1:]}: of one detector, please"
            )
        full = np.iinfo(flat.dtype).max
        if (flat == full).mean() > LIMITS.most_saturated:
            raise DetectorError("the flat frames are saturated: use less dose")
        offset = dark.mean(0, dtype=np.float64).astype(np.float32)
        signal = flat.mean(0, dtype=np.float64).astype(np.float32) - offset
        typical = float(np.median(signal))
        if typical < LIMITS.least_signal_sigmas * float(np.median(dark.std(0))) or typical <= 0:
            raise DetectorError("the flat frames are hardly brighter than the dark ones: was the beam on?")
        size = (LIMITS.neighbourhood_px, LIMITS.neighbourhood_px)
        around = cv2.medianBlur(signal, 5)
        around = cv2.blur(around, size)
        spread = 1.4826 * float(np.median(np.abs(offset - np.median(offset)))) + 1.0
        dead = np.abs(signal / np.maximum(around, 1e-3) - 1) > LIMITS.gain_off
        dead |= np.abs(offset - np.median(offset)) > LIMITS.offset_sigmas * spread
        dead |= signal <= 0
        if dead.mean() > LIMITS.most_dead:
            raise DetectorError(
                f"{dead.mean():.0%} of the pixels look dead: is something in the beam of the flat frames, or a blade?"
            )
        gain = np.where(dead, 1, typical / np.maximum(signal, 1e-3)).astype(np.float32)
        return cls(offset, gain, dead)

    @classmethod
    def load(cls, path: Path) -> DetectorCalibration:
        """Reads a file that :meth:`save` wrote; raises :class:`DetectorError`."""
        try:
            with np.load(path, allow_pickle=False) as kept:
                maps = cls(kept["offset"], kept["gain"], kept["dead"])
        except (OSError, ValueError, KeyError) as error:
            raise DetectorError(f"{path}: is no detector calibration: {error}") from error
        shapes = {maps.offset.shape, maps.gain.shape, maps.dead.shape}
        if len(shapes) != 1 or maps.offset.ndim != 2:
            raise DetectorError(f"{path}: its maps have different shapes {sorted(shapes)}")
        if not (np.isfinite(maps.offset).all() and np.isfinite(maps.gain).all() and (maps.gain > 0).all()):
            raise DetectorError(f"{path}: offset or gain has values that are not finite, or not positive")
        return maps

    def save(self, path: Path) -> None:
        """Writes it as a compressed archive."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, offset=self.offset, gain=self.gain, dead=self.dead)


class DetectorCorrection:
    """Corrects offset, gain and dead pixels of each frame, into an array that is allocated once.

    The mean offset is added again, so that dark pixels stay above zero and their noise is not clipped.

    Parameters
    ----------
    calibration : DetectorCalibration
    """

    def __init__(self, calibration: DetectorCalibration) -> None:
        self._offset, self._gain = calibration.offset, calibration.gain
        self.dark = float(calibration.offset.mean())
        self._out16 = np.zeros(calibration.offset.shape, np.uint16)
        self._out8 = np.zeros(calibration.offset.shape, np.uint8)
        self._dead, self._neighbours = _repairs(calibration.dead)

    def __call__(self, counts: NDArray, bits: int) -> NDArray:
        """The corrected frame, of the same type; valid until the next call."""
        out = self._out16 if counts.dtype == np.uint16 else self._out8
        _correct(counts, self._offset, self._gain, np.float32(self.dark), np.float32(2**bits - 1), out)
        if len(self._dead):
            flat = out.reshape(-1)
            flat[self._dead] = np.median(flat[self._neighbours], axis=1)
        return out


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", boundscheck=False)
def _correct(counts, offset, gain, dark, full, out):
    for i in range(counts.shape[0]):
        for j in range(counts.shape[1]):
            value = (np.float32(counts[i, j]) - offset[i, j]) * gain[i, j] + dark + np.float32(0.5)
            out[i, j] = np.uint16(min(max(value, np.float32(0)), full))


def _repairs(dead: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Flat indices of dead pixels, (n,), and of eight good neighbours of each, (n, 8), the nearest first."""
    rows, cols = dead.shape
    reach, most = LIMITS.repair_px, LIMITS.repair_count
    steps = [(i, j) for i in range(-reach, reach + 1) for j in range(-reach, reach + 1) if (i, j) != (0, 0)]
    steps.sort(key=lambda s: s[0] ** 2 + s[1] ** 2)
    places, neighbours = [], []
    for r, c in np.argwhere(dead):
        good = [
            (r + i) * cols + c + j
            for i, j in steps
            if 0 <= r + i < rows and 0 <= c + j < cols and not dead[r + i, c + j]
        ][:most]
        if good:
            places.append(r * cols + c)
            neighbours.append(good + good[:1] * (most - len(good)))
    return np.array(places, np.int64), np.array(neighbours, np.int64).reshape(-1, most)
