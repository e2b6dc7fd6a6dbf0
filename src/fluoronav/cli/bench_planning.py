"""`fluoronav bench planning`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fluoronav.cli.arguments import add_data, add_json, add_verb
from fluoronav.cli.reporting import missing_extra, report, say
from fluoronav.lab.bench.planning.bench import NETWORK, PARTS, bench_planning, table


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    planning = add_verb(
        verbs,
        "planning",
        "measure the planning on real CTs and hand-drawn masks: overlap of segmentations (Dice, mm), screws graded, "
        "axes (degrees, mm), meshes, predicted errors of views (mm), times (s)",
        _planning,
        "fluoronav bench planning --json out/planning.json",
        "fluoronav bench planning --only screws",
        "fluoronav bench planning --only network --model out/spine --json out/network.json",
    )
    planning.add_argument(
        "--only", nargs="+", choices=(*PARTS, NETWORK), help="measure these parts only (all but network)"
    )
    planning.add_argument(
        "--model",
        type=Path,
        metavar="FOLDER",
        help="folder of a network and its card: the part network compares its vertebrae with the atlas's",
    )
    add_data(planning, "planning/ and chest/")
    add_json(planning, "out/planning.json")


def _planning(options: argparse.Namespace) -> int:
    if not options.data.is_dir():
        raise ValueError(f"{options.data}: no such folder; name the folder of real data with --data")
    try:
        only = options.only or [*PARTS, *([NETWORK] if options.model else [])]
        result = bench_planning(only, options.data, say, options.model)
    except ImportError as error:
        raise missing_extra("planning", error) from error
    report(table(result), result, options.json)
    print(f"written: {options.json}")
    return 0
