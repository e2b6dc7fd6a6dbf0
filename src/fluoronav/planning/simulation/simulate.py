"""The cuts, moves, resections and implants of a plan, carried out on its bones."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from manifold3d import Manifold

from fluoronav.planning.meshes.of_mask import mask_of, surface_of_mask
from fluoronav.planning.meshes.parts import Part, part
from fluoronav.planning.meshes.solid import MeshError, solid
from fluoronav.planning.plan.planned import Planned, kind_of
from fluoronav.planning.plan.schema import Cut, Implant, Move, Resection
from fluoronav.planning.simulation import cuts as osteotomy
from fluoronav.planning.simulation.catalogue import Catalogue
from fluoronav.planning.simulation.resection import resect
from fluoronav.planning.simulation.sizing import fits_of, suggested

_BONES = ("vertebra", "rib", "bone")
# Colours of the pieces of one bone, so that they can be told apart.
_PIECES = ("#e3dac9", "#a9cce3", "#abebc6", "#f9e79f", "#d7bde2", "#f5cba7")


@dataclass(frozen=True)
class Simulated:
    """What the simulated surgery leaves.

    Attributes
    ----------
    parts : tuple of Part
        LPS mm.
    report : dict
        For JSON: ``cuts``, ``resections``, ``implants``, ``warnings``, ``seconds``.
    """

    parts: tuple[Part, ...]
    report: dict[str, Any]


@dataclass
class _Bodies:
    """Bodies of structures, made when they are first asked for."""

    planned: Planned
    made: dict[str, Manifold] = field(default_factory=dict)

    def of(self, name: str) -> Manifold:
        if name not in self.made:
            s = self.planned.structure(name)
            self.made[name] = solid(
                surface_of_mask(mask_of(self.planned.label_image, s.label, s.name), s.name).mesh, s.name
            )
        return self.made[name]


def simulate(planned: Planned, catalogue: Catalogue, say: Callable[[str], object]) -> Simulated:
    """Carries out what a plan says.

    Parameters
    ----------
    planned : Planned
    catalogue : Catalogue
    say : callable
        Takes a text for each step.

    Raises
    ------
    MeshError, PlanError
        An item cannot be carried out; the text names it.
    """
    started = time.perf_counter()
    bodies = _Bodies(planned)
    parts: list[Part] = []
    report: dict[str, Any] = {"cuts": [], "resections": [], "implants": [], "warnings": []}
    for step in (_cut, _resect, _implant):
        step(planned, bodies, catalogue, say, parts, report)
    report["seconds"] = round(time.perf_counter() - started, 2)
    return Simulated(tuple(parts), report)


def _cut(planned, bodies, _catalogue, say, parts: list[Part], report: dict[str, Any]) -> None:
    items = planned.plan.items
    cuts = [i for i in items if isinstance(i, Cut)]
    moves = [i for i in items if isinstance(i, Move)]
    for m in moves:
        if m.cut not in {c.id for c in cuts}:
            raise MeshError(f"move {m.id}: names the cut {m.cut!r}, which the plan does not have")
    for name in dict.fromkeys(c.structure for c in cuts):
        say(f"cutting {name}")
        own = [c for c in cuts if c.structure == name]
        own_moves = [m for m in moves if m.cut in {c.id for c in own}]
        bone = osteotomy.move(osteotomy.cut(name, bodies.of(name), own), own_moves)
        report["cuts"].append(osteotomy.report(bone, own, own_moves))
        made = osteotomy.parts_of(bone)
        kept = [k for k, p in enumerate(made) if p.kind == "piece"]
        parts += [
            replace(p, color=_PIECES[kept.index(k) % len(_PIECES)]) if k in kept else p for k, p in enumerate(made)
        ]
        overlap = osteotomy.overlap_mm3(bone) if own_moves else 0.0
        if overlap > 1:
            report["warnings"].append(f"{name}: moved pieces lie in one another ({overlap / 1000:.2f} cm3)")


def _resect(planned, bodies, _catalogue, say, parts: list[Part], report: dict[str, Any]) -> None:
    for r in (i for i in planned.plan.items if isinstance(i, Resection)):
        say(f"resecting {r.lesion} with {r.margin_mm:g} mm")
        lesion = planned.structure(r.lesion)
        others = {s.name: s.label for s in planned.structures if s.name != lesion.name}
        near = _touched(planned, lesion.label, r.margin_mm, others)
        bones = {n: bodies.of(n) for n in near if kind_of(n) in _BONES}
        done = resect(planned.label_image, (lesion.name, lesion.label), r.margin_mm, others, bones)
        report["resections"].append({"id": r.id, **done.report()})
        parts += done.parts()


def _touched(planned: Planned, label: int, margin_mm: float, others: dict[str, int]) -> list[str]:
    """Structures in the box around a lesion and its margin: only their bodies have to be made."""
    import SimpleITK as sitk

    from fluoronav.case.volume import bounds

    values = sitk.GetArrayViewFromImage(planned.label_image)
    found = bounds(values == label)
    if found is None:
        return []
    room = np.ceil(margin_mm / np.array(planned.label_image.GetSpacing())).astype(int) + 1
    low, high = np.maximum(found[0] - room, 0), found[1] + room + 1
    box = values[low[2] : high[2], low[1] : high[1], low[0] : high[0]]
    there = set(np.unique(box).tolist())
    return [name for name, k in others.items() if k in there]


def _implant(planned, bodies, catalogue: Catalogue, say, parts: list[Part], report: dict[str, Any]) -> None:
    for i in (i for i in planned.plan.items if isinstance(i, Implant)):
        say(f"placing {i.family} {i.size}")
        family, _, _ = catalogue.find(i.family, i.size)
        body, repaired = catalogue.body(i.family, i.size)
        report["warnings"] += repaired
        T = np.asarray(i.T_ct_implant, float)
        placed = body.transform(T[:3])
        entry: dict[str, Any] = {
            "id": i.id, "family": i.family, "size": i.size, "demonstration": family.demonstration,
            "volume_cm3": round(body.volume() / 1000, 4),
        }  # fmt: skip
        if i.structure is not None:
            bone = bodies.of(i.structure)
            entry["in_bone_cm3"] = round((placed ^ bone).volume() / 1000, 4)
            fits = fits_of(catalogue, i.family, bone, T)
            best = suggested(fits)
            if fits:
                entry |= {"sizes": [f.report() for f in fits], "suggested": best.size if best else None}
            if fits and best is None:
                report["warnings"].append(f"{i.id}: no size of {i.family} lies on {i.structure} without much overhang")
        if family.demonstration:
            report["warnings"].append(f"{i.id}: {i.family} has demonstration sizes, of no implant that exists")
        report["implants"].append(entry)
        parts.append(part(f"{i.family} {i.size}", "implant", placed))


def context_of(planned: Planned, parts: tuple[Part, ...]) -> list[Part]:
    """Bones of implants that nothing was cut from, to draw beside the implants."""
    named = {i.structure for i in planned.plan.items if isinstance(i, Implant) and i.structure is not None}
    cut = {i.structure for i in planned.plan.items if isinstance(i, Cut)}
    bodies = _Bodies(planned)
    return [part(name, "structure", bodies.of(name)) for name in sorted(named - cut)]
