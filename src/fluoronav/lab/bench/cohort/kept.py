"""Exposures in a file: kept as they are measured, gone on with, and merged from several files."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from fluoronav.lab.bench.cohort.running import Row, Task
from fluoronav.paths import write_json

_DIGITS = 6  # chosen: enough to draw a pose again
_KEEP_EVERY_S = 20.0  # chosen: what an interruption costs at most, besides the exposure in work


def kept_rows(path: Path, people: list[tuple[str, ...]] | None = None) -> dict[Task, Row]:
    """The exposures of a file, by scene and seed.

    Parameters
    ----------
    path : Path
        JSON of `bench cohort`; a file that is not there has none.
    people : list of tuple, optional
        Who the exposures must be of: the seed makes an exposure of the people that there are.

    Raises
    ------
    ValueError
        It is no such file, or is of other people.
    """
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
        rows, names = found["rows"], found["settings"]["people"]
        kept = {(row["scene"], row["seed"]): row for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is no JSON of `bench cohort` ({type(error).__name__}: {error})") from error
    if people is not None and sorted(names) != sorted(p[0] for p in people):
        raise ValueError(
            f"{path}: holds exposures of {', '.join(names)}, not of {', '.join(p[0] for p in people)}; "
            "name the same patients with --ct, or another file"
        )
    return kept


def people_of(path: Path) -> list[str]:
    """Names of the people of a file that :func:`kept_rows` reads."""
    return json.loads(path.read_text())["settings"]["people"]


def merged(paths: Iterable[Path]) -> tuple[list[Row], list[str]]:
    """The exposures of several files, those of later files first where two have the same, and the people's names.

    Raises
    ------
    ValueError
        A file is missing or no JSON of the bench, or the files are of different people.
    """
    rows: dict[Task, Row] = {}
    names: list[str] = []
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path}: no such file")
        rows |= kept_rows(path, [(n,) for n in names] or None)
        names = people_of(path)
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
