"""Kernels compiled ahead of time: in processes beside one another, each kernel in the cache when it is ready."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

from fluoronav.kernels.cache import folders, read_kernel
from fluoronav.kernels.signatures import kernel_of, signatures_by_kernel, types_of
from fluoronav.kernels.target import config, this_target, use_level

log = logging.getLogger("fluoronav")

# A process takes about 250 MB, and seconds to start; chosen.
_MOST_PROCESSES = 8
_POLL_S = 0.2


class KernelError(RuntimeError):
    """Kernels could not be compiled or kept; the text says which and why."""


@dataclass(frozen=True)
class Wanted:
    """One signature of a kernel.

    Attributes
    ----------
    kernel : str
        "module:function".
    signature : str
        As in `signatures.json`.
    file_name : str
        Of its file in the cache.
    """

    kernel: str
    signature: str
    file_name: str


def wanted_kernels(target: str, parts: Iterable[str] | None = None) -> list[Wanted]:
    """What parts of the program call, compiled for a target.

    Parameters
    ----------
    target : str
        For example "x86-64-v3".
    parts : iterable of str, optional
        As for :func:`.signatures.signatures_by_kernel`.
    """
    return [
        Wanted(name, signature, kernel_of(name)._cache.file_name(types_of(signature), target))
        for name, signatures in signatures_by_kernel(parts).items()
        for signature in signatures
    ]


def missing(wanted: Iterable[Wanted], places: Iterable[Path]) -> list[Wanted]:
    """Those that no folder holds whole."""
    places = list(places)
    return [w for w in wanted if not any(read_kernel(folder / w.file_name) is not None for folder in places)]


def build(
    parts: Iterable[str] | None = None,
    target: str | None = None,
    folder: Path | None = None,
    progress: Callable[[int, int, str], None] = lambda done, of, kernel: None,
    processes: int | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> int:
    """Compiles what is missing.

    Parameters
    ----------
    parts : iterable of str, optional
        Parts of the program; all by default.
    target : str, optional
        What to compile for; by default what this process compiles for.
    folder : Path, optional
        Where kernels must be afterwards; by default the cache's first folder, unless another one has them.
    progress : callable
        Told the number of compiled kernels, the number of all, and the kernel that was compiled last.
    processes : int, optional
        As many as processors by default, at most 8.
    stopped : callable
        Asked several times a second; once true, the build ends without the kernels at hand.

    Returns
    -------
    int
        Number of kernels that were compiled.

    Raises
    ------
    KernelError
    """
    target = target or this_target()
    wanted = wanted_kernels(target, parts)
    places = folders() if folder is None else [folder]
    work: dict[str, list[str]] = {}
    absent = missing(wanted, places)
    for one in absent:
        work.setdefault(one.kernel, []).append(one.signature)
    if not work:
        return 0
    context = multiprocessing.get_context("spawn")
    end = context.Event()
    count = min(processes or _processors(), _MOST_PROCESSES, len(work))
    with ProcessPoolExecutor(count, context, initializer=_begin, initargs=(target, str(places[0]), end)) as pool:
        try:
            _compile_all(pool, work, progress, stopped)
        finally:
            if stopped() or sys.exc_info()[0] is not None:
                end.set()  # nobody waits for the kernels at hand
    left = [] if stopped() else missing(absent, places)
    if left:
        raise KernelError(
            f"{places[0]}: {len(left)} of {len(absent)} kernels could not be kept there, first {left[0].kernel}; "
            "see the warnings above, and whether the folder may be written to and has space (10 MB for each target)"
        )
    return len(absent)


def _compile_all(
    pool: ProcessPoolExecutor,
    work: dict[str, list[str]],
    progress: Callable[[int, int, str], None],
    stopped: Callable[[], bool],
) -> None:
    running: dict[Future[None], str] = {pool.submit(_compile, name, texts): name for name, texts in work.items()}
    done, total = 0, sum(map(len, work.values()))
    while running and not stopped():
        for future in wait(running, _POLL_S, FIRST_COMPLETED).done:
            name = running.pop(future)
            try:
                future.result()
            except BrokenProcessPool as error:
                raise KernelError("a process that compiles kernels was ended; is there memory left?") from error
            except Exception as error:
                raise KernelError(f"{name}: cannot be compiled: {type(error).__name__}: {error}") from error
            done += len(work[name])
            progress(done, total, name)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begin(target: str, folder: str, end: Event) -> None:
    """First thing in each process, which ends as soon as it is told to or its parent is no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave() -> None:
        while not end.wait(_POLL_S) and parent.is_alive():
            pass
        os._exit(1)  # also out of LLVM; files are whole or not there

    threading.Thread(target=leave, daemon=True).start()
    if target != this_target():
        use_level(target)
    config.CACHE_DIR = folder


def _compile(name: str, signatures: list[str]) -> None:
    kernel = kernel_of(name)
    for signature in signatures:
        kernel.compile(types_of(signature))
