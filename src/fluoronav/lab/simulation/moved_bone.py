"""A patient one of whose bones has moved since the CT, e.g. from supine to prone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.case import Case, Volume
from fluoronav.geometry import inverse, moved_about

_SOFT_TISSUE_HU = 60.0  # of muscle
_CORTEX_MM = 1.5  # chosen: a label map leaves out so much of the cortex


def with_moved_bone(case: Case, structure: str, twist: NDArray[np.float64]) -> tuple[Case, NDArray[np.float64]]:
    """The case with one bone moved: its old place becomes soft tissue, and it replaces what lies at its new place.

    Parameters
    ----------
    case : Case
        With a label map.
    structure : str
        Name of the bone.
    twist : ndarray, shape (6,)
        (w, v) about the bone's middle, CT axes, rad and mm.

    Returns
    -------
    case : Case
        With a changed CT; its label map is unchanged.
    T_ct_bone : ndarray, shape (4, 4)
        From the bone's old place to its new one, mm.
    """
    assert case.labels is not None
    label = next(s.label for s in case.structures if s.name == structure)
    low, high = case.labels.extent_ct((label,))
    T_ct_bone = moved_about((low + high) / 2, twist)
    ct = sitk.Cast(case.ct.image, sitk.sitkFloat32)
    # Dilated, or the part of the cortex outside the label map would stay behind as a shell.
    cortex = [max(1, round(_CORTEX_MM / spacing)) for spacing in case.labels.image.GetSpacing()]
    bone = sitk.BinaryDilate(case.labels.image == label, cortex)
    others = sitk.And(case.labels.image != label, case.labels.image != 0)
    at_rest = sitk.Cast(sitk.And(bone, sitk.Not(others)), sitk.sitkFloat32)
    mask = sitk.Resample(at_rest, ct, sitk.Transform(), sitk.sitkLinear, 0.0)
    # Resampling needs the transform from the new image to the old.
    back = sitk.AffineTransform(3)
    T = inverse(T_ct_bone)
    back.SetMatrix(T[:3, :3].ravel().tolist())
    back.SetTranslation(T[:3, 3].tolist())
    moved_mask = sitk.Resample(at_rest, ct, back, sitk.sitkLinear, 0.0)
    moved = sitk.Resample(ct, ct, back, sitk.sitkLinear, _SOFT_TISSUE_HU)
    around = ct * (1 - mask) + _SOFT_TISSUE_HU * mask
    image = sitk.Cast(sitk.Round(around * (1 - moved_mask) + moved * moved_mask), case.ct.image.GetPixelID())
    return replace(case, ct=Volume(image, case.ct.path)), T_ct_bone
