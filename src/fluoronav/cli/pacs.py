"""`fluoronav pacs serve|send|fetch|retry|status`; `live` and `mark` are in `pacs_live`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from fluoronav.cli import pacs_fetch, pacs_live
from fluoronav.cli.arguments import add_family, add_verb, positive
from fluoronav.cli.reporting import missing_extra, say
from fluoronav.paths import write_json
from fluoronav.process_end import until_stopped

_NICE = 10  # chosen: below whatever guides on the same computer


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    family = add_family(
        verbs, "pacs", "take images in from scanners and PACS, send results back", "fluoronav pacs serve site/SITE.yaml"
    )
    serve = add_verb(
        family,
        "serve",
        "run the node until SIGTERM or Ctrl-C: receive series, make cases of them, send what waits",
        _serve,
        "fluoronav pacs serve site/SITE.yaml",
    )
    _add_site(serve)
    send = add_verb(
        family,
        "send",
        "put DICOM files into the outbox; the running node sends them, now or when the archive is back",
        _send,
        "fluoronav pacs send results/ --site site/SITE.yaml",
        "fluoronav pacs send ct/ --to node --wait 60",
    )
    send.add_argument("files", nargs="+", type=Path, help="DICOM files, or folders with all below them")
    send.add_argument("--site", type=Path, default=Path("SITE.yaml"), metavar="FILE", help="site file")
    send.add_argument("--to", metavar="PEER", help="peer of the site file; `results_to` by default")
    send.add_argument("--wait", type=positive, metavar="S", help="wait for the outbox to be empty, at most S seconds")
    pacs_fetch.add_verbs(family)
    pacs_live.add_verbs(family)
    retry = add_verb(
        family,
        "retry",
        "judge anew the series that are incomplete or were refused; send and fetch now what waits or was refused",
        _retry,
        "fluoronav pacs retry site/SITE.yaml",
    )
    _add_site(retry)
    status = add_verb(
        family,
        "status",
        "say what came, what waits and why; exit status 0 while the node runs and nothing was refused",
        _status,
        "fluoronav pacs status site/SITE.yaml",
        "fluoronav pacs status site/SITE.yaml --json status.json",
    )
    _add_site(status)
    status.add_argument(
        "--json",
        type=Path,
        nargs="?",
        const=Path("-"),
        metavar="FILE",
        help="write it as JSON, to standard output without FILE",
    )


def _add_site(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("site", nargs="?", type=Path, default=Path("SITE.yaml"), help="site file")


def _serve(options: argparse.Namespace) -> None:
    from fluoronav.site.site_file import load_site

    site = load_site(options.site)
    try:
        from fluoronav.pacs.node import Node
    except ImportError as error:
        raise missing_extra("pacs", error) from error
    if hasattr(os, "nice"):
        os.nice(_NICE)
    ended = until_stopped()  # before it listens: who sees it listen may end it
    node = Node(site)
    node.start()
    titles = ", ".join(f"{title} ({workflow})" for title, workflow in site.node.titles.items())
    say(f"listening on {site.node.host}:{site.node.port} as {titles}{'' if site.node.tls else ', WITHOUT TLS'}")
    ended.wait()
    say("ending")
    node.stop()


def _send(options: argparse.Namespace) -> int:
    from fluoronav.site.site_file import SiteError, load_site

    site = load_site(options.site)
    peer = options.to or site.results_to
    if peer not in site.peers:
        raise SiteError(f"{options.site}: has no peer {peer!r}; it has {', '.join(site.peers)}")
    try:
        from fluoronav.pacs.outgoing import open_outbox
    except ImportError as error:
        raise missing_extra("pacs", error) from error
    outbox = open_outbox(site)
    files = [f for path in options.files for f in _files(path)]
    faults = []
    new = 0
    for file in files:
        try:
            new += outbox.add(file, peer)
        except ValueError as error:
            faults.append(error)
    say(f"{new} of {len(files)} files were put into the outbox for {peer}")
    for fault in faults:
        print(fault, file=sys.stderr)
    end = time.monotonic() + (options.wait or 0)
    while outbox.left() and time.monotonic() < end:
        time.sleep(0.1)
    if options.wait and outbox.left():
        say(f"{outbox.left()} instances still wait; `fluoronav pacs status` says why")
        return 1
    return 1 if faults else 0


def _retry(options: argparse.Namespace) -> None:
    from fluoronav.site.site_file import load_site

    site = load_site(options.site)
    try:
        from fluoronav.pacs.outgoing import open_arrivals, open_fetches, open_outbox
    except ImportError as error:
        raise missing_extra("pacs", error) from error
    print(
        f"{open_arrivals(site).retry()} series are judged anew, {open_outbox(site).retry()} instances are sent anew, "
        f"{open_fetches(site).retry()} fetches are made anew"
    )


def _files(path: Path) -> list[Path]:
    """The files of a folder, but for DICOMDIR, which is an index; or the file."""
    if not path.is_dir():
        return [path]
    return sorted(p for p in path.rglob("*") if p.is_file() and p.name.upper() != "DICOMDIR")


def _status(options: argparse.Namespace) -> int:
    from fluoronav.site.site_file import load_site

    site = load_site(options.site)
    try:
        from fluoronav.pacs.status import read_status, told
    except ImportError as error:
        raise missing_extra("pacs", error) from error
    status = read_status(site)
    if options.json is None:
        print(told(status))
    elif str(options.json) == "-":
        print(json.dumps(status, indent=1))
    else:
        write_json(status, options.json)
    refused = any(o["state"] == "refused" for o in status["outbox"])
    return 0 if status["node"]["running"] and not refused and not status["live"]["refused"] else 1
