"""`fluoronav run`."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from fluoronav.cli.arguments import add_verb


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    run = add_verb(
        verbs,
        "run",
        "run the pipeline that a launch file describes, until SIGTERM or Ctrl-C",
        _run,
        "fluoronav run launch/demo.yaml",
    )
    run.add_argument("launch", type=Path, help="launch file (YAML), for example launch/demo.yaml")


def _run(options: argparse.Namespace) -> None:
    from fluoronav.site.launch import load_launch
    from fluoronav.stream.pipeline.service import Service

    launch = load_launch(options.launch)
    Service(launch, logging.getLogger("fluoronav").info).run()
