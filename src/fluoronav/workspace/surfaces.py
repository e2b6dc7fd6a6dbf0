"""Surfaces of structures for the 3D view. Needs scikit-image, trimesh and manifold3d.

They are smoothed without shrinking (Taubin, SIGGRAPH 1995) and simplified within a bound: for the eye alone. What is
measured or printed comes from the voxels.
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
    smoothing_steps: int = 10  # of Taubin's filter
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

    step = 1
    while crop.mask.size / step**3 > SETTINGS.most_voxels:
        step += 1
    outside = np.pad(~crop.mask[::step, ::step, ::step], 1, constant_values=True).astype(np.float32)
    try:
        points, triangles = isosurface(outside, 0.5)
    except ValueError as error:  # a single row of voxels that every second leaves out
        raise Refused(f"label {label} is too small for a surface: {error}") from error
    index = np.array(crop.first) + step * (points - 1)
    points_ct = index @ scan.step_mm().T + np.array(scan.origin_ct)
    # Normals point outwards; a left-handed grid turns them round.
    if np.linalg.det(scan.step_mm()) < 0:
        triangles = triangles[:, ::-1]
    points_ct, triangles = simplified(*smoothed(points_ct, triangles))
    head = {
        "label": label, "name": name, "points": len(points_ct), "triangles": len(triangles),
        "step_mm": step * float(max(scan.spacing_mm)),
    }  # fmt: skip
    return with_head(head, points_ct.astype("<f4").tobytes() + triangles.astype("<u4").tobytes())


def smoothed(points: NDArray, triangles: NDArray) -> tuple[NDArray, NDArray]:
    """The surface without its steps from voxel to voxel."""
    from trimesh import Trimesh
    from trimesh.smoothing import filter_taubin

    mesh = Trimesh(points, triangles, process=False)
    filter_taubin(mesh, iterations=SETTINGS.smoothing_steps)
    return np.asarray(mesh.vertices), np.asarray(mesh.faces)


def simplified(points: NDArray, triangles: NDArray) -> tuple[NDArray, NDArray]:
    """The surface with fewer triangles; as it is where it is not watertight."""
    from manifold3d import Error, Manifold, Mesh

    solid = Manifold(Mesh(points.astype(np.float32), triangles.astype(np.uint32)))
    if solid.status() != Error.NoError or solid.is_empty():
        return points, triangles
    mesh = solid.simplify(SETTINGS.tolerance_mm).to_mesh()
    return np.asarray(mesh.vert_properties)[:, :3], np.asarray(mesh.tri_verts)
