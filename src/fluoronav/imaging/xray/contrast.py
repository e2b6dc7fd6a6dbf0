"""Contrast of the displayed image: local contrast without halos, windowed inside the field of view."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.kernels import njit

Float32 = NDArray[np.float32]

_OPTIONS = {"fastmath": True, "error_model": "numpy", "nogil": True, "boundscheck": False, "cache": True}


@dataclass(frozen=True, slots=True)
class ContrastSettings:
    """Settings of the display's contrast; all are chosen by eye, and checked by `fluoronav bench enhancement`."""

    small_side: int = 256  # pixels of the longer side of the small image in which the filters run
    radii_px: tuple[int, int] = (3, 20)  # of the two edge-preserving filters: each removes one band of detail
    edge: float = 0.06  # of the display's range: larger steps are edges, which the filters keep, so no halo forms
    coarse_gain: float = 1.3  # of the coarse band
    fine_gain: float = 1.8  # of the fine band
    # The base is shown by its square root, which lifts dark regions (a spine behind a trunk). The bands are multiplied
    # by the slope of that curve, up to this.
    most_slope: float = 2.2
    metal_gain: float = 1.35  # further gain of thin dark details, such as instruments
    percentiles: tuple[float, float] = (0.5, 99.7)  # the display's range, in the field of view
    open_beam: float = 0.985  # of the brightest pixel: brighter ones are open beam, and left out of the range
    least_left: float = 0.05  # minimum fraction of pixels that this must leave


SETTINGS = ContrastSettings()
# Numba compiles module-level scalars in.
_COARSE, _FINE, _METAL, _MOST_SLOPE = (
    SETTINGS.coarse_gain, SETTINGS.fine_gain, SETTINGS.metal_gain, SETTINGS.most_slope,
)  # fmt: skip


class DisplayContrast:
    """Turns a stabilised frame into the 8 bit image that is displayed.

    Parameters
    ----------
    rows, cols : int
    """

    def __init__(self, rows: int, cols: int) -> None:
        scale = SETTINGS.small_side / max(rows, cols)
        self._small = max(round(rows * scale), 8), max(round(cols * scale), 8)
        self._out = np.zeros((rows, cols), np.uint8)
        # The two filters' models and the mask at their final width. _compose interpolates the rows as it goes: five
        # images of full size would push the registration's data out of the cache.
        self._wide = np.zeros((5, self._small[0], cols), np.float32)
        self._above, self._below = _places(rows, self._small[0])

    def __call__(self, stabilised: Float32, field_mask: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
        """The displayed image; valid until the next call.

        Parameters
        ----------
        stabilised : ndarray of float32, shape (rows, cols)
            Bright is more X-ray.
        field_mask : ndarray of bool, optional
            Field of view, any size; the rest becomes black.
        """
        small = cv2.resize(stabilised, self._small[::-1], interpolation=cv2.INTER_AREA)
        inside = np.ones(self._small, np.bool_)
        if field_mask is not None:
            inside = cv2.resize(field_mask.astype(np.uint8), self._small[::-1], interpolation=cv2.INTER_NEAREST) > 0
        if not inside.any():
            self._out[:] = 0
            return self._out
        # The open beam, saturated or nearly, would take most of the range.
        values = small[inside]
        attenuated = values < SETTINGS.open_beam * values.max()
        values = values[attenuated] if np.mean(attenuated) > SETTINGS.least_left else values
        low, high = np.percentile(values, SETTINGS.percentiles)
        span = max(float(high - low), 1e-6)
        # Outside the field the mean is filled in: the field's edge would dominate the filters near it.
        filled = np.where(inside, small, np.float32(small[inside].mean()))
        models = [m for r in SETTINGS.radii_px for m in _linear(filled, r, (SETTINGS.edge * span) ** 2)]
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
    """For each row of the large image, the row of the small one above it and the fraction below, as in cv2.resize."""
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
def _blend(above, under, fraction, out):
    for j in range(out.shape[0]):
        out[j] = above[j] + fraction * (under[j] - above[j])


@njit(**_OPTIONS)
def _compose_row(x, fine_a, fine_b, coarse_a, coarse_b, mask, low, span, out):
    zero, one, half = np.float32(0), np.float32(1), np.float32(0.5)
    per_span, metal, most_slope = one / span, np.float32(_METAL), np.float32(_MOST_SLOPE)
    coarse_gain, fine_gain = np.float32(_COARSE) * per_span, np.float32(_FINE) * per_span
    for j in range(x.shape[0]):
        value = x[j]
        middle, base = fine_a[j] * value + fine_b[j], coarse_a[j] * value + coarse_b[j]
        curve = np.sqrt(min(max((base - low) * per_span, zero), one))
        slope = min(half / max(curve, np.float32(1e-6)), most_slope)
        fine = (value - middle) * fine_gain
        fine = min(fine, zero) * metal + max(fine, zero)
        y = min(max(curve + slope * (coarse_gain * (middle - base) + fine), zero), one)
        shown = one if mask[j] >= half else zero
        out[j] = np.uint8(np.int32(shown * y * np.float32(255)))
