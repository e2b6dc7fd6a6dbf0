"""Table of the cohort: its scenes, with the registration as it is and as it was."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fluoronav.lab.bench.cohort.report import described_rows
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
    scenes = list(dict.fromkeys(row[0] for row in rows))
    yield from sorted(rows, key=lambda row: scenes.index(row[0]))
