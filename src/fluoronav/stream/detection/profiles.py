"""The shadow in a frame along straight lines, at fractions of a pixel, and in the cells of a turned grid."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Float, Float32 = NDArray[np.float64], NDArray[np.float32]

# Of the full range: what is darker counts as this dark.
_LEAST = 1e-4
# Places are whole numbers of one part in so many of a pixel: shifts are faster than rounding.
_FRACTION_BITS = 16
# How fast a glow falls with brightness: at nine tenths of full scale four tenths of it are left, at half of it nothing.
_GLOW_POWER = 8
# Pixels are taken no farther apart than this in a cell: with nine in one of 2 x 2.5 pixels, 94 % of the photons count
# (of one place interpolated in each, half).
_APART_PX = 0.85


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
    _sample(counts, starts, step[0], step[1], out)
    _reciprocal(out, 1.0, dark, full, inverse)
    return np.log(out, out=out)


@njit(cache=True, nogil=True, fastmath=True, boundscheck=False)
def _sample(counts, starts, dx, dy, out):
    """The counts, a running mean of three along each line."""
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
            line[j] = (before + here + after) / 3
            before = here


@njit(cache=True, nogil=True, boundscheck=False)
def glow_along(
    counts: NDArray,
    tip_px: Float,
    direction: Float,
    first_px: float,
    last_px: float,
    scale: float,
    full: float,
    inverse: bool,
) -> float:
    """How near the detector is to saturation on a stretch of a line, 0 to 1: the share of full scale, to the eighth.

    Parameters
    ----------
    counts : ndarray of uint8 or uint16, shape (rows, cols)
    tip_px, direction : ndarray, shape (2,)
        (column, row); a place on the line, and the unit vector along it.
    first_px, last_px : float
        Where the stretch begins and ends, from that place along the direction; pixels of a 1024 image.
    scale : float
        Pixels of the frame for one of a 1024 image.
    full : float
        Full scale, counts.
    inverse : bool
        Dark means more X-rays.

    Returns
    -------
    float
        The mean over the stretch and 2 pixels to each side of it; 0 where it is out of the picture.
    """
    rows, cols = counts.shape
    total, n = 0.0, 0
    for k in range(int((last_px - first_px) / 2.0)):
        along = (first_px + 2.0 * k) * scale
        for side in range(-1, 2):
            across = 2.0 * side * scale
            x = int(np.rint(tip_px[0] + along * direction[0] - across * direction[1]))
            y = int(np.rint(tip_px[1] + along * direction[1] + across * direction[0]))
            if 0 <= x < cols and 0 <= y < rows:
                value = float(counts[y, x])
                total += (max(full - value if inverse else value, 0.0) / full) ** _GLOW_POWER
                n += 1
    return total / n if n else 0.0


def shadow_in_cells(
    counts: NDArray, corner: Float, along: Float, across: Float, dark: float, inverse: bool, out: Float32
) -> None:
    """Minus the logarithm of what is seen on average in each cell of a grid of parallelograms.

    Parameters
    ----------
    counts : ndarray of uint8 or uint16, shape (rows, cols)
        Beyond its border the border goes on.
    corner : ndarray, shape (2,)
        The middle of the first cell, (column, row).
    along, across : ndarray, shape (2,)
        From a cell to the next in its row, and to the one in the next row; the sides of a cell.
    dark : float
        Counts without X-rays.
    inverse : bool
        Dark means more X-rays.
    out : ndarray of float32, shape (n, m)
        Written to.
    """
    full = float(np.iinfo(counts.dtype).max)
    taps = max(int(np.ceil(max(np.linalg.norm(along), np.linalg.norm(across)) / _APART_PX)), 1)
    _sum_cells(np.ascontiguousarray(counts), corner, along, across, taps, out)
    _reciprocal(out, 1 / taps**2, dark, full, inverse)
    np.log(out, out=out)


@njit(cache=True, nogil=True, boundscheck=False)
def _sum_cells(counts, corner, along, across, taps, out):
    """The sums of `taps` by `taps` pixels in each cell."""
    rows, cols = counts.shape
    n = out.shape[1]
    flat = counts.reshape(-1)
    one = float(1 << _FRACTION_BITS)
    dx, dy = int(np.rint(along[0] * one)), int(np.rint(along[1] * one))
    total = np.empty(n, np.int64)
    for i in range(out.shape[0]):
        total[:] = 0
        for p in range(taps):
            down = i + (p + 0.5) / taps - 0.5
            for q in range(taps):
                right = (q + 0.5) / taps - 0.5
                first_x = corner[0] + down * across[0] + right * along[0] + 0.5
                first_y = corner[1] + down * across[1] + right * along[1] + 0.5
                last_x, last_y = first_x + (n - 1) * along[0], first_y + (n - 1) * along[1]
                x, y = int(np.floor(first_x * one)), int(np.floor(first_y * one))
                inside = min(first_x, last_x, first_y, last_y) >= 1
                if inside and max(first_x, last_x) < cols - 1 and max(first_y, last_y) < rows - 1:
                    for j in range(n):
                        total[j] += flat[((y + j * dy) >> _FRACTION_BITS) * cols + ((x + j * dx) >> _FRACTION_BITS)]
                else:
                    for j in range(n):
                        col = min(max((x + j * dx) >> _FRACTION_BITS, 0), cols - 1)
                        row = min(max((y + j * dy) >> _FRACTION_BITS, 0), rows - 1)
                        total[j] += flat[row * cols + col]
        for j in range(n):
            out[i, j] = total[j]


@njit(cache=True, nogil=True, fastmath=True, boundscheck=False)
def _reciprocal(sums, share, dark, full, inverse):
    """One over the means less `dark`; its logarithm is the shadow."""
    for i in range(sums.shape[0]):
        for j in range(sums.shape[1]):
            value = sums[i, j] * share
            value = (full - value if inverse else value) - dark
            sums[i, j] = 1 / max(value, _LEAST * full)
