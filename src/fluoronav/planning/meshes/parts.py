"""A named body of a plan, and how bodies are written: STL, 3MF."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import trimesh
from manifold3d import Manifold
from trimesh.exchange.stl import export_stl

from fluoronav.durable import written
from fluoronav.planning.meshes.solid import Float, Mesh, lps_to, surface_of

Frame = Literal["lps", "ras"]
PartKind = Literal["structure", "screw", "path", "piece", "kerf", "resection", "implant", "guide"]
COLORS: dict[PartKind, str] = {
    "structure": "#e3dac9", "screw": "#8fa3b0", "path": "#f4d03f", "piece": "#e3dac9", "kerf": "#c0392b",
    "resection": "#d35400", "implant": "#8fa3b0", "guide": "#5dade2",
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One body.

    Attributes
    ----------
    name : str
    kind : PartKind
    mesh : Mesh
        LPS mm.
    color : str
        ``#rrggbb``.
    voxels_mm3 : float or None
        Volume of the voxels that it was made of; None for what was constructed.
    structure : str
        Of the label map that it is a piece of; may be empty.
    T_moved_ct : ndarray of shape (4, 4) or None
        How it was moved from its place in the CT; None where it was not.
    """

    name: str
    kind: PartKind
    mesh: Mesh
    color: str
    voxels_mm3: float | None = None
    structure: str = ""
    T_moved_ct: Float | None = None

    def report(self) -> dict[str, Any]:
        """Its numbers, for JSON."""
        out: dict[str, Any] = {
            "name": self.name, "kind": self.kind, "triangles": len(self.mesh.triangles),
            "watertight": self.mesh.is_watertight, "volume_cm3": round(self.mesh.volume_mm3 / 1000, 4),
        }  # fmt: skip
        if self.voxels_mm3:
            out["voxels_cm3"] = round(self.voxels_mm3 / 1000, 4)
            out["volume_error"] = round(self.mesh.volume_mm3 / self.voxels_mm3 - 1, 6)
        return out


def part(name: str, kind: PartKind, body: Manifold) -> Part:
    """A constructed body as a part with the colour of its kind."""
    return Part(name, kind, surface_of(body), COLORS[kind])


def file_name(name: str) -> str:
    """A name without characters that a file system or another program may refuse."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "part"


def write_stl(parts: Sequence[Part], folder: Path, frame: Frame) -> list[Path]:
    """One binary STL for each part, mm; the frame is in the file's name and in its header."""
    paths, taken = [], set()
    for p in parts:
        stem, k = file_name(p.name), 2
        while stem in taken:
            stem, k = f"{file_name(p.name)}_{k}", k + 1
        taken.add(stem)
        data = export_stl(_trimesh(p, frame))
        # In the words by which 3D Slicer, and our own import, know the frame.
        header = f"binary STL, mm, SPACE={frame.upper()}, {stem}".encode()[:80].ljust(80)
        path = folder / f"{stem}.{frame}.stl"
        written(path, header + bytes(data)[80:])
        paths.append(path)
    return paths


def write_3mf(parts: Sequence[Part], path: Path, frame: Frame) -> Path:
    """All parts in one 3MF, each an object with its name; the unit is in the file."""
    scene = trimesh.Scene()
    for k, p in enumerate(parts):
        name = p.name if p.name not in scene.geometry else f"{p.name}_{k}"
        scene.add_geometry(_trimesh(p, frame), geom_name=name, node_name=name)
    scene.units = "mm"
    data = scene.export(file_type="3mf")
    assert isinstance(data, bytes)
    written(path, data)
    return path


def _trimesh(p: Part, frame: Frame) -> trimesh.Trimesh:
    mesh = p.mesh.moved(lps_to(frame))
    return trimesh.Trimesh(mesh.points, mesh.triangles, process=False, metadata={"name": p.name})


def cylinder_between(start: Float, end: Float, radius_mm: float, top_mm: float | None = None) -> Manifold:
    """A cylinder, or a cone with another radius at its end, from a point to another."""
    start, end = np.asarray(start, float), np.asarray(end, float)
    length = float(np.linalg.norm(end - start))
    made = Manifold.cylinder(length, radius_mm, radius_mm if top_mm is None else top_mm, 48)
    return made.transform(np.column_stack([frame_to((end - start) / length), start]))


def frame_to(axis: Float) -> Float:
    """A rotation, shape (3, 3), whose z axis is the given unit vector."""
    other = np.eye(3)[int(np.argmin(np.abs(axis)))]
    x = np.cross(other, axis)
    x /= np.linalg.norm(x)
    return np.column_stack([x, np.cross(axis, x), axis])
