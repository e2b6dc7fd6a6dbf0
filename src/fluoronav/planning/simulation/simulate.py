"""The cuts, moves, resections and implants of a plan, carried out on its bones."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any, Literal

import numpy as np

from fluoronav.planning.meshes.parts import Part, part
from fluoronav.planning.meshes.solid import MeshError
from fluoronav.planning.plan.planned import Planned, kind_of
from fluoronav.planning.plan.schema import Cut, Implant, Item, Move, Resection
from fluoronav.planning.simulation import cuts as osteotomy
from fluoronav.planning.simulation.bodies import Bodies, Kept, LabelMap
from fluoronav.planning.simulation.catalogue import Catalogue
from fluoronav.planning.simulation.resection import taken_out
from fluoronav.planning.simulation.sizing import fits_of, suggested

_BONES = ("vertebra", "rib", "bone")
_OVERLAP_CM3 = 0.001  # of moved pieces that is warned of; chosen: less is rounding
_KEPT_BYTES = 1_000_000_000  # of bodies that one run keeps; chosen
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


@dataclass(frozen=True)
class Step:
    """One part of the surgery, which depends on no other.

    Attributes
    ----------
    section : {"cuts", "resections", "implants"}
        Of the report.
    name : str
        Of the bone, the lesion or the implant.
    items : tuple of Cut, Move, Resection, Implant
        Of the plan.
    """

    section: Literal["cuts", "resections", "implants"]
    name: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Done:
    """What a step leaves.

    Attributes
    ----------
    entry : dict
        Its part of the report.
    parts : tuple of Part
        LPS mm.
    warnings : tuple of str
    """

    entry: dict[str, Any]
    parts: tuple[Part, ...]
    warnings: tuple[str, ...] = ()


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
    bodies = _bodies_of(planned)
    steps = steps_of(planned.plan.items)
    words = {"cuts": "cutting", "resections": "resecting", "implants": "placing"}
    done = []
    for step in steps:
        say(f"{words[step.section]} {step.name}")
        done.append(carried_out(step, bodies, catalogue))
    result = together(steps, done)
    result.report["seconds"] = round(time.perf_counter() - started, 2)
    return result


def _bodies_of(planned: Planned) -> Bodies:
    structures = {s.name: s.label for s in planned.structures}
    return Bodies(LabelMap.of_image(planned.label_image), structures, str(planned.case_path), Kept(_KEPT_BYTES))


def steps_of(items: Sequence[Item]) -> list[Step]:
    """The parts of a plan's surgery: each cut bone with its cuts and moves, each resection, each implant.

    Raises
    ------
    MeshError
        A move names a cut that is not there.
    """
    cuts = [i for i in items if isinstance(i, Cut)]
    moves = [i for i in items if isinstance(i, Move)]
    for m in moves:
        if m.cut not in {c.id for c in cuts}:
            raise MeshError(f"move {m.id}: names the cut {m.cut!r}, which the plan does not have")
    out = []
    for name in dict.fromkeys(c.structure for c in cuts):
        own = [c for c in cuts if c.structure == name]
        own_moves = [m for m in moves if m.cut in {c.id for c in own}]
        out.append(Step("cuts", name, (*own, *own_moves)))
    out += [Step("resections", f"{i.lesion} with {i.margin_mm:g} mm", (i,)) for i in items if isinstance(i, Resection)]
    return out + [Step("implants", f"{i.family} {i.size}", (i,)) for i in items if isinstance(i, Implant)]


def carried_out(step: Step, bodies: Bodies, catalogue: Catalogue, *, coarse: bool = False) -> Done:
    """Carries out one step.

    Parameters
    ----------
    step : Step
    bodies : Bodies
    catalogue : Catalogue
    coarse : bool
        On coarse bodies, for a preview.

    Raises
    ------
    MeshError, PlanError
    """
    first = step.items[0]
    if isinstance(first, Resection):
        return _resect(first, bodies, coarse=coarse)
    if isinstance(first, Implant):
        return _implant(first, bodies, catalogue, coarse=coarse)
    return _cut(step, bodies, coarse=coarse)


def together(steps: Sequence[Step], done: Sequence[Done]) -> Simulated:
    """The report and the bodies of all steps."""
    report: dict[str, Any] = {"cuts": [], "resections": [], "implants": [], "warnings": []}
    parts: list[Part] = []
    for step, one in zip(steps, done, strict=True):
        report[step.section].append(one.entry)
        report["warnings"] += one.warnings
        parts += one.parts
    return Simulated(tuple(parts), report)


def _cut(step: Step, bodies: Bodies, *, coarse: bool) -> Done:
    cuts = [i for i in step.items if isinstance(i, Cut)]
    moves = [i for i in step.items if isinstance(i, Move)]
    bone = osteotomy.move(osteotomy.cut(step.name, bodies.bone(step.name, coarse=coarse), cuts), moves)
    entry = osteotomy.report(bone, cuts, moves)
    overlap = entry["overlap_cm3"]
    warnings = (f"{step.name}: moved pieces lie in one another ({overlap:.2f} cm3)",) if overlap > _OVERLAP_CM3 else ()
    return Done(entry, _coloured(osteotomy.parts_of(bone, moves)), warnings)


def _coloured(parts: list[Part]) -> tuple[Part, ...]:
    """Each piece of a bone in a colour of its own."""
    colours = cycle(_PIECES)
    return tuple(replace(p, color=next(colours)) if p.kind == "piece" else p for p in parts)


def _resect(r: Resection, bodies: Bodies, *, coarse: bool) -> Done:
    lesion = bodies.name_of(r.lesion)
    done = taken_out(
        bodies.around(lesion, r.margin_mm), r.margin_mm, bodies.structures,
        lambda name: bodies.bone(name, coarse=coarse) if kind_of(name) in _BONES else None, coarse=coarse,
    )  # fmt: skip
    body, *left = done.parts()
    return Done({"id": r.id, **done.report()}, (body, *_coloured(left)))


def _implant(i: Implant, bodies: Bodies, catalogue: Catalogue, *, coarse: bool) -> Done:
    family, _, _ = catalogue.find(i.family, i.size)
    body, repaired = catalogue.body(i.family, i.size)
    warnings = list(repaired)
    T = np.asarray(i.T_ct_implant, float)
    placed = body.transform(T[:3])
    entry: dict[str, Any] = {
        "id": i.id, "family": i.family, "size": i.size, "demonstration": family.demonstration,
        "volume_cm3": round(body.volume() / 1000, 4),
    }  # fmt: skip
    if i.structure is not None:
        bone = bodies.bone(i.structure, coarse=coarse)
        entry["in_bone_cm3"] = round((placed ^ bone).volume() / 1000, 4)
        fits = fits_of(catalogue, i.family, bone, T)
        best = suggested(fits)
        if fits:
            entry |= {"sizes": [f.report() for f in fits], "suggested": best.size if best else None}
        if fits and best is None:
            warnings.append(f"{i.id}: no size of {i.family} lies on {i.structure} without much overhang")
    if family.demonstration:
        warnings.append(f"{i.id}: {i.family} has demonstration sizes, of no implant that exists")
    return Done(entry, (part(f"{i.family} {i.size}", "implant", placed),), tuple(warnings))


def context_of(planned: Planned, parts: tuple[Part, ...]) -> list[Part]:
    """Bones of implants that nothing was cut from, to draw beside the implants."""
    named = {i.structure for i in planned.plan.items if isinstance(i, Implant) and i.structure is not None}
    cut = {i.structure for i in planned.plan.items if isinstance(i, Cut)}
    bodies = _bodies_of(planned)
    return [part(name, "structure", bodies.bone(name)) for name in sorted(named - cut)]
