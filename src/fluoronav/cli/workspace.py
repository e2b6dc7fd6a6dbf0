"""`fluoronav workspace`."""

from __future__ import annotations

import argparse
import getpass
import json
import os
from pathlib import Path
from typing import Any

from fluoronav.cli.arguments import add_serving, add_verb
from fluoronav.cli.reporting import missing_extra, say
from fluoronav.paths import write_json

_NICE = 5  # chosen: below whatever guides on the same computer
_FEEDBACK = "feedback"


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    workspace = add_verb(
        verbs,
        "workspace",
        "serve the page for planning and review before surgery; with `feedback CASES`, say instead how much of each "
        "engine's segmentation people changed (extra `planning`)",
        _workspace,
        "fluoronav workspace --cases cases/ --user ada",
        "fluoronav workspace SITE.yaml --user ada --user ben --host 0.0.0.0 --allowed-host planning1",
        "fluoronav workspace feedback cases/ --json feedback.json",
    )
    workspace.add_argument(
        "site", nargs="?", metavar="SITE.yaml", help="site file, which names the case store; or the word `feedback`"
    )
    workspace.add_argument("folder", nargs="?", type=Path, metavar="CASES", help="case store of `feedback`")
    workspace.add_argument("--cases", type=Path, metavar="FOLDER", help="case store: a folder with a folder per case")
    workspace.add_argument(
        "--instruments",
        type=Path,
        metavar="FILE",
        help="YAML with the operating room's `tools` (mm) and `tracker`, which exported cases name (default: "
        "`instruments` of the site file)",
    )
    workspace.add_argument(
        "--user",
        action="append",
        default=[],
        metavar="NAME",
        help="who works here, and signs what is edited and approved; may be repeated, and each gets an address with a "
        "key of their own (default: this computer's user)",
    )
    add_serving(workspace, 8090)
    workspace.add_argument(
        "--json",
        type=Path,
        nargs="?",
        const=Path("-"),
        metavar="FILE",
        help="write the feedback as JSON, to standard output without FILE",
    )


def _workspace(options: argparse.Namespace) -> None:
    if options.site == _FEEDBACK:
        _feedback(options)
        return
    if options.folder is not None or options.json is not None:
        raise ValueError("CASES and --json are of `fluoronav workspace feedback CASES`")
    root, instruments = _store_and_instruments(options)
    try:
        from fluoronav.display.serving import serve
        from fluoronav.workspace.people import FOLDER, People
        from fluoronav.workspace.server import WorkspaceServer
    except ImportError as error:
        raise missing_extra("planning", error) from error
    from fluoronav.workspace.cases import CaseStore

    if hasattr(os, "nice"):
        os.nice(_NICE)
    people = People(options.user or [getpass.getuser()], root / FOLDER / "keys.json")
    server = WorkspaceServer(CaseStore(root), people, options.allowed_host, instruments)

    def started(at: int) -> None:
        for user, key in people.keys.items():
            print(f"{user}: http://{options.host}:{at}/?key={key}", flush=True)
        say(f"{len(server.desk.store.names())} cases in {root}")

    serve(server, options.host, options.port, started)


def _store_and_instruments(options: argparse.Namespace) -> tuple[Path, Path | None]:
    """The case store, and the file of the room's instruments, which is read once so that a wrong one is said now."""
    if (options.site is None) == (options.cases is None):
        raise ValueError("name either a site file or `--cases FOLDER`")
    instruments = options.instruments
    if options.cases is not None:
        if not options.cases.is_dir():
            raise ValueError(f"{options.cases}: no such folder; `fluoronav pacs serve` fills a case store")
        root = options.cases.resolve()
    else:
        from fluoronav.site.site_file import load_site

        site = load_site(options.site)
        root, instruments = site.cases, instruments or site.instruments
    if instruments is None:
        return root, None
    from fluoronav.case.instruments import read_instruments

    read_instruments(instruments)
    return root, instruments.resolve()


def _feedback(options: argparse.Namespace) -> None:
    try:
        from fluoronav.workspace.feedback import feedback
    except ImportError as error:
        raise missing_extra("planning", error) from error
    if options.folder is None or not options.folder.is_dir():
        raise ValueError(f"{options.folder or 'feedback'}: name the folder of the case store")
    found = feedback(options.folder)
    if options.json == Path("-"):
        print(json.dumps(found, indent=1))
        return
    print(_table(found))
    if options.json is not None:
        write_json(found, options.json)


def _table(found: dict[str, Any]) -> str:
    """The feedback for people: the share of an engine's voxels that people added or removed."""
    lines = [f"{'engine':<12} {'structure':<28} {'cases':>5} {'approved':>8} {'changed':>8}"]
    lines += [
        f"{r['engine']:<12} {r['structure']:<28} {r['cases']:>5} {r['approved']:>8} {_percent(r['share_changed']):>8}"
        for r in found["structures"]
    ]
    return "\n".join(lines) if found["structures"] else "nobody has edited or judged an engine's segmentation yet"


def _percent(share: float) -> str:
    """A share with one decimal; what is more than nothing is never shown as nothing."""
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"
