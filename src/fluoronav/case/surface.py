"""Surfaces of structures and no-go regions as triangles. Needs scikit-image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluoronav.case import NoGo, Structure
from fluoronav.case.isosurface import isosurface

Float = NDArray[np.float64]

_SURFACE_MM = 1.2  # finest step of a structure's surface; chosen for a display
_REGION_STEPS = 40  # steps along the longest side of a no-go region; chosen


def surface(thing: Structure | NoGo) -> tuple[Float, NDArray[np.int64]]:
    """The surface of a structure or a region as points (n, 3), LPS mm, and triangles (m, 3)."""
    if isinstance(thing, NoGo):
        low, high = thing.bounds_ct()
        step = float((high - low).max()) / _REGION_STEPS
        spacing, origin = np.full(3, step), low - step
        axes = [np.arange(a - step, b + 2 * step, step) for a, b in zip(low, high, strict=True)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        out = np.empty((grid.size // 3, 4))
        thing.distances(grid.reshape(-1, 3), out)
        distance, coarse = out[:, 0].reshape(grid.shape[:3]).transpose(2, 1, 0), 1
    else:
        field = thing.field
        distance = field.hundredths.astype(np.float32)
        spacing, origin = field.spacing_mm, field.origin_ct
        coarse = max(round(_SURFACE_MM / float(spacing.min())), 1)
    if not distance.min() < 0 < distance.max():
        return np.empty((0, 3)), np.empty((0, 3), np.int64)
    points, triangles = isosurface(distance, step=coarse)
    return points * spacing + origin, triangles
