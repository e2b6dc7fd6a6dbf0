"""The end of a pool of processes: within a time, whatever its processes do."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor

_LOOK_S = 0.05  # chosen: far below what a person who ends a program notices


def end_pool(pool: ProcessPoolExecutor, grace_s: float) -> None:
    """Ends a pool; returns when its processes have ended.

    Python waits at its own end for every process of a pool. One that is in the middle of its work, or that was
    renewed while the pool was shut down, would hold the program for as long, or for ever.

    Parameters
    ----------
    pool : ProcessPoolExecutor
        Takes no work any more. What waits is cancelled; what runs fails with ``BrokenProcessPool`` after the grace.
    grace_s : float
        Time for work that runs, s; then its process is killed.
    """
    # The pool's own dictionary, not a copy: a process that is renewed meanwhile is in it. Python 3.14 has kill_workers.
    processes = pool._processes or {}
    pool.shutdown(wait=False, cancel_futures=True)
    end = time.monotonic() + grace_s
    while alive := [process for process in list(processes.values()) if process.is_alive()]:
        if time.monotonic() >= end:
            for process in alive:
                process.kill()
        alive[0].join(_LOOK_S)
