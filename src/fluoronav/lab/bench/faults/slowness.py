"""A computer that is slower for a while: half its speed, a core less, background work that comes late."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fluoronav.lab.bench.faults.held import check_held, check_stays_right
from fluoronav.lab.bench.faults.jumps import LIMITS as JUMPS
from fluoronav.lab.bench.faults.loop import Loop
from fluoronav.lab.bench.faults.named_threads import background_threads, threads_of
from fluoronav.lab.bench.faults.place import Place
from fluoronav.lab.bench.faults.row import BenchError, Fault, NotHere, Outcome
from fluoronav.lab.bench.faults.window import OVER_WITHIN_S, Window
from fluoronav.lab.process import end_process


@dataclass(frozen=True)
class SlownessFaults:
    """How the faults are made; chosen.

    Attributes
    ----------
    fps : float
        Frames per second.
    lasts_s : float
        Length of each fault.
    period_s, stopped : float
        The process is stopped for this fraction of each period, s.
    background_share : int
        A background worker gets one in so many parts of a core.
    steady_s : float
        After the fault's end, once all is right again.
    settles_s : float
        Until it tracks at this rate before the fault.
    found_s : float
        After the fault's end, where a search has to find the patient.
    """

    fps: float = 30.0
    lasts_s: float = 10.0
    period_s: float = 0.010
    stopped: float = 0.5
    background_share: int = 5
    steady_s: float = 2.0
    settles_s: float = 15.0
    found_s: float = 15.0


LIMITS = SlownessFaults()
Slow = Callable[[int], contextlib.AbstractContextManager[None]]

_STOPPING = """
import os, signal, sys, time
pid, period, stopped = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
due = time.monotonic()
try:
    while True:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(max(due + stopped * period - time.monotonic(), 0))
        os.kill(pid, signal.SIGCONT)
        due = max(due + period, time.monotonic() - period)
        time.sleep(max(due - time.monotonic(), 0))
finally:
    os.kill(pid, signal.SIGCONT)
"""
_BURNING = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
while True: pass
"""


@contextlib.contextmanager
def half_speed(pid: int) -> Iterator[None]:
    """Stops a process for half of every 10 ms, so that it gets through its work at half the speed."""
    stopper = subprocess.Popen([sys.executable, "-c", _STOPPING, str(pid), str(LIMITS.period_s), str(LIMITS.stopped)])
    try:
        yield
    finally:
        end_process(stopper)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def core_taken(pid: int) -> Iterator[None]:
    """Leaves a process a single core, on which another program is busy, too.

    Raises
    ------
    NotHere
        The system cannot keep threads to cores, or there is one core only.
    """
    cores = _cores(pid)
    left = min(cores)
    with _busy_on(left, 1):
        _keep_to(threads_of(pid), {left})
        try:
            yield
        finally:
            _keep_to(threads_of(pid), cores)


@contextlib.contextmanager
def background_late(pid: int) -> Iterator[None]:
    """Gives the background workers of a pipeline with named threads a part of one core, and the frame path the others.

    Raises
    ------
    NotHere
        As for :func:`core_taken`, or the system does not know the threads by name.
    """
    cores = _cores(pid)
    shared = max(cores)
    background = background_threads(pid)
    if not background:
        raise NotHere("this system does not tell the names of threads")
    with _busy_on(shared, LIMITS.background_share - 1):
        _keep_to(set(threads_of(pid)) - set(background), cores - {shared})
        _keep_to(background, {shared})
        try:
            yield
        finally:
            _keep_to(threads_of(pid), cores)


def _cores(pid: int) -> set[int]:
    if not hasattr(os, "sched_setaffinity"):
        raise NotHere("this system cannot keep threads to cores")
    cores = os.sched_getaffinity(pid)
    if len(cores) < 2:
        raise NotHere("one core only")
    return cores


def _keep_to(threads, cores: set[int]) -> None:
    for thread in threads:
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(thread, cores)


@contextlib.contextmanager
def _busy_on(core: int, programs: int) -> Iterator[None]:
    """Programs that keep a core busy."""
    hogs = [subprocess.Popen([sys.executable, "-c", _BURNING, str(core)]) for _ in range(programs)]
    try:
        yield
    finally:
        for hog in hogs:
            end_process(hog)


def _slowed(
    loop: Loop, slow: Slow, during: Callable[[Loop], None] = lambda loop: None, within_s: float = OVER_WITHIN_S
) -> Outcome:
    usual = loop.fps
    loop.at(LIMITS.fps)
    try:
        loop.wait(loop.steady, LIMITS.settles_s, f"track at {LIMITS.fps:g} frames a second")
        window = Window(loop)
        with slow(loop.pid):
            end = time.time() + LIMITS.lasts_s
            during(loop)
            window.last(max(end - time.time(), 0))
        window.over()
        window.note("stale_frames", "latency", "registration_lost")
        window.recover(within_s)
        check_stays_right(window, LIMITS.steady_s)
        check_held(window)
        return window.outcome()
    finally:
        loop.jumps.clear()
        loop.at(usual)


def _patient_jumps(loop: Loop) -> None:
    """The arm's joints follow: here it is a jump of both."""
    jump, count = JUMPS.patient, loop.jumped
    loop.jumps[jump.before] = jump.after
    loop.wait(lambda: loop.jumped > count, JUMPS.comes_within_s, f"come to frame {jump.before}")
    time.sleep(JUMPS.goes_on_s)


def _searches(loop: Loop) -> None:
    reply = loop.ask("registration.reject")
    if not reply["ok"]:
        raise BenchError(f"registration.reject was refused: {reply['error']['text']}")


def _search_late(place: Place) -> Outcome:
    return _slowed(place.named_threads(), background_late, _searches, LIMITS.found_s)


_TRUE = f"true throughout, ages and reasons said; measured and right within {OVER_WITHIN_S:.0f} s after its end"
WITH_ALL_STAGES = (
    Fault("half-speed-10s", _TRUE, lambda p: _slowed(p.all_stages(), half_speed)),
    Fault("core-taken-10s", _TRUE, lambda p: _slowed(p.all_stages(), core_taken)),
)
WITH_NAMED_THREADS = (
    Fault("background-late-10s", _TRUE, lambda p: _slowed(p.named_threads(), background_late)),
    Fault(
        "search-late", f"true throughout, reasons said; measured and right within {LIMITS.found_s:.0f} s after its end",
        _search_late,
    ),
    Fault(
        "background-late-and-jump", _TRUE, lambda p: _slowed(p.named_threads(), background_late, _patient_jumps)
    ),
)  # fmt: skip
