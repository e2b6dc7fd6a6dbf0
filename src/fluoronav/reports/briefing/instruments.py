"""Screws and paths, cuts and implants of a plan, and what must be on the table for them."""

from __future__ import annotations

from collections import Counter

import numpy as np

from fluoronav.planning.plan.planned import ends
from fluoronav.planning.plan.schema import Cut, Implant, Move, Path, Plan, Resection, Screw, View
from fluoronav.planning.screws.catalogue import Catalogue
from fluoronav.reports.briefing.content import Instrument, Needed, Step
from fluoronav.reports.briefing.names import readable

_SAME_MM = 0.05  # between a screw's size and the catalogue's; chosen: finer than any size is made


def screw_name(screw: Screw) -> str:
    """Such as "T8 left"."""
    return f"{screw.level} {screw.side}"


def item_name(item: Screw | Path) -> str:
    """What a screw or a path is called in the document."""
    return screw_name(item) if isinstance(item, Screw) else item.name


def in_order(plan: Plan) -> list[Screw]:
    """The screws of a plan, from head to feet, left before right."""
    found = sorted((i for i in plan.items if isinstance(i, Screw)), key=lambda s: -s.tip_ct[2])
    levels = list(dict.fromkeys(s.level for s in found))
    return sorted(found, key=lambda s: (levels.index(s.level), s.side != "left"))


def screws_of(plan: Plan) -> tuple[Instrument, ...]:
    """The screws of a plan, from head to feet, left before right."""
    bounds = _bounds(plan)
    return tuple(_of_screw(s, bounds.get(s.id)) for s in in_order(plan))


def _of_screw(s: Screw, bound_mm: float | None) -> Instrument:
    left_mm = None if bound_mm is None else s.clearance_mm - bound_mm
    return Instrument(
        s.id, screw_name(s), s.side, s.diameter_mm, s.length_mm, s.grade, s.clearance_mm, s.breach_mm, bound_mm,
        left_mm, s.origin,
    )  # fmt: skip


def paths_of(plan: Plan) -> tuple[Instrument, ...]:
    """The paths of a plan."""
    bounds, out = _bounds(plan), []
    for item in plan.items:
        if isinstance(item, Path):
            length = float(np.linalg.norm(np.subtract(*ends(item))))
            out.append(
                Instrument(
                    item.id, item.name, "", item.diameter_mm, length, "", None, None, bounds.get(item.id), None,
                    item.origin,
                )
            )  # fmt: skip
    return tuple(out)


def _bounds(plan: Plan) -> dict[str, float]:
    """The bound that the guidance will state for each item's tip, 95 %, mm: the largest of its views."""
    out: dict[str, float] = {}
    for item in plan.items:
        if isinstance(item, View) and item.bound_mm is not None:
            out[item.item] = max(item.bound_mm, out.get(item.item, 0.0))
    return out


def steps_of(plan: Plan) -> tuple[Step, ...]:
    """Cuts, moves, resections and implants, as the plan has them."""
    cuts = {i.id: i for i in plan.items if isinstance(i, Cut)}
    out = []
    for item in plan.items:
        if isinstance(item, Cut):
            out.append(Step(item.id, "cut", readable(item.structure), _cut(item, cuts), item.origin))
        elif isinstance(item, Move):
            of = cuts.get(item.cut)
            out.append(Step(item.id, "move", readable(of.structure) if of else "", _move(item, of), item.origin))
        elif isinstance(item, Resection):
            text = f"taken out with a margin of {item.margin_mm:g} mm"
            out.append(Step(item.id, "resection", readable(item.lesion), text, item.origin))
        elif isinstance(item, Implant):
            where = readable(item.structure) if item.structure else ""
            out.append(Step(item.id, "implant", where, f"{item.family}, size {item.size}", item.origin))
    return tuple(out)


def _cut(cut: Cut, cuts: dict[str, Cut]) -> str:
    text = f"kerf {cut.kerf_mm:g} mm, plane facing {_direction(cut.normal_ct)}"
    other = cuts.get(cut.wedge_to or "")
    if other is None:
        return text
    cosine = -np.dot(cut.normal_ct, other.normal_ct) / (np.linalg.norm(cut.normal_ct) * np.linalg.norm(other.normal_ct))
    return f"{text}; wedge to {other.id} of {np.rad2deg(np.arccos(np.clip(cosine, -1, 1))):.1f}°"


def _direction(normal_ct: tuple[float, float, float]) -> str:
    """The patient's directions that a normal points to, the strongest first."""
    n = np.asarray(normal_ct) / np.linalg.norm(normal_ct)
    words = (("left", "right"), ("back", "front"), ("head", "feet"))
    named = [(abs(v), pair[0] if v > 0 else pair[1]) for v, pair in zip(n, words, strict=True) if abs(v) > 0.3]
    return " and ".join(word for _, word in sorted(named, reverse=True))


def _move(move: Move, cut: Cut | None) -> str:
    T = np.array(move.T_moved_ct)
    turn_deg = np.rad2deg(np.arccos(np.clip((np.trace(T[:3, :3]) - 1) / 2, -1, 1)))
    at = np.array(cut.point_ct if cut else (0.0, 0.0, 0.0))
    shift_mm = float(np.linalg.norm(T[:3, :3] @ at + T[:3, 3] - at))
    where = f", {shift_mm:.1f} mm at the cut {cut.id}" if cut else ""
    return f"turned by {turn_deg:.1f}°{where}"


def needed_of(plan: Plan, catalogue: Catalogue) -> tuple[Needed, ...]:
    """Implants by size, counted.

    A screw that a person has moved may have a length that no catalogue has: it is said with the nearest sizes.
    """
    screws = Counter((i.diameter_mm, i.length_mm) for i in plan.items if isinstance(i, Screw))
    implants = Counter((i.family, i.size) for i in plan.items if isinstance(i, Implant))
    out = [
        Needed(count, "pedicle screw", f"Ø {d:g} x {length:g} mm", _not_made(d, length, catalogue))
        for (d, length), count in sorted(screws.items())
    ]
    return (*out, *(Needed(count, family, size) for (family, size), count in sorted(implants.items())))


def _not_made(diameter_mm: float, length_mm: float, catalogue: Catalogue) -> str:
    """What the catalogue has instead of a size that it does not have; empty where it has it."""
    out = []
    for what, value, made in (
        ("diameter", diameter_mm, catalogue.diameters_mm),
        ("length", length_mm, catalogue.lengths_mm),
    ):
        if min(abs(m - value) for m in made) > _SAME_MM:
            shorter, longer = [m for m in made if m < value], [m for m in made if m > value]
            there = " and ".join(f"{m:g}" for m in (*shorter[-1:], *longer[:1]))
            out.append(f"no such {what} in the catalogue {catalogue.name!r}; it has {there} mm")
    return "; ".join(out)
