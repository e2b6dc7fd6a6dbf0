"""The straightened patch about an instrument's axis, which the second network sees at full resolution.

The first network sees a quarter of the resolution: flutes, thread and bore are lost there, and a bone's edge may look
like a shaft. The second sees each of its candidates as an image along the axis, tip at the left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.kernels import njit
from fluoronav.stream.detection.profiles import attenuation_in_cells

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

# The second network's input and outputs; training and the stream must agree on them.
STRIP_ROWS, STRIP_COLS = 48, 128  # across the axis and along it
STRIP_BATCH = 2  # strips that the network takes at a time: most frames have fewer
# By column: log-odds that an instrument ends there (0), of each kind (1 to 4), the tip's shift along the axis in
# SHIFT_SCALE_PX (5) and the logarithm of that one's error (6), its shift across in ACROSS_SCALE_PX (7), the turn of the
# axis in TURN_SCALE_DEG, from the direction towards the normal (8), log-odds that the end is the tip, not the tail (9).
OUTPUTS = 10
SHIFT_SCALE_PX, ACROSS_SCALE_PX, TURN_SCALE_DEG = 8.0, 3.0, 1.5


@dataclass(frozen=True)
class StripGeometry:
    """Cells of a strip in pixels of a 1024 image, and its contrast; chosen before training, which they are part of."""

    cell_across_px: float = 2.0
    cell_along_px: float = 2.5
    ahead_px: float = 50.0  # shown ahead of the tip
    contrast: float = 0.5  # attenuation that is scaled to 1
    clip: float = 4.0  # of the scaled attenuation


STRIP = StripGeometry()
_CONTRAST, _CLIP = STRIP.contrast, STRIP.clip  # kernels take scalars


def sample_strip(
    counts: NDArray,
    field_mask: NDArray[np.bool_],
    tip_px: Float,
    direction: Float,
    dark: float,
    inverse: bool,
    out: Float32,
) -> None:
    """Samples one strip image.

    Parameters
    ----------
    counts : ndarray of uint8 or uint16, shape (rows, cols)
    field_mask : ndarray of bool, any shape
        Field of view, over the whole frame.
    tip_px, direction : ndarray, shape (2,)
        (column, row); the unit direction points from the tail to the tip.
    dark : float
        Counts without X-rays.
    inverse : bool
        Dark means more X-rays.
    out : ndarray of float32, shape (2, 48, 128)
        Written to: mean attenuation of each cell less the strip's median, scaled; and 1 inside the field of view.
    """
    scale = max(counts.shape) / 1024
    normal = np.array([-direction[1], direction[0]])
    across = STRIP.cell_across_px * scale * normal
    along = -STRIP.cell_along_px * scale * direction
    corner = tip_px + STRIP.ahead_px * scale * direction - (STRIP_ROWS - 1) / 2 * across
    rows, cols = field_mask.shape
    to_mask = np.array([cols, rows]) / np.array(counts.shape[::-1])
    _sample_mask(field_mask, (corner + 0.5) * to_mask - 0.5, along * to_mask, across * to_mask, out[1])
    attenuation_in_cells(counts, corner, along, across, dark, inverse, out[0])
    _normalise(out)


@njit(cache=True, nogil=True)
def _normalise(out):
    """Attenuation inside the field less its median, scaled and clipped; 0 outside."""
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
            out[0, i, j] = out[1, i, j] * min(max((out[0, i, j] - middle) / _CONTRAST, -_CLIP), _CLIP)


@njit(cache=True, nogil=True, boundscheck=False)
def _sample_mask(field_mask, corner, along, across, out):
    rows, cols = field_mask.shape
    for i in range(out.shape[0]):
        first_x, first_y = corner[0] + i * across[0], corner[1] + i * across[1]
        for j in range(out.shape[1]):
            x, y = int(np.rint(first_x + j * along[0])), int(np.rint(first_y + j * along[1]))
            out[i, j] = 0 <= x < cols and 0 <= y < rows and field_mask[y, x]
