"""`fluoronav pacs live|mark`."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from fluoronav.cli.arguments import add_verb, positive
from fluoronav.cli.reporting import missing_extra, say
from fluoronav.process_end import on_end_signals

_NICE = 10  # chosen: below whatever guides on the same computer


def add_verbs(family: argparse._SubParsersAction) -> None:
    """Adds the verbs to the family `pacs`."""
    live = add_verb(
        family,
        "live",
        "hear a live stream until SIGTERM or Ctrl-C, and put the results of marked and accepted moments, of a case's "
        "end and of recorded runs into the outbox; the node sends them",
        _live,
        "fluoronav pacs live site/SITE.yaml",
    )
    live.add_argument("site", nargs="?", type=Path, default=Path("SITE.yaml"), help="site file")
    mark = add_verb(
        family,
        "mark",
        "keep the frame that the display shows now: as an X-ray image, with its overlay (GSPS, SC) and a report (SR)",
        _mark,
        "fluoronav pacs mark site/SITE.yaml --note wire",
        "fluoronav pacs mark site/SITE.yaml --accepted-by Who^Ever",
    )
    mark.add_argument("site", nargs="?", type=Path, default=Path("SITE.yaml"), help="site file")
    mark.add_argument("--note", default="", metavar="TEXT", help="what a person is to know about it; in the report")
    mark.add_argument(
        "--accepted-by", default="", metavar="NAME", help="person who accepts it, FAMILY^GIVEN; without it, a DRAFT"
    )
    mark.add_argument("--organization", default="", metavar="NAME", help="that person's organization")
    mark.add_argument("--wait", type=positive, default=30.0, metavar="S", help="seconds to wait for the answer")


def _live(options: argparse.Namespace) -> None:
    from fluoronav.site.site_file import load_site

    site = load_site(options.site)
    try:
        from fluoronav.pacs.live import Live
    except ImportError as error:
        raise missing_extra("pacs", error) from error
    if hasattr(os, "nice"):
        os.nice(_NICE)
    logging.getLogger("fluoronav").setLevel(logging.INFO)
    live = Live(site)
    on_end_signals(lambda _number: live.stop())
    say(f"hearing {site.live.source} at {site.live.out}; results go to {site.results_to}")
    live.run()
    say("ended")


def _mark(options: argparse.Namespace) -> None:
    from fluoronav.site.site_file import load_site

    site = load_site(options.site)
    try:
        from fluoronav.pacs.live_results import Mark
        from fluoronav.pacs.marks import ask
    except ImportError as error:
        raise missing_extra("pacs", error) from error
    answer = ask(site.live.marks, Mark(options.note, options.accepted_by, options.organization), options.wait)
    print(f"frame {answer.seq}, {answer.age_s:.1f} s old: {answer.objects} objects for {site.results_to}")
