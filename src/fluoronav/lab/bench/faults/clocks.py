"""Clocks that jump and drift, a computer that stands still, and numbers that run over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fluoronav.lab.bench.faults.loop import AlterFrames, Loop
from fluoronav.lab.bench.faults.place import Place
from fluoronav.lab.bench.faults.row import BenchError, Fault, Outcome
from fluoronav.lab.bench.faults.window import Window

_PAUSE_S, _BETWEEN_S, _PAUSES = 0.7, 1.5, 4
_HOGS, _LOAD_S = 6, 6.0
_AFTER_PAUSE_S = 4.0
# An offset is learned within some frames.
_LEARNED_S = 2.0
# One odd frame is over when eight good overlays have followed, which take half a second.
_FORGOTTEN_S = 3.0
_SILENCE_S = 1.0
_SELDOM_S = 0.7
_DRIFT_S, _DRIFT_PER_S = 8.0, 0.02
_OFFSET_WITHIN_MS = 60.0
_HOG = "while True: pass"


def shifted(seconds: float) -> AlterFrames:
    """The C-arm's clock is wrong by so much."""
    return lambda header, pixels: [(header | {"t_acq": header["t_acq"] + round(seconds * 1e9)}, pixels)]


@contextmanager
def busy(processes: int = _HOGS) -> Iterator[None]:
    """Other programs that want all cores."""
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
        for _ in range(_PAUSES):
            os.kill(loop.pid, signal.SIGSTOP)
            time.sleep(_PAUSE_S)
            os.kill(loop.pid, signal.SIGCONT)
            window.last(_BETWEEN_S)
    finally:
        os.kill(loop.pid, signal.SIGCONT)
    window.over()
    window.say(window.status(), window.alert("stale_frames", "latency"), window.health(), within_s=None)
    window.recover(_AFTER_PAUSE_S)
    window.last(3)
    window.delivered(2)
    return window.outcome()


def _under_load(place: Place) -> Outcome:
    loop = place.loop()
    window = Window(loop)
    with busy():
        window.last(_LOAD_S)
    window.over()
    window.say(window.status(), window.alert("stale_frames", "latency"), window.health(), within_s=None)
    window.recover()
    window.last(2)
    return window.outcome()


def _back(place: Place) -> Outcome:
    loop = place.loop()
    window = Window(loop)
    with loop.altering(shifted(-2.0)):
        window.last(_LEARNED_S)
        window.recover(_LEARNED_S, since=window.begin)
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
        window.recover(_FORGOTTEN_S, since=window.begin)
        window.last(6)
        window.delivered(5)
    return window.outcome()


def _drifting(place: Place) -> Outcome:
    loop = place.loop()
    window = Window(loop)

    def slower(header, pixels):
        return shifted(-_DRIFT_PER_S * (time.time() - window.begin))(header, pixels)

    with loop.altering(slower):
        window.last(_DRIFT_S)
        behind = 1000 * _DRIFT_PER_S * (time.time() - window.begin)
        window.say(window.status(), window.alert("latency"), within_s=None)
        window.delivered(4)
        noticed = loop.health().get("clock_offset_ms", 0.0)
        window.check(
            abs(noticed - behind) < _OFFSET_WITHIN_MS,
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
    """Silent for a while, then counting from one again."""
    loop.frames_on = False
    time.sleep(_SILENCE_S)
    if window is not None:
        window.say(window.alert("stale_frames"), window.health(), within_s=_SILENCE_S, what="the silence")
    loop.next_seq = 1
    loop.frames_on = True


def _wrap(place: Place) -> Outcome:
    """Numbers of 32 bit, which some grabbers count in."""
    loop = place.loop()
    before = _lost(loop)
    window = Window(loop)
    loop.next_seq = 2**32 - round(2 * loop.fps)
    with loop.altering(lambda header, pixels: [(header | {"seq": header["seq"] % 2**32}, pixels)]):
        loop.wait(lambda: loop.next_seq > 2**32, 10, "hear of large numbers")
        window.over()
        window.last(3)
        window.say(window.status(), window.alert("stale_frames"), window.health(), within_s=None)
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
        """One each 0.7 s: after so long a silence, a number that went back is believed."""
        if time.time() - sent[-1] < _SELDOM_S:
            return []
        sent.append(time.time())
        return [(header | {"seq": 1 if len(sent) % 2 else 2**63 - 1}, pixels)]

    with loop.altering(odd):
        window.last(10 * _SELDOM_S)
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
    time.sleep(1.1)  # a health of now
    return int(loop.health().get("frames", {}).get("network", 0))


FAULTS = (
    Fault(
        "computer-paused",
        f"measured again within {_AFTER_PAUSE_S:.0f} s after {_PAUSES} pauses of {_PAUSE_S} s",
        _computer_paused,
    ),
    Fault("pipeline-under-load", f"true under {_HOGS} busy programs; measured again within 8 s", _under_load),
    Fault("c-arm-clock-back-2s", f"the new offset is learned within {_LEARNED_S:.0f} s, pose and tool", _back),
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
