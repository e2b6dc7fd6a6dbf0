"""What stands against the approval of a plan."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from fluoronav.planning.anatomy import by_name, level_of
from fluoronav.planning.plan.schema import Cut, Flag, Implant, Measured, Path, Plan, Resection, Screw
from fluoronav.planning.segmentation.engine import SegmentedStructure

# Kinds that alarms watch wherever a plan has a screw or a path, so that nobody has to remember to ask for it.
_ALWAYS_WATCHED = ("nerve",)


def alarm_structures(
    plan: Plan | None, structures: Sequence[SegmentedStructure], with_margins: Collection[str] = ()
) -> set[str]:
    """Names of the structures that alarms use, or that the plan was made on.

    Parameters
    ----------
    plan : Plan or None
    structures : sequence of SegmentedStructure
        Of the label map.
    with_margins : collection of str
        Structures of ``case.yaml`` with margins.
    """
    used = set(with_margins)
    for item in plan.items if plan else ():
        if isinstance(item, Screw):
            used.add(f"vertebrae_{item.level}")
        elif isinstance(item, Cut | Implant) and item.structure:
            used.add(item.structure)
        elif isinstance(item, Resection):
            used.add(item.lesion)
    if plan and any(isinstance(item, Screw | Path) for item in plan.items):
        known = by_name()
        used |= {s.name for s in structures if s.name in known and known[s.name].kind in _ALWAYS_WATCHED}
    return used


def obstacles(
    plan: Plan,
    structures: Sequence[SegmentedStructure],
    *,
    ct_hash: str,
    labels_hash: str | None,
    with_margins: Collection[str] = (),
) -> list[str]:
    """What stands against approving a plan, each as a sentence; empty where nothing does.

    Parameters
    ----------
    plan : Plan
    structures : sequence of SegmentedStructure
        Of the newest label map.
    ct_hash, labels_hash : str
        Of the case's CT and newest label map; None where it has none.
    with_margins : collection of str
        Structures of ``case.yaml`` with margins.
    """
    out = []
    if not any(not isinstance(item, Flag | Measured) for item in plan.items):
        out.append("the plan holds nothing to guide along: no screw, path, cut, resection or implant")
    if plan.ct_hash != ct_hash:
        out.append("the plan was made on another CT: make it anew on this one")
    if plan.labels_hash != labels_hash:
        out.append("the label map was changed after the plan was made: check the plan on it")
    open_flags = [item for item in plan.items if isinstance(item, Flag) and not item.acknowledged_by]
    out += [f"nobody has acknowledged: {flag.text}" for flag in open_flags]
    by = {_plain(s.name): s for s in structures}
    for name in sorted(alarm_structures(plan, structures, with_margins)):
        structure = by.get(_plain(name))
        if structure is None:
            out.append(f"{name} is not in the label map, and alarms or the plan use it")
        elif structure.state != "approved":
            out.append(f"{name} is {structure.state}, not approved, and alarms or the plan use it")
    return out


def _plain(name: str) -> str:
    level = level_of(name)
    return f"vertebrae_{level}" if level else name
