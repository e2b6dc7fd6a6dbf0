"""The head of a briefing: of which plan it is, and whether that may be used."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from fluoronav import __version__
from fluoronav.planning.checks.checks import Finding
from fluoronav.planning.plan.planned import Planned, procedure_of
from fluoronav.reports.briefing.content import Head
from fluoronav.reports.briefing.trail import Trail, minutes

_DIGITS = 12  # of a hash that are printed; chosen: enough to compare by eye


def head_of(planned: Planned, findings: Sequence[Finding], trail: Trail, now: datetime) -> Head:
    """The head.

    Parameters
    ----------
    planned : Planned
        Its hashes fit: :meth:`Planned.check_hashes`.
    findings : sequence of Finding
        Of the plan's check.
    trail : Trail
    now : datetime
        With time zone.
    """
    plan = planned.plan
    because = [] if plan.state == "approved" else [f"the plan is {plan.state}, not approved"]
    if plan.state == "approved" and not plan.approved_by:
        because.append("the plan says not who approved it")
    if stale := sum(f.severity == "stale" for f in findings):
        because.append(f"{stale} of its statements do{'es' if stale == 1 else ''} not fit the case: see STALE below")
    return Head(
        case=planned.case.name,
        procedure=planned.case.procedure or procedure_of(plan) or "",
        revision=plan.revision,
        state=plan.state,
        is_final=not because,
        draft_because=tuple(because),
        author=plan.author,
        made=minutes(plan.made),
        reviewed=trail.said("reviewed", plan.revision, plan.reviewed_by),
        approved=trail.said("approved", plan.revision, plan.approved_by),
        plan_hash=planned.digest[:_DIGITS],
        ct_hash=plan.ct_hash[:_DIGITS],
        labels_hash=(plan.labels_hash or "")[:_DIGITS],
        printed=minutes(now.isoformat()),
        version=__version__,
    )
