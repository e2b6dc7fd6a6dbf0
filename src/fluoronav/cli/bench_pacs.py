"""`fluoronav bench pacs`."""

from __future__ import annotations

import argparse

from fluoronav.cli.arguments import add_json, add_launch, add_verb, at_least_one, positive
from fluoronav.cli.reporting import missing_extra, report, say

# Those of fluoronav.lab.bench.pacs.bench, which needs the extra `pacs`.
_PARTS = ("receive", "objects", "crash", "outage", "stream")


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    pacs = add_verb(
        verbs,
        "pacs",
        "measure the PACS node beside a real archive (Orthanc): time to take a series and to its first results, s; "
        "time to write segmentations, s; memory, MB; what ten crashes lose, and an archive that is down; and what it "
        "costs the live stream, ms (takes about twenty minutes)",
        _pacs,
        "fluoronav bench pacs --json out/pacs.json",
        "fluoronav bench pacs --only receive objects",
        "fluoronav bench pacs --only outage --minutes 10",
        "fluoronav bench pacs --only stream --frames 900 --pairs 3",
    )
    pacs.add_argument("--only", nargs="+", choices=_PARTS, default=list(_PARTS), help="measure these parts only")
    pacs.add_argument(
        "--runs", type=at_least_one, default=3, help="series that are sent and timed, after one to warm up"
    )
    pacs.add_argument(
        "--minutes", type=positive, default=10.0, metavar="MIN", help="for which the archive is down in `outage`"
    )
    add_launch(pacs)
    pacs.add_argument("--stages", nargs="+", metavar="STAGE", help="stages to run instead of the launch file's")
    pacs.add_argument(
        "--frames", type=at_least_one, default=900, help="frames of one run of the live stream, at 30 a second"
    )
    pacs.add_argument(
        "--pairs", type=at_least_one, default=2, help="runs of the live stream alone, and as many beside the node"
    )
    add_json(pacs, "out/pacs.json")


def _pacs(options: argparse.Namespace) -> int:
    from fluoronav.site.launch import load_launch

    launch = load_launch(options.launch, **({"stages": options.stages} if options.stages else {}))
    try:
        from fluoronav.lab.bench.pacs.bench import bench_pacs, table
    except ImportError as error:
        raise missing_extra("pacs", error) from error
    runs, pairs = max(options.runs, 1), max(options.pairs, 1)
    result = bench_pacs(options.only, launch, runs, options.frames, pairs, options.minutes, say)
    report(table(result), result, options.json)
    print(f"written: {options.json}")
    return 1 if result["lost"] or result["doubled"] else 0
