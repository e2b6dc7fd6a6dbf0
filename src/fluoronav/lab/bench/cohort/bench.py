"""Runs the cohort: every exposure is a task of its own, on this computer's cores or on a cluster."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from fluoronav.lab import machine
from fluoronav.lab.bench.cohort.people import person_of
from fluoronav.lab.bench.cohort.registering import measured, one_thread
from fluoronav.lab.bench.cohort.render import cast
from fluoronav.lab.bench.cohort.report import summaries
from fluoronav.lab.bench.cohort.scenes import Scene

_START_S = 60.0  # for a scheduler to answer; chosen: a batch system has started it by then


def bench_cohort(
    scenes: list[Scene], frames: int, seed: int, people: list[tuple[str, ...]], scheduler: str | None, workers: int,
    say: Callable[[str], None] = lambda text: None,
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

    Returns
    -------
    dict
        ``scenes`` by name, ``all``, ``left_out`` (scenes that none of the people shows, with the reason), ``rows`` and
        ``machine``.
    """
    left_out, tasks = {}, []
    for scene in scenes:
        try:
            cast(scene, seed, people)
        except ValueError as error:
            left_out[scene.name] = str(error)
            say(f"left out: {error}")
            continue
        tasks += [(scene.name, seed + k) for k in range(frames)]
    # The parent needs no CT while workers have theirs.
    if scheduler is not None or workers > 1:
        person_of.cache_clear()
    run = _here if scheduler is None and workers <= 1 else _with_dask
    rows = run(tasks, people, scheduler, workers, say) if tasks else []
    rows.sort(key=lambda r: tasks.index((r["scene"], r["seed"])))
    return {
        **summaries(rows),
        "left_out": left_out,
        "settings": {"frames": frames, "seed": seed, "people": [p[0] for p in people], "scheduler": bool(scheduler)},
        "machine": machine.description(),
        "rows": rows,
    }


def _here(tasks: list[tuple[str, int]], people, scheduler, workers, say) -> list[dict[str, Any]]:
    one_thread()
    return [measured(name, seed, people) for name, seed in tqdm(tasks, "cohort", unit="frame")]


def _with_dask(tasks: list[tuple[str, int]], people, scheduler: str | None, workers: int, say) -> list[dict[str, Any]]:
    """The tasks on a Dask cluster; one that fails is named with its scene and seed."""
    from distributed import Client, LocalCluster, as_completed

    if scheduler is not None:
        say(f"waiting for the scheduler {scheduler}")
        try:
            client, cluster = Client(scheduler, timeout=_START_S), None
        except (OSError, TimeoutError, ValueError) as error:
            raise RuntimeError(
                f"--scheduler {scheduler}: no Dask scheduler answers ({error}); start `dask scheduler` there and "
                "`dask worker` on the computers that shall work, with this version of fluoronav"
            ) from error
    else:
        say(f"starting {workers} processes")
        cluster = LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0",
            silence_logs=logging.ERROR, memory_limit=0,
        )  # fmt: skip
        client = Client(cluster)
    rows = []
    try:
        futures = {client.submit(_task, t, people, pure=False): t for t in tasks}
        for future in tqdm(as_completed(futures), "cohort", len(futures), unit="frame"):
            scene, seed = futures[future]
            try:
                rows.append(future.result())
            except Exception as error:
                raise RuntimeError(f"scene {scene}, seed {seed}: {type(error).__name__}: {error}") from error
    finally:
        client.close()
        if cluster is not None:
            cluster.close()
    return rows


def _task(task: tuple[str, int], people: list[tuple[str, ...]]) -> dict[str, Any]:
    one_thread()
    return measured(*task, people)
