"""`fluoronav pacs fetch`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from fluoronav.cli.arguments import add_verb, positive
from fluoronav.cli.reporting import missing_extra, say
from fluoronav.paths import write_json

_LOOK_S = 0.2
_SAY_S = 2.0  # between lines of progress; chosen


def add_verbs(family: argparse._SubParsersAction) -> None:
    """Adds the verb to its family."""
    fetch = add_verb(
        family,
        "fetch",
        "have the running node fetch CT series from an archive; each becomes a case like one that was sent",
        _fetch,
        "fluoronav pacs fetch site/SITE.yaml --patient 4711",
        "fluoronav pacs fetch site/SITE.yaml --accession A-2026-17 --from pacs --json",
    )
    fetch.add_argument("site", nargs="?", type=Path, default=Path("SITE.yaml"), help="site file")
    what = fetch.add_mutually_exclusive_group(required=True)
    what.add_argument("--patient", metavar="ID", help="PatientID; the CT of the newest studies (`fetch.studies`)")
    what.add_argument("--accession", metavar="NO", help="accession number; all CT series of it")
    what.add_argument("--study", metavar="UID", help="StudyInstanceUID; all CT series of it")
    fetch.add_argument("--issuer", default="", metavar="NAME", help="issuer of the PatientID; the site's by default")
    fetch.add_argument("--from", dest="peer", metavar="PEER", help="peer of the site file; `fetch.peer` by default")
    fetch.add_argument("--wait", type=positive, default=600.0, metavar="S", help="seconds to wait at most")
    fetch.add_argument(
        "--json",
        type=Path,
        nargs="?",
        const=Path("-"),
        metavar="FILE",
        help="write what was fetched as JSON, to standard output without FILE",
    )


def _fetch(options: argparse.Namespace) -> int:
    from fluoronav.site.site_file import SiteError, load_site

    site = load_site(options.site)
    peer = options.peer or site.fetch.peer or site.results_to
    if peer not in site.peers:
        raise SiteError(f"{options.site}: has no peer {peer!r}; it has {', '.join(site.peers)}")
    try:
        from fluoronav.pacs.outgoing import open_fetches
        from fluoronav.pacs.peers import Wanted
        from fluoronav.pacs.status import read_status
    except ImportError as error:
        raise missing_extra("pacs", error) from error
    if not read_status(site)["node"]["running"]:
        raise SiteError(f"{options.site}: the node does not run: start it: fluoronav pacs serve {options.site}")
    if options.patient is not None:
        wanted = Wanted("patient", options.patient, options.issuer)
    elif options.accession is not None:
        wanted = Wanted("accession", options.accession)
    else:
        wanted = Wanted("study", options.study)
    fetches = open_fetches(site)
    number = fetches.add(wanted, peer, "command")
    progress = _waited(lambda: fetches.progress(number), options.wait)
    if options.json is not None:
        print(json.dumps(progress, indent=1)) if str(options.json) == "-" else write_json(progress, options.json)
    for s in progress["series"]:
        say(f"series {s['series']}: {_told(s)}")
    if progress["state"] == "done":
        return 1 if any(s["state"] in ("incomplete", "refused") for s in progress["series"]) else 0
    print(f"{peer}: {progress['reason'] or 'no answer yet'}", file=sys.stderr)
    if progress["state"] == "waiting":
        say("the node goes on trying; `fluoronav pacs status` says how it stands")
    return 1


def _waited(ask: Any, wait_s: float) -> dict[str, Any]:
    """Waits until a fetch has ended and its cases are made, or an attempt has failed; says how it goes on."""
    end, said_s, said = time.monotonic() + wait_s, 0.0, ""
    while True:
        progress = ask()
        failed = progress["state"] == "waiting" and progress["reason"]
        made = all(s["case"] or s["state"] in ("incomplete", "refused") for s in progress["series"])
        if failed or progress["state"] == "refused" or (progress["state"] == "done" and made):
            return progress
        here = sum(s["instances"] for s in progress["series"])
        text = f"{here} of {sum(s['expected'] or 0 for s in progress['series'])} instances are here"
        now = time.monotonic()
        if text != said and progress["series"] and now - said_s >= _SAY_S:
            say(text)
            said_s, said = now, text
        if now >= end:
            return progress
        time.sleep(_LOOK_S)


def _told(series: dict[str, Any]) -> str:
    of = f" of {series['expected']}" if series["expected"] else ""
    then = f", case {series['case']}" if series["case"] else ""
    why = f": {series['reason']}" if series["reason"] else ""
    return f"{series['state'] or 'not here yet'}, {series['instances']}{of} instances{then}{why}"
