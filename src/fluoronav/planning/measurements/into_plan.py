"""Measurements and flags in a plan: what persons moved, drew or acknowledged stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fluoronav.planning.measurements.measure import MeasureError
from fluoronav.planning.measurements.results import Results
from fluoronav.planning.plan.revisions import PlanRevisions
from fluoronav.planning.plan.schema import Flag, Item, Measured, Plan

# Beginnings of the ids of what is written here; items of others are left alone.
_MEASURED, _FLAG = "m-", "flag-"


@dataclass(frozen=True)
class MadeOn:
    """What was measured: hashes by :func:`fluoronav.planning.plan.hashes.volume_hash`, and the CT's frame."""

    ct_hash: str
    labels_hash: str
    frame_of_reference: str = ""


def merged(items: Sequence[Item], results: Results) -> tuple[Item, ...]:
    """The items of a plan with new measurements and flags.

    Proposed measurements are replaced. One that a person has moved or drawn stays instead of the new one with its id.
    A flag stays acknowledged as long as it says the same; what it says includes its figures.
    """
    kept = [item for item in items if not _is_ours(item)]
    taken = {item.id for item in kept}
    before = {item.id: item for item in items if isinstance(item, Flag)}
    flags = []
    for new in results.flags:
        old = before.get(new.id)
        same = old is not None and old.text == new.text
        flags.append(old if same and old is not None else new)
    new_ones = [*results.items, *flags]
    return (*kept, *(item for item in new_ones if item.id not in taken))


def _is_ours(item: Item) -> bool:
    if isinstance(item, Measured):
        return item.origin == "proposed" and item.id.startswith(_MEASURED)
    return isinstance(item, Flag) and item.origin == "proposed" and item.id.startswith(_FLAG)


def write_into_plan(folder: Path, case: str, made_on: MadeOn, results: Results) -> Plan:
    """Adds a revision of the case's plan with what was measured.

    Parameters
    ----------
    folder : Path
        The case's folder.
    case : str
        Its name.
    made_on : MadeOn
    results : Results

    Raises
    ------
    MeasureError
        The plan was made on another CT.
    PlanError
        It cannot be read, or somebody changed it meanwhile.
    """
    revisions = PlanRevisions(folder)
    old = revisions.newest()
    if old is not None and old.ct_hash != made_on.ct_hash:
        raise MeasureError(
            f"{revisions.file}: was made on another CT than the case's (its hash differs); nothing was "
            "written. Move the plan away, or restore the CT"
        )
    changed = {
        "labels_hash": made_on.labels_hash, "state": "draft", "author": "plan measure", "reviewed_by": "",
        "approved_by": "",
        "note": f"{len(results.items)} measurements, {len(results.flags)} flags",
    }  # fmt: skip
    if old is None:
        old = Plan(
            case=case, revision=1, ct_hash=made_on.ct_hash, made="1970-01-01T00:00:00+00:00",
            frame_of_reference=made_on.frame_of_reference,
        )  # fmt: skip
        number = 0
    else:
        number = old.revision
    return revisions.add(old.model_copy(update={**changed, "items": merged(old.items, results)}), parent=number)
