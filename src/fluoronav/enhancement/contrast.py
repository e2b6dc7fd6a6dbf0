"""The picture for the display: local contrast without halos, in a range that is chosen inside the aperture."""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

_OPTIONS = {"fastmath": True, "error_model": "numpy", "nogil": True, "boundscheck": False, "cache": True}

# Two bands of detail, each what an edge-preserving filter of so many pixels (of the small image) takes away.
_SMALL_SIDE = 256
_RADII = (3, 20)
# Steps larger than this (share of the range) are edges, which the filter keeps, so no halo forms beside them.
_EDGE = 0.06
_COARSE, _FINE = 1.3, 1.8  # gains of the two bands
# What is left is shown by a curve that lifts the dark parts, a spine behind a trunk; the bands gain as it is steep.
_GAMMA, _STEEPEST, _STEPS = 0.5, 2.2, 1024
# Thin dark things, as instruments are, gain so much more.
_METAL = 1.35
_LOW, _HIGH = 0.5, 99.7  # percentiles of the display's range, inside the aperture
_OPEN, _LEAST = 0.985, 0.05  # brighter than this share of the brightest is open beam, if so much is left without it


class DisplayPicture:
    """Turns a stabilised frame into 8 bits for people to look at.

    Parameters
    ----------
    rows, cols : int
    """

    def __init__(self, rows: int, cols: int) -> None:
        self._shape = rows, cols
        scale = _SMALL_SIDE / max(rows, cols)
        self._small = max(round(rows * scale), 8), max(round(cols * scale), 8)
        self._out = np.zeros((rows, cols), np.uint8)
        levels = np.linspace(0, 1, _STEPS)
        curve = levels**_GAMMA
        slope = np.minimum(np.gradient(curve, levels), _STEEPEST)
        self._curve, self._slope = curve.astype(np.float32), slope.astype(np.float32)

    def __call__(self, stabilised: Float32, seen: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
        """The picture; valid until the next call.

        Parameters
        ----------
        stabilised : ndarray of float32, shape (rows, cols)
            Bright is more X-ray.
        seen : ndarray of bool, optional
            Inside the aperture, any size; the rest becomes black.
        """
        rows, cols = self._shape
        small = cv2.resize(stabilised, self._small[::-1], interpolation=cv2.INTER_AREA)
        inside = np.ones(self._small, np.bool_)
        if seen is not None:
            inside = cv2.resize(seen.astype(np.uint8), self._small[::-1], interpolation=cv2.INTER_NEAREST) > 0
        if not inside.any():
            self._out[:] = 0
            return self._out
        # The open beam, saturated or nearly, would take the range from what stands in it.
        ranged = small[inside]
        ranged = ranged[ranged < _OPEN * ranged.max()] if np.mean(ranged < _OPEN * ranged.max()) > _LEAST else ranged
        low, high = np.percentile(ranged, [_LOW, _HIGH])
        span = max(float(high - low), 1e-6)
        # The mean stands in for what is outside, or the aperture's rim would rule the filters near it.
        filled = np.where(inside, small, np.float32(small[inside].mean()))
        (fine_a, fine_b), (coarse_a, coarse_b) = (_linear(filled, r, (_EDGE * span) ** 2) for r in _RADII)
        fine_a, fine_b, coarse_a, coarse_b = (
            cv2.resize(m, (cols, rows), interpolation=cv2.INTER_LINEAR) for m in (fine_a, fine_b, coarse_a, coarse_b)
        )
        mask = cv2.resize(inside.astype(np.float32), (cols, rows), interpolation=cv2.INTER_LINEAR)
        _compose(
            stabilised, fine_a, fine_b, coarse_a, coarse_b, mask, np.float32(low), np.float32(span), self._curve,
            self._slope, self._out,
        )  # fmt: skip
        return self._out


def _linear(image: Float32, radius: int, epsilon: float) -> tuple[Float32, Float32]:
    """The guided filter's local linear model, ``base = a * image + b`` (He, Sun and Tang, IEEE PAMI 35, 2013)."""
    size = (2 * radius + 1, 2 * radius + 1)
    mean, square = cv2.blur(image, size), cv2.blur(image * image, size)
    variance = np.maximum(square - mean * mean, 0)
    a = variance / (variance + np.float32(epsilon))
    b = (1 - a) * mean
    return np.asarray(cv2.blur(a, size), np.float32), np.asarray(cv2.blur(b, size), np.float32)


@njit(**_OPTIONS)
def _compose(x, fine_a, fine_b, coarse_a, coarse_b, mask, low, span, curve, slope, out):
    coarse_gain, fine_gain = np.float32(_COARSE) / span, np.float32(_FINE) / span
    metal = np.float32(_METAL)
    steps = np.float32(curve.shape[0] - 1)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            if mask[i, j] < np.float32(0.5):
                out[i, j] = 0
                continue
            value = x[i, j]
            middle = fine_a[i, j] * value + fine_b[i, j]
            base = coarse_a[i, j] * value + coarse_b[i, j]
            level = min(max((base - low) / span, np.float32(0)), np.float32(1))
            at = np.int32(level * steps)
            fine = (value - middle) * fine_gain
            if fine < 0:
                fine *= metal
            y = curve[at] + slope[at] * (coarse_gain * (middle - base) + fine)
            out[i, j] = np.uint8(min(max(y, np.float32(0)), np.float32(1)) * np.float32(255))
