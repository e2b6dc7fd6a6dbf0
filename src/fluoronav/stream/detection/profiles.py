"""Attenuation at full resolution: along straight lines, and in the cells of a rotated grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.kernels import njit

Float, Float32 = NDArray[np.float64], NDArray[np.float32]


@dataclass(frozen=True)
class Sampling:
    """How counts are sampled."""

    min_signal: float = 1e-4  # fraction of full scale; less counts as this much, so that the logarithm is finite
    # Pixels are taken no farther apart than this in a cell. Measured: nine in a cell of 2 x 2.5 pixels keep 94 % of the
    # photons, one interpolated place half of them.
    max_pixel_distance: float = 0.85
    # Exponent by which saturation falls with brightness: 0.4 is left at 0.9 of full scale, nothing at 0.5. Chosen on
    # simulated exposures with saturated background.
    saturation_exponent: int = 8
    saturation_step_px: float = 2.0  # between the sampled pixels, along and across; pixels of a 1024 image


SAMPLING = Sampling()
# Kernels take scalars.
_MIN_SIGNAL = SAMPLING.min_signal
_SATURATION_EXPONENT, _SATURATION_STEP_PX = SAMPLING.saturation_exponent, SAMPLING.saturation_step_px
_FULL_SCALE = {np.dtype(t): float(np.iinfo(t).max) for t in (np.uint8, np.uint16)}  # np.iinfo takes 20 us
_FRACTION_BITS = 16  # places are integers of this many binary digits after the point: shifts are faster than rounding


def profiles_across(counts: NDArray, centre: Float, normal: Float, half_px: int, dark: float, inverse: bool) -> Float32:
    """Attenuation along a normal on both sides of each centre, shape (n, 2 half_px + 1).

    Parameters as for :func:`attenuation_profiles`.
    """
    return attenuation_profiles(counts, centre - half_px * normal, normal, 2 * half_px + 1, dark, inverse)


def attenuation_profiles(
    counts: NDArray, starts: Float, step: Float, columns: int, dark: float, inverse: bool
) -> Float32:
    """Attenuation at evenly spaced places along parallel lines, but for the open beam's constant.

    Parameters
    ----------
    counts : ndarray of uint8 or uint16, shape (rows, cols)
        Interpolated bilinearly; the border is replicated.
    starts : ndarray, shape (n, 2)
        First place of each line, (column, row).
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
        Minus the logarithm of the counts' running mean of three along each line.
    """
    out = np.empty((len(starts), columns), np.float32)
    full = _FULL_SCALE[counts.dtype]
    _sample(counts, starts, step[0], step[1], out)
    _reciprocal(out, 1.0, dark, full, inverse)
    return np.log(out, out=out)


@njit(cache=True, nogil=True, fastmath=True, boundscheck=False)
def _sample(counts, starts, dx, dy, out):
    """Writes the counts' running mean of three along each line."""
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
def saturation_along(
    counts: NDArray,
    tip_px: Float,
    direction: Float,
    first_px: float,
    last_px: float,
    scale: float,
    full: float,
    inverse: bool,
) -> float:
    """Saturation of the detector on a stretch of a line, 0 to 1: the fraction of full scale to the eighth power.

    Parameters
    ----------
    counts : ndarray of uint8 or uint16, shape (rows, cols)
    tip_px, direction : ndarray, shape (2,)
        (column, row); a place on the line, and the unit vector along it.
    first_px, last_px : float
        Beginning and end of the stretch, from the tip along the direction; pixels of a 1024 image.
    scale : float
        Pixels of the frame for one of a 1024 image.
    full : float
        Full scale, counts.
    inverse : bool
        Dark means more X-rays.

    Returns
    -------
    float
        Mean over the stretch and 2 pixels to each side of it; 0 where it lies outside the image.
    """
    rows, cols = counts.shape
    total, n = 0.0, 0
    for k in range(int((last_px - first_px) / _SATURATION_STEP_PX)):
        along = (first_px + _SATURATION_STEP_PX * k) * scale
        for side in range(-1, 2):
            across = _SATURATION_STEP_PX * side * scale
            x = int(np.rint(tip_px[0] + along * direction[0] - across * direction[1]))
            y = int(np.rint(tip_px[1] + along * direction[1] + across * direction[0]))
            if 0 <= x < cols and 0 <= y < rows:
                value = float(counts[y, x])
                total += (max(full - value if inverse else value, 0.0) / full) ** _SATURATION_EXPONENT
                n += 1
    return total / n if n else 0.0


def attenuation_in_cells(
    counts: NDArray, corner: Float, along: Float, across: Float, dark: float, inverse: bool, out: Float32
) -> None:
    """Attenuation of the mean counts in each cell of a grid of parallelograms, but for the open beam's constant.

    Parameters
    ----------
    counts : ndarray of uint8 or uint16, shape (rows, cols)
        The border is replicated.
    corner : ndarray, shape (2,)
        The middle of the first cell, (column, row).
    along, across : ndarray, shape (2,)
        Sides of a cell: to the next in its row, and to the one in the next row.
    dark : float
        Counts without X-rays.
    inverse : bool
        Dark means more X-rays.
    out : ndarray of float32, shape (n, m)
        Written to.
    """
    full = _FULL_SCALE[counts.dtype]
    taps = max(int(np.ceil(max(np.linalg.norm(along), np.linalg.norm(across)) / SAMPLING.max_pixel_distance)), 1)
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
def _reciprocal(sums, factor, dark, full, inverse):
    """One over the signal, `factor` times the sum less `dark`; its logarithm is the attenuation."""
    for i in range(sums.shape[0]):
        for j in range(sums.shape[1]):
            value = sums[i, j] * factor
            value = (full - value if inverse else value) - dark
            sums[i, j] = 1 / max(value, _MIN_SIGNAL * full)
