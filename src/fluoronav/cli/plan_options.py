"""Options that verbs of `fluoronav plan` share, and what they mean."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fluoronav.cli.arguments import CASE_HELP
from fluoronav.paths import embedded_case, write_json


def add_json_option(parser: argparse.ArgumentParser, what: str) -> None:
    """``--json [FILE]``: JSON to standard output instead of the table, or to a file beside it."""
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE",
        help=f"write {what} as JSON to this file; without FILE, print JSON instead of the table",
    )  # fmt: skip


def told(options: argparse.Namespace, table: str, result: dict[str, Any]) -> None:
    """Prints the table, or the JSON that was asked for."""
    import json

    if options.json == "-":
        print(json.dumps(result, indent=1))
        return
    print(table)
    if options.json:
        write_json(result, Path(options.json))


def case_file_of(name: str) -> Path:
    """The case file that a CASE on the command line means."""
    path = embedded_case() if name == "embedded" else Path(name)
    return path / "case.yaml" if path.is_dir() else path


def add_plan(parser: argparse.ArgumentParser) -> None:
    """The plan, and the case that it belongs to."""
    parser.add_argument(
        "plan", type=Path, metavar="PLAN",
        help="a plan.yaml, a revision of it (plan/0003.yaml), or the folder of a case with a plan",
    )  # fmt: skip
    parser.add_argument(
        "--case", metavar="CASE", help=f"the case, where the plan does not lie in its folder: {CASE_HELP}"
    )


def plan_and_case(options: argparse.Namespace) -> tuple[Path, Path]:
    """The plan's file and the case's."""
    from fluoronav.planning.plan.planned import case_file_of_plan, plan_file

    plan = plan_file(options.plan)
    return plan, case_file_of(options.case) if options.case else case_file_of_plan(plan)
