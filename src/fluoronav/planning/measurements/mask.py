"""One structure of a label map: its voxels, their place, and where it is cut off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from fluoronav.case.volume import bounds
from fluoronav.planning.measurements.errors import Refused

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
_PAD = 4  # voxels around a structure's box; chosen: more than the smoothing reaches
_WAVES = 64  # of a random field on a surface; chosen: its distribution is normal to a hundredth
_MOST_POINTS = 30_000  # of a surface that is moved; chosen for time
_WAYS = (("right", "left"), ("front", "back"), ("feet", "head"))


@dataclass(frozen=True, slots=True)
class BoundarySettings:
    """How the boundary between voxels is placed, and by how much it is uncertain."""

    # Gaussian that turns a mask into occupancies, voxels; chosen: takes the steps off a plane, and moves the surface of
    # a ball of 10 voxels' radius by 0.05 voxels.
    smoothing: float = 0.7
    # Standard deviation of the boundary's place, voxels: uniform within half a voxel, 1 / sqrt(12).
    sigma: float = 0.29
    # Gaussians over which the error of the boundary is the same, voxels: half of the variance each. Boundaries across
    # the grid are off by chance from voxel to voxel; those along it by the same over many voxels.
    correlation: tuple[float, float] = (1.5, 6.0)
    most: float = 0.8  # voxels
    normals: float = 1.0  # Gaussian before normals are taken, voxels; chosen: the steps of a mask vanish
    repeats: int = 8  # chosen: a standard deviation to a quarter


BOUNDARY = BoundarySettings()


@dataclass(frozen=True, slots=True)
class CutSettings:
    """When a structure counts as cut off."""

    least_face_mm2: float = 25.0  # on the edge of the volume; chosen: a tip that touches it is no cut
    # Area of the last slice over the largest within `within_mm`; chosen: ends of bones taper, cuts do not.
    flat: float = 0.55
    within_mm: float = 12.0
    least_flat_mm2: float = 60.0


CUT = CutSettings()


@dataclass(frozen=True)
class Surface:
    """Points on a structure's boundary.

    Attributes
    ----------
    points : ndarray, shape (n, 3)
        LPS mm.
    normals : ndarray, shape (n, 3)
        Outward, unit length.
    voxel_mm : ndarray, shape (n,)
        Length of a voxel along the normal.
    """

    points: Float
    normals: Float
    voxel_mm: Float

    def thinned(self) -> Surface:
        """Every n-th point, as many as a spread needs."""
        every = max(len(self.points) // _MOST_POINTS, 1)
        return Surface(self.points[::every], self.normals[::every], self.voxel_mm[::every])

    def moved(self, rng: np.random.Generator) -> Surface:
        """The same boundary, moved within its uncertainty by a smooth random field."""
        away = np.zeros(len(self.points))
        for correlation in BOUNDARY.correlation:
            # A Gaussian that smooths white noise over s gives this spectrum (random Fourier features, Rahimi 2007).
            scale = correlation * float(np.median(self.voxel_mm))
            waves = rng.standard_normal((3, _WAVES)) / (np.sqrt(2) * scale)
            phases = rng.uniform(0, 2 * np.pi, _WAVES)
            away += np.cos(self.points @ waves + phases).sum(1) * np.sqrt(2 / _WAVES)
        away *= BOUNDARY.sigma / np.sqrt(len(BOUNDARY.correlation)) * self.voxel_mm
        return Surface(self.points + away[:, None] * self.normals, self.normals, self.voxel_mm)


@dataclass(frozen=True)
class StructureMask:
    """One structure.

    Attributes
    ----------
    name : str
    inside : ndarray of bool, shape (z, y, x)
        Its box with a border of empty voxels.
    T_ct_index : ndarray, shape (4, 4)
        Index (x, y, z) of `inside` to LPS mm.
    at_edge : tuple of str
        Sides of the volume that cut it ("head", "left"), largest cut first.
    """

    name: str
    inside: Mask
    T_ct_index: Float
    at_edge: tuple[str, ...] = ()

    @property
    def spacing_mm(self) -> Float:
        """Along (x, y, z) of the index."""
        return np.linalg.norm(self.T_ct_index[:3, :3], axis=0)

    @property
    def voxel_mm3(self) -> float:
        return float(np.prod(self.spacing_mm))

    @property
    def voxels(self) -> int:
        return int(np.count_nonzero(self.inside))

    def points_ct(self, mask: Mask | None = None) -> Float:
        """Centres of voxels, LPS mm, shape (n, 3); of all that are inside by default."""
        index = np.argwhere(self.inside if mask is None else mask)[:, ::-1]
        return index @ self.T_ct_index[:3, :3].T + self.T_ct_index[:3, 3]

    def surface_ct(self) -> Float:
        """Centres of the faces between a voxel inside and one outside, LPS mm, shape (n, 3)."""
        found = []
        for axis in range(3):
            ahead = np.diff(self.inside.astype(np.int8), axis=axis) != 0
            at = np.argwhere(ahead).astype(np.float64)
            at[:, axis] += 0.5
            found.append(at[:, ::-1])
        index = np.concatenate(found)
        return index @ self.T_ct_index[:3, :3].T + self.T_ct_index[:3, 3]

    def depth_mm(self) -> Float:
        """Distance of each voxel inside to the nearest outside, mm."""
        return self._depth

    @cached_property
    def _depth(self) -> Float:
        return depths(self.inside, self.spacing_mm[::-1])

    def pieces(self) -> list[int]:
        """Voxels of each connected piece (by faces, edges or corners), largest first."""
        numbered, count = labelled(self.inside, corners=True)
        return sorted(np.bincount(numbered.ravel(), minlength=count + 1)[1:].tolist(), reverse=True)

    def largest_piece(self) -> StructureMask:
        """The structure without its smaller pieces."""
        numbered, count = labelled(self.inside, corners=True)
        if count <= 1:
            return self
        largest = int(np.argmax(np.bincount(numbered.ravel())[1:])) + 1
        return StructureMask(self.name, numbered == largest, self.T_ct_index, self.at_edge)

    def flat_ends(self) -> tuple[str, ...]:
        """Which of "head" and "feet" end in a flat cut along the slices, whether the volume ends there or not."""
        return self._flat

    @cached_property
    def _flat(self) -> tuple[str, ...]:
        axis = int(np.argmax(np.abs(self.T_ct_index[2, :3])))
        area = np.count_nonzero(self.inside, axis=tuple(a for a in range(3) if a != 2 - axis)).astype(float)
        step = float(self.spacing_mm[axis])
        area *= self.voxel_mm3 / step
        used = np.flatnonzero(area)
        if not len(used):
            return ()
        near = max(int(CUT.within_mm / step), 1)
        up = self.T_ct_index[2, axis] > 0
        out = []
        for last, toward, way in ((used[0], 1, 0), (used[-1], -1, 1)):
            reach = (
                area[last : last + toward * (near + 1) or None : toward]
                if toward > 0
                else area[max(last - near, 0) : last + 1]
            )
            if area[last] > max(CUT.flat * reach.max(), CUT.least_flat_mm2) and len(used) > 1:
                out.append(_WAYS[2][way if up else 1 - way])
        return tuple(out)

    def level(self) -> Float:
        """The boundary as the zero of a field: about the depth in voxels near it, positive inside."""
        occupancy = ndimage.gaussian_filter(self.inside.astype(np.float32), BOUNDARY.smoothing)
        # The slope of a smoothed step is 1 / (sigma sqrt(2 pi)) per voxel.
        return (occupancy - 0.5) * (BOUNDARY.smoothing * np.sqrt(2 * np.pi))

    def surface(self, level: Float) -> Surface:
        """The zero of a field: faces between voxels inside and outside, moved along the normal onto the zero."""
        faces = StructureMask(self.name, level > 0, self.T_ct_index).surface_ct()
        smooth = ndimage.gaussian_filter(level, BOUNDARY.normals)
        slopes = np.stack([self.sampled(np.gradient(smooth, axis=2 - a), faces) for a in range(3)], axis=1)
        outward = -slopes @ np.linalg.inv(self.T_ct_index[:3, :3])
        normals = outward / np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-9)
        # Depth is in voxels, and a voxel along the normal is as long as this.
        along = normals @ (self.T_ct_index[:3, :3] / self.spacing_mm)
        voxel_mm = 1 / np.maximum(np.linalg.norm(along / self.spacing_mm, axis=1), 1e-9)
        return Surface(faces + normals * (self.sampled(level, faces) * voxel_mm)[:, None], normals, voxel_mm)

    def sampled(self, level: Float, points_ct: Float) -> Float:
        """A field's values at points, shape (..., 3) LPS mm, by linear interpolation; -1 outside of the box."""
        inverse = np.linalg.inv(self.T_ct_index)
        index = points_ct @ inverse[:3, :3].T + inverse[:3, 3]
        at = np.moveaxis(index[..., ::-1], -1, 0)
        return np.asarray(ndimage.map_coordinates(level, at, order=1, mode="constant", cval=-1.0))


def labelled(mask: NDArray, *, corners: bool = False) -> tuple[NDArray[np.int32], int]:
    """Connected pieces of a mask, numbered from 1, and their number; joined by faces, or by corners, too."""
    # SciPy's types leave open what is returned.
    found: Any = ndimage.label(mask, np.ones((3,) * mask.ndim) if corners else None)
    return found


def depths(mask: NDArray, spacing: Float | None = None) -> Float:
    """Distance of each voxel of a mask to the nearest outside."""
    return np.asarray(ndimage.distance_transform_edt(mask, sampling=spacing))


def nearest(tree: KDTree, points: Float) -> tuple[Float, NDArray[np.int64]]:
    """Distance of each point to the nearest one of a tree, and its number."""
    distance, at = tree.query(points)
    return np.asarray(distance, np.float64), np.asarray(at, np.int64)


def masks_of(labels: sitk.Image, wanted: Iterable[tuple[int, str]]) -> dict[str, StructureMask]:
    """The structures of a label map by name; a label without voxels is left out.

    Parameters
    ----------
    labels : SimpleITK.Image
        Whole numbers.
    wanted : iterable of (int, str)
        Label value and name.
    """
    voxels = sitk.GetArrayFromImage(labels)
    boxes = ndimage.find_objects(voxels.astype(np.int32, copy=False))
    step = np.array(labels.GetDirection()).reshape(3, 3) * np.array(labels.GetSpacing())
    origin = np.array(labels.GetOrigin())
    out = {}
    for value, name in wanted:
        box = boxes[value - 1] if 0 < value <= len(boxes) else None
        if box is not None:
            out[name] = _cropped(voxels, value, name, box, step, origin)
    return out


def mask_from(inside: Mask, T_ct_index: Float, name: str) -> StructureMask:
    """A structure of its own, such as a resected volume; raises :class:`Refused` where it has no voxel."""
    found = bounds(inside)
    if found is None:
        raise Refused(f"{name} has no voxel")
    low, high = found
    box = tuple(slice(int(low[a]), int(high[a]) + 1) for a in (2, 1, 0))
    return _cropped(inside.astype(np.uint8), 1, name, box, T_ct_index[:3, :3], T_ct_index[:3, 3])


def _cropped(
    voxels: NDArray, value: int, name: str, box: tuple[slice, ...], step: Float, origin: Float
) -> StructureMask:
    cut = np.pad(voxels[box] == value, _PAD)
    first = np.array([box[a].start - _PAD for a in (2, 1, 0)])
    T_ct_index = np.eye(4)
    T_ct_index[:3, :3], T_ct_index[:3, 3] = step, origin + step @ first
    return StructureMask(name, cut, T_ct_index, _edges(voxels.shape, cut, box, step))


def _edges(shape: tuple[int, ...], cut: Mask, box: tuple[slice, ...], step: Float) -> tuple[str, ...]:
    """Sides of the volume on which the structure has an area."""
    spacing = np.linalg.norm(step, axis=0)
    found = []
    for axis in range(3):
        face_mm2 = float(np.prod(spacing) / spacing[2 - axis])
        for end, touches in ((0, box[axis].start == 0), (1, box[axis].stop == shape[axis])):
            at = _PAD if end == 0 else cut.shape[axis] - _PAD - 1
            area = np.count_nonzero(np.take(cut, at, axis)) * face_mm2 if touches else 0.0
            if area >= CUT.least_face_mm2:
                column = step[:, 2 - axis] * (1 if end else -1)
                k = int(np.argmax(np.abs(column)))
                found.append((area, _WAYS[k][int(column[k] > 0)]))
    return tuple(way for _, way in sorted(found, reverse=True))


def spread(mask: StructureMask, measure: Callable[[Float], Float]) -> Float:
    """Standard deviation of a measurement when the boundary moves within its uncertainty.

    The boundary of a mask is known to about half a voxel. The measurement is repeated on boundaries that a smooth
    random field has moved.

    Parameters
    ----------
    mask : StructureMask
    measure : callable
        Takes the field of :meth:`StructureMask.level`; returns numbers, shape (n,), NaN for what it cannot measure.

    Returns
    -------
    ndarray, shape (n,)
        NaN where fewer than three repeats gave a number.

    Raises
    ------
    Refused
        Fewer than three repeats gave any.
    """
    # The same mask gives the same figures.
    rng = np.random.default_rng(mask.voxels)
    level = mask.level()

    def moved() -> Float:
        noise = sum(_noise(rng, level.shape, s) for s in BOUNDARY.correlation) / np.sqrt(len(BOUNDARY.correlation))
        # Less than the depth that a smoothed mask has inside: the boundary moves, no hole opens.
        return level + np.clip(noise * BOUNDARY.sigma, -BOUNDARY.most, BOUNDARY.most)

    return _deviation(mask.name, lambda: measure(moved()))


def surface_spread(name: str, surfaces: Sequence[Surface], measure: Callable[..., Float]) -> Float:
    """As :func:`spread`, of a measurement that takes one or several boundaries."""
    rng = np.random.default_rng(len(surfaces[0].points))
    thin = [s.thinned() for s in surfaces]
    return _deviation(name, lambda: measure(*(s.moved(rng) for s in thin)))


def _deviation(name: str, repeat: Callable[[], Float]) -> Float:
    found = []
    for _ in range(BOUNDARY.repeats):
        with suppress(Refused):
            found.append(repeat())
    if len(found) < 3:
        raise Refused(f"{name}: the measurement does not hold when the boundary moves by half a voxel")
    values = np.array(found, dtype=np.float64)
    enough = np.isfinite(values).sum(0) >= 3
    out = np.full(values.shape[1], np.nan)
    out[enough] = np.nanstd(values[:, enough], axis=0, ddof=1)
    return out


def _noise(rng: np.random.Generator, shape: tuple[int, ...], correlation: float) -> Float:
    """A smooth random field with standard deviation 1; a long correlation is made on a coarse grid."""
    step = max(int(correlation / 1.5), 1)
    s = correlation / step
    coarse = [n // step + 3 for n in shape]
    # Noise that is smoothed over s voxels in 3D keeps 1 / (4 pi s^2)^(3/4) of its deviation.
    field = (
        ndimage.gaussian_filter(rng.standard_normal(coarse, np.float32), s, mode="wrap") * (4 * np.pi * s**2) ** 0.75
    )
    if step == 1:
        return field[tuple(slice(n) for n in shape)]
    grown = np.asarray(ndimage.zoom(field, step, order=1))
    return grown[tuple(slice(n) for n in shape)]
