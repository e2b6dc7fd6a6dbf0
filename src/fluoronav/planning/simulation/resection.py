"""A resection: the surface at a margin around a lesion, what it cuts through, and the bone that is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import SimpleITK as sitk
from manifold3d import Manifold

from fluoronav.case.isosurface import isosurface
from fluoronav.planning.meshes.of_mask import signed_distances
from fluoronav.planning.meshes.parts import Part, part
from fluoronav.planning.meshes.solid import Mesh, MeshError, solid, surface_of

_BORDER = 3  # voxels beyond the margin; chosen: the surface is then closed
_SMALLEST_PIECE_MM3 = 1.0  # chosen: smaller pieces are slivers of the surface, not of bone
_STEP_MM = 0.5  # of the grid of distances; chosen: the margin is then exact to a quarter of a mm
_MOST_VOXELS = 100_000_000  # of that grid, 1.2 GB while it is computed; chosen


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
            out += [part(f"{name} left {k + 1}", "piece", p) for k, p in enumerate(pieces)]
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
    name, label = lesion
    around = _around(labels, label, margin_mm, name)
    values = sitk.GetArrayFromImage(around)
    distance = _distance(sitk.Cast(around == label, sitk.sitkUInt8), name)
    body = solid(_surface(distance, margin_mm), f"{name} with {margin_mm:g} mm")
    inside = (
        sitk.GetArrayFromImage(sitk.Resample(distance, around, sitk.Transform(), sitk.sitkLinear, 1e6)) <= margin_mm
    )
    voxel = float(np.prod(labels.GetSpacing()))
    through = {n: float((inside & (values == k)).sum()) * voxel for n, k in others.items() if k != label}
    through = {n: v for n, v in sorted(through.items(), key=lambda item: -item[1]) if v > 0}
    left = {n: _pieces(bones[n] - body) for n in through if n in bones}
    return Resected(name, margin_mm, body, float((values == label).sum()) * voxel, through, left)


def _around(labels: sitk.Image, label: int, margin_mm: float, name: str) -> sitk.Image:
    """The label map around a lesion; beyond its own border it is empty."""
    where = np.nonzero(sitk.GetArrayViewFromImage(labels) == label)
    if not len(where[0]):
        raise MeshError(f"{name}: label {label} has no voxel in the label map; segment the lesion first")
    first = np.array([int(w.min()) for w in where[::-1]])
    last = np.array([int(w.max()) for w in where[::-1]])
    room = np.ceil(margin_mm / np.array(labels.GetSpacing())).astype(int) + _BORDER
    low, high = first - room, last + room
    size = np.array(labels.GetSize())
    inner = np.maximum(low, 0), np.minimum(high, size - 1)
    part_of = sitk.RegionOfInterest(labels, (inner[1] - inner[0] + 1).tolist(), inner[0].tolist())
    return sitk.ConstantPad(part_of, (inner[0] - low).tolist(), (high - inner[1]).tolist(), 0)


def _distance(mask: sitk.Image, name: str) -> sitk.Image:
    """Signed distance to a mask's surface on a finer grid; on its own it is up to half a voxel too small."""
    spacing = np.array(mask.GetSpacing())
    step = float(min(spacing.min(), _STEP_MM))
    size = np.floor((np.array(mask.GetSize()) - 1) * spacing / step).astype(int) + 1
    if int(np.prod(size)) > _MOST_VOXELS:
        raise MeshError(f"{name}: the lesion with its margin is too large ({np.prod(size)} voxels of {step:g} mm)")
    own = sitk.GetImageFromArray(signed_distances(mask))
    own.CopyInformation(mask)
    fine = sitk.Resample(
        own, size.tolist(), sitk.Transform(), sitk.sitkLinear, mask.TransformIndexToPhysicalPoint([0, 0, 0]),
        [step] * 3, mask.GetDirection(), 1e6, sitk.sitkFloat32,
    )  # fmt: skip
    out = sitk.GetImageFromArray(signed_distances(sitk.Cast(fine <= 0, sitk.sitkUInt8)))
    out.CopyInformation(fine)
    return out


def _surface(grid: sitk.Image, level: float) -> Mesh:
    """The surface at a distance, LPS mm."""
    points, triangles = isosurface(sitk.GetArrayViewFromImage(grid), level)
    T = np.eye(4)
    T[:3, :3] = np.array(grid.GetDirection()).reshape(3, 3)
    # A padded image begins at an index below 0.
    T[:3, 3] = grid.TransformIndexToPhysicalPoint([0, 0, 0])
    return Mesh(points * np.array(grid.GetSpacing()), triangles).moved(T)


def _pieces(rest: Manifold) -> tuple[Manifold, ...]:
    pieces = [p for p in rest.decompose() if p.volume() >= _SMALLEST_PIECE_MM3]
    return tuple(sorted(pieces, key=lambda p: -p.volume()))
