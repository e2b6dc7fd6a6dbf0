"""The patient, or the C-arm, moves farther from one frame to the next than anybody breathes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fluoronav.lab.bench.faults.held import check_held, check_stays_right
from fluoronav.lab.bench.faults.loop import AlterFrames, Loop
from fluoronav.lab.bench.faults.place import Place
from fluoronav.lab.bench.faults.row import Fault, Outcome
from fluoronav.lab.bench.faults.scene import Scene
from fluoronav.lab.bench.faults.window import Window


@dataclass(frozen=True)
class Jump:
    """From a frame of the demo's sequence to another.

    Attributes
    ----------
    before, after : int
        Frames of the sequence.
    """

    before: int
    after: int

    def back(self) -> Jump:
        return Jump(self.after, self.before)


@dataclass(frozen=True)
class JumpFaults:
    """How the faults are made, and how soon they must be over; chosen.

    Attributes
    ----------
    patient : Jump
        At the target: 4.9 mm and 3.2 degrees, of which the arm's joints are made to say nothing.
    arm : Jump
        Orbital by 3.1 degrees, in the same phase of the breath.
    fps : float
        Frames per second.
    comes_within_s : float
        The sequence passes a frame once in 200, which are 7 s.
    over_s : float
        Until pose and tool are measured and right again.
    goes_on_s : float
        After that.
    """

    patient: Jump = Jump(299, 237)
    arm: Jump = Jump(244, 205)
    fps: float = 30.0
    comes_within_s: float = 20.0
    over_s: float = 3.0
    goes_on_s: float = 2.0


LIMITS = JumpFaults()


def still_arm(scene: Scene, jump: Jump, away: Callable[[], bool]) -> AlterFrames:
    """Changes the joints in the headers so that the arm stands still in a jump: the patient has moved.

    Parameters
    ----------
    scene : Scene
    jump : Jump
    away : callable
        Whether the frame at hand is one after the jump.
    """
    before, after = (scene.sequence.joints[frame] for frame in (jump.before, jump.after))
    offset = {
        "orbital": before.orbital_deg - after.orbital_deg, "angular": before.angular_deg - after.angular_deg,
        "swivel": before.swivel_deg - after.swivel_deg,
    }  # fmt: skip

    def change(header, pixels):
        if away():
            header = header | {"angles": {name: deg + offset[name] for name, deg in header["angles"].items()}}
        return [(header, pixels)]

    return change


def _patient(place: Place) -> Outcome:
    loop, jump = place.loop(), LIMITS.patient
    begin = loop.jumped
    with loop.altering(still_arm(place.scene, jump, lambda: (loop.jumped - begin) % 2 == 1)):
        return _there_and_back(loop, jump)


def _arm(place: Place) -> Outcome:
    return _there_and_back(place.loop(), LIMITS.arm)


def _there_and_back(loop: Loop, jump: Jump) -> Outcome:
    """Judges both jumps; the times are those of the first, or of the worse recovery."""
    usual = loop.fps
    loop.at(LIMITS.fps)
    try:
        loop.wait(loop.steady, LIMITS.comes_within_s, f"track at {LIMITS.fps:g} frames a second")
        there = _jumped(loop, jump)
        back = _jumped(loop, jump.back())
    finally:
        loop.jumps.clear()
        loop.at(usual)
    recovered = [ms for ms in (there.recovered_after_ms, back.recovered_after_ms) if ms is not None]
    return Outcome(
        [*there.problems, *(f"back: {problem}" for problem in back.problems)],
        there.said_after_ms,
        max(recovered, default=None),
        (there.lost_frames or 0) + (back.lost_frames or 0),
        there.seen,
    )


def _jumped(loop: Loop, jump: Jump) -> Outcome:
    count = loop.jumped
    loop.jumps[jump.before] = jump.after
    loop.wait(lambda: loop.jumped > count, LIMITS.comes_within_s, f"come to frame {jump.before}")
    window = Window(loop)
    window.last(0.5)
    window.note("registration_lost", "latency", "stale_frames")
    window.recover(LIMITS.over_s)
    check_stays_right(window, LIMITS.goes_on_s)
    check_held(window)
    return window.outcome()


_OVER = f"never wrong as tracking for more than 0.3 s; measured and right within {LIMITS.over_s:.0f} s, there and back"
FAULTS = (
    Fault("patient-jumps-5mm-3deg", _OVER, _patient),
    Fault("arm-jumps-3deg", _OVER, _arm),
)
