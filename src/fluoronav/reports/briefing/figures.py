"""Measurements of what is operated on, and how the label map was made."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence

from fluoronav.planning.anatomy import level_of
from fluoronav.planning.plan.approval import alarm_structures
from fluoronav.planning.plan.schema import Cut, Implant, Measured, Plan, Resection, Screw
from fluoronav.planning.segmentation.engine import SegmentedStructure
from fluoronav.reports.briefing.content import Drawn, Figures, Said, Segmented
from fluoronav.reports.briefing.names import readable
from fluoronav.reports.briefing.trail import minutes

_UNITS = {"mm": "mm", "deg": "°", "cm3": "cm³", "HU": "HU", "1": ""}
_DECIMALS = {"mm": 1, "deg": 1, "cm3": 1, "HU": 0, "1": 2}
_NAMES = {
    "trabecular_hu": "trabecular bone",
    "cobb_largest": "largest Cobb angle",
    "hka": "HKA",
    "mldfa": "mLDFA",
    "mpta": "MPTA",
}
_SPAN = re.compile(r"([CTLS]\d{1,2})-([CTLS]\d{1,2})")  # what angles of the spine are of
_LEG = re.compile(r"(?:femur|tibia)_(left|right)")
_WHOLE = "whole spine or scan"  # what a measurement without a structure is of


def figures_of(plan: Plan) -> tuple[tuple[Figures, ...], int]:
    """Measurements of what is operated on, of its spine or leg, and of none in particular; and how many more there are.

    A vertebra's own volume is left out: nobody decides by it.
    """
    measured = [i for i in plan.items if isinstance(i, Measured)]
    wanted = operated_on(plan)
    out: dict[str, list[tuple[str, str]]] = {}
    more = 0
    for m in measured:
        if _is_wanted(m.structure, wanted) and not _is_vertebral_volume(m):
            structure = readable(m.structure) if m.structure else _WHOLE
            out.setdefault(structure, []).append((_NAMES.get(m.name) or readable(m.name), _value(m)))
        else:
            more += 1
    return tuple(Figures(name, tuple(values)) for name, values in out.items()), more


def operated_on(plan: Plan) -> set[str]:
    """Names of the structures that the plan does something to."""
    out = set()
    for item in plan.items:
        if isinstance(item, Screw):
            out.add(f"vertebrae_{item.level}")
        elif isinstance(item, Cut | Implant) and item.structure:
            out.add(item.structure)
        elif isinstance(item, Resection):
            out.add(item.lesion)
    return out


def _is_wanted(structure: str | None, operated: set[str]) -> bool:
    """Whether a structure is operated on, or is the spine or the leg that such a one belongs to."""
    if structure is None or structure in operated:
        return True
    if _SPAN.fullmatch(structure):
        return any(level_of(name) for name in operated)
    return any(structure == f"leg_{found[1]}" for name in operated if (found := _LEG.fullmatch(name)))


def _is_vertebral_volume(m: Measured) -> bool:
    return m.structure is not None and level_of(m.structure) is not None and m.name in ("volume", "body_volume")


def _value(m: Measured) -> str:
    digits, unit = _DECIMALS[m.unit], _UNITS[m.unit]
    spread = f" ± {m.uncertainty:.{digits}f}" if m.uncertainty is not None else ""
    return f"{m.value:.{digits}f}{spread}{'' if unit == '°' else ' '}{unit}".strip()


def segmented_of(plan: Plan, structures: Sequence[SegmentedStructure], with_margins: Collection[str] = ()) -> Segmented:
    """How the label map was made.

    Parameters
    ----------
    plan : Plan
    structures : sequence of SegmentedStructure
        Of the plan's label map; empty where the case has no revisions.
    with_margins : collection of str
        Structures of ``case.yaml`` with margins.
    """
    engines = []
    for engine, total in Counter(s.engine for s in structures).most_common():
        states = Counter(s.state for s in structures if s.engine == engine)
        said = ", ".join(f"{states[state]} {state}" for state in ("approved", "draft", "rejected") if states[state])
        engines.append(f"{engine}: {total} structure{'s' if total > 1 else ''} ({said})")
    by_name = {s.name: s for s in structures}
    used = []
    for name in sorted(alarm_structures(plan, structures, with_margins), key=lambda n: (level_of(n) is None, n)):
        s = by_name.get(name)
        if s is None:
            used.append(Drawn(readable(name), None, Said(), "", None))
        else:
            said = Said(s.judged_by, minutes(s.judged_at) if s.judged_at else "")
            used.append(Drawn(readable(name), s.state, said, s.engine, s.confidence))
    return Segmented(tuple(engines), tuple(used))
