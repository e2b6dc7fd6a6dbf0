"""`fluoronav demo`."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from fluoronav.cli.arguments import add_verb, folder_to_write, port, positive
from fluoronav.cli.reporting import say
from fluoronav.paths import shipped


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    demo = add_verb(
        verbs,
        "demo",
        "run the whole loop on the embedded case or on yours, and write a picture and a report",
        _demo,
        "fluoronav demo",
        "fluoronav demo --seconds 10 --out out --no-display",
        "fluoronav demo --case or/P2KQX7",
    )
    demo.add_argument("--seconds", type=positive, default=20.0, help="duration of the stream, s")
    demo.add_argument(
        "--out", type=folder_to_write, default=Path("out"), metavar="FOLDER", help="folder for picture and report"
    )
    demo.add_argument(
        "--case", type=Path, metavar="CASE", help="case.yaml or its folder, such as `plan export --to case` writes"
    )
    demo.add_argument("--no-display", action="store_true", help="only write files; serve no page")
    demo.add_argument("--port", type=port, default=8765, help="port of the navigation display; 0 takes any free port")


def _demo(options: argparse.Namespace) -> int:
    from fluoronav.lab.demo import run_demo

    port = options.port
    if options.no_display or importlib.util.find_spec("aiohttp") is None:
        if not options.no_display:
            say("no page is served: it needs the extra `display`: pip install 'fluoronav[display]'")
        port = None
    failed = run_demo(shipped("launch/demo.yaml"), options.seconds, options.out, port, options.case)
    if failed:
        print(f"fluoronav demo: {failed}", file=sys.stderr)
    return 1 if failed else 0
