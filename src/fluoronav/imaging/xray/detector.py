"""What a flat panel adds to the picture: its offset, the gain of each pixel, and pixels that are dead."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

# A pixel is dead when its gain is this far from its neighbourhood's, or its offset so many robust sigmas from the rest.
_GAIN_OFF, _OFFSET_SIGMAS = 0.35, 12.0
_NEIGHBOURHOOD = 9
_MOST_DEAD = 0.05
_REACH = 3  # how far a good neighbour is looked for


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
        What the counts above the offset are multiplied by; 1 on the average.
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
            Ten of each or more; their noise becomes the calibration's.

        Raises
        ------
        DetectorError
        """
        if dark.ndim != 3 or flat.ndim != 3 or dark.shape[1:] != flat.shape[1:]:
            raise DetectorError(
                f"dark frames are {dark.shape[1:]}, flat ones {flat.shape[1:]}: of one detector, please"
            )
        full = np.iinfo(flat.dtype).max
        if (flat == full).mean() > 0.001:
            raise DetectorError("the flat frames are saturated: use less dose")
        offset = dark.mean(0, dtype=np.float64).astype(np.float32)
        signal = flat.mean(0, dtype=np.float64).astype(np.float32) - offset
        typical = float(np.median(signal))
        if typical < 20 * float(np.median(dark.std(0))) or typical <= 0:
            raise DetectorError("the flat frames are hardly brighter than the dark ones: was the beam on?")
        size = (_NEIGHBOURHOOD, _NEIGHBOURHOOD)
        around = cv2.medianBlur(signal, 5)
        around = cv2.blur(around, size)
        spread = 1.4826 * float(np.median(np.abs(offset - np.median(offset)))) + 1.0
        dead = np.abs(signal / np.maximum(around, 1e-3) - 1) > _GAIN_OFF
        dead |= np.abs(offset - np.median(offset)) > _OFFSET_SIGMAS * spread
        dead |= signal <= 0
        if dead.mean() > _MOST_DEAD:
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
    """Takes the detector out of each frame, into an array that is allocated once.

    The mean offset is added again, so that what is dark stays above zero and its noise is not cut off.

    Parameters
    ----------
    calibration : DetectorCalibration
    """

    def __init__(self, calibration: DetectorCalibration) -> None:
        self._offset, self._gain = calibration.offset, calibration.gain
        self.dark = float(calibration.offset.mean())
        self._out16 = np.zeros(calibration.offset.shape, np.uint16)
        self._out8 = np.zeros(calibration.offset.shape, np.uint8)
        self._places, self._neighbours = _repairs(calibration.dead)

    def __call__(self, counts: NDArray, bits: int) -> NDArray:
        """The corrected frame, of the same type; valid until the next call."""
        out = self._out16 if counts.dtype == np.uint16 else self._out8
        _correct(counts, self._offset, self._gain, np.float32(self.dark), np.float32(2**bits - 1), out)
        if len(self._places):
            flat = out.reshape(-1)
            flat[self._places] = np.median(flat[self._neighbours], axis=1)
        return out


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", boundscheck=False)
def _correct(counts, offset, gain, dark, full, out):
    for i in range(counts.shape[0]):
        for j in range(counts.shape[1]):
            value = (np.float32(counts[i, j]) - offset[i, j]) * gain[i, j] + dark + np.float32(0.5)
            out[i, j] = np.uint16(min(max(value, np.float32(0)), full))


def _repairs(dead: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Flat places of dead pixels, (n,), and of eight good ones near each, (n, 8), the nearest first."""
    rows, cols = dead.shape
    steps = [(i, j) for i in range(-_REACH, _REACH + 1) for j in range(-_REACH, _REACH + 1) if (i, j) != (0, 0)]
    steps.sort(key=lambda s: s[0] ** 2 + s[1] ** 2)
    places, neighbours = [], []
    for r, c in np.argwhere(dead):
        good = [
            (r + i) * cols + c + j
            for i, j in steps
            if 0 <= r + i < rows and 0 <= c + j < cols and not dead[r + i, c + j]
        ][:8]
        if good:
            places.append(r * cols + c)
            neighbours.append(good + good[:1] * (8 - len(good)))
    return np.array(places, np.int64), np.array(neighbours, np.int64).reshape(-1, 8)
