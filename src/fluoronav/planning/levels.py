"""Which level a vertebra is: all vertebrae of a case are moved up or down the spine together, and so is its plan.

The voxels stay where they are; their names change. A move makes one revision of the segmentation and one of the plan,
and can be taken back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.planning.anatomy import LEVELS, by_name, level_of, vertebra
from fluoronav.planning.plan.revisions import PlanRevisions
from fluoronav.planning.plan.schema import Flag, Item, Measured, Plan, Screw, View
from fluoronav.planning.revisions import Conflict, Revision, Revisions
from fluoronav.planning.segmentation.engine import SegmentedStructure

# From head to tail. T13 has no place in it: with one, a person has counted already.
SPINE = (*LEVELS[:-1], "L6")
_MOST = 3  # levels at a time; chosen: whoever is farther off segments anew
_RIB = re.compile(r"rib_(left|right)_(\d{1,2})")
_RIBS = 12
_MOVED, _BACK = "levels moved by ", "levels moved back"  # notes of revisions


class LevelError(ValueError):
    """Levels that cannot be moved; the text says why and what to do."""


@dataclass(frozen=True)
class Shift:
    """How labels change.

    Attributes
    ----------
    labels : dict
        New label of each old one; 0 where it is taken away.
    structures : tuple of SegmentedStructure
        After it; whatever changed its name is a draft.
    left_out : tuple of str
        Drafted ribs for which there is no vertebra any more.
    """

    labels: dict[int, int]
    structures: tuple[SegmentedStructure, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Moved:
    """What was made.

    Attributes
    ----------
    revision : Revision
    plan : Plan or None
        The plan's new revision, where the case has a plan.
    notes : tuple of str
        What a person has to know or do.
    """

    revision: Revision
    plan: Plan | None
    notes: tuple[str, ...]


def steps_between(drafted: str, true: str) -> int:
    """How far levels have to be moved: 1 where what is drafted as T12 is L1, -1 where it is T11.

    Raises
    ------
    LevelError
        Either is no level from C1 to L6, or they are more than three apart.
    """
    for level in (drafted, true):
        if level not in SPINE:
            raise LevelError(f"{level!r} is no level from C1 to L6 (T13 is given to one vertebra by relabelling)")
    by = SPINE.index(true) - SPINE.index(drafted)
    if abs(by) > _MOST:
        raise LevelError(f"{drafted} to {true} is {abs(by)} levels; at most {_MOST} are moved: segment the CT again")
    return by


def shifted_level(level: str, by: int) -> str:
    """The level `by` vertebrae towards the feet.

    Raises
    ------
    LevelError
    """
    at = SPINE.index(level) + by if level in SPINE else -1
    if not 0 <= at < len(SPINE):
        raise LevelError(
            f"{level} cannot be moved by {by:+d}: there is no such level from C1 to L6. Relabel the vertebrae one by "
            "one, or segment the CT again"
        )
    return SPINE[at]


def shifted(structures: Sequence[SegmentedStructure], by: int) -> Shift:
    """Vertebrae and ribs `by` levels towards the feet; the sacrum and all else stay.

    Raises
    ------
    LevelError
        A vertebra would leave the spine, or a label is taken.
    """
    if not by or abs(by) > _MOST:
        raise LevelError(f"levels are moved by 1 to {_MOST}, up (-) or down (+), not by {by}")
    renamed = {s.name: name for s in structures if (name := _name_after(s, by)) is not None}
    if not any(level_of(name) for name in renamed):
        raise LevelError("the segmentation has no vertebra from C1 to L6")
    left_out = [s for s in structures if renamed.get(s.name) == ""]
    if firm := next((s for s in left_out if s.state == "approved" or s.engine == "person"), None):
        raise LevelError(f"{firm.name}, which a person has drawn or approved, would have no vertebra: relabel it first")
    moving = [s for s in structures if renamed.get(s.name)]
    taken = {s.label: s.name for s in structures if s.name not in renamed}
    labels, out = {s.label: 0 for s in left_out}, [s for s in structures if s.name not in renamed]
    for s in moving:
        name = renamed[s.name]
        own = s.label != by_name()[s.name].label  # numbered by its author: only its name changes
        label = s.label if own else by_name()[name].label
        if label in taken:
            raise LevelError(f"label {label} of {name} is that of {taken[label]}: relabel that structure first")
        taken[label] = name
        labels[s.label] = label
        out.append(replace(s, name=name, label=label, state="draft", judged_by="", judged_at=""))
    return Shift(labels, tuple(sorted(out, key=lambda s: s.label)), tuple(s.name for s in left_out))


def _name_after(structure: SegmentedStructure, by: int) -> str | None:
    """The name after the move, empty for a rib that has no vertebra; None for what stays."""
    if structure.name not in by_name():
        return None
    if (level := level_of(structure.name)) is not None:
        return None if level == "S1" else vertebra(shifted_level(level, by)).name
    if (rib := _RIB.fullmatch(structure.name)) is None:
        return None
    number = int(rib[2]) + by
    return f"rib_{rib[1]}_{number}" if 1 <= number <= _RIBS else ""


def move_levels(folder: Path, by: int, *, author: str, parent: int) -> Moved:
    """Moves all levels of a case. Takes the memory of the label map.

    Parameters
    ----------
    folder : Path
        The case's.
    by : int
        Levels towards the feet; negative towards the head.
    author : str
    parent : int
        The newest revision, which the author has seen.

    Raises
    ------
    LevelError, Conflict, RevisionError, PlanError, OSError
    """
    revisions, newest = Revisions(folder), _newest(folder, parent)
    shift = shifted(newest.structures, by)
    image = sitk.ReadImage(str(revisions.labels_path(newest.number)))
    revision = revisions.add(
        _relabelled(image, shift.labels), shift.structures, author=author, ct_hash=newest.ct_hash, parent=newest.number,
        note=f"{_MOVED}{by:+d}",
    )  # fmt: skip
    notes = [f"{name}: was left out, since it has no vertebra now" for name in shift.left_out]
    plan, said = _moved_plan(folder, by, author, newest, revision)
    return Moved(revision, plan, (*notes, *said))


def move_back(folder: Path, *, author: str, parent: int) -> Moved:
    """Takes the last move of the levels back, where nothing was changed since.

    Raises
    ------
    LevelError
        The newest revision is no move of levels.
    Conflict, RevisionError, PlanError, OSError
    """
    revisions, newest = Revisions(folder), _newest(folder, parent)
    if not is_move(newest):
        raise LevelError(f"revision {newest.number} is no move of levels: move them the other way instead")
    before = revisions.read(newest.parent)
    image = sitk.ReadImage(str(revisions.labels_path(before.number)))
    revision = revisions.add(
        image, before.structures, author=author, ct_hash=newest.ct_hash, parent=newest.number, note=_BACK
    )
    plans = PlanRevisions(folder)
    plan = plans.newest()
    if plan is None or not plan.note.startswith(_MOVED) or plan.labels_hash != newest.labels_hash:
        return Moved(revision, plan, ())
    earlier = plans.read(plan.revision - 1).model_copy(update={**_DRAFT, "author": author, "note": _BACK})
    return Moved(revision, plans.add(earlier, parent=plan.revision), ())


def is_move(revision: Revision) -> bool:
    """Whether a revision is a move of levels, which can be taken back."""
    return revision.note.startswith(_MOVED) and revision.parent > 0


def is_move_back(revision: Revision) -> bool:
    """Whether a revision takes a move of levels back."""
    return revision.note == _BACK


def _newest(folder: Path, parent: int) -> Revision:
    newest = Revisions(folder).newest()
    if newest is None:
        raise LevelError(f"{folder}: has no segmentation: run `fluoronav plan segment` first")
    if newest.number != parent:
        raise Conflict(newest.number, parent)
    return newest


def _relabelled(image: sitk.Image, labels: dict[int, int]) -> sitk.Image:
    voxels = sitk.GetArrayViewFromImage(image)
    table = np.arange(65_536, dtype=np.uint16)
    for old, new in labels.items():
        table[old] = new
    out: NDArray[Any] = table[voxels]
    moved = sitk.GetImageFromArray(out if out.max() > 255 else out.astype(np.uint8))
    moved.CopyInformation(image)
    return moved


_DRAFT: dict[str, Any] = {"state": "draft", "reviewed_by": "", "approved_by": ""}


def _moved_plan(
    folder: Path, by: int, author: str, before: Revision, after: Revision
) -> tuple[Plan | None, tuple[str, ...]]:
    """The plan with its screws' levels moved; on the new label map, if it was on the one before."""
    plans = PlanRevisions(folder)
    plan = plans.newest()
    if plan is None:
        return None, ()
    items, left_out = moved_items(plan.items, by)
    changed: dict[str, Any] = {**_DRAFT, "items": items, "author": author, "note": f"{_MOVED}{by:+d}"}
    if plan.labels_hash == before.labels_hash:
        changed["labels_hash"] = after.labels_hash
    notes = (f"{left_out} measurements and questions name a level and were left out: measure again",)
    return plans.add(plan.model_copy(update=changed), parent=plan.revision), notes if left_out else ()


def moved_items(items: Sequence[Item], by: int) -> tuple[tuple[Item, ...], int]:
    """Items of a plan with their levels moved, and how many were left out.

    Screws, and views for them, follow. Measurements and flags are left out: their words and figures name levels.
    """
    names = {i.id: _moved_id(i, by) for i in items if isinstance(i, Screw)}
    out: list[Item] = []
    for item in items:
        if isinstance(item, Screw):
            out.append(item.model_copy(update={"id": names[item.id], "level": shifted_level(item.level, by)}))
        elif isinstance(item, View):
            out.append(item.model_copy(update={"item": names.get(item.item, item.item)}))
        elif not isinstance(item, Measured | Flag) or item.origin != "proposed":
            out.append(item)
    return tuple(out), len(items) - len(out)


def _moved_id(screw: Screw, by: int) -> str:
    return re.sub(rf"(?<![A-Za-z0-9]){screw.level}(?![0-9])", shifted_level(screw.level, by), screw.id)
