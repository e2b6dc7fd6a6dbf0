"""Where a field on a grid has a value: marching cubes. Needs scikit-image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.measure import marching_cubes


def isosurface(field: NDArray, level: float = 0.0, step: int = 1) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The surface around what lies below a level.

    Parameters
    ----------
    field : ndarray of float, shape (z, y, x)
        Such as signed distances, negative inside.
    level : float
    step : int
        Voxels between two that are looked at.

    Returns
    -------
    points : ndarray, shape (n, 3)
        Indices x, y, z.
    triangles : ndarray of int64, shape (m, 3)
        Outwards on a right-handed grid; a left-handed one turns them round.

    Raises
    ------
    ValueError
        The field is nowhere at the level.
    """
    points, triangles, _, _ = marching_cubes(
        field.transpose(2, 1, 0), level, step_size=step, gradient_direction="descent"
    )
    return np.asarray(points, np.float64), triangles.astype(np.int64)
