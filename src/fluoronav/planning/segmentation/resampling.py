"""nnU-Net's resampling of an image to the spacing of a network, plane by plane, so that a long CT fits into memory.

What nnU-Net 2 does (`skimage.transform.resize`, order 3, edges repeated, no smoothing before) is separable. It is done
in the planes first, then along the third axis.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Float32 = NDArray[np.float32]
_THICK = 3.0  # ratio of spacings from which nnU-Net takes the nearest along the coarse axis
_BLOCK = 16  # rows that are resampled along the third axis at once; chosen: some MB


def resampled(values: NDArray, spacing_mm: tuple[float, ...], wanted_mm: tuple[float, ...]) -> Float32:
    """A volume at another spacing; the outer edges of both grids coincide.

    Parameters
    ----------
    values : ndarray, shape (z, y, x)
    spacing_mm, wanted_mm : tuple of 3 float
        z, y, x.

    Returns
    -------
    ndarray, float32
        Each axis has its old number of voxels times old over new spacing, rounded.
    """
    sizes = [max(round(n * a / b), 1) for n, a, b in zip(values.shape, spacing_mm, wanted_mm, strict=True)]
    if sizes == list(values.shape):
        return values.astype(np.float32)
    axis = coarse_axis(spacing_mm, wanted_mm)
    last = 0 if axis is None else axis
    turned = np.moveaxis(values, last, 0)
    size = np.moveaxis(np.empty(sizes, np.bool_), last, 0).shape
    flat = np.empty((turned.shape[0], *size[1:]), np.float32)
    for k, plane in enumerate(turned):
        flat[k] = _zoomed(plane.astype(np.float32), size[1:])
    if axis is not None:
        return np.ascontiguousarray(np.moveaxis(flat[_nearest(flat.shape[0], size[0])], 0, last))
    out = np.empty(size, np.float32)
    for y in range(0, size[1], _BLOCK):
        rows = flat[:, y : y + _BLOCK]
        out[:, y : y + _BLOCK] = _zoomed(rows, (size[0], *rows.shape[1:]))
    return out


def coarse_axis(spacing_mm: tuple[float, ...], wanted_mm: tuple[float, ...]) -> int | None:
    """The axis along which nnU-Net takes the nearest plane; None where it interpolates along all."""
    for spacing in (spacing_mm, wanted_mm):
        if max(spacing) / min(spacing) > _THICK:
            coarse = [k for k, s in enumerate(spacing) if s == max(spacing)]
            return coarse[0] if len(coarse) == 1 else None
    return None


def _zoomed(values: Float32, size: tuple[int, ...]) -> Float32:
    if values.shape == tuple(size):
        return values
    # Along an axis that stays as it is, nothing is interpolated.
    factors = [a / b for a, b in zip(size, values.shape, strict=True)]
    zoomed = np.asarray(ndimage.zoom(values, factors, order=3, mode="nearest", grid_mode=True))
    return np.clip(zoomed, values.min(), values.max())


def _nearest(number: int, wanted: int) -> NDArray[np.int64]:
    at = np.floor((np.arange(wanted) + 0.5) * number / wanted).astype(np.int64)
    return np.minimum(at, number - 1)
