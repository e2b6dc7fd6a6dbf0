"""Clocks that jump and drift, a computer that pauses, and sequence numbers that wrap."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fluoronav.lab.bench.faults.loop import AlterFrames, Loop
from fluoronav.lab.bench.faults.place import Place
from fluoronav.lab.bench.faults.row import BenchError, Fault, Outcome
from fluoronav.lab.bench.faults.window import Window


@dataclass(frozen=True)
class ClockFaults:
    """How the faults are made, and how soon they must be over, s unless said otherwise; chosen."""

    pause_s: float = 0.7  # each pause of the computer
    between_s: float = 1.5  # between pauses
    pauses: int = 4  # number of pauses
    hogs: int = 6  # busy programs
    load_s: float = 6.0  # under load
    after_pause_s: float = 4.0  # until a measured pose after the last pause
    learned_s: float = 2.0  # an offset is learned within some frames
    forgotten_s: float = 3.0  # after one odd frame; eight good overlays take half a second
    silence_s: float = 1.0  # of a grabber that restarts
    seldom_s: float = 0.7  # between odd frames: longer than the silence after which a lower number is accepted
    drift_s: float = 8.0  # length of the drift
    drift_per_s: float = 0.02  # s per s
    offset_within_ms: float = 60.0  # error of the offset in health


LIMITS = ClockFaults()
_HOG = "while True: pass"


def shifted(seconds: float) -> AlterFrames:
    """Shifts the C-arm's clock."""
    return lambda header, pixels: [(header | {"t_acq": header["t_acq"] + round(seconds * 1e9)}, pixels)]


@contextmanager
def busy(processes: int = LIMITS.hogs) -> Iterator[None]:
    """Other programs that load all cores."""
    hogs = [subprocess.Popen([sys.executable, "-c", _HOG]) for _ in range(processes)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def _computer_paused(place: Place) -> Outcome:
    loop = place.loop()
    window = Window(loop)
    try:
        for _ in range(LIMITS.pauses):
            os.kill(loop.pid, signal.SIGSTOP)
            time.sleep(LIMITS.pause_s)
            os.kill(loop.pid, signal.SIGCONT)
            window.last(LIMITS.between_s)
    finally:
        os.kill(loop.pid, signal.SIGCONT)
    window.over()
    window.note("stale_frames", "latency")
    window.recover(LIMITS.after_pause_s)
    window.last(3)
    window.delivered(2)
    return window.outcome()


def _under_load(place: Place) -> Outcome:
    loop = place.loop()
    window = Window(loop)
    with busy():
        window.last(LIMITS.load_s)
    window.over()
    window.note("stale_frames", "latency")
    window.recover()
    window.last(2)
    return window.outcome()


def _back(place: Place) -> Outcome:
    loop = place.loop()
    window = Window(loop)
    with loop.altering(shifted(-2.0)):
        window.last(LIMITS.learned_s)
        window.recover(LIMITS.learned_s, since=window.begin)
        window.last(6)
        window.say(window.status(), window.alert("latency", "stale_frames", "instrument_lost"), within_s=None)
        window.delivered(3)
    return window.outcome()


def _one_ahead(place: Place) -> Outcome:
    loop, done = place.loop(), []

    def once(header, pixels):
        if done:
            return [(header, pixels)]
        done.append(header["seq"])
        return shifted(0.095)(header, pixels)

    window = Window(loop)
    with loop.altering(once):
        window.last(1.0)
        window.say(window.status(), window.alert("latency"), within_s=None)
        window.recover(LIMITS.forgotten_s, since=window.begin)
        window.last(6)
        window.delivered(5)
    return window.outcome()


def _drifting(place: Place) -> Outcome:
    loop = place.loop()
    window = Window(loop)

    def slower(header, pixels):
        return shifted(-LIMITS.drift_per_s * (time.time() - window.begin))(header, pixels)

    with loop.altering(slower):
        window.last(LIMITS.drift_s)
        behind = 1000 * LIMITS.drift_per_s * (time.time() - window.begin)
        window.say(window.status(), window.alert("latency"), within_s=None)
        window.delivered(4)
        noticed = loop.health().get("clock_offset_ms", 0.0)
        window.check(
            abs(noticed - behind) < LIMITS.offset_within_ms,
            f"health says a clock offset of {noticed:.0f} ms when it is {behind:.0f} ms",
        )
    window.over()
    window.recover()
    return window.outcome()


def _hour_behind(place: Place) -> Outcome:
    loop = place.loop()
    window = Window(loop)
    with loop.altering(shifted(-3600.0)):
        _grabber_again(loop, window)
        window.over()
        window.recover()
        window.last(2)
        window.delivered(2)
    _grabber_again(loop, None)
    return window.outcome()


def _grabber_restart(place: Place) -> Outcome:
    loop = place.loop()
    window = Window(loop)
    _grabber_again(loop, window)
    window.over()
    window.recover()
    return window.outcome()


def _grabber_again(loop: Loop, window: Window | None) -> None:
    """The grabber falls silent, then counts from one again."""
    loop.frames_on = False
    time.sleep(LIMITS.silence_s)
    if window is not None:
        window.say(window.alert("stale_frames"), window.health(), within_s=LIMITS.silence_s, what="the silence")
    loop.next_seq = 1
    loop.frames_on = True


def _wrap(place: Place) -> Outcome:
    """Sequence numbers of 32 bits, as some grabbers have."""
    loop = place.loop()
    before = _lost(loop)
    window = Window(loop)
    loop.next_seq = 2**32 - round(2 * loop.fps)
    with loop.altering(lambda header, pixels: [(header | {"seq": header["seq"] % 2**32}, pixels)]):
        loop.wait(lambda: loop.next_seq > 2**32, 10, "hear of large numbers")
        window.over()
        window.last(3)
        window.note("stale_frames")
        window.recover(3)
        window.last(2)
        lost = _lost(loop) - before
        window.check(lost < 10 * loop.fps, f"{lost:.3g} frames are counted as lost")
        window.delivered(2)
        loop.next_seq = loop.next_seq % 2**32
    return window.outcome()


def _alternating(place: Place) -> Outcome:
    loop = place.loop()
    window, sent = Window(loop), [0.0]

    def odd(header, pixels):
        """Alternates two numbers, one every `seldom_s`: after such a silence a lower number is accepted."""
        if time.time() - sent[-1] < LIMITS.seldom_s:
            return []
        sent.append(time.time())
        return [(header | {"seq": 1 if len(sent) % 2 else 2**63 - 1}, pixels)]

    with loop.altering(odd):
        window.last(10 * LIMITS.seldom_s)
        window.say(window.status(), window.alert("stale_frames", "security"), window.health(), within_s=4)
    _grabber_again(loop, None)
    window.over()
    try:
        asked = loop.ask("status")
        window.check(bool(asked["ok"]), f"status is refused: {asked.get('error')}")
    except BenchError as error:
        window.problems.append(str(error))
    window.recover()
    window.last(2)
    quiet = time.time() - max((h.t for h in loop.since(window.begin, "health")), default=window.begin)
    window.check(quiet < 3, f"health is silent for {quiet:.1f} s")
    return window.outcome()


def _lost(loop: Loop) -> int:
    time.sleep(1.1)  # for a new health message
    return int(loop.health().get("frames", {}).get("network", 0))


FAULTS = (
    Fault(
        "computer-paused",
        f"measured again within {LIMITS.after_pause_s:.0f} s after {LIMITS.pauses} pauses of {LIMITS.pause_s} s",
        _computer_paused,
    ),
    Fault("pipeline-under-load", f"true under {LIMITS.hogs} busy programs; measured again within 8 s", _under_load),
    Fault("c-arm-clock-back-2s", f"the new offset is learned within {LIMITS.learned_s:.0f} s, pose and tool", _back),
    Fault("c-arm-clock-one-frame-ahead-95ms", "costs that frame, not those after it", _one_ahead),
    Fault("c-arm-clock-drifting", "the offset is followed, and said in health", _drifting),
    Fault("grabber-restart", "the silence is said; believed and measured again within 8 s", _grabber_restart),
    Fault("c-arm-clock-hour-behind-after-restart", "believed and measured again within 8 s", _hour_behind),
    Fault(
        "seq-wrap-2^32",
        "by the jump there and by the wrap, some frames are counted as lost at most; measured again within 3 s",
        _wrap,
    ),
    Fault("seq-2^63-and-1", "said within 4 s; health and requests go on; measured again within 8 s", _alternating),
)
