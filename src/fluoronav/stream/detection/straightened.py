"""A second look at full resolution: the picture along an instrument's axis, straightened, for a small network.

The first network sees a quarter of the resolution: flutes, thread and bore are lost there, and a bone's edge may look
like a shaft. The second sees each of its finds as a strip about the axis, tip at the left.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fluoronav.stream.detection.profiles import shadow_in_cells

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

ROWS, COLS = 48, 128  # across the axis and along it
_ACROSS_STEP_PX, _ALONG_STEP_PX, _AHEAD_PX = 2.0, 2.5, 50.0  # pixels of a 1024 image
_SCALE, _CLIP = 0.5, 4.0
MOST, AT_ONCE = 8, 2  # strips of one frame, and how many the network is given at a time: most frames have fewer
# What the network says of a strip: log-odds that an instrument ends there, those of each kind, how far the tip lies
# farther along the axis (in SHIFT_SCALE_PX) and the logarithm of that one's error, how far across it (ACROSS_SCALE_PX),
# how far the axis is turned (TURN_SCALE_DEG, from the direction towards the normal), and log-odds that the end is the
# tip and not the tail.
OUTPUTS = 10
SHIFT_SCALE_PX, ACROSS_SCALE_PX, TURN_SCALE_DEG = 8.0, 3.0, 1.5


def strip(
    counts: NDArray,
    field_mask: NDArray[np.bool_],
    tip_px: Float,
    direction: Float,
    dark: float,
    inverse: bool,
    out: Float32,
) -> None:
    """Samples one strip.

    Parameters
    ----------
    counts : ndarray of uint8 or uint16, shape (rows, cols)
    seen : ndarray of bool
        Inside the aperture, any size.
    tip_px, direction : ndarray, shape (2,)
        (column, row); the direction points from the tail to the tip.
    dark : float
        Counts without X-rays.
    inverse : bool
        Dark means more X-rays.
    out : ndarray of float32, shape (2, 48, 128)
        Written to: attenuation less its median, averaged over each cell, and what lies inside the aperture.
    """
    scale = max(counts.shape) / 1024
    normal = np.array([-direction[1], direction[0]])
    across = _ACROSS_STEP_PX * scale * normal
    along = -_ALONG_STEP_PX * scale * direction
    corner = tip_px + _AHEAD_PX * scale * direction - (ROWS - 1) / 2 * across
    rows, cols = field_mask.shape
    to_seen = np.array([cols, rows]) / np.array(counts.shape[::-1])
    _inside(field_mask, (corner + 0.5) * to_seen - 0.5, along * to_seen, across * to_seen, out[1])
    shadow_in_cells(counts, corner, along, across, dark, inverse, out[0])
    _level(out)


@njit(cache=True, nogil=True)
def _level(out):
    """The shadow that is inside, less its median, scaled and clipped."""
    rows, cols = out.shape[1:]
    inside = np.empty(rows * cols, np.float32)
    n = 0
    for i in range(rows):
        for j in range(cols):
            if out[1, i, j] > 0:
                inside[n] = out[0, i, j]
                n += 1
    middle = np.median(inside[:n]) if n else 0.0
    for i in range(rows):
        for j in range(cols):
            out[0, i, j] = out[1, i, j] * min(max((out[0, i, j] - middle) / _SCALE, -_CLIP), _CLIP)


@njit(cache=True, nogil=True, boundscheck=False)
def _inside(field_mask, corner, along, across, out):
    rows, cols = field_mask.shape
    for i in range(out.shape[0]):
        first_x, first_y = corner[0] + i * across[0], corner[1] + i * across[1]
        for j in range(out.shape[1]):
            x, y = int(np.rint(first_x + j * along[0])), int(np.rint(first_y + j * along[1]))
            out[i, j] = 0 <= x < cols and 0 <= y < rows and field_mask[y, x]
