"""Surfaces of structures for the 3D view. Needs scikit-image and manifold3d.

The mask is blurred, and the surface is laid where it encloses as much as the voxels do, so that smoothing takes nothing
away. It is simplified within a bound. All this is for the eye: what is measured or printed comes from the voxels.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fluoronav.display.packing import with_head
from fluoronav.durable import made_folder, moved
from fluoronav.workspace.errors import Refused
from fluoronav.workspace.label_maps import mapped
from fluoronav.workspace.operations import box_of
from fluoronav.workspace.scan import Scan

Map = NDArray[np.uint16]


@dataclass(frozen=True)
class SurfaceSettings:
    """How surfaces are made; all are chosen for a screen."""

    most_voxels: int = 6_000_000  # of the box around a structure; larger ones are read at every second voxel
    smoothing_mm: float = 2.0  # standard deviation of the blur: drafts have steps of up to 5 mm
    coarsest_mm: float = 1.5  # after the blur nothing finer is left
    tolerance_mm: float = 0.3  # by which simplifying may move the surface


SETTINGS = SurfaceSettings()


def kept_surface(labels: Path, scan: Scan, label: int, name: str, target: Path) -> Path:
    """The surface of a structure of an unpacked label map as a packed file; made once."""
    if not target.exists():
        content = surface_of(cropped(mapped(labels, scan), label), scan, label, name)
        made_folder(target.parent)
        part = target.with_name(f"{target.name}.{os.getpid()}.part")
        part.write_bytes(content)
        moved(part, target)
    return target


@dataclass(frozen=True)
class Crop:
    """The voxels of one structure.

    Attributes
    ----------
    mask : array of bool, shape (z, y, x)
    first : tuple of 3 int
        Index (x, y, z) of its first voxel in the label map.
    """

    mask: NDArray[np.bool_]
    first: tuple[int, int, int]


def cropped(labels: Map, label: int) -> Crop:
    """The smallest box that holds a structure.

    Raises
    ------
    Refused
        It has no voxels.
    """
    box = box_of(labels, label)
    return Crop(labels[box] == label, (box[2].start, box[1].start, box[0].start))


def surface_of(crop: Crop, scan: Scan, label: int, name: str) -> bytes:
    """The surface as a packed message: float32 points (n, 3) LPS mm, uint32 triangles (m, 3)."""
    from fluoronav.case.isosurface import isosurface

    stride = np.ones(3, int)  # z, y, x
    while crop.mask.size / stride.prod() > SETTINGS.most_voxels:
        stride += 1
    spacing = np.array(scan.spacing_mm[::-1])
    soft = _blurred(crop.mask[:: stride[0], :: stride[1], :: stride[2]], spacing * stride)
    level = _level_of_volume(soft, crop.mask.sum() / stride.prod())
    finer = np.maximum(SETTINGS.coarsest_mm // (spacing * stride), 1).astype(int)
    outside = -soft[:: finer[0], :: finer[1], :: finer[2]]
    try:
        points, triangles = isosurface(outside, -level)
    except ValueError as error:  # a single row of voxels that every second leaves out
        raise Refused(f"label {label} is too small for a surface: {error}") from error
    index = np.array(crop.first) + (stride * (points[:, ::-1] * finer - _margin(spacing * stride)))[:, ::-1]
    points_ct = index @ scan.step_mm().T + np.array(scan.origin_ct)
    # Normals point outwards; a left-handed grid turns them round.
    if np.linalg.det(scan.step_mm()) < 0:
        triangles = triangles[:, ::-1]
    points_ct, triangles = simplified(points_ct, triangles)
    head = {
        "label": label, "name": name, "points": len(points_ct), "triangles": len(triangles),
        "step_mm": float((stride * finer * spacing).max()),
    }  # fmt: skip
    return with_head(head, points_ct.astype("<f4").tobytes() + triangles.astype("<u4").tobytes())


def _margin(spacing_mm: NDArray) -> NDArray:
    """Voxels (z, y, x) around a mask into which its blur reaches."""
    return np.ceil(3 * SETTINGS.smoothing_mm / spacing_mm).astype(int) + 1


def _blurred(mask: NDArray[np.bool_], spacing_mm: NDArray) -> NDArray[np.float32]:
    """The mask with its margin, blurred; spacing z, y, x."""
    from scipy.ndimage import gaussian_filter

    inside = np.pad(mask, [(int(n), int(n)) for n in _margin(spacing_mm)]).astype(np.float32)
    return np.asarray(gaussian_filter(inside, SETTINGS.smoothing_mm / spacing_mm, truncate=3.0), np.float32)


def _level_of_volume(soft: NDArray[np.float32], voxels: float) -> float:
    """The level above which a blurred mask has so many voxels."""
    values = soft[soft > 0]
    count = int(np.clip(round(voxels), 1, values.size))
    return float(np.partition(values, values.size - count)[values.size - count])


def simplified(points: NDArray, triangles: NDArray) -> tuple[NDArray, NDArray]:
    """The surface with fewer triangles; as it is where it is not watertight."""
    from manifold3d import Error, Manifold, Mesh

    solid = Manifold(Mesh(points.astype(np.float32), triangles.astype(np.uint32)))
    if solid.status() != Error.NoError or solid.is_empty():
        return points, triangles
    mesh = solid.simplify(SETTINGS.tolerance_mm).to_mesh()
    return np.asarray(mesh.vert_properties)[:, :3], np.asarray(mesh.tri_verts)
