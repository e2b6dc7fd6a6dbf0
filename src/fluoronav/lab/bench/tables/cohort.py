"""Tables of the cohort: its scenes, with the registration as it is and as it was, and what must not be believed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fluoronav.lab.bench.cohort.report import ALL, described, described_rows
from fluoronav.lab.bench.cohort.scenes import BY_NAME
from fluoronav.lab.bench.cohort.wrong_bench import HEADER, described_kinds
from fluoronav.lab.bench.tables.pages import Row, read, table

# Files, and what their rows are called; the second is left out until it is measured.
_MEASURED = (("epyc-zen4/cohort-before", "before"), ("epyc-zen4/cohort", "now"))


@table("cohort")
def _cohort(bench: Path) -> Iterable[Row]:
    yield (
        "scene",
        "registration",
        "believed",
        "wrong, believed",
        "across the ray, mm",
        "rotation, deg",
        "bound, mm",
        "bounds hold: across, space, rotation",
    )
    rows = [
        (scene, when, *cells)
        for name, when in _MEASURED
        if (bench / f"{name}.json").exists()
        for scene, *cells in described_rows(read(bench, name))
    ]
    there = {row[0] for row in rows}
    scenes = [what for name in BY_NAME if (what := described(name)) in there] + [ALL]
    yield from sorted(rows, key=lambda row: scenes.index(row[0]))


@table("cohort-wrong")
def _wrong(bench: Path) -> Iterable[Row]:
    yield HEADER
    yield from described_kinds(read(bench, "epyc-zen4/cohort-wrong"))
