"""Which part of the CT is cast rays through: the rigid bones with the tissue close around them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluoronav.projector import AttenuationGrid, attenuation_of_hu

_BONE_HU = 150
# Width over which the model's attenuation fades out at its faces.
_FADE_MM = 8.0


def model_grids(
    ct, labels, rigid_labels: tuple[int, ...], spacing_mm: float, margin_mm: float, fade_mm: float = _FADE_MM
) -> tuple[AttenuationGrid, AttenuationGrid]:
    """The registration's model, and its bones alone.

    Parameters
    ----------
    ct : fluoronav.case.Volume
        HU.
    labels : fluoronav.case.Volume or None
    rigid_labels : tuple of int
        The bones that move as one body; empty: everything denser than 150 HU counts as bone.
    spacing_mm : float
        Of both grids.
    margin_mm : float
        Tissue kept around the bones' bounding box.
    fade_mm : float
        Width over which the attenuation fades out at the model's faces.

    Returns
    -------
    model, bone : AttenuationGrid
        The second has the bones' attenuation above soft tissue and shows where the model has structure of its own.
    """
    corners = ct.corners_ct()
    low, high = corners.min(0), corners.max(0)
    if rigid_labels and labels is not None:
        # Only what will be kept is resampled: a whole trunk at 1 mm takes hundreds of megabytes.
        first_ct, last_ct = labels.extent_ct(rigid_labels)
        low, high = np.maximum(low, first_ct - margin_mm), np.minimum(high, last_ct + margin_mm)
    size = tuple(np.maximum(np.floor((high - low) / spacing_mm + 1e-6).astype(int) + 1, 2))
    hu = ct.resampled(low, size, spacing_mm, -1024.0)
    if rigid_labels and labels is not None:
        bone = np.isin(labels.resampled(low, size, spacing_mm, 0, nearest=True), rigid_labels)
    else:
        bone = hu > _BONE_HU
    if not bone.any():
        raise ValueError(f"{ct.path}: no bone to register: no voxel is denser than {_BONE_HU} HU")
    found = np.argwhere(bone)
    margin = int(np.ceil(margin_mm / spacing_mm))
    first = np.maximum(found.min(0) - margin, 0)
    end = np.minimum(found.max(0) + margin + 1, bone.shape)
    box = tuple(slice(a, b) for a, b in zip(first, end, strict=True))
    origin = low + spacing_mm * first[::-1]
    mu = attenuation_of_hu(hu[box]) * _fade(tuple(end - first), fade_mm / spacing_mm)
    above = np.where(bone[box], np.maximum(mu - attenuation_of_hu(np.float32(50)), 0), 0).astype(np.float32)
    return AttenuationGrid(mu, origin, spacing_mm), AttenuationGrid(above, origin, spacing_mm)


def _fade(shape: tuple[int, ...], width: float) -> NDArray[np.float32]:
    """1 inside, falling to 0 at the faces as a raised cosine over ``width`` voxels.

    A model that ended in a wall would have edges that the patient does not.
    """
    fade = np.ones(shape, np.float32)
    for axis, n in enumerate(shape):
        at = np.arange(n, dtype=np.float32)
        inward = np.minimum(at, n - 1 - at) / width
        ramp = 0.5 - 0.5 * np.cos(np.pi * np.clip(inward, 0, 1))
        fade *= ramp.reshape([-1 if a == axis else 1 for a in range(3)])
    return fade
