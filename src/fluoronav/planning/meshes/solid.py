"""Closed surfaces: their numbers, and the way to manifold3d and back. Lengths in mm."""

from __future__ import annotations

from dataclasses import dataclass

import manifold3d
import numpy as np
from manifold3d import Manifold
from numpy.typing import NDArray

Float = NDArray[np.float64]
Triangles = NDArray[np.int64]


class MeshError(ValueError):
    """A surface that cannot be made or used; the text says what is wrong and what to do."""


@dataclass(frozen=True)
class Mesh:
    """A surface of triangles.

    Attributes
    ----------
    points : ndarray, shape (n, 3)
        mm; DICOM LPS of the CT where nothing else is said.
    triangles : ndarray, shape (m, 3)
        Indices of points, counter-clockwise seen from outside.
    """

    points: Float
    triangles: Triangles

    @property
    def volume_mm3(self) -> float:
        """Enclosed volume by the divergence theorem; negative for a surface that is inside out."""
        if not len(self.triangles):
            return 0.0
        # About the middle, so that a surface far from the origin loses no digits.
        a, b, c = (self.points - self.points.mean(0))[self.triangles].transpose(1, 0, 2)
        return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)

    @property
    def is_watertight(self) -> bool:
        """Whether every edge belongs to two triangles, which run along it in opposite directions."""
        if not len(self.triangles):
            return False
        there, back = _directed_edges(self.triangles)
        there.sort()
        back.sort()
        return bool((there == back).all() and (np.diff(there) > 0).all())

    def moved(self, T: NDArray) -> Mesh:
        """The surface after a rigid motion or a mirroring, shape (4, 4); triangles keep facing outwards."""
        T = np.asarray(T, float)
        turned = self.triangles if np.linalg.det(T[:3, :3]) > 0 else self.triangles[:, ::-1]
        return Mesh(self.points @ T[:3, :3].T + T[:3, 3], np.ascontiguousarray(turned))


def _directed_edges(triangles: Triangles) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A number for each directed edge, and for the same edge in the other direction; shape (3 * triangles,)."""
    edges = triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    most = int(edges.max()) + 1 if len(edges) else 1
    return edges[:, 0] * most + edges[:, 1], edges[:, 1] * most + edges[:, 0]


def _odd_edges(triangles: Triangles) -> Triangles:
    """Directed edges without exactly one partner in the other direction, shape (n, 2)."""
    most = int(triangles.max()) + 1 if len(triangles) else 1
    forward, backward = _directed_edges(triangles)
    there, count = np.unique(forward, return_counts=True)
    back = np.unique(backward)
    odd = np.concatenate([np.setxor1d(there, back), there[count > 1]])
    return np.column_stack([odd // most, odd % most]).astype(np.int64)


def solid(mesh: Mesh, name: str = "surface") -> Manifold:
    """A surface as a solid, for cutting and joining.

    Raises
    ------
    MeshError
        It is not closed or crosses itself in a way that encloses nothing.
    """
    made = Manifold(
        manifold3d.Mesh64(
            np.ascontiguousarray(mesh.points, np.float64), np.ascontiguousarray(mesh.triangles, np.uint64)
        )
    )
    if made.status() != manifold3d.Error.NoError or made.is_empty() or made.volume() <= 0:
        open_edges = len(_odd_edges(np.asarray(mesh.triangles, np.int64)))
        raise MeshError(
            f"{name}: is no closed surface ({open_edges} edges are open or shared by more than two triangles, "
            f"{made.status().name}); repair it in the program that made it"
        )
    return made


def surface_of(made: Manifold) -> Mesh:
    """The surface of a solid."""
    mesh = made.to_mesh64()
    return Mesh(
        np.array(mesh.vert_properties[:, :3], np.float64, copy=True), np.array(mesh.tri_verts, np.int64, copy=True)
    )


def lps_to(frame: str) -> Float:
    """``T_frame_lps``, shape (4, 4): the unit matrix for "lps", x and y with other signs for "ras"."""
    return np.diag([-1.0, -1.0, 1.0, 1.0]) if frame == "ras" else np.eye(4)
