"""`fluoronav audit verify`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fluoronav.cli.arguments import add_family, add_verb


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    family = add_family(verbs, "audit", "check audit trails", "fluoronav audit verify audit/")
    verify = add_verb(
        family,
        "verify",
        "check that no event of an audit trail was changed; the launch file names the folder",
        _verify,
        "fluoronav audit verify audit/",
        "fluoronav audit verify audit/pipeline.jsonl",
    )
    verify.add_argument("trails", type=Path, nargs="+", help="trail files, or folders that hold *.jsonl")


def _verify(options: argparse.Namespace) -> None:
    from fluoronav.site.audit import AuditError, TornTrail, verify_trail

    files = [f for t in options.trails for f in (sorted(t.glob("*.jsonl")) if t.is_dir() else [t])]
    if not files:
        raise AuditError(f"{options.trails[0]}: holds no trail (*.jsonl)")
    changed: AuditError | None = None
    for file in files:
        try:
            print(f"{file}: {verify_trail(file)} events, unchanged")
        except TornTrail as error:
            print(
                f"{file}: {error.events} events, unchanged; the line after them was not finished (crash or full disk)"
            )
        except AuditError as error:
            if changed is not None:
                print(changed, file=sys.stderr)
            changed = error
    if changed is not None:
        raise changed
