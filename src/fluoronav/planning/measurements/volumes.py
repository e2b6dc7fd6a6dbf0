"""Volumes by voxels, the two diameters of a lesion, distances between structures, and resection margins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, KDTree, QhullError
from skimage.measure import find_contours

from fluoronav.planning.measurements.errors import Refused
from fluoronav.planning.measurements.mask import BOUNDARY, Float, StructureMask, depths, mask_from, nearest
from fluoronav.planning.plan.schema import Cut

_LEAST_VOXELS = 8  # of a lesion; chosen: a smaller one has no diameter
_LOW_QUANTILE = 0.05
_SAME_MM = 1e-6


@dataclass(frozen=True)
class Diameters:
    """The longest diameter of a lesion in a slice and the longest across it; mm and points in LPS mm, shape (2, 3)."""

    long_mm: float
    long_ct: Float
    short_mm: float
    short_ct: Float
    sigma_mm: float


@dataclass(frozen=True)
class Gap:
    """A distance between two surfaces, mm, and its two points, LPS mm, shape (2, 3)."""

    distance_mm: float
    points_ct: Float


@dataclass(frozen=True)
class Margin:
    """What lies between a lesion's surface and that of what is taken out.

    Attributes
    ----------
    least_mm : float
        Negative where the lesion is cut into.
    low_mm : float
        Its 5 % quantile over the lesion's surface.
    points_ct : ndarray, shape (2, 3)
        Where it is least: on the lesion, and on the cut; LPS mm.
    """

    least_mm: float
    low_mm: float
    points_ct: Float


def volume_cm3(mask: StructureMask) -> tuple[float, float]:
    """Volume of the voxels and its standard deviation, cm3.

    The deviation is that of a sum over boundary voxels that are each in or out by chance, over patches of the
    boundary's correlation. It holds no disagreement between people about where the structure ends.
    """
    inner = ndimage.binary_erosion(mask.inside)
    boundary = mask.voxels - int(np.count_nonzero(inner))
    # A smoothed field is the same over about 4 pi s^2 boundary voxels.
    patches = max(boundary / (4 * np.pi * BOUNDARY.correlation[0] ** 2), 1.0)
    sigma = BOUNDARY.sigma * boundary / np.sqrt(patches)
    return mask.voxels * mask.voxel_mm3 / 1000, sigma * mask.voxel_mm3 / 1000


def diameters(lesion: StructureMask) -> Diameters:
    """The longest diameter in an axial slice, and the longest at right angles to it in the same slice (RECIST 1.1).

    Raises
    ------
    Refused
        The lesion is too small.
    """
    if lesion.voxels < _LEAST_VOXELS:
        raise Refused(f"{lesion.name}: has {lesion.voxels} voxels; a diameter needs at least {_LEAST_VOXELS}")
    axis = int(np.argmax(np.abs(lesion.T_ct_index[2, :3])))
    in_plane = [a for a in range(3) if a != axis]
    best: tuple[float, int, Float, Float] | None = None
    slices = np.moveaxis(lesion.inside, 2 - axis, 0)
    for k in np.flatnonzero(slices.any((1, 2))):
        outline = _outline(slices[k], lesion.spacing_mm[in_plane])
        apart = np.linalg.norm(outline[:, None] - outline[None], axis=2)
        i, j = np.unravel_index(int(np.argmax(apart)), apart.shape)
        if best is None or apart[i, j] > best[0]:
            best = (float(apart[i, j]), int(k), outline[[i, j]], outline)
    assert best is not None
    long_mm, k, long, outline = best
    short = _across(outline, long)
    to_ct = lambda plane: _in_space(lesion, plane, k, axis, in_plane)  # noqa: E731
    # Two ends, each known to BOUNDARY.sigma voxels.
    sigma = float(np.sqrt(2) * BOUNDARY.sigma * lesion.spacing_mm[in_plane].mean())
    return Diameters(long_mm, to_ct(long), float(np.linalg.norm(short[1] - short[0])), to_ct(short), sigma)


def gap(one: StructureMask, other: StructureMask) -> Gap:
    """The shortest distance between two surfaces; 0 where they touch or overlap."""
    a, b = one.surface_ct(), other.surface_ct()
    distance, at = nearest(KDTree(b), a)
    k = int(np.argmin(distance))
    # Faces that two structures share are the same up to rounding.
    if distance[k] < _SAME_MM or overlaps(one, other):
        return Gap(0.0, np.stack([a[k], b[at[k]]]))
    return Gap(float(distance[k]), np.stack([a[k], b[at[k]]]))


def overlaps(one: StructureMask, other: StructureMask) -> bool:
    """Whether a voxel of one lies in the other."""
    points = one.points_ct()
    inverse = np.linalg.inv(other.T_ct_index)
    index = np.rint(points @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)[:, ::-1]
    valid = ((index >= 0) & (index < other.inside.shape)).all(1)
    return bool(other.inside[tuple(index[valid].T)].any())


def margin_of(lesion: StructureMask, resected: StructureMask) -> Margin:
    """The margin of a lesion within what is taken out.

    Parameters
    ----------
    lesion, resected : StructureMask
        The resected volume includes the lesion.
    """
    surface, cut = lesion.surface_ct(), resected.surface_ct()
    distance, at = nearest(KDTree(cut), surface)
    index = (surface - resected.T_ct_index[:3, 3]) @ np.linalg.inv(resected.T_ct_index[:3, :3]).T
    field = ndimage.map_coordinates(resected.inside.astype(np.float32), index.T[::-1], order=1, cval=0.0)
    signed = np.where(field >= 0.5, distance, -distance)
    return _margin(signed, surface, cut[at])


def margin_to_cuts(lesion: StructureMask, cuts: tuple[Cut, ...]) -> Margin:
    """The margin of a lesion to planned cuts; the saw takes half its kerf on the lesion's side."""
    surface = lesion.surface_ct()
    middle = surface.mean(0)
    least, foot = np.full(len(surface), np.inf), np.zeros_like(surface)
    for cut in cuts:
        normal = np.array(cut.normal_ct) / np.linalg.norm(cut.normal_ct)
        side = 1.0 if (middle - cut.point_ct) @ normal >= 0 else -1.0
        to_plane = side * ((surface - cut.point_ct) @ normal) - cut.kerf_mm / 2
        nearer = to_plane < least
        least[nearer] = to_plane[nearer]
        foot[nearer] = (surface - (side * to_plane)[:, None] * normal)[nearer]
    return _margin(least, surface, foot)


def grown(lesion: StructureMask, margin_mm: float) -> StructureMask:
    """The lesion with everything within a distance of it: what a resection with that margin takes."""
    pad = np.ceil(margin_mm / lesion.spacing_mm[::-1]).astype(int) + 1
    inside = np.pad(lesion.inside, [(p, p) for p in pad])
    away = depths(~inside, lesion.spacing_mm[::-1])
    T = lesion.T_ct_index.copy()
    T[:3, 3] -= T[:3, :3] @ pad[::-1]
    return mask_from(away <= margin_mm, T, f"resection of {lesion.name}")


def _margin(signed: Float, surface: Float, foot: Float) -> Margin:
    k = int(np.argmin(signed))
    return Margin(float(signed[k]), float(np.quantile(signed, _LOW_QUANTILE)), np.stack([surface[k], foot[k]]))


def _outline(inside: Float, spacing_mm: Float) -> Float:
    """Corners of the convex hull of a slice's outline, mm in the slice (x, y), shape (n, 2)."""
    contours = find_contours(np.pad(inside, 1).astype(np.float32), 0.5)
    points = (np.concatenate(contours)[:, ::-1] - 1) * spacing_mm
    try:
        return points[ConvexHull(points).vertices]
    except QhullError:
        return points


def _across(outline: Float, long: Float) -> Float:
    """The longest chord of a convex outline at right angles to a diameter, shape (2, 2)."""
    way = (long[1] - long[0]) / np.linalg.norm(long[1] - long[0])
    side = np.array([-way[1], way[0]])
    along, across = (outline - long[0]) @ way, (outline - long[0]) @ side
    closed_along, closed_across = np.append(along, along[0]), np.append(across, across[0])
    best = (0.0, 0.0, 0.0, 0.0)
    for t in np.linspace(along.min(), along.max(), 101)[1:-1]:
        a, b = closed_along[:-1], closed_along[1:]
        crosses = (a <= t) != (b <= t)
        part = (t - a[crosses]) / (b[crosses] - a[crosses])
        at = closed_across[:-1][crosses] + part * np.diff(closed_across)[crosses]
        if len(at) >= 2 and np.ptp(at) > best[0]:
            best = (float(np.ptp(at)), float(t), float(at.min()), float(at.max()))
    _, t, low, high = best
    return np.stack([long[0] + t * way + low * side, long[0] + t * way + high * side])


def _in_space(mask: StructureMask, plane_mm: Float, k: int, axis: int, in_plane: list[int]) -> Float:
    index = np.zeros((len(plane_mm), 3))
    index[:, in_plane] = plane_mm / mask.spacing_mm[in_plane]
    index[:, axis] = k
    return index @ mask.T_ct_index[:3, :3].T + mask.T_ct_index[:3, 3]
