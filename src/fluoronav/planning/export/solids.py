"""The bodies that a printer and other programs get: structures, screws, simulated pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fluoronav.planning.meshes.of_mask import LIMITS, mask_of, surface_of_mask
from fluoronav.planning.meshes.parts import Part, cylinder_between, part
from fluoronav.planning.meshes.solid import MeshError
from fluoronav.planning.plan.planned import Planned, ends
from fluoronav.planning.plan.schema import Path as PlannedPath
from fluoronav.planning.plan.schema import Screw


def structure_parts(planned: Planned, names: Sequence[str], say: Callable[[str], object]) -> list[Part]:
    """Surfaces of structures.

    Parameters
    ----------
    planned : Planned
    names : sequence of str
        Empty for all that nobody has rejected.
    say : callable
        Takes a text for each structure.

    Raises
    ------
    MeshError
        A label is empty, or a surface misses the bound on its volume.
    PlanError
        There is no structure of a name.
    """
    chosen = [planned.structure(n) for n in names] if names else planned.structures
    out = []
    for s in chosen:
        say(f"surface of {s.name}")
        made = surface_of_mask(mask_of(planned.label_image, s.label, s.name), s.name)
        if abs(made.volume_error) > LIMITS.volume_error:
            raise MeshError(
                f"{s.name}: its surface is {100 * made.volume_error:+.1f} % off the volume of its voxels, more than "
                f"{100 * LIMITS.volume_error:g} %: it is thinner than a voxel in most places; segment it anew"
            )
        out.append(Part(s.name, "structure", made.mesh, s.color, made.voxels_mm3))
    return out


def instrument_parts(planned: Planned) -> list[Part]:
    """Screws as cylinders and paths as cylinders of their diameter."""
    out = []
    for item in planned.plan.items:
        if isinstance(item, Screw | PlannedPath):
            entry, target = ends(item)
            kind = "screw" if isinstance(item, Screw) else "path"
            out.append(part(item.id, kind, cylinder_between(np.array(entry), np.array(target), item.diameter_mm / 2)))
    return out


def table(parts: Sequence[Part]) -> str:
    """Volume, its error, triangles and whether it is closed, a line for each part."""
    lines = [f"{'part':34s} {'cm3':>9s} {'error':>8s} {'triangles':>9s}  closed"]
    for p in parts:
        r: dict[str, Any] = p.report()
        error = f"{100 * r['volume_error']:+.3f} %" if "volume_error" in r else "-"
        closed = "yes" if r["watertight"] else "NO"
        lines.append(f"{p.name[:34]:34s} {r['volume_cm3']:9.3f} {error:>8s} {r['triangles']:9d}  {closed}")
    return "\n".join(lines)
