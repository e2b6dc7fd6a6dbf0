"""Exposures in a file: kept as they are measured, gone on with, and merged from several files."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fluoronav.lab.bench.cohort.running import Row, Task
from fluoronav.paths import write_json

_DIGITS = 6  # chosen: enough to draw a pose again
_KEEP_EVERY_S = 20.0  # chosen: what an interruption costs at most, besides the exposure in work


STILLS = "stills"  # in the JSON's settings: exposures of the scenes


def kept_rows(path: Path, people: list[tuple[str, ...]] | None = None, what: str = STILLS) -> dict[Task, Row]:
    """The exposures of a file, by scene and seed.

    Parameters
    ----------
    path : Path
        JSON of `bench cohort`; a file that is not there has none.
    people : list of tuple, optional
        Who the exposures must be of: the seed makes an exposure of the people that there are.
    what : str
        Of which bench they must be.

    Raises
    ------
    ValueError
        It is no such file, or is of other people or of another bench.
    """
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
        rows, names, of = found["rows"], found["settings"]["people"], found["settings"].get("what", STILLS)
        kept = {(row["scene"], row["seed"]): row for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is no JSON of `bench cohort` ({type(error).__name__}: {error})") from error
    if of != what:
        raise ValueError(f"{path}: holds exposures of `{of}`, not of `{what}`; name another file")
    if people is not None and sorted(names) != sorted(p[0] for p in people):
        raise ValueError(
            f"{path}: holds exposures of {', '.join(names)}, not of {', '.join(p[0] for p in people)}; "
            "name the same patients with --ct, or another file"
        )
    return kept


def what_of(path: Path) -> str:
    """Of which bench the exposures of a file are."""
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    try:
        return json.loads(path.read_text())["settings"].get("what", STILLS)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: is no JSON of `bench cohort` ({type(error).__name__}: {error})") from error


def merged(paths: Sequence[Path]) -> tuple[list[Row], list[str]]:
    """The exposures of several files, of equal ones that of the last file, and the people's names.

    Raises
    ------
    ValueError
        A file is missing or no JSON of the bench, or the files are of different people or benches.
    """
    rows: dict[Task, Row] = {}
    names: list[str] = []
    for path in paths:
        rows |= kept_rows(path, [(n,) for n in names] or None, what_of(paths[0]))
        names = json.loads(path.read_text())["settings"]["people"]
    return list(rows.values()), names


def keeping(
    rows: list[Row], news: Iterator[list[Row]], result: Callable[[], dict[str, Any]], path: Path | None
) -> None:
    """Adds new rows to `rows`; where there is a file, writes the result to it every 20 s and at the end.

    An interruption, also one by an error, leaves what was measured until then in the file.
    """
    written = time.monotonic()
    try:
        for some in news:
            rows += map(rounded, some)
            if path is not None and time.monotonic() - written > _KEEP_EVERY_S:
                replace_json(result(), path)
                written = time.monotonic()
    finally:
        if path is not None and rows:
            replace_json(result(), path)


def replace_json(result: dict[str, Any], path: Path) -> None:
    """Writes JSON beside the file and puts it in its place, so that no broken file is left."""
    new = path.with_name(f"{path.name}.new")
    write_json(result, new)
    new.replace(path)


def rounded(value: Any) -> Any:
    """A row with its numbers rounded to six digits."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return value
