"""`fluoronav display`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fluoronav.cli.arguments import add_launch, add_serving, add_verb, not_negative
from fluoronav.cli.reporting import missing_extra

if TYPE_CHECKING:
    from fluoronav.display.screen_requests import Person


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    display = add_verb(
        verbs,
        "display",
        "serve the navigation display: a web page for any number of browsers, on the pipeline's computer or on "
        "another one (extra `display`)",
        _display,
        "fluoronav display launch/demo.yaml",
        "fluoronav display launch/demo.yaml --host 0.0.0.0 --port 8765 --allowed-host or1-display",
    )
    add_launch(display, positional=True)
    add_serving(display, 8765)
    display.add_argument(
        "--site", type=Path, default=None, metavar="SITE.yaml",
        help="site file of the PACS node on this computer: screens that control then show who the patient is; without "
        "it, and on screens that watch, the pseudonym is shown",
    )  # fmt: skip
    display.add_argument(
        "--user-minutes", type=not_negative, default=60.0, metavar="MIN",
        help="time after which a controlling screen asks again who uses it, min; 0 asks once",
    )  # fmt: skip
    display.add_argument(
        "--niceness", type=int, choices=range(20), default=10, metavar="0..19",
        help="priority that the server takes, as of nice(1); at 10 a pipeline on the same computer comes first",
    )  # fmt: skip


def _display(options: argparse.Namespace) -> None:
    try:
        from fluoronav.display.hub import Hub
        from fluoronav.display.place import take_what_is_left
        from fluoronav.display.server import DisplayServer
        from fluoronav.display.serving import serve
    except ImportError as error:
        raise missing_extra("display", error) from error
    from fluoronav.case import load_case
    from fluoronav.geometry import Camera
    from fluoronav.site.audit import AuditTrail
    from fluoronav.site.launch import load_launch

    launch = load_launch(options.launch)
    server = DisplayServer(
        Hub(launch.endpoints.out, launch.endpoints.frames), launch.endpoints.requests, Camera.load(launch.camera),
        lambda name: load_case(launch.cases.get(name, launch.case)), AuditTrail(launch.audit_folder, "display"),
        allowed_hosts=options.allowed_host, marks=launch.endpoints.marks, user_min=options.user_minutes,
        who=_who(options.site),
    )  # fmt: skip

    take_what_is_left(options.niceness)

    def started(at: int) -> None:
        address = f"http://{options.host}:{at}/"
        print(f"watch:   {address}\ncontrol: {address}?key={server.control_key}", flush=True)

    try:
        serve(server, options.host, options.port, started)
    except OSError as error:
        raise OSError(
            f"nothing can be served at {options.host}, port {options.port}: {error.strerror}; choose others by --host "
            "and --port"
        ) from error


def _who(site: Path | None) -> Callable[[str], Person]:
    """Who is behind a case, by the PACS node's table of identities; nobody without it."""
    from fluoronav.display.screen_requests import Person

    if site is None:
        return lambda case: Person()
    try:
        from fluoronav.pacs.who import Who
    except ImportError as error:
        raise missing_extra("pacs", error) from error
    from fluoronav.site.site_file import load_site

    who = Who(load_site(site))

    def of_case(case: str) -> Person:
        record = who.of_case(case)
        if record is None:
            return Person()
        date = record.birth_date
        born = f"{date[:4]}-{date[4:6]}-{date[6:8]}" if len(date) == 8 else date
        return Person(", ".join(part for part in record.name.split("^") if part), record.patient_id, born)

    return of_case
