"""Everything that a briefing says, gathered from a case."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from fluoronav.planning.checks.checks import check
from fluoronav.planning.checks.clearance import neighbours_of
from fluoronav.planning.plan.planned import read_planned
from fluoronav.planning.plan.source import read_source
from fluoronav.planning.questions import read_questions
from fluoronav.planning.revisions import Revisions
from fluoronav.planning.screws.catalogue import read_catalogue
from fluoronav.planning.segmentation.engine import SegmentedStructure
from fluoronav.reports.briefing.content import Briefing
from fluoronav.reports.briefing.figures import figures_of, segmented_of
from fluoronav.reports.briefing.head import head_of
from fluoronav.reports.briefing.instruments import needed_of, paths_of, screws_of, steps_of
from fluoronav.reports.briefing.questions import questions_of
from fluoronav.reports.briefing.trail import Trail
from fluoronav.reports.briefing.views import views_of


def briefing_of(
    path: Path, case: Path | None, events: Iterable[Mapping[str, Any]], now: datetime,
    progress: Callable[[str], object] = lambda _: None, catalogue: Path | None = None,
) -> Briefing:  # fmt: skip
    """The briefing of a plan.

    Parameters
    ----------
    path : Path
        A plan, one of its revisions, or a case's folder.
    case : Path, optional
        A ``case.yaml``; that of the plan's folder by default.
    events : iterable of mapping
        The case's trail, oldest first.
    now : datetime
        Of the document, with time zone.
    progress : callable
        Takes what is being done.
    catalogue : Path, optional
        Sizes of pedicle screws (YAML, mm); the shipped ones by default.

    Raises
    ------
    PlanError
        There is no plan, or it was made on another CT or label map.
    CaseError, ValueError
    """
    planned = read_planned(path, case)
    sizes = read_catalogue(catalogue)
    progress("reading the CT and the label map")
    source = read_source(planned.case_path)
    plan, folder = planned.plan, planned.case_path.parent
    if (plan.ct_hash, plan.labels_hash or source.labels_hash) != (source.ct_hash, source.labels_hash):
        planned.check_hashes()  # says which one, and what to do
    progress("checking the plan")
    newest = Revisions(folder).newest()
    findings = check(plan, planned.path, source, neighbours_of(source.file, newest.structures if newest else None))
    structures = _structures(folder, plan.labels_hash)
    margins = [s.name for s in source.file.structures if s.caution_mm is not None]
    trail = Trail(events)
    figures, more = figures_of(plan)
    return Briefing(
        head=head_of(planned, findings, trail, now),
        questions=questions_of(plan, findings, read_questions(folder), structures, margins, trail),
        screws=screws_of(plan),
        paths=paths_of(plan),
        steps=steps_of(plan),
        needed=needed_of(plan, sizes),
        views=views_of(planned, source, progress),
        figures=figures,
        more_figures=more,
        segmented=segmented_of(plan, structures, margins),
    )


def _structures(folder: Path, labels_hash: str | None) -> tuple[SegmentedStructure, ...]:
    """The structures of the newest revision with the plan's label map; none where there is no such revision."""
    revisions = Revisions(folder)
    for number in reversed(revisions.numbers()):
        revision = revisions.read(number)
        if revision.labels_hash == labels_hash:
            return revision.structures
    return ()
