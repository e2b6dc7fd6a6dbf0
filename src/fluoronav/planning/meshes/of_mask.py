"""The surface of a mask: marching cubes on its signed distances, with the mask's own volume.

Marching cubes on the mask itself would leave stairs, and smoothing would shrink what is thin. Distances between voxel
centres inside and outside, averaged, interpolate the shape between slices (Raya and Udupa, IEEE TMI 9, 1990); the level
is then chosen so that the surface encloses the volume of the voxels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.case.isosurface import isosurface
from fluoronav.case.volume import bounds
from fluoronav.planning.meshes.solid import Float, Mesh, MeshError, solid, surface_of


@dataclass(frozen=True, slots=True)
class SurfaceLimits:
    """How faithful a surface is."""

    # Decimation moves no part of the surface farther; chosen: an eighth of a coarse CT's pixel.
    decimation_mm: float = 0.1
    volume_error: float = 0.005  # of the voxels' volume that a surface may be off; chosen
    # Of the smallest spacing that the level may leave the middle between inside and outside; chosen: farther, and what
    # is one voxel thin would tear.
    level: float = 0.45
    steps: int = 12  # of the search for the level; chosen: the interval is then below a thousandth of a voxel


LIMITS = SurfaceLimits()


@dataclass(frozen=True)
class MaskSurface:
    """The surface of a mask with what it is worth.

    Attributes
    ----------
    mesh : Mesh
        LPS mm.
    voxels_mm3 : float
        Volume of the mask.
    volume_error : float
        Relative, of the surface's volume.
    decimation_mm : float
        No part of the surface was moved farther by decimation.
    """

    mesh: Mesh
    voxels_mm3: float
    volume_error: float
    decimation_mm: float


def mask_of(labels: sitk.Image, label: int, name: str) -> sitk.Image:
    """The voxels of a label with two voxels around them, uint8.

    Raises
    ------
    MeshError
        The label has no voxel.
    """
    inside = sitk.GetArrayViewFromImage(labels) == label
    found = bounds(inside)
    if found is None:
        raise MeshError(f"{name}: label {label} has no voxel in the label map; leave the structure out, or segment it")
    size = np.array(labels.GetSize())
    first, last = np.maximum(found[0] - 2, 0), np.minimum(found[1] + 2, size - 1)
    part = sitk.RegionOfInterest(labels, (last - first + 1).tolist(), first.tolist())
    mask = sitk.Cast(part == label, sitk.sitkUInt8)
    low, high = np.maximum(2 - (found[0] - first), 0), np.maximum(2 - (last - found[1]), 0)
    return sitk.ConstantPad(mask, low.tolist(), high.tolist(), 0)


def surface_of_mask(mask: sitk.Image, name: str, decimation_mm: float = LIMITS.decimation_mm) -> MaskSurface:
    """The watertight surface of a mask.

    Parameters
    ----------
    mask : SimpleITK.Image
        0 outside, with empty voxels at its border (:func:`mask_of`); any direction, mirrored ones too.
    name : str
        For messages.
    decimation_mm : float
        Bound on how far decimation moves the surface; 0 leaves all triangles.

    Raises
    ------
    MeshError
        The mask is empty, or its surface cannot be closed within the bound on the volume.
    """
    distance = signed_distances(mask)
    inside = sitk.GetArrayViewFromImage(mask) != 0
    spacing = np.array(mask.GetSpacing())
    volume = float(inside.sum() * np.prod(spacing))
    if volume == 0:
        raise MeshError(f"{name}: has no voxel; leave the structure out, or segment it")
    low, high = (sign * LIMITS.level * float(spacing.min()) / 2 for sign in (-1, 1))
    for _ in range(LIMITS.steps):
        level = (low + high) / 2
        low, high = (level, high) if _at(distance, spacing, level).volume_mm3 < volume else (low, level)
    mesh = _at(distance, spacing, (low + high) / 2)
    if decimation_mm > 0:
        mesh = surface_of(solid(mesh, name).simplify(decimation_mm))
    step = np.array(mask.GetDirection()).reshape(3, 3)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = step, mask.GetOrigin()
    mesh = mesh.moved(T)
    error = mesh.volume_mm3 / volume - 1
    return MaskSurface(mesh, volume, error, decimation_mm)


def signed_distances(mask: sitk.Image) -> NDArray[np.float32]:
    """Distance to a mask's surface, mm, negative inside, shape (z, y, x); exact for any spacing."""
    to_mask = sitk.SignedMaurerDistanceMap(mask, False, False, True)
    to_rest = sitk.SignedMaurerDistanceMap(mask == 0, False, False, True)
    return np.asarray((sitk.GetArrayFromImage(to_mask) - sitk.GetArrayFromImage(to_rest)) / 2, np.float32)


def _at(distance: NDArray[np.float32], spacing: Float, level: float) -> Mesh:
    """The surface at a level, in mm along the axes of the grid."""
    points, triangles = isosurface(distance, level)
    return Mesh(points * spacing, triangles)
