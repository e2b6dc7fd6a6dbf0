"""A resection: the surface at a margin around a lesion, what it cuts through, and the bone that is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import SimpleITK as sitk
from manifold3d import Manifold
from numpy.typing import NDArray

from fluoronav.case.isosurface import isosurface
from fluoronav.case.volume import bounds
from fluoronav.planning.meshes.of_mask import signed_distances
from fluoronav.planning.meshes.parts import Part, part
from fluoronav.planning.meshes.solid import Mesh, MeshError, solid, surface_of

BORDER = 3  # voxels beyond the margin; chosen: the surface is then closed
_SMALLEST_PIECE_MM3 = 1.0  # chosen: smaller pieces are slivers of the surface, not of bone
_STEP_MM = 0.5  # of the grid of distances; chosen: the margin is then exact to a quarter of a mm
_MOST_VOXELS = 100_000_000  # of that grid, 1.2 GB while it is computed; chosen
_ON_MM = 1e-3  # a point so near the surface lies inside, whatever the last digits of its place; chosen
_COARSE_VOXELS = 60_000  # of that grid that a preview looks at; chosen: its bodies then take 40 ms


@dataclass(frozen=True)
class Resected:
    """What a resection takes out.

    Attributes
    ----------
    body : Manifold
        Lesion and margin, LPS mm.
    lesion_mm3 : float
        Voxels.
    through_mm3 : dict of str to float
        Volume of each structure within the margin, of its voxels.
    left : dict of str to tuple of Manifold
        Pieces of each bone that stay, largest first.
    """

    lesion: str
    margin_mm: float
    body: Manifold = field(repr=False)
    lesion_mm3: float
    through_mm3: dict[str, float]
    left: dict[str, tuple[Manifold, ...]] = field(repr=False)

    def parts(self) -> list[Part]:
        """The body that is taken out and the bone that stays."""
        out = [part(f"{self.lesion} with {self.margin_mm:g} mm", "resection", self.body)]
        for name, pieces in self.left.items():
            out += [replace(part(f"{name} left {k + 1}", "piece", p), structure=name) for k, p in enumerate(pieces)]
        return out

    def report(self) -> dict[str, Any]:
        """Volumes, for people and JSON."""
        return {
            "lesion": self.lesion,
            "margin_mm": self.margin_mm,
            "lesion_cm3": round(self.lesion_mm3 / 1000, 4),
            "taken_out_cm3": round(self.body.volume() / 1000, 4),
            "watertight": surface_of(self.body).is_watertight,
            "cuts_through": [
                {"structure": name, "volume_cm3": round(v / 1000, 4)} for name, v in self.through_mm3.items()
            ],
            "bone_left": [
                {"structure": name, "pieces_cm3": [round(p.volume() / 1000, 4) for p in pieces]}
                for name, pieces in self.left.items()
            ],
        }


@dataclass(frozen=True)
class AroundLesion:
    """Distances about a lesion, from which its resection with any margin up to a reach follows.

    Attributes
    ----------
    name : str
    reach_mm : float
    distance : SimpleITK.Image
        Signed distance to the lesion's surface, mm, negative inside. Its fine grid is laid from a voxel of the lesion,
        so that it is the same for every reach.
    away_mm : dict of int to ndarray
        By label, the distances of its voxels within the reach, ascending.
    lesion_mm3, voxel_mm3 : float
    """

    name: str
    reach_mm: float
    distance: sitk.Image = field(repr=False)
    away_mm: dict[int, NDArray[np.float32]] = field(repr=False)
    lesion_mm3: float
    voxel_mm3: float

    @property
    def voxels(self) -> int:
        """Of both grids: what is in memory."""
        return int(np.prod(self.distance.GetSize())) + sum(a.size for a in self.away_mm.values())

    def through_mm3(self, margin_mm: float, others: Mapping[str, int]) -> dict[str, float]:
        """Volume within a margin of each structure that has any there, the largest first."""
        counts = {n: int(np.searchsorted(self.away_mm[k], margin_mm, "right")) for n, k in others.items()
                  if k in self.away_mm}  # fmt: skip
        found = {n: count * self.voxel_mm3 for n, count in counts.items() if count}
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def body(self, margin_mm: float, *, coarse: bool = False) -> Manifold:
        """Lesion and margin, LPS mm; a coarse one for previews."""
        near = _cropped(self.distance, margin_mm)
        step = max(round((np.prod(near.GetSize()) / _COARSE_VOXELS) ** (1 / 3)), 1) if coarse else 1
        return solid(_surface(near, margin_mm, step), f"{self.name} with {margin_mm:g} mm")


def resect(
    labels: sitk.Image,
    lesion: tuple[str, int],
    margin_mm: float,
    others: Mapping[str, int],
    bones: Mapping[str, Manifold],
) -> Resected:
    """Takes out a lesion with a margin on all sides.

    Parameters
    ----------
    labels : SimpleITK.Image
    lesion : tuple of str and int
        Name and label.
    margin_mm : float
        Distance from the lesion's surface, exact for any spacing.
    others : mapping of str to int
        Labels of the structures that it may cut through.
    bones : mapping of str to Manifold
        Bodies of the bones among them, LPS mm.

    Raises
    ------
    MeshError
        The lesion has no voxel, or the grid around it is too large.
    """
    return taken_out(around_lesion(labels, lesion, margin_mm), margin_mm, others, bones.get)


def taken_out(
    around: AroundLesion,
    margin_mm: float,
    others: Mapping[str, int],
    bone: Callable[[str], Manifold | None],
    *,
    coarse: bool = False,
) -> Resected:
    """Takes out a lesion whose surroundings are known.

    Parameters
    ----------
    around : AroundLesion
        Reaches as far as the margin.
    margin_mm : float
    others : mapping of str to int
        Labels of the structures that it may cut through.
    bone : callable
        The body of a structure that it cuts through, LPS mm; None for what is no bone.
    coarse : bool
        For a preview.

    Raises
    ------
    MeshError
        The margin has no closed surface.
    """
    body = around.body(margin_mm, coarse=coarse)
    through = around.through_mm3(margin_mm, {n: k for n, k in others.items() if n != around.name})
    bodies = {n: b for n in through if (b := bone(n)) is not None}
    left = {n: _pieces(b - body) for n, b in bodies.items()}
    return Resected(around.name, margin_mm, body, around.lesion_mm3, through, left)


def around_lesion(labels: sitk.Image, lesion: tuple[str, int], reach_mm: float) -> AroundLesion:
    """The distances about a lesion.

    Parameters
    ----------
    labels : SimpleITK.Image
        The lesion with what lies within the reach and :data:`BORDER` voxels of it, or up to the scan's border.
    lesion : tuple of str and int
        Name and label.
    reach_mm : float
        The largest margin that is asked for.

    Raises
    ------
    MeshError
        The lesion has no voxel, or the grid around it is too large.
    """
    name, label = lesion
    near, first, last = _near(labels, label, reach_mm, name)
    distance = _distance(sitk.Cast(near == label, sitk.sitkUInt8), first, last, name)
    away = sitk.GetArrayFromImage(sitk.Resample(distance, near, sitk.Transform(), sitk.sitkLinear, 1e6))
    values = sitk.GetArrayViewFromImage(near)
    within = away <= reach_mm
    there, away = values[within], away[within]
    sorted_mm = {int(k): np.sort(away[there == k]) for k in np.unique(there) if k not in (0, label)}
    voxel = float(np.prod(labels.GetSpacing()))
    return AroundLesion(name, reach_mm, distance, sorted_mm, float((values == label).sum()) * voxel, voxel)


def _near(
    labels: sitk.Image, label: int, reach_mm: float, name: str
) -> tuple[sitk.Image, NDArray[np.int64], NDArray[np.int64]]:
    """The label map around a lesion, empty beyond its own border; first and last voxel of the lesion there."""
    found = bounds(sitk.GetArrayViewFromImage(labels) == label)
    if found is None:
        raise MeshError(f"{name}: label {label} has no voxel in the label map; segment the lesion first")
    room = np.ceil(reach_mm / np.array(labels.GetSpacing())).astype(int) + BORDER
    low, high = found[0] - room, found[1] + room
    size = np.array(labels.GetSize())
    inner = np.maximum(low, 0), np.minimum(high, size - 1)
    part_of = sitk.RegionOfInterest(labels, (inner[1] - inner[0] + 1).tolist(), inner[0].tolist())
    near = sitk.ConstantPad(part_of, (inner[0] - low).tolist(), (high - inner[1]).tolist(), 0)
    return near, room, room + found[1] - found[0]


def _distance(mask: sitk.Image, first: NDArray[np.int64], last: NDArray[np.int64], name: str) -> sitk.Image:
    """Signed distance to a mask's surface on a finer grid; on its own it is up to half a voxel too small.

    The grid begins at the mask's first voxel and goes on to both sides, so that it is the same whatever lies around it.
    """
    spacing = np.array(mask.GetSpacing())
    step = float(min(spacing.min(), _STEP_MM))
    room = np.array(mask.GetSize()) - 1 - last
    before = np.floor(first * spacing / step).astype(int)
    after = np.floor((last - first + room) * spacing / step).astype(int)
    size = before + after + 1
    if int(np.prod(size)) > _MOST_VOXELS:
        raise MeshError(f"{name}: the lesion with its margin is too large ({np.prod(size)} voxels of {step:g} mm)")
    own = sitk.GetImageFromArray(signed_distances(mask))
    own.CopyInformation(mask)
    axes = np.array(mask.GetDirection()).reshape(3, 3)
    begin = np.array(mask.TransformIndexToPhysicalPoint(first.tolist())) - axes @ (before * step)
    fine = sitk.Resample(
        own, size.tolist(), sitk.Transform(), sitk.sitkLinear, begin.tolist(), [step] * 3, mask.GetDirection(), 1e6,
        sitk.sitkFloat32,
    )  # fmt: skip
    out = sitk.GetImageFromArray(signed_distances(sitk.Cast(fine <= _ON_MM, sitk.sitkUInt8)))
    out.CopyInformation(fine)
    return out


def _cropped(distance: sitk.Image, margin_mm: float) -> sitk.Image:
    """The part of a grid of distances that the surface at a margin lies in, with a voxel around it."""
    found = bounds(sitk.GetArrayViewFromImage(distance) <= margin_mm)
    if found is None:
        return distance
    size = np.array(distance.GetSize())
    low, high = np.maximum(found[0] - 1, 0), np.minimum(found[1] + 1, size - 1)
    return sitk.RegionOfInterest(distance, (high - low + 1).tolist(), low.tolist())


def _surface(grid: sitk.Image, level: float, step: int) -> Mesh:
    """The surface at a distance, LPS mm."""
    field_mm = sitk.GetArrayViewFromImage(grid)
    if step > 1:  # what lies beyond the last voxel that is looked at would be left open
        field_mm = np.pad(field_mm, [(0, step)] * 3, constant_values=level + step * grid.GetSpacing()[0])
    points, triangles = isosurface(field_mm, level, step)
    T = np.eye(4)
    T[:3, :3] = np.array(grid.GetDirection()).reshape(3, 3)
    T[:3, 3] = grid.GetOrigin()
    return Mesh(points * np.array(grid.GetSpacing()), triangles).moved(T)


def _pieces(rest: Manifold) -> tuple[Manifold, ...]:
    pieces = [p for p in rest.decompose() if p.volume() >= _SMALLEST_PIECE_MM3]
    return tuple(sorted(pieces, key=lambda p: -p.volume()))
