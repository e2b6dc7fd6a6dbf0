"""`fluoronav bench planning`."""

from __future__ import annotations

import argparse

from fluoronav.cli.arguments import add_data, add_json, add_verb
from fluoronav.cli.reporting import missing_extra, report, say
from fluoronav.lab.bench.planning.bench import PARTS, bench_planning, table


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    planning = add_verb(
        verbs,
        "planning",
        "measure the planning on real CTs and hand-drawn masks: overlap of segmentations (Dice, mm), screws graded, "
        "axes (degrees, mm), meshes, predicted errors of views (mm), times (s)",
        _planning,
        "fluoronav bench planning --json out/planning.json",
        "fluoronav bench planning --only screws",
    )
    planning.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="measure these parts only")
    add_data(planning, "planning/ and chest/")
    add_json(planning, "out/planning.json")


def _planning(options: argparse.Namespace) -> int:
    if not options.data.is_dir():
        raise ValueError(f"{options.data}: no such folder; name the folder of real data with --data")
    try:
        result = bench_planning(options.only, options.data, say)
    except ImportError as error:
        raise missing_extra("planning", error) from error
    report(table(result), result, options.json)
    print(f"written: {options.json}")
    return 0
