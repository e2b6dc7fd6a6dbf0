"""`fluoronav plan check`."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict

from fluoronav.cli.arguments import add_verb
from fluoronav.cli.plan_options import add_json_option, add_plan, plan_and_case, told

_FAULTY = ("unsafe", "stale", "open")


def add_verbs(family: argparse._SubParsersAction) -> None:
    """Adds the verb to its family."""
    check = add_verb(
        family,
        "check",
        "say everything that makes a plan unsafe or stale: another CT, changed labels or frame of reference, breaches, "
        "clearances (mm) to nerves and vessels, collisions, tips outside the CT, flags that nobody acknowledged, no "
        "approval; exit status 1 when there is any",
        _check,
        "fluoronav plan check cases/P2KQX7/plan.yaml",
        "fluoronav plan check plan.yaml --case embedded --json out/check.json",
    )
    add_plan(check)
    add_json_option(check, "the findings")


def _check(options: argparse.Namespace) -> int:
    from fluoronav.planning.checks.checks import check
    from fluoronav.planning.checks.clearance import neighbours_of
    from fluoronav.planning.plan.file import read_plan
    from fluoronav.planning.plan.source import read_source
    from fluoronav.planning.revisions import Revisions

    plan_file, case_file = plan_and_case(options)
    plan = read_plan(plan_file)
    source = read_source(case_file)
    newest = Revisions(case_file.parent).newest()
    found = check(plan, plan_file, source, neighbours_of(source.file, newest.structures if newest else None))
    counts = Counter(f.severity for f in found)
    ok = not any(counts[s] for s in _FAULTY)
    result = {"ok": ok, "revision": plan.revision, "state": plan.state, "findings": [asdict(f) for f in found]}
    lines = [f"{f.severity:7} {f.item + ': ' if f.item else 'the plan '}{f.text}" for f in found]
    lines.append(
        "the plan may be used"
        if ok
        else f"not to be used: {', '.join(f'{counts[s]} {s}' for s in _FAULTY if counts[s])}"
    )
    told(options, "\n".join(lines), result)
    return 0 if ok else 1
