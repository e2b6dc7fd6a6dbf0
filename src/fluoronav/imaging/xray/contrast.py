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
# What is left is shown by its square root, which lifts the dark parts, a spine behind a trunk; the bands gain as that
# is steep.
_STEEPEST = 2.2
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
        scale = _SMALL_SIDE / max(rows, cols)
        self._small = max(round(rows * scale), 8), max(round(cols * scale), 8)
        self._out = np.zeros((rows, cols), np.uint8)
        # The two filters' models and the mask, of their final width: _compose blends rows as it goes, since five more
        # images would go through memory, and through the cache that the registration lives in.
        self._wide = np.zeros((5, self._small[0], cols), np.float32)
        self._above, self._below = _places(rows, self._small[0])

    def __call__(self, stabilised: Float32, field_mask: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
        """The picture; valid until the next call.

        Parameters
        ----------
        stabilised : ndarray of float32, shape (rows, cols)
            Bright is more X-ray.
        seen : ndarray of bool, optional
            Inside the aperture, any size; the rest becomes black.
        """
        small = cv2.resize(stabilised, self._small[::-1], interpolation=cv2.INTER_AREA)
        inside = np.ones(self._small, np.bool_)
        if field_mask is not None:
            inside = cv2.resize(field_mask.astype(np.uint8), self._small[::-1], interpolation=cv2.INTER_NEAREST) > 0
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
        models = [m for r in _RADII for m in _linear(filled, r, (_EDGE * span) ** 2)]
        for narrow, wide in zip((*models, inside.astype(np.float32)), self._wide, strict=True):
            cv2.resize(narrow, wide.shape[::-1], dst=wide, interpolation=cv2.INTER_LINEAR)
        _compose(
            stabilised, self._wide, self._above, self._below, np.float32(low), np.float32(span), self._out
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


def _places(count: int, small: int) -> tuple[NDArray[np.intp], Float32]:
    """For each row: the small image's row above it, and how far it lies beyond that, as OpenCV's resize has it."""
    at = np.clip((np.arange(count) + 0.5) * small / count - 0.5, 0, small - 1)
    above = np.minimum(np.floor(at).astype(np.intp), max(small - 2, 0))
    return above, (at - above).astype(np.float32)


@njit(**_OPTIONS)
def _compose(x, wide, above, below, low, span, out):
    row = np.empty(wide.shape[::2], np.float32)
    for i in range(x.shape[0]):
        k = above[i]
        for m in range(row.shape[0]):
            _blend(wide[m, k], wide[m, min(k + 1, wide.shape[1] - 1)], below[i], row[m])
        _compose_row(x[i], row[0], row[1], row[2], row[3], row[4], low, span, out[i])


@njit(**_OPTIONS)
def _blend(above, under, share, out):
    for j in range(out.shape[0]):
        out[j] = above[j] + share * (under[j] - above[j])


@njit(**_OPTIONS)
def _compose_row(x, fine_a, fine_b, coarse_a, coarse_b, mask, low, span, out):
    zero, one, half = np.float32(0), np.float32(1), np.float32(0.5)
    per_span, metal, steepest = one / span, np.float32(_METAL), np.float32(_STEEPEST)
    coarse_gain, fine_gain = np.float32(_COARSE) * per_span, np.float32(_FINE) * per_span
    for j in range(x.shape[0]):
        value = x[j]
        middle, base = fine_a[j] * value + fine_b[j], coarse_a[j] * value + coarse_b[j]
        curve = np.sqrt(min(max((base - low) * per_span, zero), one))
        slope = min(half / max(curve, np.float32(1e-6)), steepest)
        fine = (value - middle) * fine_gain
        fine = min(fine, zero) * metal + max(fine, zero)
        y = min(max(curve + slope * (coarse_gain * (middle - base) + fine), zero), one)
        shown = one if mask[j] >= half else zero
        out[j] = np.uint8(np.int32(shown * y * np.float32(255)))
