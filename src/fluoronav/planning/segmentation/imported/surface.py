"""A closed surface (STL) as voxels of a CT."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.paths import regular_file
from fluoronav.planning.segmentation.engine import SegmentationError

Coordinates = Literal["lps", "ras"]


@dataclass(frozen=True, slots=True)
class SurfaceLimits:
    """What a surface of a structure must be; all are chosen."""

    most_bytes: int = 1 << 29
    least_mm: float = 2.0  # largest extent; below, the file is in metres or of nothing
    most_mm: float = 1500.0
    least_inside: float = 0.5  # share of its corners inside the CT


LIMITS = SurfaceLimits()


def read_surface(
    path: Path, coordinates: Coordinates | None
) -> tuple[NDArray[np.float64], NDArray[np.int64], list[str]]:
    """Corners (n, 3), LPS mm, and triangles (m, 3) of a closed surface, and what is unusual.

    Parameters
    ----------
    path : Path
        STL.
    coordinates : "lps", "ras" or None
        None: as the file's header says (3D Slicer writes SPACE=LPS or SPACE=RAS), else LPS.

    Raises
    ------
    SegmentationError
        It is not closed, or not in mm.
    """
    import trimesh

    try:
        if regular_file(path).stat().st_size > LIMITS.most_bytes:
            raise SegmentationError(f"{path}: is larger than {LIMITS.most_bytes >> 20} MB; decimate it first")
        with path.open("rb") as file:
            header = file.read(80).upper()
        mesh: Any = trimesh.load(path, file_type="stl", force="mesh")
    except (OSError, ValueError, IndexError, KeyError) as error:
        if isinstance(error, SegmentationError):
            raise
        raise SegmentationError(f"{path}: cannot be read as STL: {error}") from error
    mesh.merge_vertices()
    mesh.update_faces(mesh.nondegenerate_faces())
    if len(mesh.faces) == 0 or not np.isfinite(mesh.vertices).all():
        raise SegmentationError(f"{path}: holds no triangles, or corners that are no numbers")
    largest = float(np.ptp(mesh.vertices, axis=0).max())
    if largest < LIMITS.least_mm:
        raise SegmentationError(
            f"{path}: is {largest:.3g} mm large, which no structure is: is it in metres? Write it in mm"
        )
    if largest > LIMITS.most_mm:
        raise SegmentationError(f"{path}: is {largest:.4g} mm large: is it in micrometres? Write it in mm")
    if not mesh.is_watertight:
        edges = np.sort(mesh.edges, axis=1)
        count = np.unique(edges, axis=0, return_counts=True)[1]
        open_edges, shared = int((count == 1).sum()), int((count > 2).sum())
        raise SegmentationError(
            f"{path}: is no closed surface: {open_edges} edges have one triangle and {shared} more than two; "
            "close its holes (3D Slicer: Surface Toolbox, Clean and Fill holes) and write it again"
        )
    notes = []
    if not mesh.is_winding_consistent or mesh.volume < 0:
        mesh.fix_normals(multibody=True)
        notes.append(f"{path}: some of its triangles were turned inside out; they were turned back")
    said: Coordinates = "ras" if b"SPACE=RAS" in header else "lps"
    if coordinates is None and b"SPACE=" not in header:
        notes.append(f"{path}: does not say its coordinates; taken as LPS (else say --coordinates ras)")
    corners = np.array(mesh.vertices, np.float64)
    if (coordinates or said) == "ras":
        corners[:, :2] *= -1
    return corners, np.array(mesh.faces, np.int64), notes


def voxels_of(
    corners_ct: NDArray[np.float64], triangles: NDArray[np.int64], ct: sitk.Image, path: Path
) -> NDArray[np.bool_]:
    """Voxels whose centres lie inside a closed surface, shape (z, y, x).

    Raises
    ------
    SegmentationError
        Most of it lies outside the CT, or it cannot be cut.
    """
    from manifold3d import Manifold, Mesh
    from skimage.draw import polygon2mask

    axes = np.array(ct.GetDirection()).reshape(3, 3) * np.array(ct.GetSpacing())
    index = np.linalg.solve(axes, (corners_ct - np.array(ct.GetOrigin())).T).T
    size = np.array(ct.GetSize())
    inside = ((index > -0.5) & (index < size - 0.5)).all(1)
    if inside.mean() < LIMITS.least_inside:
        raise SegmentationError(
            f"{path}: {100 * (1 - inside.mean()):.0f} % of it lies outside the CT: is it of this patient, and are its "
            "coordinates LPS? Files in RAS need --coordinates ras"
        )
    if np.linalg.det(axes) < 0:
        triangles = triangles[:, ::-1]
    solid = Manifold(Mesh(index.astype(np.float32), triangles.astype(np.uint32)))
    if solid.status().name != "NoError" or solid.volume() <= 0:
        raise SegmentationError(f"{path}: is no solid ({solid.status().name}); repair it and write it again")
    out = np.zeros(size[::-1], np.bool_)
    first, last = max(0, int(np.ceil(index[:, 2].min()))), min(size[2] - 1, int(np.floor(index[:, 2].max())))
    low = np.maximum(np.floor(index[:, :2].min(0)).astype(int), 0)
    high = np.minimum(np.ceil(index[:, :2].max(0)).astype(int) + 1, size[:2])
    for z in range(first, last + 1):
        plane = out[z, low[1] : high[1], low[0] : high[0]]
        for outline in solid.slice(float(z)).to_polygons():
            # An outline within an outline is a hole: each one turns what it encloses.
            plane ^= polygon2mask(plane.shape, (np.asarray(outline) - low)[:, ::-1])
    return out
