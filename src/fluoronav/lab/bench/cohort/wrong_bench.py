"""Runs the pictures that must not be believed, and counts those that are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from scipy.stats import beta

from fluoronav.lab import machine
from fluoronav.lab.bench.cohort.kept import keeping, kept_rows
from fluoronav.lab.bench.cohort.running import Row, rows_of
from fluoronav.lab.bench.cohort.wrong import KINDS, measured_wrong, tasks

WHAT = "wrong"  # in the JSON's settings: exposures of this module


def bench_wrong(
    n: int, seed: int, people: list[tuple[str, ...]], scheduler: str | None, workers: int,
    say: Callable[[str], None] = lambda text: None, into: Path | None = None,
    real: Sequence[Path] = (),
) -> dict[str, Any]:  # fmt: skip
    """Shows `n` pictures of an endless row of them, which the people decide.

    Parameters
    ----------
    n, seed : int
        How many, and the number of the first.
    people, scheduler, workers, say, into
        As for :func:`fluoronav.lab.bench.cohort.bench.bench_cohort`.
    real : sequence of Path
        Real pictures of somebody else, which a cluster's workers read, too.

    Returns
    -------
    dict
        See :func:`wrong_result`.
    """
    rows = list(kept_rows(into, people, WHAT).values()) if into else []
    units = tasks(seed, n, people, {(r["scene"], r["seed"]) for r in rows}, bool(real))
    names = [p[0] for p in people]
    if rows:
        say(f"{into}: goes on after {len(rows)} pictures")
    news = rows_of(units, partial(measured_wrong, real=real), people, scheduler, workers, say)
    keeping(rows, news, lambda: wrong_result(rows, names), into)
    return wrong_result(rows, names)


def wrong_result(rows: list[Row], people: list[str]) -> dict[str, Any]:
    """The bench's JSON of some pictures.

    Returns
    -------
    dict
        ``kinds`` by name, ``cases`` by person, region and whether there is a label map, ``all``; each with ``n``,
        ``believed``, ``wrong_believed``, ``right_believed`` and ``wrong_at_most`` (upper end of the one-sided 95 %
        interval of the share, Clopper and Pearson 1934); ``rows``, ``settings`` and ``machine``.
    """
    rows = sorted(rows, key=lambda r: r["seed"])
    return {
        "kinds": {
            k: _summary([r for r in rows if r["scene"] == k]) for k in KINDS if any(r["scene"] == k for r in rows)
        },
        "cases": {c: _summary([r for r in rows if _case(r) == c]) for c in dict.fromkeys(map(_case, rows))},
        "all": _summary(rows),
        "settings": {"what": WHAT, "people": people},
        "machine": machine.description(),
        "rows": rows,
    }


def _case(row: Row) -> str:
    return ", ".join(filter(None, (row["case_person"], row["case_region"], row["given"])))


def _summary(rows: list[Row]) -> dict[str, Any]:
    wrong, n = sum(r["wrong_believed"] for r in rows), len(rows)
    return {
        "n": n,
        "believed": sum(r["believed"] for r in rows),
        "wrong_believed": wrong,
        "right_believed": sum(r["believed"] and not r["wrong_believed"] for r in rows),
        "wrong_at_most": float(beta.ppf(0.95, wrong + 1, n - wrong)) if wrong < n else 1.0,
        "reasons": dict(Counter(r["reason"] for r in rows if r["reason"]).most_common()),
    }


def described_kinds(result: dict[str, Any]) -> Iterable[tuple[str, ...]]:
    """Rows for tables: what is shown, how many, wrong and believed, at most, right and believed."""
    for name, s in result["kinds"].items():
        yield f"`{name}`: {KINDS[name]}", *_cells(s)
    for name, s in result["cases"].items():
        yield f"case: {name}", *_cells(s)
    yield "all", *_cells(result["all"])


def _cells(s: dict[str, Any]) -> tuple[str, ...]:
    return str(s["n"]), str(s["wrong_believed"]), f"{100 * s['wrong_at_most']:.2g} %", str(s["right_believed"])


HEADER = ("shown", "n", "wrong, believed", "share at most (95 %)", "right, believed")


def wrong_table(result: dict[str, Any]) -> str:
    """The counts as text, and each picture that was believed wrongly."""
    lines = [
        f"{row[0]:76}{row[1]:>6}{row[2]:>17}{row[3]:>22}{row[4]:>17}" for row in (HEADER, *described_kinds(result))
    ]
    for r in result["rows"]:
        if r["wrong_believed"]:
            error = f", {r['across_mm']:.1f} mm across" if "across_mm" in r else ""
            lines.append(
                f"wrong: {r['scene']}, seed {r['seed']}: {r['person']} {r['region']} with the case {_case(r)}, score "
                f"{r['score']:.2f}{error}, bound {r['bound_mm']:.2f} mm"
            )
    return "\n".join(lines)
