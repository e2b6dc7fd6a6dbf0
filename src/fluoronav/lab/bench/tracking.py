"""Tracking over time: error, time and keyframes of the registration in each frame of the demo's sequence."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.case import Case, load_case
from fluoronav.geometry import Camera, rotation_distance_deg
from fluoronav.lab import machine
from fluoronav.lab.bench.subjects import errors_mm
from fluoronav.lab.simulation.sequence import Sequence, load_or_render
from fluoronav.paths import shipped
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.preprocessing.stage import AttenuationStage
from fluoronav.stream.registration.stage import RegistrationStage

Float = NDArray[np.float64]


@dataclass(frozen=True)
class TrackingRun:
    """What each frame gave.

    Attributes
    ----------
    ms : ndarray, shape (n,)
        CPU time of the registration on the frame path.
    wall_ms : ndarray, shape (n,)
        The same by the clock.
    across_mm, bound_mm : ndarray, shape (n,)
        Error across the ray at the plan's target, and its 95 % bound; NaN without a pose.
    turn_deg : ndarray, shape (n,)
        Error of the rotation; NaN without a pose.
    measured, tracking : ndarray of bool, shape (n,)
    in_frame, beside : ndarray of bool, shape (n,)
        A keyframe was rendered in the frame, or beside the frame path since the frame before.
    model_error_mm : ndarray, shape (n,)
        Error of the pose that the linear model would have caused at its last keyframe's end.
    """

    ms: Float
    wall_ms: Float
    across_mm: Float
    bound_mm: Float
    turn_deg: Float
    measured: NDArray[np.bool_]
    tracking: NDArray[np.bool_]
    in_frame: NDArray[np.bool_]
    beside: NDArray[np.bool_]
    model_error_mm: Float


def bench_tracking(frames: int, fps: float, progress=lambda _: None) -> tuple[TrackingRun, dict[str, Any]]:
    """Tracks the demo's sequence in real time, in this process, with the two stages that tracking needs.

    Parameters
    ----------
    frames : int
        The sequence is played forth and back.
    fps : float
        Frames per second; the background has what the frame path leaves of each period.
    progress : callable

    Returns
    -------
    TrackingRun
    dict
        The bench's JSON.
    """
    case, camera = load_case("embedded"), Camera.load(shipped("calibration/demo-carm.yaml"))
    progress("rendering the sequence (once, then cached)")
    sequence = load_or_render(case, camera)
    run = _follow(case, camera, sequence, frames, 1 / fps, progress)
    return run, _summary(run, fps)


def _follow(case: Case, camera: Camera, sequence: Sequence, frames: int, period_s: float, progress) -> TrackingRun:
    attenuation, registration = AttenuationStage(), RegistrationStage()
    for stage in (attenuation, registration):
        stage.prepare(case, camera, progress)
    progress("searching the first pose")
    try:
        _find(attenuation, registration, sequence)
        progress(f"tracking {frames} frames")
        return _track(attenuation, registration, case, sequence, frames, period_s)
    finally:
        registration.close()


def _find(attenuation: AttenuationStage, registration: RegistrationStage, sequence: Sequence) -> None:
    """Shows the first frame until it is tracked."""
    for seq in range(1, 20):
        frame = FrameRecord.of_counts(np.array(sequence.frames[0]), seq=seq)
        for stage in (attenuation, registration):
            stage.process(frame, Budget(1e4))
            stage.idle(frame, Budget(1e6))
        registration.wait_for_background()
        if frame.status == "tracking":
            return
    raise RuntimeError("bench tracking: the first frame's pose was not found in 20 tries")


def _track(
    attenuation: AttenuationStage, registration: RegistrationStage, case: Case, sequence: Sequence, frames: int,
    period_s: float,
) -> TrackingRun:  # fmt: skip
    rows: list[tuple[float, ...]] = []
    keyframes, target = registration.patch_sets.keyframes, case.target_ct[None]
    in_frames, beside = keyframes.rendered_in_frames, keyframes.rendered_beside
    start = time.perf_counter()
    for i in range(frames):
        time.sleep(max(start + i * period_s - time.perf_counter(), 0))
        k = i % len(sequence.frames)
        at_ns = round(1e9 * (1 + i * period_s))
        frame = FrameRecord.of_counts(np.array(sequence.frames[k]), seq=100 + i, t_acq=at_ns)
        attenuation.process(frame, Budget(1000 * period_s))
        before_s, before_cpu_s = time.perf_counter(), time.thread_time()
        registration.process(frame, Budget(1000 * period_s))
        ms, wall_ms = 1000 * (time.thread_time() - before_cpu_s), 1000 * (time.perf_counter() - before_s)
        found, truth = frame.registration, sequence.T_camera_ct[k]
        across, turn, bound = np.nan, np.nan, np.nan
        if found is not None:
            across = errors_mm(found.T_camera_ct, truth, target)[1]
            turn, bound = rotation_distance_deg(found.T_camera_ct, truth), found.tre_image_mm
        rows.append((
            ms, wall_ms, across, bound, turn, found is not None and found.age == 0, frame.status == "tracking",
            keyframes.rendered_in_frames > in_frames, keyframes.rendered_beside > beside, keyframes.error_mm,
        ))  # fmt: skip
        in_frames, beside = keyframes.rendered_in_frames, keyframes.rendered_beside
        for stage in (attenuation, registration):
            stage.idle(frame, Budget(1000 * period_s))
    columns = np.array(rows, np.float64).T
    ms, wall_ms, across, bound, turn, measured, tracking, in_frame, beside, model_error = columns
    flags = [column.astype(bool) for column in (measured, tracking, in_frame, beside)]
    return TrackingRun(ms, wall_ms, across, bound, turn, flags[0], flags[1], flags[2], flags[3], model_error)


def _summary(run: TrackingRun, fps: float) -> dict[str, Any]:
    posed = np.isfinite(run.across_mm)
    across, n = run.across_mm[posed], len(run.ms)
    return {
        "fps": fps,
        "frames": n,
        "registration_cpu_ms": _median_and_p95(run.ms),
        "registration_wall_ms": _median_and_p95(run.wall_ms),
        "across_mm": _median_and_p95(across),
        "rotation_deg": _median_and_p95(run.turn_deg[posed]),
        "bound_holds": float((across <= run.bound_mm[posed]).mean()) if posed.any() else 0.0,
        "with_pose": float(posed.mean()),
        "measured": float(run.measured.mean()),
        "tracking": float(run.tracking.mean()),
        "renders_per_frame": {"in_frames": float(run.in_frame.mean()), "beside": float(run.beside.mean())},
        "model_error_mm": _median_and_p95(run.model_error_mm[run.beside]),
        "machine": machine.description(),
    }


def _median_and_p95(values: Float) -> dict[str, float]:
    if not len(values):
        return {"median": 0.0, "p95": 0.0}
    return {"median": float(np.median(values)), "p95": float(np.percentile(values, 95))}


def table(result: dict[str, Any]) -> str:
    """The summary in lines."""

    def pair(key: str) -> str:
        return f"{result[key]['median']:.2f} / {result[key]['p95']:.2f}"

    renders = result["renders_per_frame"]
    return "\n".join((
        f"{result['frames']} frames at {result['fps']:g} a second; median / 95 %",
        f"registration on the frame path, CPU ms    {pair('registration_cpu_ms')}",
        f"registration on the frame path, ms        {pair('registration_wall_ms')}",
        f"error across the ray, mm                  {pair('across_mm')}",
        f"error of the rotation, degrees            {pair('rotation_deg')}",
        f"error of the linear model, mm             {pair('model_error_mm')}",
        f"the 95 % bound holds in                   {100 * result['bound_holds']:.1f} %",
        f"measured in, tracking in                  {100 * result['measured']:.1f} %, {100 * result['tracking']:.1f} %",
        f"keyframes a frame: in frames, beside      {renders['in_frames']:.3f}, {renders['beside']:.3f}",
    ))  # fmt: skip


def draw(run: TrackingRun, fps: float, path: Path) -> None:
    """Error and time over the sequence, with keyframes marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    errors, times = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    t = np.arange(len(run.ms)) / fps
    errors.plot(t, run.across_mm, lw=0.8, color="tab:blue", label="error across the ray")
    errors.plot(t, run.bound_mm, lw=0.8, color="0.6", label="its 95 % bound")
    errors.plot(t, run.model_error_mm, lw=0.8, color="tab:green", label="error of the linear model, where it was left")
    for marks, colour, y, what in (
        (run.beside, "tab:green", -0.02, "keyframe rendered beside the frame path"),
        (run.in_frame, "tab:red", -0.05, "keyframe rendered in the frame"),
    ):
        errors.plot(t[marks], np.full(marks.sum(), y), "|", ms=7, color=colour, label=what)
    errors.set_ylabel("mm")
    errors.set_ylim(-0.08, None)
    errors.legend(loc="upper right", fontsize=8, ncols=2)
    times.plot(t, run.ms, lw=0.8, color="0.2", label="registration on the frame path, CPU")
    times.plot(t[run.in_frame], run.ms[run.in_frame], ".", ms=4, color="tab:red")
    times.set_ylabel("ms")
    times.set_xlabel("s")
    times.set_ylim(0, None)
    times.legend(loc="upper right", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
