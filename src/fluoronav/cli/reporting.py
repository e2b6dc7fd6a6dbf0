"""What verbs print: progress, tables of figures, a missing extra."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from fluoronav.paths import write_json


def say(text: str) -> None:
    """Prints progress to standard error, so that standard output holds the result alone."""
    print(text, file=sys.stderr, flush=True)


def report(table: str, result: Any, path: Path) -> None:
    """Prints a table and writes the same result as JSON."""
    print(table)
    write_json(result, path)


def missing_extra(extra: str, error: ImportError) -> RuntimeError:
    """The error of a verb whose optional packages are not installed."""
    return RuntimeError(f"needs the extra `{extra}`: pip install 'fluoronav[{extra}]' ({error})")


def summary(counts: dict[str, int]) -> str:
    """Counts as one line: "12 IMAGE, 3 STRING"."""
    return ", ".join(f"{n} {what}" for what, n in counts.items()) or "nothing sent"
