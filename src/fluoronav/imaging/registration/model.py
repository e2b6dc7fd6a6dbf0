"""Attenuation grids of the registration: all tissue of the patient, and the rigid bones alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.case import CaseError, Volume
from fluoronav.imaging.projector import AttenuationGrid, Projector, attenuation_of_hu
from fluoronav.imaging.registration.truncation import continued, is_cut

Float = NDArray[np.float64]


@dataclass(frozen=True)
class ModelSettings:
    """How a case's attenuation grids are made; all chosen."""

    # Motion of bones against one another, 1 sigma. Between the positions for the CT and for the operation, a motion
    # segment of the spine rotates by a few degrees and shifts by a few millimetres.
    segment_deg: float = 2.5
    segment_mm: float = 2.5
    bone_hu: float = 150  # denser voxels are bone where there is no label map
    soft_tissue_hu: float = 50  # subtracted from the bones' own grid
    bone_margin_mm: float = 3.0  # air around the bones' grid, so that no bone is cut at its faces
    # Voxel sizes; the coarse grids serve the many poses of a search.
    tissue_mm: float = 1.5
    coarse_tissue_mm: float = 2.5
    bones_mm: float = 1.0
    coarse_bones_mm: float = 2.0
    reach_mm: float = 200.0  # of the tissue grid around the centre of the bones, to each side
    fade_mm: float = 8.0  # width over which the tissue fades out at the grid's faces
    # Where the CT cuts through bone, the patient's goes on: it has an end in the model alone. Over this width it fades
    # in again, so that no patch is placed on the end that the fading makes. Bone of less than six times both widths
    # keeps its end: it has no other place for patches.
    cut_bone_mm: float = 16.0
    most_cut: float = 1 / 6


SETTINGS = ModelSettings()
SEGMENT_DEG, SEGMENT_MM = SETTINGS.segment_deg, SETTINGS.segment_mm
_AIR_HU = -1024.0
_OUTSIDE_HU, _OUTSIDE_BELOW_HU = -4000.0, -2000.0  # marks what the CT does not cover


@dataclass(frozen=True)
class RegistrationModel:
    """Projectors of one case; the coarse ones are for the many poses of a search.

    Attributes
    ----------
    tissue, coarse_tissue : Projector
        All tissue.
    bones, coarse_bones : Projector
        The rigid bones alone; patches are placed on them.
    objects : tuple of (str, Projector)
        Bones with a pose of their own, by name.
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
            bone_grid(case.ct, case.labels, case.rigid_labels, mm)
            for mm in (SETTINGS.bones_mm, SETTINGS.coarse_bones_mm)
        )
        tissue, coarse = (
            tissue_grid(case.ct, bones.centre_ct, SETTINGS.reach_mm, mm, SETTINGS.fade_mm, case.surroundings)
            for mm in (SETTINGS.tissue_mm, SETTINGS.coarse_tissue_mm)
        )
        objects = tuple((o.name, Projector(object_grid(case, o, SETTINGS.bones_mm))) for o in case.objects)
        return cls(Projector(tissue), Projector(bones), Projector(coarse), Projector(coarse_bones), objects)


def tissue_grid(
    ct, centre_ct: Float, reach_mm: float, spacing_mm: float, fade_mm: float, surroundings=None
) -> AttenuationGrid:
    """Attenuation of all tissue around a point.

    Tissue in front of and behind the bones is part of their image: with only 60 mm of tissue around the spine, the
    error across the ray was twice that with the whole chest.

    Parameters
    ----------
    ct : fluoronav.case.Volume
        HU.
    centre_ct : ndarray, shape (3,)
        LPS mm.
    reach_mm : float
        Half the side of the cube that is kept; less where the CT ends before.
    spacing_mm : float
    fade_mm : float
        Width over which the attenuation fades out at the grid's faces. An abrupt end would project as an edge that the
        patient does not have. A CT whose sides cut through the body is continued instead (:mod:`.truncation`).
    surroundings : fluoronav.case.Volume, optional
        A coarse CT of the same patient, used outside `ct`.

    Raises
    ------
    ValueError
        The CT does not come within `reach_mm` of the centre.
    """
    corners = ct.corners_ct() if surroundings is None else np.vstack([ct.corners_ct(), surroundings.corners_ct()])
    low = np.maximum(corners.min(0), centre_ct - reach_mm)
    high = np.minimum(corners.max(0), centre_ct + reach_mm)
    if not (high > low).all():
        raise ValueError(f"{ct.path}: has nothing within {reach_mm:g} mm of {np.round(centre_ct, 1).tolist()}")
    size = _size(low, high, spacing_mm)
    hu = ct.resampled(low, size, spacing_mm, _OUTSIDE_HU)
    missing = hu < _OUTSIDE_BELOW_HU
    if surroundings is not None and missing.any():
        np.copyto(hu, surroundings.resampled(low, size, spacing_mm, _AIR_HU), where=missing)
    else:
        hu[missing] = _AIR_HU
        own = np.stack([corners.min(0) >= low, corners.max(0) <= high])  # not where `reach_mm` ends before the CT
        if is_cut(hu, [bool(own[end, axis]) for axis in (1, 0) for end in (0, 1)]):
            voxels, n = continued(attenuation_of_hu(hu), spacing_mm)
            known = np.array([low, low + spacing_mm * (np.array(size) - 1)])
            return AttenuationGrid(voxels, low - n * spacing_mm, spacing_mm, known)
    return AttenuationGrid(attenuation_of_hu(hu) * _fade(hu.shape, fade_mm / spacing_mm), low, spacing_mm)


def is_part_of_patient(case) -> bool:
    """Whether the CT of a :class:`fluoronav.case.Case`, with its surroundings, ends inside the body."""
    mm = SETTINGS.coarse_tissue_mm
    centre_ct = bone_grid(case.ct, case.labels, case.rigid_labels, SETTINGS.coarse_bones_mm).centre_ct
    tissue = tissue_grid(case.ct, centre_ct, SETTINGS.reach_mm, mm, SETTINGS.fade_mm, case.surroundings)
    return tissue.known_ct is not None


def object_grid(case, bones, spacing_mm: float) -> AttenuationGrid:
    """:func:`bone_grid` of one :class:`fluoronav.case.Bones` of a case; raises CaseError where there is no bone."""
    try:
        return bone_grid(case.ct, case.labels, bones.labels, spacing_mm, [bones.volume] if bones.volume else [])
    except ValueError as error:
        raise CaseError(f"{case.path}: objects: {bones.name}: {error}") from error


def bone_grid(
    ct: Volume, labels: Volume | None, rigid_labels: tuple[int, ...], spacing_mm: float, volumes: Sequence[Volume] = ()
) -> AttenuationGrid:
    """Attenuation, above that of soft tissue, of the bones that move as one body.

    Parameters
    ----------
    ct : fluoronav.case.Volume
        HU.
    labels : fluoronav.case.Volume or None
    rigid_labels : tuple of int
        The bones. Without labels and without volumes, everything denser than 150 HU.
    spacing_mm : float
    volumes : sequence of fluoronav.case.Volume
        Bones that were segmented from the CT, HU, in its frame: their voxels denser than 150 HU.

    Raises
    ------
    ValueError
        There is no bone, or it lies outside the CT.
    """
    corners = ct.corners_ct()
    low, high = corners.min(0), corners.max(0)
    named = labels if rigid_labels else None
    if named is not None or volumes:
        # Resample only what is kept: a whole trunk at 1 mm takes hundreds of megabytes.
        extents = [] if named is None else [named.extent_ct(rigid_labels)]
        extents += [(c.min(0), c.max(0)) for c in (v.corners_ct() for v in volumes)]
        low = np.maximum(low, np.min([e[0] for e in extents], axis=0) - SETTINGS.bone_margin_mm)
        high = np.minimum(high, np.max([e[1] for e in extents], axis=0) + SETTINGS.bone_margin_mm)
    if not (high > low).all():
        raise ValueError(f"{ct.path}: has nothing where {volumes[0].path if volumes else 'the bones are'} is")
    size = _size(low, high, spacing_mm)
    hu = ct.resampled(low, size, spacing_mm, _AIR_HU)
    if named is not None or volumes:
        bone = np.zeros(hu.shape, bool)
        if named is not None:
            bone |= np.isin(named.resampled(low, size, spacing_mm, 0, nearest=True), rigid_labels)
        for volume in volumes:
            bone |= volume.resampled(low, size, spacing_mm, _AIR_HU) > SETTINGS.bone_hu
    else:
        bone = hu > SETTINGS.bone_hu
    if not bone.any():
        raise ValueError(f"{ct.path}: no bone to register: no voxel is denser than {SETTINGS.bone_hu} HU")
    found = np.argwhere(bone)
    margin = int(np.ceil(SETTINGS.bone_margin_mm / spacing_mm))
    first = np.maximum(found.min(0) - margin, 0)
    end = np.minimum(found.max(0) + margin + 1, bone.shape)
    box = tuple(slice(a, b) for a, b in zip(first, end, strict=True))
    above = attenuation_of_hu(hu[box]) - attenuation_of_hu(np.float32(SETTINGS.soft_tissue_hu))
    voxels = np.where(bone[box], np.maximum(above, 0), 0).astype(np.float32)
    origin_ct = low + spacing_mm * first[::-1]
    _fade_where_cut(voxels, origin_ct, spacing_mm, corners)
    return AttenuationGrid(voxels, origin_ct, spacing_mm)


def _fade_where_cut(bone: NDArray[np.float32], origin_ct: Float, spacing_mm: float, corners_ct: Float) -> None:
    """Takes bone away at those faces of the CT that cut through it."""
    for axis in range(3):
        if SETTINGS.fade_mm + SETTINGS.cut_bone_mm > SETTINGS.most_cut * spacing_mm * bone.shape[2 - axis]:
            continue
        at_ct = origin_ct[axis] + spacing_mm * np.arange(bone.shape[2 - axis])
        for inward_mm in (at_ct - corners_ct.min(0)[axis], corners_ct.max(0)[axis] - at_ct):
            planes = np.moveaxis(bone, 2 - axis, 0)
            if (planes[inward_mm < 2 * spacing_mm] > 0).any():
                planes *= _raised_cosine((inward_mm - SETTINGS.fade_mm) / SETTINGS.cut_bone_mm)[:, None, None]


def _size(low: Float, high: Float, spacing_mm: float) -> tuple[int, int, int]:
    x, y, z = np.maximum(np.floor((high - low) / spacing_mm + 1e-6).astype(int) + 1, 2).tolist()
    return x, y, z


def _fade(shape: tuple[int, ...], width: float) -> NDArray[np.float32]:
    """1 inside, falling to 0 at the faces as a raised cosine over ``width`` voxels."""
    fade = np.ones(shape, np.float32)
    for axis, n in enumerate(shape):
        at = np.arange(n, dtype=np.float32)
        inward = np.minimum(at, n - 1 - at) / width
        fade *= _raised_cosine(inward).reshape([-1 if a == axis else 1 for a in range(3)])
    return fade


def _raised_cosine(inward: NDArray) -> NDArray[np.float32]:
    """0 up to 0, and 1 from 1 on."""
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * np.clip(inward, 0, 1)), np.float32)
