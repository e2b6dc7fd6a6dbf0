"""One patient in a stream: a chest that breathes before a turning C-arm, through the stages.

The clock is the frames' own: what is due after a second comes ten frames later at ten a second, no frame is short of
time, and the background has its results for the next frame. A slow or busy computer compares no less often;
`fluoronav bench latency` says what it can do in time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fluoronav.geometry import Camera, CArmPose, rotation_distance_deg
from fluoronav.lab import machine
from fluoronav.lab.bench.cohort.given import given_case
from fluoronav.lab.bench.cohort.hardware import Cylinder, screws_and_rods
from fluoronav.lab.bench.cohort.motion import Motion, moved
from fluoronav.lab.bench.cohort.people import Person, Region, person_of
from fluoronav.lab.bench.cohort.registering import rotation_bound_deg
from fluoronav.lab.bench.cohort.render import Body, SetUp, moved_body, picture_of, still_body
from fluoronav.lab.bench.cohort.scenes import GivenCt, Picture
from fluoronav.lab.target_error import target_error_mm
from fluoronav.paths import shipped
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.preprocessing.stage import AttenuationStage
from fluoronav.stream.registration.stage import RegistrationStage

Float = NDArray[np.float64]


@dataclass(frozen=True)
class StreamSettings:
    """The patient's breath and the arm's motion; all chosen, the sampling coarse so that frames can be rendered."""

    breath_mm: float = 4.0  # way of the diaphragm, from breathing out to breathing in
    breath_s: float = 4.0  # 15 breaths a minute, a ventilated patient
    spine: float = 0.25  # share of it by which the whole spine moves to the back
    phases: int = 9  # bodies between out and in
    turn_deg: float = 15.0  # the arm turns to and fro by so much to each side
    turn_s: float = 20.0
    grid_mm: float = 1.25
    image_scale: float = 0.5  # of the shipped camera: 512 x 512
    every_px: float = 2.0
    wrong_mm: float = 2.0


SETTINGS = StreamSettings()
_STARTS_S = 100.0  # of the stream's clock: longer ago than anything is due by


@dataclass(frozen=True)
class StreamRun:
    """What was said of each frame; NaN where there was no pose. All arrays have shape (frames,)."""

    t_s: Float
    across_mm: Float
    bound_mm: Float
    degrees: Float
    bound_degrees: Float
    tracking: NDArray[np.bool_]


def bench_stream(
    people: list[tuple[str, ...]], seconds: float, fps: float, seed: int,
    say: Callable[[str], None] = lambda text: None, screws: int = 0,
) -> tuple[StreamRun, dict[str, Any]]:  # fmt: skip
    """Renders a stream and shows it to the stages.

    Parameters
    ----------
    people : list of tuple
        The first who shows a chest or a lumbar spine is taken.
    seconds, fps : float
    seed : int
    say : callable
    screws : int
        Pedicle screws in the patient, joined by two rods, which the CT does not have.

    Returns
    -------
    StreamRun
    dict
        The bench's JSON.
    """
    person, region = _first(people)
    camera = Camera.load(shipped("calibration/demo-carm.yaml")).scaled(SETTINGS.image_scale)
    t_s = np.arange(max(round(seconds * fps), 1)) / fps
    say(f"{person.name}, {region.name}: {SETTINGS.phases} phases of a breath")
    shapes = screws_and_rods(person, region, screws, Motion({}, None)) if screws else []
    frames, truths = _rendered(person, region, camera, t_s, seed, shapes)
    case = given_case(person, region, GivenCt(), 0)
    clock = _FrameClock()
    attenuation, registration = AttenuationStage(), RegistrationStage(clock=clock)
    for stage in (attenuation, registration):
        stage.prepare(case, camera, say)
    say(f"showing {len(t_s)} frames at {fps:g} a second")
    try:
        run = _played(attenuation, registration, frames, truths, person.target_ct(region), t_s, clock)
    finally:
        registration.close()
    return run, _summary(run, person, region, fps) | {"screws": screws, "clock": "of the frames"}


class _FrameClock:
    """Seconds of the stream, for the stages."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def _first(people: list[tuple[str, ...]]) -> tuple[Person, Region]:
    for person in map(person_of, people):
        for region in person.regions:
            if region.name in ("lumbar", "chest") and region.target:
                return person, region
    raise ValueError("--stream: no CT with a label map shows a thoracic or lumbar vertebra; name one with --ct")


def pose_at(target_ct: Float, t_s: float) -> tuple[Float, float]:
    """``T_camera_ct`` of the spine at a time, mm, and how far the patient has breathed in, 0 to 1."""
    s = SETTINGS
    breath = (1 - np.cos(2 * np.pi * t_s / s.breath_s)) / 2
    arm = CArmPose(
        (float(target_ct[0]), float(target_ct[1]), float(target_ct[2])),
        620.0,
        s.turn_deg * np.sin(2 * np.pi * t_s / s.turn_s),
        4.0,
        2.0,
    ).T_camera_ct()
    spine = np.eye(4)
    spine[1, 3] = s.spine * s.breath_mm * breath
    return arm @ spine, float(breath)


def _rendered(
    person: Person, region: Region, camera: Camera, t_s: Float, seed: int, shapes: list[Cylinder]
) -> tuple[list[Any], list[Float]]:
    """Counts and truth of every frame; bodies are made once for each phase. Shapes stay with the spine."""
    target = person.target_ct(region)
    poses = [pose_at(target, t) for t in t_s]
    bodies: dict[int, Body] = {}
    frames: list[Any] = [None] * len(t_s)
    nearest = [round(breath * (SETTINGS.phases - 1)) for _, breath in poses]
    set_up = SetUp.of(Picture(), np.random.default_rng(seed))
    # One phase after another, so that one body is held at a time.
    for i in tqdm(sorted(range(len(t_s)), key=lambda k: nearest[k]), "rendering", unit="frame"):
        phase = nearest[i]
        if phase not in bodies:
            bodies = {phase: _phase(person, region, phase, seed)}
        noise = np.random.default_rng([seed, i])
        body, T = bodies[phase], poses[i][0]
        frames[i], _ = picture_of(body, shapes, camera, T, Picture(), set_up, noise, SETTINGS.every_px)
    return frames, [T for T, _ in poses]


def _phase(person: Person, region: Region, phase: int, seed: int) -> Body:
    breath = SETTINGS.breath_mm * phase / (SETTINGS.phases - 1)
    if not breath:
        return still_body(person, grid_mm=SETTINGS.grid_mm)
    motion = moved(person, region, 0, breath, np.random.default_rng(seed))
    return moved_body(person, motion, grid_mm=SETTINGS.grid_mm)


def _played(
    attenuation: AttenuationStage, registration: RegistrationStage, frames: list[Any], truths: list[Float],
    target_ct: Float, t_s: Float, clock: _FrameClock,
) -> StreamRun:  # fmt: skip
    """Shows the frames, each once the background is idle."""
    rows, unhurried = [], Budget(float("inf"))
    for i, (counts, truth) in enumerate(zip(frames, truths, strict=True)):
        clock.now_s = _STARTS_S + float(t_s[i])
        frame = FrameRecord.of_counts(counts, seq=i, t_acq=int(1e9 * clock.now_s), bits=14)
        for stage in (attenuation, registration):
            stage.process(frame, unhurried)
        found, row = frame.registration, [np.nan] * 4
        if found is not None:
            row = [
                target_error_mm(found.T_camera_ct, truth, target_ct)[0],
                found.tre_image_mm,
                rotation_distance_deg(found.T_camera_ct, truth),
                np.nan if (stated := rotation_bound_deg(found)) is None else stated,
            ]
        rows.append((*row, frame.status == "tracking"))
        for stage in (attenuation, registration):
            stage.idle(frame, unhurried)
        registration.wait_for_background()
    across, bound, turn, bound_turn, tracking = np.array(rows, np.float64).T
    return StreamRun(t_s, across, bound, turn, bound_turn, tracking.astype(bool))


def _summary(run: StreamRun, person: Person, region: Region, fps: float) -> dict[str, Any]:
    sure = run.tracking & np.isfinite(run.across_mm)
    first = np.flatnonzero(sure)

    def spread(values: Float) -> dict[str, float] | None:
        if not sure.any():
            return None
        return {"median": float(np.median(values[sure])), "p95": float(np.percentile(values[sure], 95))}

    def held(error: Float, bound: Float) -> float | None:
        said = sure & np.isfinite(bound)
        return float((error <= bound)[said].mean()) if said.any() else None

    return {
        "person": person.name,
        "region": region.name,
        "frames": len(run.t_s),
        "fps": fps,
        "breath_mm": SETTINGS.breath_mm,
        "turn_deg": SETTINGS.turn_deg,
        "first_pose_s": float(run.t_s[first[0]]) if len(first) else None,
        "tracking": float(run.tracking.mean()),
        "across_mm": spread(run.across_mm),
        "degrees": spread(run.degrees),
        "bound_mm": spread(run.bound_mm),
        "bound_degrees": spread(run.bound_degrees),
        "wrong_frames": int((run.across_mm[sure] > SETTINGS.wrong_mm).sum()),
        "bound_holds": held(run.across_mm, run.bound_mm),
        "rotation_bound_holds": held(run.degrees, run.bound_degrees),
        "machine": machine.description(),
    }


def table(result: dict[str, Any]) -> str:
    """The summary in lines."""

    def pair(key: str) -> str:
        return "-" if result[key] is None else f"{result[key]['median']:.2f} / {result[key]['p95']:.2f}"

    def percent(key: str) -> str:
        return "-" if result[key] is None else f"{100 * result[key]:.1f} %"

    first = "never" if result["first_pose_s"] is None else f"after {result['first_pose_s']:.1f} s"
    return "\n".join((
        f"{result['person']}, {result['region']}: {result['frames']} frames at {result['fps']:g} a second, breathing "
        f"{result['breath_mm']:g} mm, arm turning to {result['turn_deg']:g} degrees"
        + (f", {result['screws']} screws and two rods" if result["screws"] else "")
        + "; median / 95 %",
        f"believed first                   {first}, then in {percent('tracking')} of all frames",
        f"error across the ray, mm         {pair('across_mm')}, over 2 mm in {result['wrong_frames']} frames",
        f"error of the rotation, degrees   {pair('degrees')}",
        f"95 % bound across the ray, mm    {pair('bound_mm')}, holds in {percent('bound_holds')}",
        f"95 % bound of the rotation, deg  {pair('bound_degrees')}, holds in {percent('rotation_bound_holds')}",
    ))  # fmt: skip


def draw(run: StreamRun, path: Path) -> None:
    """Error and bound over time, of place and of rotation."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    place, turn = figure.subplots(2, 1, sharex=True)
    for axes, error, bound, unit in (
        (place, run.across_mm, run.bound_mm, "mm across the ray"),
        (turn, run.degrees, run.bound_degrees, "degrees"),
    ):
        axes.plot(run.t_s, np.where(run.tracking, error, np.nan), lw=0.9, color="tab:blue", label="error, believed")
        axes.plot(run.t_s, np.where(run.tracking, np.nan, error), ".", ms=3, color="tab:orange", label="not believed")
        axes.plot(run.t_s, bound, lw=0.9, color="0.6", label="95 % bound")
        axes.set_ylabel(unit)
        axes.set_ylim(0, None)
    place.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), fontsize=8, ncols=3, frameon=False)
    turn.set_xlabel("s")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
