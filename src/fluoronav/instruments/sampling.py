"""The shadow in a frame along straight lines, at fractions of a pixel."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Float, Float32 = NDArray[np.float64], NDArray[np.float32]

# Of the full range: what is darker counts as this dark.
_LEAST = 1e-4


def shadow_along(counts: NDArray, starts: Float, step: Float, columns: int, dark: float, inverse: bool) -> Float32:
    """Minus the logarithm of what is seen at evenly spaced places along parallel lines.

    Parameters
    ----------
    counts : ndarray of uint8 or uint16, shape (rows, cols)
        Interpolated bilinearly; beyond its border the border goes on.
    starts : ndarray, shape (n, 2)
        Where each line begins, (column, row).
    step : ndarray, shape (2,)
        From one place of a line to the next.
    columns : int
        Places on each line; at least 2.
    dark : float
        Counts without X-rays.
    inverse : bool
        Dark means more X-rays.

    Returns
    -------
    ndarray of float32, shape (n, columns)
        A running mean of three along each line, of the counts.
    """
    out = np.empty((len(starts), columns), np.float32)
    full = float(np.iinfo(counts.dtype).max)
    _sample(counts, starts, step[0], step[1], dark, full, inverse, out)
    return np.log(out, out=out)


@njit(cache=True, nogil=True, fastmath=True, boundscheck=False)
def _sample(counts, starts, dx, dy, dark, full, inverse, out):
    """One over the counts less `dark`; its logarithm is the shadow."""
    rows, cols = counts.shape
    n = out.shape[1]
    for i in range(out.shape[0]):
        line = out[i]
        for j in range(n):
            x = min(max(starts[i, 0] + j * dx, 0.0), cols - 1.0)
            y = min(max(starts[i, 1] + j * dy, 0.0), rows - 1.0)
            ix, iy = min(int(x), cols - 2), min(int(y), rows - 2)
            fx, fy = x - ix, y - iy
            top = counts[iy, ix] * (1 - fx) + counts[iy, ix + 1] * fx
            bottom = counts[iy + 1, ix] * (1 - fx) + counts[iy + 1, ix + 1] * fx
            line[j] = top * (1 - fy) + bottom * fy
        before = line[1]
        for j in range(n):
            here = line[j]
            after = line[j + 1] if j < n - 1 else before
            value = (before + here + after) / 3
            before = here
            value = (full - value if inverse else value) - dark
            line[j] = 1 / max(value, _LEAST * full)
