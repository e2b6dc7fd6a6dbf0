"""Processes beside the server for what takes memory or seconds: unpacking volumes, making surfaces."""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec, TypeVar

from fluoronav.process_pool import end_pool
from fluoronav.workspace.errors import WorkspaceError

_PROCESSES = 2  # chosen: one may unpack while another makes surfaces
_JOBS = 50  # after which a process is renewed, so that no library's leak grows; chosen
_NICE = 5  # chosen: strokes come first

P = ParamSpec("P")
R = TypeVar("R")


class Workers:
    """Two processes; what ends one of them is that request's error, and another is started."""

    def __init__(self) -> None:
        self._pool = _pool()

    def warm(self) -> None:
        """Starts a process, so that the first case does not wait for its imports."""
        self._pool.submit(os.getpid)

    async def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Does a piece of work: a function of a module, with arguments that can be pickled."""
        try:
            return await asyncio.wrap_future(self._pool.submit(work, *args, **kwargs))
        except BrokenProcessPool as error:
            self._pool = _pool()
            raise WorkspaceError(
                "the process that did this has ended (no memory left, or a damaged file): try again"
            ) from error

    def wait(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Does a piece of work for a thread that waits for it."""
        return self._pool.submit(work, *args, **kwargs).result()

    def close(self) -> None:
        """Ends the processes without waiting for their work."""
        end_pool(self._pool, grace_s=0.0)


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        _PROCESSES, mp_context=multiprocessing.get_context("spawn"), initializer=_prepare, max_tasks_per_child=_JOBS
    )


def _prepare() -> None:
    import fluoronav.workspace.label_maps  # noqa: F401 (the first case does not wait for it)

    if hasattr(os, "nice"):
        os.nice(_NICE)
    end_with_the_server()


def end_with_the_server() -> None:
    """Ends this process when its server ends: one that is killed tells nobody, and its workers would wait for ever."""
    threading.Thread(target=_wait_for_its_end, daemon=True).start()


def _wait_for_its_end() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(0)
