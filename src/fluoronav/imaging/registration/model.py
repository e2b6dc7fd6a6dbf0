"""What rays are cast through: the patient's tissue, and the rigid bones alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.case import CaseError, Volume
from fluoronav.imaging.projector import AttenuationGrid, Projector, attenuation_of_hu

Float = NDArray[np.float64]

# How bones move against one another (1 sigma): a motion segment of the spine turns by a few degrees and slides by a
# few millimetres between lying for the CT and lying for the operation.
SEGMENT_DEG, SEGMENT_MM = 2.5, 2.5

_BONE_HU = 150
_SOFT_TISSUE_HU = 50
# Kept free around the bones' own grid, so that no bone ends in a wall.
_BONE_MARGIN_MM = 3.0
# Of the tissue that rays are cast through and of the bones that patches are placed on; coarse ones for a first look.
_TISSUE_MM, _COARSE_TISSUE_MM, _BONES_MM, _COARSE_BONES_MM = 1.5, 2.5, 1.0, 2.0
# How much of the patient is kept around the bones, and over what width it fades out there.
_REACH_MM, _FADE_MM = 200.0, 8.0


@dataclass(frozen=True)
class RegistrationModel:
    """What the registration of one case casts rays through; the coarse ones are for the many poses of a search.

    `objects` are bones with a pose of their own, by name.
    """

    tissue: Projector
    bones: Projector
    coarse_tissue: Projector
    coarse_bones: Projector
    objects: tuple[tuple[str, Projector], ...] = ()

    @classmethod
    def of_case(cls, case) -> RegistrationModel:
        """The model of a :class:`fluoronav.case.Case`."""
        bones, coarse_bones = (
            bone_grid(case.ct, case.labels, case.rigid_labels, mm) for mm in (_BONES_MM, _COARSE_BONES_MM)
        )
        tissue, coarse = (
            tissue_grid(case.ct, bones.centre_ct, _REACH_MM, mm, _FADE_MM, case.surroundings)
            for mm in (_TISSUE_MM, _COARSE_TISSUE_MM)
        )
        objects = tuple((o.name, Projector(object_grid(case, o, _BONES_MM))) for o in case.objects)
        return cls(Projector(tissue), Projector(bones), Projector(coarse), Projector(coarse_bones), objects)


def tissue_grid(
    ct, centre_ct: Float, reach_mm: float, spacing_mm: float, fade_mm: float, surroundings=None
) -> AttenuationGrid:
    """All tissue around a point, bone and soft.

    What lies over the bones is part of their picture: with only 60 mm of tissue around the spine the error across the
    ray was twice that with the whole chest.

    Parameters
    ----------
    ct : fluoronav.case.Volume
        HU.
    centre_ct : ndarray, shape (3,)
        LPS mm.
    reach_mm : float
        Half the side of the cube that is kept, where the CT goes so far.
    spacing_mm : float
    fade_mm : float
        Width over which the attenuation fades out at the grid's faces: a model that ended in a wall would have edges
        that the patient does not.
    surroundings : fluoronav.case.Volume, optional
        A coarse CT of the same patient, used where `ct` has nothing.
    """
    corners = ct.corners_ct() if surroundings is None else np.vstack([ct.corners_ct(), surroundings.corners_ct()])
    low = np.maximum(corners.min(0), centre_ct - reach_mm)
    high = np.minimum(corners.max(0), centre_ct + reach_mm)
    if not (high > low).all():
        raise ValueError(f"{ct.path}: has nothing within {reach_mm:g} mm of {np.round(centre_ct, 1).tolist()}")
    size = _size(low, high, spacing_mm)
    nowhere = -4000.0
    hu = ct.resampled(low, size, spacing_mm, nowhere)
    missing = hu < -2000
    if surroundings is not None and missing.any():
        np.copyto(hu, surroundings.resampled(low, size, spacing_mm, -1024.0), where=missing)
    else:
        hu[missing] = -1024.0
    return AttenuationGrid(attenuation_of_hu(hu) * _fade(hu.shape, fade_mm / spacing_mm), low, spacing_mm)


def object_grid(case, bones, spacing_mm: float) -> AttenuationGrid:
    """:func:`bone_grid` of one :class:`fluoronav.case.Bones` of a case; raises CaseError where there is no bone."""
    try:
        return bone_grid(case.ct, case.labels, bones.labels, spacing_mm, [bones.volume] if bones.volume else [])
    except ValueError as error:
        raise CaseError(f"{case.path}: objects: {bones.name}: {error}") from error


def bone_grid(
    ct: Volume, labels: Volume | None, rigid_labels: tuple[int, ...], spacing_mm: float, volumes: Sequence[Volume] = ()
) -> AttenuationGrid:
    """The attenuation above soft tissue of the bones that move as one body: where the model has structure of its own.

    Parameters
    ----------
    ct : fluoronav.case.Volume
        HU.
    labels : fluoronav.case.Volume or None
    rigid_labels : tuple of int
        The bones; with no volumes either, everything denser than 150 HU counts.
    spacing_mm : float
    volumes : sequence of fluoronav.case.Volume
        Bones that were cut out of the CT, HU, in its frame; theirs is what is denser than 150 HU in them.

    Raises
    ------
    ValueError
        There is no bone.
    """
    corners = ct.corners_ct()
    low, high = corners.min(0), corners.max(0)
    named = labels if rigid_labels else None
    if named is not None or volumes:
        # Only what will be kept is resampled: a whole trunk at 1 mm takes hundreds of megabytes.
        extents = [] if named is None else [named.extent_ct(rigid_labels)]
        extents += [(c.min(0), c.max(0)) for c in (v.corners_ct() for v in volumes)]
        low = np.maximum(low, np.min([e[0] for e in extents], axis=0) - _BONE_MARGIN_MM)
        high = np.minimum(high, np.max([e[1] for e in extents], axis=0) + _BONE_MARGIN_MM)
    if not (high > low).all():
        raise ValueError(f"{ct.path}: has nothing where {volumes[0].path if volumes else 'the bones are'} is")
    size = _size(low, high, spacing_mm)
    hu = ct.resampled(low, size, spacing_mm, -1024.0)
    if named is not None or volumes:
        bone = np.zeros(hu.shape, bool)
        if named is not None:
            bone |= np.isin(named.resampled(low, size, spacing_mm, 0, nearest=True), rigid_labels)
        for volume in volumes:
            bone |= volume.resampled(low, size, spacing_mm, -1024.0) > _BONE_HU
    else:
        bone = hu > _BONE_HU
    if not bone.any():
        raise ValueError(f"{ct.path}: no bone to register: no voxel is denser than {_BONE_HU} HU")
    found = np.argwhere(bone)
    margin = int(np.ceil(_BONE_MARGIN_MM / spacing_mm))
    first = np.maximum(found.min(0) - margin, 0)
    end = np.minimum(found.max(0) + margin + 1, bone.shape)
    box = tuple(slice(a, b) for a, b in zip(first, end, strict=True))
    above = attenuation_of_hu(hu[box]) - attenuation_of_hu(np.float32(_SOFT_TISSUE_HU))
    return AttenuationGrid(
        np.where(bone[box], np.maximum(above, 0), 0).astype(np.float32), low + spacing_mm * first[::-1], spacing_mm
    )


def _size(low: Float, high: Float, spacing_mm: float) -> tuple[int, int, int]:
    x, y, z = np.maximum(np.floor((high - low) / spacing_mm + 1e-6).astype(int) + 1, 2).tolist()
    return x, y, z


def _fade(shape: tuple[int, ...], width: float) -> NDArray[np.float32]:
    """1 inside, falling to 0 at the faces as a raised cosine over ``width`` voxels."""
    fade = np.ones(shape, np.float32)
    for axis, n in enumerate(shape):
        at = np.arange(n, dtype=np.float32)
        inward = np.minimum(at, n - 1 - at) / width
        ramp = 0.5 - 0.5 * np.cos(np.pi * np.clip(inward, 0, 1))
        fade *= ramp.reshape([-1 if a == axis else 1 for a in range(3)])
    return fade
