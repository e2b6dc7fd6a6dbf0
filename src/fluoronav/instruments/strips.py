"""A second look at full resolution: the picture along an instrument's axis, straightened, for a small network.

The first network sees a quarter of the resolution: flutes, thread and bore are lost there, and a bone's edge may look
like a shaft. The second sees each of its finds as a strip about the axis, tip at the left.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluoronav.instruments.edges import shadow_at

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

ROWS, COLS = 48, 128  # across the axis and along it
_ACROSS_STEP_PX, _ALONG_STEP_PX, _AHEAD_PX = 2.0, 2.5, 50.0  # pixels of a 1024 image
_SCALE, _CLIP = 0.5, 4.0
MOST, AT_ONCE = 8, 4  # strips of one frame, and how many the network is given at a time: most frames have fewer
# What the network says of a strip: log-odds that it is an instrument, those of each kind, how far the tip lies farther
# along the axis (in SHIFT_SCALE_PX) and the logarithm of that one's error, how far across it (ACROSS_SCALE_PX), and how
# far the axis is turned (TURN_SCALE_DEG, from the direction towards the normal).
OUTPUTS = 9
SHIFT_SCALE_PX, ACROSS_SCALE_PX, TURN_SCALE_DEG = 8.0, 3.0, 1.5

_ACROSS = (np.arange(ROWS) - (ROWS - 1) / 2) * _ACROSS_STEP_PX
_BEHIND = np.arange(COLS) * _ALONG_STEP_PX - _AHEAD_PX


def strip(
    counts: NDArray, seen: NDArray[np.bool_], tip_px: Float, direction: Float, dark: float, inverse: bool, out: Float32
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
        Written to: attenuation less its median, and what lies inside the aperture.
    """
    scale = max(counts.shape) / 1024
    normal = np.array([-direction[1], direction[0]])
    along, across = _BEHIND * scale, _ACROSS * scale
    places = tip_px - along[None, :, None] * direction + across[:, None, None] * normal
    at = np.rint((places + 0.5) * (np.array(seen.shape[::-1]) / np.array(counts.shape[::-1])) - 0.5).astype(np.int64)
    rows, cols = seen.shape
    inside = (at[..., 0] >= 0) & (at[..., 1] >= 0) & (at[..., 0] < cols) & (at[..., 1] < rows)
    inside &= seen[np.clip(at[..., 1], 0, rows - 1), np.clip(at[..., 0], 0, cols - 1)]
    out[1] = inside
    if not inside.any():
        out[0] = 0
        return
    shadow = shadow_at(counts, places, dark, inverse)
    shadow = (shadow - np.median(shadow[inside])) / _SCALE
    out[0] = np.clip(shadow, -_CLIP, _CLIP) * inside
