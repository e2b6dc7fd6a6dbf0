"""`fluoronav report`: documents for people."""

from __future__ import annotations

import argparse
import os
from datetime import datetime
from pathlib import Path

from fluoronav.cli.arguments import add_family, add_verb
from fluoronav.cli.plan_options import add_json_option, add_plan, plan_and_case, told
from fluoronav.cli.reporting import missing_extra, say

_PDF, _HTML = ".pdf", (".html", ".htm")


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    family = add_family(
        verbs,
        "report",
        "write documents for people, as PDF or HTML: the briefing before the operation",
        "fluoronav report briefing cases/P2KQX7 --out briefing.pdf",
    )
    _add_briefing(family)


def _add_briefing(family: argparse._SubParsersAction) -> None:
    verb = add_verb(
        family,
        "briefing",
        "write what the team reads before the operation, on A4: the plan's state, open questions, screws, cuts and "
        "implants (mm), the planned C-arm views (degrees) each with a simulated X-ray image and the predicted error "
        "(mm, 95 %), measurements, and who approved which structure; DRAFT on each page unless the plan is approved",
        _briefing,
        "fluoronav report briefing cases/P2KQX7 --out briefing.pdf",
        "fluoronav report briefing cases/P2KQX7/plan/0008.yaml --out out/briefing.html --json out/briefing.json",
    )
    add_plan(verb)
    verb.add_argument(
        "--out", type=_document, required=True, metavar="FILE",
        help="file to write, .pdf or .html; one that is there is replaced",
    )  # fmt: skip
    verb.add_argument("--catalogue", type=Path, metavar="FILE", help="sizes of screws (YAML, mm) that the hospital has")
    add_json_option(verb, "what the document says")


def _document(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in (_PDF, *_HTML):
        raise argparse.ArgumentTypeError(f"{text} is neither .pdf nor .html")
    return path


def _briefing(options: argparse.Namespace) -> None:
    try:
        import jinja2  # noqa: F401

        from fluoronav.reports.briefing.gather import briefing_of
        from fluoronav.reports.briefing.writing import html_of, pdf_of, ready_for_pdf
    except ImportError as error:
        raise missing_extra("reports", error) from error
    from fluoronav.durable import written
    from fluoronav.site.case_trail import CaseTrail

    is_pdf = options.out.suffix.lower() == _PDF
    if is_pdf:
        try:
            ready_for_pdf()
        except ImportError as error:
            raise missing_extra("reports", error) from error
    _check_writable(options.out)
    _, case_file = plan_and_case(options)
    found = briefing_of(
        options.plan, case_file if options.case else None, CaseTrail(case_file.parent).events(),
        datetime.now().astimezone(), say, options.catalogue,
    )  # fmt: skip
    html = html_of(found)
    written(options.out, pdf_of(html) if is_pdf else html.encode())
    head = found.head
    state = f"approved by {head.approved.who}" if head.is_final else f"DRAFT: {'; '.join(head.draft_because)}"
    lines = [
        f"{options.out}: plan revision {head.revision} of {head.case}, {state}",
        f"{len(found.screws)} screws, {len(found.paths)} paths, {len(found.steps)} cuts, resections and implants, "
        f"{len(found.views.cards)} views, {len(found.questions.open)} open questions",
    ]
    if found.views.note:
        lines.append(found.views.note)
    told(options, "\n".join(lines), {**found.result(), "out": str(options.out)})


def _check_writable(out: Path) -> None:
    """Refuses a place that cannot be written to, before the work is done."""
    if out.is_dir():
        raise ValueError(f"{out}: is a folder; name a file in it, such as {out / 'briefing.pdf'}")
    there = next(p for p in out.absolute().parents if p.exists())
    if not there.is_dir():
        raise ValueError(f"{out}: {there} is a file, not a folder; name another place with --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{out}: {there} cannot be written to; name another folder with --out")
