"""Error of a pose at the target, split by the ray."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def target_error_mm(T_camera_ct: ArrayLike, truth: ArrayLike, target_ct: ArrayLike) -> tuple[float, float]:
    """Error of a pose at one point of the patient.

    Parameters
    ----------
    T_camera_ct, truth : array, shape (4, 4)
        The pose, and the true one, mm.
    target_ct : array, shape (3,)
        LPS, mm.

    Returns
    -------
    across, along : float
        Perpendicular to the true ray, and signed along it, mm.
    """
    point = np.append(np.asarray(target_ct, dtype=np.float64), 1)
    found, true = (np.asarray(T_camera_ct) @ point)[:3], (np.asarray(truth) @ point)[:3]
    ray, off = true / np.linalg.norm(true), found - true
    along = float(off @ ray)
    return float(np.linalg.norm(off - along * ray)), along
