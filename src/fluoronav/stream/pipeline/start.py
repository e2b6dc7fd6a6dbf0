"""The start: kernels that are missing are compiled on all processors, and what each phase took is said."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from fluoronav.kernels.build import KernelError, build
from fluoronav.kernels.target import in_words, this_target

log = logging.getLogger("fluoronav")

CASE, KERNELS, STAGES = "case", "waiting for kernels", "stages at once"
IN_TURN = (CASE, KERNELS, STAGES)
"""Phases of a start that follow one another; what single stages took lies inside the last."""
_SAY_EVERY_S = 2.0  # chosen: a start that compiles takes 20 s and more


class StartTimes:
    """Seconds that the phases of a start took, in their order."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the time inside to a phase."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.note({name: time.monotonic() - began})

    def note(self, seconds: dict[str, float]) -> None:
        """Adds phases with their seconds."""
        for name, took in seconds.items():
            self._seconds[name] = self._seconds.get(name, 0.0) + took

    def __str__(self) -> str:
        return ", ".join(f"{name} {took:.2f} s" for name, took in self._seconds.items())


@contextmanager
def kernels_beside(
    stages: Sequence[str], progress: Callable[[str], None], stopped: Callable[[], bool], times: StartTimes
) -> Iterator[None]:
    """Compiles missing kernels of some stages in processes of their own while the block runs, and waits for them.

    What cannot be compiled or kept ahead is said; the stages then compile it, one kernel after the other.

    Parameters
    ----------
    stages : sequence of str
    progress : callable
        Told what is being compiled.
    stopped : callable
        True ends the compiling.
    times : StartTimes
    """
    said = time.monotonic()
    failed = threading.Event()

    def show(done: int, total: int, kernel: str) -> None:
        nonlocal said
        if done == total or time.monotonic() - said > _SAY_EVERY_S:
            said = time.monotonic()
            progress(f"kernels for {in_words(this_target())}: {done} of {total} compiled, once for this computer")

    def compile_missing() -> None:
        try:
            build(stages, progress=show, stopped=lambda: failed.is_set() or stopped())
        except (KernelError, OSError) as error:
            log.warning("kernels are compiled one after the other: %s", error)

    with ThreadPoolExecutor(1, thread_name_prefix="kernels") as beside:
        built = beside.submit(compile_missing)
        try:
            yield
        except BaseException:
            failed.set()
            raise
        with times.phase(KERNELS):
            built.result()
