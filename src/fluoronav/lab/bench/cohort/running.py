"""Exposures as tasks: in this process, in processes of this computer, or on a cluster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from tqdm import tqdm

from fluoronav.lab.bench.cohort.people import person_of
from fluoronav.lab.bench.cohort.registering import one_thread

Row = dict[str, Any]
Task = tuple[str, int]  # name of a scene, and seed
# Makes and registers one exposure: name, seed, people. A cluster's workers import it by its name.
Work = Callable[[str, int, list[tuple[str, ...]]], Row]
_START_S = 60.0  # for a scheduler to answer; chosen: a batch system has started it by then


def rows_of(
    units: list[list[Task]], work: Work, people: list[tuple[str, ...]], scheduler: str | None, workers: int,
    say: Callable[[str], None],
) -> Iterator[list[Row]]:  # fmt: skip
    """Does tasks, and yields what came out as soon as it is there.

    Parameters
    ----------
    units : list of list
        Tasks that one worker does after one another, since they share what has to be prepared.
    work : callable
    people : list of tuple
    scheduler : str or None
        Address of a Dask scheduler; None: processes of this computer.
    workers : int
        Processes of this computer; 1 runs everything in this process.
    say : callable

    Yields
    ------
    list of dict
        Rows of one or more tasks, in any order of the units.

    Raises
    ------
    RuntimeError
        A task failed, or no scheduler answers.
    """
    if not units:
        return
    if scheduler is None and workers <= 1:
        yield from _here(units, work, people)
        return
    # The parent needs no CT while workers have theirs.
    person_of.cache_clear()
    yield from _with_dask(units, work, people, scheduler, workers, say)


def _here(units: list[list[Task]], work: Work, people: list[tuple[str, ...]]) -> Iterator[list[Row]]:
    one_thread()
    for name, seed in tqdm([task for unit in units for task in unit], "cohort", unit="frame"):
        yield [work(name, seed, people)]


def _with_dask(
    units: list[list[Task]], work: Work, people: list[tuple[str, ...]], scheduler: str | None, workers: int,
    say: Callable[[str], None],
) -> Iterator[list[Row]]:  # fmt: skip
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
    try:
        futures = [client.submit(_unit, unit, work, people, pure=False) for unit in units]
        with tqdm(total=sum(map(len, units)), desc="cohort", unit="frame") as bar:
            for future in as_completed(futures):
                rows = future.result()
                bar.update(len(rows))
                yield rows
    finally:
        client.close()
        if cluster is not None:
            cluster.close()


def _unit(unit: list[Task], work: Work, people: list[tuple[str, ...]]) -> list[Row]:
    one_thread()
    rows = []
    for scene, seed in unit:
        try:
            rows.append(work(scene, seed, people))
        except Exception as error:
            raise RuntimeError(f"scene {scene}, seed {seed}: {type(error).__name__}: {error}") from error
    return rows
