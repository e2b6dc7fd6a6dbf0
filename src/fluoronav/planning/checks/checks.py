"""The checks of a plan: all that makes it unsafe or stale, computed anew from the present CT and labels."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.planning.checks.clearance import Neighbour, clearances, segment_distance_mm
from fluoronav.planning.plan.schema import Flag, Move, Plan, Screw, View
from fluoronav.planning.plan.schema import Path as StraightPath
from fluoronav.planning.plan.source import Source, whole_numbers
from fluoronav.planning.screws.bone import VertebraError
from fluoronav.planning.screws.grading import graded
from fluoronav.planning.screws.spine import Spine, spine_of_names
from fluoronav.planning.screws.vertebra import Vertebra

Float = NDArray[np.float64]
Severity = Literal["unsafe", "stale", "open", "note"]


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """From where on something is said."""

    apart_mm: float = 1.0  # between two screws; chosen: the guidance error of one of them
    length_mm: float = 0.5  # between a screw's length and the distance of its ends; chosen: files round to 0.01
    grade_mm: float = 0.3  # between a clearance in the plan and the one found now; chosen: half a voxel


SETTINGS = CheckSettings()


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes
    ----------
    severity : Severity
        ``unsafe``: it may hurt the patient; ``stale``: the plan was made on something else; ``open``: a person has
        still to do something; ``note``: for information. All but notes make the plan unusable.
    item : str
        Id of the plan's item; empty for the plan as a whole.
    text : str
    """

    severity: Severity
    item: str
    text: str


def check(plan: Plan, plan_file: Path, source: Source, neighbours: tuple[Neighbour, ...]) -> list[Finding]:
    """Checks a plan.

    Parameters
    ----------
    plan : Plan
    plan_file : Path
        Where it was read from; its revisions lie beside it.
    source : Source
        The case's CT and labels as they are now.
    neighbours : tuple of Neighbour
        Structures that instruments must keep away from.

    Returns
    -------
    list of Finding
        The gravest first.
    """
    found = [*_sources(plan, source), *_standing(plan, plan_file), *_references(plan)]
    if plan.ct_hash == source.ct_hash:
        found += [*_inside_ct(plan, source), *_screws(plan, source), *_neighbours(plan, source, neighbours)]
    else:
        found.append(Finding("note", "", "places in the patient were not checked, since the CT is another"))
    found += _collisions(plan)
    order = ("unsafe", "stale", "open", "note")
    return sorted(found, key=lambda f: order.index(f.severity))


def _sources(plan: Plan, source: Source) -> Iterator[Finding]:
    if plan.ct_hash != source.ct_hash:
        yield Finding("stale", "", f"was made on another CT than {source.ct.path.name}: plan again on this one")
    if plan.labels_hash != source.labels_hash:
        what = "the label map has changed since" if source.labels_hash and plan.labels_hash else "there is no label map"
        yield Finding("stale", "", f"{what}: look at the structures, and let the screws be graded again")
    if plan.frame_of_reference != source.frame_of_reference:
        yield Finding(
            "stale",
            "",
            "the CT has another frame of reference than the plan: the coordinates may not fit the patient",
        )
    if plan.case != source.file.name:
        yield Finding("stale", "", f"is a plan of the case {plan.case!r}; this case is {source.file.name!r}")


def _standing(plan: Plan, plan_file: Path) -> Iterator[Finding]:
    if plan.state != "approved":
        yield Finding("open", "", f"is {plan.state}, not approved: a person has to approve it")
    elif not plan.approved_by:
        yield Finding("open", "", "is approved, but says not by whom: approve it in the workspace")
    for item in plan.items:
        if isinstance(item, Flag) and not item.acknowledged_by:
            yield Finding("open", item.id, f"nobody has acknowledged: {item.text}")
    folder = plan_file.parent if plan_file.parent.name == "plan" else plan_file.parent / "plan"
    numbers = sorted(int(p.stem) for p in folder.glob("*.yaml") if p.stem.isdigit()) if folder.is_dir() else []
    if not numbers:
        return
    if plan.revision < numbers[-1]:
        yield Finding("stale", "", f"is revision {plan.revision}; the newest is {numbers[-1]}")
    own = folder / f"{plan.revision:04d}.yaml"
    if own.exists() and own.read_bytes() != plan_file.read_bytes():
        yield Finding("stale", "", f"differs from {own.name}, the revision that it says it is: it was changed by hand")
    before = folder / f"{plan.revision - 1:04d}.yaml"
    if plan.parent and before.exists() and hashlib.sha256(before.read_bytes()).hexdigest() != plan.parent:
        yield Finding("stale", "", f"{before.name} was changed after revision {plan.revision} was made from it")


def _references(plan: Plan) -> Iterator[Finding]:
    ids = Counter(item.id for item in plan.items)
    for name, n in ids.items():
        if n > 1:
            yield Finding("unsafe", name, f"{n} items have this id: references to it are ambiguous")
    for item in plan.items:
        other = item.cut if isinstance(item, Move) else item.item if isinstance(item, View) else None
        if other is not None and other not in ids:
            yield Finding("stale", item.id, f"refers to {other!r}, which is not in the plan")


def _ends(plan: Plan) -> Iterator[tuple[str, Float, Float, float]]:
    """Id, ends (LPS mm) and diameter of everything that is driven into the patient."""
    for item in plan.items:
        if isinstance(item, Screw):
            yield item.id, np.array(item.entry_ct), np.array(item.tip_ct), item.diameter_mm
        elif isinstance(item, StraightPath):
            yield item.id, np.array(item.entry_ct), np.array(item.target_ct), item.diameter_mm


def _inside_ct(plan: Plan, source: Source) -> Iterator[Finding]:
    size = np.array(source.ct.image.GetSize())
    for name, entry, tip, _ in _ends(plan):
        for what, point in (("entry", entry), ("tip", tip)):
            index = np.array(source.ct.image.TransformPhysicalPointToContinuousIndex(point.tolist()))
            if (index < -0.5).any() or (index > size - 0.5).any():
                yield Finding("unsafe", name, f"its {what} lies outside the CT: nobody can see what is there")


def _screws(plan: Plan, source: Source) -> Iterator[Finding]:
    screws = [i for i in plan.items if isinstance(i, Screw)]
    if not screws:
        return
    if source.labels is None:
        yield Finding("unsafe", "", "the case has no label map: the screws cannot be graded")
        return
    try:
        spine = spine_of_names(whole_numbers(source.labels), {s.label: s.name for s in source.file.structures})
    except VertebraError as error:
        yield Finding("unsafe", "", f"the screws cannot be graded: {error}")
        return
    vertebrae: dict[str, Vertebra | str] = {}
    for screw in screws:
        if screw.level not in vertebrae:
            vertebrae[screw.level] = _read(spine, screw.level)
        vertebra = vertebrae[screw.level]
        if isinstance(vertebra, str):
            yield Finding("unsafe", screw.id, f"cannot be graded: {vertebra}")
        else:
            yield from _grade(screw, vertebra)


def _read(spine: Spine, level: str) -> Vertebra | str:
    try:
        return spine.vertebra(level)
    except VertebraError as error:
        return str(error)


def _grade(screw: Screw, vertebra: Vertebra, settings: CheckSettings = SETTINGS) -> Iterator[Finding]:
    length = float(np.linalg.norm(np.subtract(screw.tip_ct, screw.entry_ct)))
    if abs(length - screw.length_mm) > settings.length_mm:
        yield Finding("unsafe", screw.id, f"its ends are {length:.1f} mm apart, its length is {screw.length_mm:g} mm")
    now = graded(screw.entry_ct, screw.tip_ct, screw.diameter_mm, screw.side, vertebra)
    where = f"{screw.level} {screw.side}"
    if not now.through_pedicle:
        yield Finding("unsafe", screw.id, f"does not go through the pedicle {where}: is the level or the side right?")
    elif now.in_canal_mm > 0.0 and now.grade != "A":
        yield Finding("unsafe", screw.id, f"reaches {now.in_canal_mm:.1f} mm into the spinal canal at {screw.level}")
    elif now.grade in ("C", "D", "E"):
        yield Finding(
            "unsafe", screw.id, f"is grade {now.grade}: it breaches the bone of {where} by {now.breach_mm:.1f} mm"
        )
    elif now.grade == "B":
        yield Finding("note", screw.id, f"is grade B: it breaches the bone of {where} by {now.breach_mm:.1f} mm")
    off = abs(now.clearance_mm - screw.clearance_mm)
    if now.grade != screw.grade or off > settings.grade_mm:
        yield Finding(
            "stale", screw.id,
            f"the plan says grade {screw.grade}, clearance {screw.clearance_mm:.1f} mm; on the present labels it "
            f"is grade {now.grade}, {now.clearance_mm:.1f} mm",
        )  # fmt: skip


def _neighbours(plan: Plan, source: Source, neighbours: tuple[Neighbour, ...]) -> Iterator[Finding]:
    if source.labels is None:
        return
    labels: sitk.Image = whole_numbers(source.labels)
    for name, entry, tip, diameter in _ends(plan):
        for neighbour, mm in clearances(labels, neighbours, entry, tip, diameter):
            text = f"comes within {max(mm, 0):.1f} mm of {neighbour.name}" if mm > 0 else f"enters {neighbour.name}"
            if not neighbour.is_approved:
                if mm < neighbour.caution_mm:
                    yield Finding("open", name, f"{text}, which nobody has approved: look at it")
            elif mm < neighbour.danger_mm:
                yield Finding("unsafe", name, f"{text}; at least {neighbour.danger_mm:g} mm are needed")
            elif mm < neighbour.caution_mm:
                yield Finding("note", name, f"{text}")


def _collisions(plan: Plan, settings: CheckSettings = SETTINGS) -> Iterator[Finding]:
    for (a, *one, da), (b, *other, db) in combinations(_ends(plan), 2):
        gap = segment_distance_mm(*one, *other) - (da + db) / 2
        if gap < 0:
            yield Finding("unsafe", a, f"collides with {b}: they overlap by {-gap:.1f} mm")
        elif gap < settings.apart_mm:
            yield Finding("note", a, f"passes {b} at {gap:.1f} mm")
