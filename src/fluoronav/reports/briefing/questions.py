"""What has been asked about a plan: what is open, what a person has answered, and whether the levels are sure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fluoronav.planning.checks.checks import Finding
from fluoronav.planning.plan.approval import alarm_structures
from fluoronav.planning.plan.schema import Flag, Measured, Path, Plan, Screw
from fluoronav.planning.segmentation.engine import SegmentedStructure
from fluoronav.reports.briefing.content import ClosedPoint, Levels, OpenPoint, Questions, Said
from fluoronav.reports.briefing.instruments import item_name
from fluoronav.reports.briefing.names import readable, readable_text
from fluoronav.reports.briefing.trail import Trail, minutes

_LEVEL = "level"  # key of the question which level a vertebra is
# Flags about which level a vertebra is (`planning/measurements/spine_flags.py`).
_COUNTING = ("count", "level", "order", "ribs", "rib12", "transitional")
_GRAVITY = ("level", "unsafe", "stale", "flag", "question", "open", "structure")


def questions_of(
    plan: Plan, findings: Sequence[Finding], asked: Mapping[str, Any], structures: Sequence[SegmentedStructure],
    with_margins: Sequence[str], trail: Trail,
) -> Questions:  # fmt: skip
    """What was asked.

    Parameters
    ----------
    plan : Plan
    findings : sequence of Finding
        Of its check.
    asked : mapping
        Content of ``questions.json`` (:func:`fluoronav.planning.questions.read_questions`).
    structures : sequence of SegmentedStructure
        Of the label map that the plan was made on.
    with_margins : sequence of str
        Structures of ``case.yaml`` with margins.
    trail : Trail
    """
    names = {i.id: item_name(i) for i in plan.items if isinstance(i, Screw | Path)}
    approval = trail.stated("approved", plan.revision) if plan.state == "approved" else {}
    accepted = [str(t) for t in approval.get("accepted", [])]
    by = trail.said("approved", plan.revision, plan.approved_by)
    flags = [i for i in plan.items if isinstance(i, Flag)]
    opened = [_question(q) for q in asked["questions"] if isinstance(q, dict)]
    opened += [OpenPoint("flag", _about(f), readable_text(f.text)) for f in flags if not f.acknowledged_by]
    closed = [
        ClosedPoint(_about(f), readable_text(f.text), "acknowledged", Said(f.acknowledged_by, trail.when(f.audit)))
        for f in flags
        if f.acknowledged_by
    ]
    closed += [_answered(q) for q in asked["answered"] if isinstance(q, dict)]
    unread = {f.id for f in flags if not f.acknowledged_by}
    notes = [str(w) for w in asked["warnings"]]
    for f in findings:
        about = names.get(f.item, f.item or "plan")
        if f.severity == "note":
            notes.append(f"{about} {readable_text(f.text)}")
        elif f.severity == "unsafe" and f"{f.item} {f.text}".strip()[:300] in accepted:
            closed.append(ClosedPoint(about, readable_text(f.text), "unsafe; accepted at the approval", by))
        elif f.item not in unread and not _says_draft(f):
            opened.append(OpenPoint(f.severity, about, readable_text(f.text)))
    opened += _unapproved(plan, structures, with_margins)
    opened.sort(key=lambda p: _GRAVITY.index(p.kind))
    is_measured = any(isinstance(i, Measured) and i.origin == "proposed" for i in plan.items)
    return Questions(_levels(asked, flags, is_measured=is_measured), tuple(opened), tuple(closed), tuple(notes))


def _says_draft(finding: Finding) -> bool:
    """Whether it says of the whole plan what the head of the document does."""
    return finding.severity == "open" and not finding.item and finding.text.startswith("is ")


def _about(flag: Flag) -> str:
    return readable(flag.structure) if flag.structure else flag.what.replace("-", " ")


def _question(asked: Mapping[str, Any]) -> OpenPoint:
    choices = " or ".join(str(c) for c in asked.get("choices", []))
    evidence = f" ({asked['evidence']})" if asked.get("evidence") else ""
    kind = "level" if asked.get("key") == _LEVEL else "question"
    return OpenPoint(kind, "", f"{asked.get('text', '')} {choices}{evidence}".strip())


def _answered(asked: Mapping[str, Any]) -> ClosedPoint:
    said = Said(str(asked.get("answered_by", "")), minutes(str(asked.get("answered_at", ""))))
    kind = "level" if asked.get("key") == _LEVEL else "question"
    return ClosedPoint(kind, str(asked.get("text", "")), str(asked.get("answer", "")), said)


def _unapproved(plan: Plan, structures: Sequence[SegmentedStructure], with_margins: Sequence[str]) -> list[OpenPoint]:
    """Structures that alarms or the plan use, and nobody has approved."""
    states = {s.name: s.state for s in structures}
    return [
        OpenPoint("structure", readable(name), f"is {states[name]}, not approved, and alarms or the plan use it")
        for name in sorted(alarm_structures(plan, structures, with_margins))
        if states.get(name, "approved") != "approved"
    ]


def _levels(asked: Mapping[str, Any], flags: Sequence[Flag], *, is_measured: bool) -> Levels:
    """Whether the level is sure, by the segmentation's question and the flags that count vertebrae."""
    if any(isinstance(q, dict) and q.get("key") == _LEVEL for q in asked["questions"]):
        return Levels(False, "NOT SURE: nobody has answered which level it is. Count before the incision.")
    counted = [f for f in flags if f.what in _COUNTING]
    if unread := [f for f in counted if not f.acknowledged_by]:
        return Levels(False, f"NOT SURE: {unread[0].text}. Nobody has acknowledged it.")
    answered = [q for q in asked["answered"] if isinstance(q, dict) and q.get("key") == _LEVEL]
    if answered:
        last = answered[-1]
        return Levels(
            True, f"answered by {last.get('answered_by', '')}, {minutes(str(last.get('answered_at', '')))}: "
            f"{last.get('answer', '')}",
        )  # fmt: skip
    if counted:
        return Levels(True, f"{counted[0].text}; acknowledged by {counted[0].acknowledged_by}")
    if not is_measured:
        return Levels(False, "NOT CHECKED: nothing in the case speaks for the level. Count before the incision.")
    return Levels(True, "vertebrae and ribs were counted without a doubt. Count before the incision all the same.")
