"""Attenuation of trabecular bone in a vertebral body."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from fluoronav.planning.measurements.errors import Refused
from fluoronav.planning.measurements.mask import Float, Mask, StructureMask, depths

# From the body's surface, mm: within cortex and endplates; chosen, as readers draw it (Pickhardt 2013).
_CORE_MM = 5.0
_LEAST_VOXELS = 20


def trabecular_hu(mask: StructureMask, body: Mask, ct: sitk.Image) -> tuple[float, float, Float]:
    """Mean of the core of a vertebral body.

    Parameters
    ----------
    mask : StructureMask
    body : ndarray of bool
        Voxels of the body, shape of ``mask.inside``.
    ct : SimpleITK.Image
        HU.

    Returns
    -------
    tuple of (float, float, ndarray)
        Mean and standard error, HU; middle of the core, LPS mm. Neighbouring voxels share noise: each 8 count as one.

    Raises
    ------
    Refused
        No core, or none of it in the CT.
    """
    depth = depths(body, mask.spacing_mm[::-1])
    core = mask.points_ct(depth > _CORE_MM)
    inverse = np.linalg.inv(np.array(ct.GetDirection()).reshape(3, 3) * np.array(ct.GetSpacing()))
    index = (core - np.array(ct.GetOrigin())) @ inverse.T
    inside = ((index >= 0) & (index <= np.array(ct.GetSize()) - 1)).all(1)
    if np.count_nonzero(inside) < _LEAST_VOXELS:
        raise Refused(f"{mask.name}: its body has no core of at least {_LEAST_VOXELS} voxels in the CT")
    at = np.rint(index[inside]).astype(int)
    hu = sitk.GetArrayViewFromImage(ct)[at[:, 2], at[:, 1], at[:, 0]].astype(np.float64)
    return float(hu.mean()), float(hu.std(ddof=1) / np.sqrt(max(len(hu) / 8, 1))), core.mean(0)
