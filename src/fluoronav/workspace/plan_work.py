"""What people do to a plan: edit items, acknowledge flags, review, approve. Each makes a revision of it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Literal, cast

from pydantic import TypeAdapter, ValidationError

from fluoronav.case import CaseError
from fluoronav.case.file import read_case_file
from fluoronav.planning.plan.approval import alarm_structures, obstacles
from fluoronav.planning.plan.revisions import PlanConflict
from fluoronav.planning.plan.schema import Cut, Flag, Implant, Item, Move, Plan, PlanState, Resection, Screw
from fluoronav.validation import first_error
from fluoronav.workspace.errors import Refused, Unknown, WorkspaceError
from fluoronav.workspace.open_case import OpenCase

_ITEM: TypeAdapter[Item] = TypeAdapter(Item)
_MOST_ITEMS = 500  # of a plan; chosen
# Which state may follow which; an edit always makes a draft.
_FOLLOWS: dict[PlanState, tuple[PlanState, ...]] = {
    "draft": ("reviewed",), "reviewed": ("approved", "draft"), "approved": ("draft",),
}  # fmt: skip
# What the server says of an item, whatever the page says.
_OURS = {"origin", "audit"}
_GRADED = {"clearance_mm", "breach_mm", "grade"}

What = Literal["items", "acknowledge", "state", "refit"]


class PlanWork:
    """The plan of one open case. Not for the event loop; callers hold `planning` of the case.

    Parameters
    ----------
    case : OpenCase
    """

    def __init__(self, case: OpenCase) -> None:
        self.case = case

    def shown(self, plan: Plan | None) -> dict[str, Any]:
        """A plan, and what stands against its approval."""
        against = self.against(plan) if plan else []
        return {"plan": plan.model_dump(mode="json") if plan else None, "obstacles": against}

    def against(self, plan: Plan) -> list[str]:
        """What stands against approving a plan."""
        newest = self.case.revisions.newest()
        return obstacles(
            plan, newest.structures if newest else (), ct_hash=self.case.scan.ct_hash,
            labels_hash=newest.labels_hash if newest else None, with_margins=self.with_margins(),
        )  # fmt: skip

    def with_margins(self) -> list[str]:
        """Structures of ``case.yaml`` that alarms have margins for."""
        try:
            file = read_case_file(self.case.folder / "case.yaml")
        except CaseError:
            return []
        return [s.name for s in file.structures if s.caution_mm is not None]

    def alarms(self) -> set[str]:
        """Names of the structures that alarms use."""
        newest = self.case.revisions.newest()
        return alarm_structures(self.case.plans.newest(), newest.structures if newest else (), self.with_margins())

    def edit(self, user: str, parent: int, put: list[Any], remove: list[str], note: str) -> Plan:
        """Puts items into the plan, and takes some out.

        Raises
        ------
        PlanConflict, WorkspaceError, PlanError, OSError
        """
        plan = self._at(parent)
        known = {item.id: item for item in plan.items}
        if missing := [k for k in remove if k not in known]:
            raise Unknown(f"the plan has no item {missing[0]!r}")
        changed = [self._item(content, known) for content in put]
        changed = [item for item in changed if known.get(item.id) != item]
        if not changed and not remove:
            raise Refused("nothing was changed: the plan holds these items as they are")
        if len({item.id for item in changed}) < len(changed):
            raise WorkspaceError("two of the items have the same id")
        number = self._audit(
            "plan", user, parent, what="edited", put=[i.id for i in changed], removed=remove, note=note
        )
        new = {item.id: item.model_copy(update={"audit": str(number)}) for item in changed}
        items = [new.pop(k, item) for k, item in known.items() if k not in remove]
        items += new.values()
        if len(items) > _MOST_ITEMS:
            raise Refused(f"a plan has at most {_MOST_ITEMS} items; this one would have {len(items)}")
        return self._add(plan, parent, user, note=note, items=tuple(items), **_DRAFT)

    def acknowledge(self, user: str, parent: int, flags: list[str]) -> Plan:
        """Notes that a person has read flags."""
        plan = self._at(parent)
        known = {item.id: item for item in plan.items if isinstance(item, Flag)}
        if missing := [k for k in flags if k not in known]:
            raise Unknown(f"the plan has no flag {missing[0]!r}")
        number = self._audit("plan", user, parent, what="acknowledged", flags=[known[k].text for k in flags])
        read = {"acknowledged_by": user, "audit": str(number)}
        items = tuple(
            i.model_copy(update=read) if i.id in flags and not cast(Flag, i).acknowledged_by else i for i in plan.items
        )
        # Reading a flag takes nothing from a plan that was reviewed.
        return self._add(plan, parent, user, note="acknowledged", items=items)

    def state(self, user: str, parent: int, state: PlanState, accepted: Sequence[str] = ()) -> Plan:
        """Says that the plan is reviewed, approved, or a draft again; `accepted`: what was unsafe, and was seen."""
        plan = self._at(parent)
        if state not in _FOLLOWS[plan.state]:
            raise Refused(f"the plan is {plan.state}; it can become {' or '.join(_FOLLOWS[plan.state])}, not {state}")
        if state == "approved" and (reasons := self.against(plan)):
            raise Refused(f"the plan cannot be approved: {reasons[0]}", reasons=reasons)
        seen = {"accepted": [text[:300] for text in accepted]} if accepted else {}
        self._audit(
            "plan", user, parent, what=state, ct=plan.ct_hash[:16], labels=(plan.labels_hash or "")[:16], **seen
        )
        said = {
            "draft": _DRAFT, "reviewed": {"state": "reviewed", "reviewed_by": user, "approved_by": ""},
            "approved": {"state": "approved", "approved_by": user},
        }  # fmt: skip
        return self._add(plan, parent, user, note=state, **said[state])

    def refit(self, user: str, parent: int) -> Plan:
        """Says that the plan was checked on the newest label map; its screws are graded anew."""
        plan = self._at(parent)
        newest = self.case.revisions.newest()
        labels_hash = newest.labels_hash if newest else None
        if plan.labels_hash == labels_hash:
            raise Refused("the plan is of the newest label map")
        items = tuple(self._graded(i) if isinstance(i, Screw) else i for i in plan.items)
        self._audit("plan", user, parent, what="refitted", labels=(labels_hash or "")[:16])
        return self._add(plan, parent, user, note="refitted", items=items, labels_hash=labels_hash, **_DRAFT)

    def grade(self, content: Any) -> dict[str, Any]:
        """Clearance, breach and grade of a screw that is being moved; nothing is kept."""
        screw = cast(Screw, _parsed({**_object(content), **_UNGRADED, "kind": "screw", "origin": "moved"}))
        result = self._graded(screw)
        return {k: getattr(result, k) for k in sorted(_GRADED)}

    def warm(self, plan: Plan) -> None:
        """Reads the vertebrae of the plan's screws, so that the first one that is moved is graded at once."""
        for screw in {i.level: i for i in plan.items if isinstance(i, Screw)}.values():
            with contextlib.suppress(WorkspaceError):  # it is said when the screw is moved
                self._graded(screw)

    def _at(self, parent: int) -> Plan:
        newest = self.case.plans.newest()
        number = newest.revision if newest else 0
        if number != parent:
            raise PlanConflict(number, parent)
        if newest is not None:
            return newest
        labels = self.case.revisions.newest()
        return Plan(
            case=self.case.name, revision=1, ct_hash=self.case.scan.ct_hash,
            labels_hash=labels.labels_hash if labels else None,
            frame_of_reference=self.case.scan.frame_of_reference, made="",
        )  # fmt: skip

    def _item(self, content: Any, known: dict[str, Any]) -> Item:
        """An item as it is kept: its origin, its grade and who acknowledged it are never the page's word."""
        content = {**_object(content), "origin": "drawn", "audit": ""}
        old = known.get(str(content.get("id")))
        is_screw = content.get("kind") == "screw"
        if is_screw:
            content |= _UNGRADED
        if content.get("kind") == "flag":
            content["acknowledged_by"] = old.acknowledged_by if isinstance(old, Flag) else ""
        item = _parsed(content)
        left_out = _OURS | (_GRADED if is_screw else set())
        if old is not None and item.model_dump(exclude=left_out) == old.model_dump(exclude=left_out):
            return old
        if isinstance(item, Screw):
            item = self._graded(item)
        moved = old is not None and old.origin in ("proposed", "moved")
        return item.model_copy(update={"origin": "moved" if moved else "drawn"})

    def _graded(self, screw: Screw) -> Screw:
        newest = self.case.revisions.newest()
        if newest is None:
            raise Refused("there is no label map: a screw is graded in the bone that it lies in")
        return self.case.grader.graded(screw, newest, self.case.map_of(newest.number))

    def _audit(self, event: str, user: str, parent: int, **what: Any) -> int:
        return self.case.trail.add(event, user=user, revision=parent + 1, **what)

    def _add(self, plan: Plan, parent: int, user: str, **changes: Any) -> Plan:
        new = self.case.plans.add(plan.model_copy(update={"author": user, **changes}), parent=parent)
        self.case.tell({"event": "plan", "revision": new.revision, "state": new.state, "author": user})
        return new


def surgery_of(content: Sequence[Any]) -> list[Item]:
    """The cuts, moves, resections and implants of a page, as they are while a person changes them.

    Raises
    ------
    WorkspaceError
        One of them is no such item.
    """
    items = [_parsed({**_object(c), "origin": "drawn", "audit": ""}) for c in content]
    if other := next((i for i in items if not isinstance(i, (Cut, Move, Resection, Implant))), None):
        raise WorkspaceError(f"item {other.id[:64]}: a {other.kind} is not carried out")
    return items


_DRAFT: dict[str, Any] = {"state": "draft", "reviewed_by": "", "approved_by": ""}
_UNGRADED: dict[str, Any] = {"clearance_mm": 0.0, "breach_mm": 0.0, "grade": "E", "audit": ""}


def _object(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise WorkspaceError("an item must be a JSON object")
    return content


def _parsed(content: dict[str, Any]) -> Item:
    try:
        return _ITEM.validate_python(content)
    except ValidationError as error:
        raise WorkspaceError(f"item {str(content.get('id', '?'))[:64]}: {first_error(error)}") from error
