"""Screws for several levels, as `plan screws` reports them and as a plan holds them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fluoronav.planning.plan.schema import Item, Plan, Screw
from fluoronav.planning.screws.bone import VertebraError
from fluoronav.planning.screws.catalogue import Catalogue
from fluoronav.planning.screws.pedicle import SIGNS
from fluoronav.planning.screws.proposal import ScrewProposal, proposed
from fluoronav.planning.screws.spine import Spine
from fluoronav.planning.screws.vertebra import Vertebra


@dataclass(frozen=True)
class Proposals:
    """What was proposed.

    Attributes
    ----------
    screws : tuple of ScrewProposal
    vertebrae : dict
        By level; those that could be read.
    notes : tuple of str
        What was left out or is unusual.
    cpu_s, seconds : float
        Of all levels together.
    """

    screws: tuple[ScrewProposal, ...]
    vertebrae: dict[str, Vertebra] = field(repr=False)
    notes: tuple[str, ...]
    cpu_s: float
    seconds: float

    def result(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "screws": [asdict(s) for s in self.screws],
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
            "cpu_s": round(self.cpu_s, 3),
        }


def propose(
    spine: Spine, levels: Sequence[str], catalogue: Catalogue, progress: Callable[[str], object] = lambda _: None
) -> Proposals:
    """Proposes two screws for each level.

    A level whose label cannot be used gets two screws that do not fit, with the reason; the others go on.

    Raises
    ------
    VertebraError
        A name is no level.
    """
    begun, cpu = time.perf_counter(), time.process_time()
    screws: list[ScrewProposal] = []
    vertebrae: dict[str, Vertebra] = {}
    notes: list[str] = []
    for level in dict.fromkeys(name.strip().upper() for name in levels):
        progress(level)
        try:
            vertebra = spine.vertebra(level)
        except VertebraError as error:
            if level not in spine.values:
                raise
            screws += [ScrewProposal(level, side, False, reason=str(error)) for side in SIGNS]
            continue
        vertebrae[level] = vertebra
        notes += vertebra.notes
        screws += [proposed(vertebra, side, catalogue) for side in SIGNS]
    return Proposals(tuple(screws), vertebrae, tuple(notes), time.process_time() - cpu, time.perf_counter() - begun)


def with_proposals(plan: Plan, proposals: Sequence[ScrewProposal], audit: str = "") -> tuple[Plan, tuple[str, ...]]:
    """A plan with the proposed screws instead of those that were proposed before for the same pedicles.

    Screws that a person moved or drew are kept, and none is proposed beside them.

    Parameters
    ----------
    plan : Plan
    proposals : sequence of ScrewProposal
    audit : str
        Number of the audit line.

    Returns
    -------
    plan : Plan
        A draft.
    kept : tuple of str
        Ids of the screws that a person made, where one was proposed.
    """
    pedicles = {(p.level, p.side) for p in proposals}
    screws = [i for i in plan.items if isinstance(i, Screw)]
    by_hand = {(s.level, s.side): s.id for s in screws if s.origin != "proposed"}
    items: list[Item] = [
        i for i in plan.items if not (isinstance(i, Screw) and i.origin == "proposed" and (i.level, i.side) in pedicles)
    ]
    taken = {i.id for i in items}
    for p in proposals:
        if not p.fits or (p.level, p.side) in by_hand:
            continue
        assert p.entry_ct and p.tip_ct and p.diameter_mm and p.length_mm and p.grade
        assert p.clearance_mm is not None and p.breach_mm is not None
        items.append(
            Screw(
                id=_free(f"{p.level}-{p.side}", taken), origin="proposed", audit=audit, level=p.level, side=p.side,
                entry_ct=p.entry_ct, tip_ct=p.tip_ct, diameter_mm=p.diameter_mm, length_mm=p.length_mm,
                clearance_mm=p.clearance_mm, breach_mm=p.breach_mm, grade=p.grade,
            )
        )  # fmt: skip
    kept = tuple(name for pedicle, name in by_hand.items() if pedicle in pedicles)
    changed = {"items": tuple(items), "state": "draft", "reviewed_by": "", "approved_by": ""}
    return plan.model_copy(update=changed), kept


def _free(name: str, taken: set[str]) -> str:
    """The name, or one with a number where it is taken."""
    free, k = name, 1
    while free in taken:
        k += 1
        free = f"{name}-{k}"
    taken.add(free)
    return free
