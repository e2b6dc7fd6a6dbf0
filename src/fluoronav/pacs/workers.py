"""A process beside the node that makes cases: warm, of the idle class, renewed now and then, replaced if killed."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from fluoronav.give_way import give_way
from fluoronav.pacs.jobs import Job, Made, StructureJob, Structures
from fluoronav.pacs.memory import give_back
from fluoronav.pacs.quiet import quiet_libraries
from fluoronav.process_pool import end_pool

Work = TypeVar("Work")
Result = TypeVar("Result")
log = logging.getLogger(__name__)
_JOBS = 20  # after which the process is renewed, so that no library's leak grows; chosen
_TRIES = 2  # chosen: a job that ends the process twice ends it always
_GRACE_S = 3.0  # for a job that runs when the node ends; chosen: most jobs end within it, and a stop stays prompt


class WorkersEndedError(RuntimeError):
    """The node ends: the job was not done, nothing is known of its images, and it is done after the next start."""


class Workers:
    """One process; jobs are done one after another."""

    def __init__(self) -> None:
        self._pool = _pool()
        self._one = threading.Lock()
        self._gate = threading.Lock()  # held for a hand-over only: an end must not wait for a job
        self._ended = False

    def warm(self) -> None:
        """Starts the process, so that the first series does not wait for its imports."""
        self._submit(os.getpid)

    def take_in(self, job: Job) -> Made:
        """Does a job; what ends the process refuses the series.

        Raises
        ------
        WorkersEndedError
        """
        made = self._done(_take_in, job)
        return made or Made(
            None, refused="reading its images ended the process that makes cases, twice: an image is damaged"
        )

    def structures(self, job: StructureJob) -> Structures:
        """Makes the results of a case's structures.

        Raises
        ------
        WorkersEndedError
        """
        made = self._done(_structures, job)
        return made or Structures(fault="reading its label map ended the process that makes cases, twice")

    def _done(self, work: Callable[[Work], Result], job: Work) -> Result | None:
        """What becomes of a job; None where it ends the process."""
        with self._one:
            for _ in range(_TRIES):
                try:
                    return self._submit(work, job).result()
                except (BrokenProcessPool, CancelledError):
                    with self._gate:
                        if self._ended:
                            raise WorkersEndedError from None
                        self._pool = _pool()
                    log.error("the process that makes cases ended in the middle of its work; another is started")
        return None

    def _submit(self, work: Callable[..., Result], *arguments: object) -> Future[Result]:
        with self._gate:
            if self._ended:
                raise WorkersEndedError
            return self._pool.submit(work, *arguments)

    def close(self) -> None:
        """Ends the process; a job that does not end within a grace is broken off."""
        with self._gate:
            self._ended = True
        end_pool(self._pool, _GRACE_S)


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn"), initializer=_prepare, max_tasks_per_child=_JOBS
    )


def _take_in(job: Job) -> Made:
    # Imported in the worker alone: what reads images takes memory that the resident node does not need.
    from fluoronav.pacs.intake import take_in

    try:
        return take_in(job)
    finally:
        give_back()


def _structures(job: StructureJob) -> Structures:
    from fluoronav.pacs.structures import make_results

    try:
        return make_results(job)
    finally:
        give_back()


def _prepare() -> None:
    import fluoronav.pacs.intake  # noqa: F401 (the first series does not wait for it)

    quiet_libraries()
    give_way()
    threading.Thread(target=_end_with_the_node, daemon=True).start()


def _end_with_the_node() -> None:
    """A node that is killed tells nobody; without this, its worker would wait for jobs for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(0)
