"""Surfaces that people bring, such as an implant's STL: checked, repaired where that changes nothing, or refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh

from fluoronav.paths import regular_file
from fluoronav.planning.meshes.solid import Mesh, MeshError, solid, surface_of


@dataclass(frozen=True, slots=True)
class ImplantLimits:
    """What an implant's surface can be; all chosen."""

    smallest_mm: float = 2.0  # longest side: of the shortest screw; the same in metres is below
    largest_mm: float = 800.0  # of the longest nail
    most_bytes: int = 200_000_000
    hole_edges: int = 64  # of a hole that is closed; chosen: a larger one is a missing part, not a flaw


LIMITS = ImplantLimits()


def read_surface(path: Path) -> tuple[Mesh, list[str]]:
    """An STL (or 3MF, OBJ, PLY) in mm.

    Returns
    -------
    Mesh
    list of str
        What was repaired.

    Raises
    ------
    MeshError
        It cannot be read, is not in mm, or has no inside and cannot be repaired.
    """
    try:
        if regular_file(path).stat().st_size > LIMITS.most_bytes:
            raise MeshError(f"{path}: has more than {LIMITS.most_bytes // 1_000_000} MB; decimate it first")
        loaded = trimesh.load(path, force="mesh", process=False)
    except MeshError:
        raise
    except Exception as error:  # the readers of trimesh raise whatever a broken file makes them meet
        raise MeshError(f"{path}: cannot be read as a surface: {type(error).__name__}: {error}") from error
    assert isinstance(loaded, trimesh.Trimesh)
    if not len(loaded.faces) or not np.isfinite(loaded.vertices).all():
        raise MeshError(f"{path}: has no triangles, or corners that are no numbers")
    _check_size(loaded, path)
    return _repaired(loaded, path)


def _check_size(loaded: trimesh.Trimesh, path: Path) -> None:
    longest = float(np.ptp(loaded.vertices, axis=0).max())
    if longest < LIMITS.smallest_mm:
        hint = f"; in metres it would be {longest * 1000:.0f} mm: save it in mm" if longest * 1000 < 2000 else ""
        raise MeshError(f"{path}: its longest side is {longest:.3g} mm, which no implant is{hint}")
    if longest > LIMITS.largest_mm:
        raise MeshError(
            f"{path}: its longest side is {longest:.4g} mm, which no implant is; is it in micrometres or inches? Save "
            "it in mm"
        )


def _repaired(loaded: trimesh.Trimesh, path: Path) -> tuple[Mesh, list[str]]:
    """The surface with corners joined, triangles turned and small holes closed, and what was done."""
    done: list[str] = []
    loaded.merge_vertices()
    loaded.update_faces(loaded.nondegenerate_faces())
    if not loaded.is_watertight:
        holes = _hole_edges(loaded)
        if holes > LIMITS.hole_edges or not trimesh.repair.fill_holes(loaded):
            raise MeshError(
                f"{path}: is not closed ({holes} edges belong to one triangle, or to more than two): it has no inside. "
                "Repair it in the program that made it"
            )
        done.append(f"a hole of {holes} edges was closed")
    if not loaded.is_winding_consistent or loaded.volume < 0:
        trimesh.repair.fix_normals(loaded, multibody=True)
        done.append("triangles that faced inwards were turned")
    body = solid(Mesh(np.asarray(loaded.vertices, float), np.asarray(loaded.faces, np.int64)), str(path))
    return surface_of(body), [f"{path}: {text}" for text in done]


def _hole_edges(loaded: trimesh.Trimesh) -> int:
    _, count = np.unique(loaded.edges_sorted, axis=0, return_counts=True)
    return int((count != 2).sum())
