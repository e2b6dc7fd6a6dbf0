"""Runs the cohort: every exposure is a task of its own, on this computer's cores or on a cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fluoronav.lab import machine
from fluoronav.lab.bench.cohort.kept import STILLS, keeping, kept_rows
from fluoronav.lab.bench.cohort.registering import measured
from fluoronav.lab.bench.cohort.render import cast
from fluoronav.lab.bench.cohort.report import summaries
from fluoronav.lab.bench.cohort.running import Row, rows_of
from fluoronav.lab.bench.cohort.scenes import BY_NAME, Scene


def bench_cohort(
    scenes: list[Scene], frames: int, seed: int, people: list[tuple[str, ...]], scheduler: str | None, workers: int,
    say: Callable[[str], None] = lambda text: None, into: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Renders and registers exposures of scenes.

    Parameters
    ----------
    scenes : list of Scene
    frames : int
        Of each scene.
    seed : int
        Of the first frame; the others follow.
    people : list of tuple
        As for :func:`fluoronav.lab.bench.cohort.render.render`; a cluster's workers read the same paths.
    scheduler : str or None
        Address of a Dask scheduler: "tcp://host:8786"; None: processes of this computer.
    workers : int
        Processes of this computer; 1 runs everything in this process.
    say : callable
        Takes a text for each step.
    into : Path, optional
        JSON of such a run: what it has is not measured again, and it gets what is measured.

    Returns
    -------
    dict
        Of all exposures, with those of `into`: see :func:`result_of`.
    """
    rows = list(kept_rows(into, people).values()) if into else []
    have = {(r["scene"], r["seed"]) for r in rows}
    left_out: dict[str, str] = {}
    units = []
    for scene in scenes:
        try:
            cast(scene, seed, people)
        except ValueError as error:
            left_out[scene.name] = str(error)
            say(f"left out: {error}")
            continue
        units += [[(scene.name, s)] for s in range(seed, seed + frames) if (scene.name, s) not in have]

    def result() -> dict[str, Any]:
        return result_of(rows, [p[0] for p in people], left_out)

    keeping(rows, rows_of(units, measured, people, scheduler, workers, say), result, into)
    return result()


def result_of(rows: list[Row], people: list[str], left_out: dict[str, str] | None = None) -> dict[str, Any]:
    """The bench's JSON of some exposures.

    Returns
    -------
    dict
        ``scenes`` by name, ``all``, ``left_out`` (scenes that none of the people shows, with the reason), ``rows`` in
        the order of scenes and seeds, ``settings`` and ``machine``.
    """
    order = {name: k for k, name in enumerate(BY_NAME)}
    rows = sorted(rows, key=lambda r: (order.get(r["scene"], len(order)), r["seed"]))
    return {
        **summaries(rows),
        "left_out": left_out or {},
        "settings": {"what": STILLS, "people": people},
        "machine": machine.description(),
        "rows": rows,
    }
