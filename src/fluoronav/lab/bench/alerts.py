"""Proximity alerts over many simulated approaches: missed, late and false ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fluoronav.case import Case, Structure, load_case, sample_distances
from fluoronav.geometry import Camera
from fluoronav.paths import shipped
from fluoronav.stream.frame import Budget, FrameRecord, Instrument
from fluoronav.stream.guidance import GuidanceStage
from fluoronav.stream.guidance.distances import LIMITS

Float = NDArray[np.float64]

_LONGEST_TOOL_MM = 150.0  # of the shaft, so much counts; as in the stage


@dataclass(frozen=True)
class ApproachSettings:
    """How tips approach structures; all chosen."""

    fps: float = 30.0
    from_mm: float = 30.0  # distance of the tip at the beginning
    stops_mm: tuple[float, float] = (-1.0, 12.0)  # distance at the end, uniform
    speeds_mm_s: tuple[float, float] = (2.0, 60.0)  # log-uniform
    sigmas_mm: tuple[float, float] = (0.2, 1.0)  # error of the tip, 1 sigma per direction, uniform
    most_frames: int = 400
    # An alert is false if the true distance exceeds its threshold by more sigmas of the measured one. A bound of 95 %
    # comes early by 1.6 of them on average.
    false_sigmas: float = 4.0
    frames_to_react: int = 2  # an alert due in the last frames of an approach does not count
    shaft_step_mm: float = 2.0  # between points of the shaft at which the true distance is taken


SETTINGS = ApproachSettings()


@dataclass
class _Counts:
    """Alerts over all approaches; those that are due are the danger alerts."""

    due: int = 0
    missed: int = 0
    late: int = 0
    raised: int = 0
    false: int = 0
    fluttered: int = 0
    delays: list[int] = field(default_factory=list)


def bench_alerts(approaches: int, seed: int) -> dict[str, Any]:
    """Straight approaches to the embedded case's watched structures, at 2 to 60 mm/s; some stop before.

    The tip is measured with an error of 0.2 to 1 mm (1 sigma per direction, stated as such). Alerts come from the stage
    of the pipeline. The truth is the distance of tip and shaft without that error.

    Returns
    -------
    dict
        ``approaches``; ``due``; ``missed`` and ``late``, fractions of the due alerts (late: by more than one frame);
        ``delay_frames``; ``raised``; ``false``, fraction of the raised alerts; ``flutter``, fraction of the approaches
        in which one alert was raised more than once.
    """
    case, camera = load_case("embedded"), Camera.load(shipped("calibration/demo-carm.yaml"))
    stage = GuidanceStage()
    stage.prepare(case, camera)
    rng = np.random.default_rng(seed)
    watched = [s for s in case.structures if s.caution_mm is not None]
    surfaces = {s.name: _surface(s) for s in watched}
    counts = _Counts()
    for n in tqdm(range(approaches), "approaches", unit="approach"):
        s = watched[n % len(watched)]
        goal = surfaces[s.name][rng.integers(len(surfaces[s.name]))]
        axis = rng.standard_normal(3)
        axis /= np.linalg.norm(axis)
        speed, sigma = np.exp(rng.uniform(*np.log(SETTINGS.speeds_mm_s))), rng.uniform(*SETTINGS.sigmas_mm)
        travel = np.arange(SETTINGS.from_mm, rng.uniform(*SETTINGS.stops_mm), -speed / SETTINGS.fps)
        tips = goal - travel[: SETTINGS.most_frames, None] * axis
        stage.start_again()
        _approach(stage, case, watched, tips, axis, float(sigma), rng, counts)
    stage.close()
    return {
        "approaches": approaches,
        "due": counts.due,
        "missed": counts.missed / max(counts.due, 1),
        "late": counts.late / max(counts.due, 1),
        "delay_frames": {
            "median": float(np.median(counts.delays)),
            "p95": float(np.percentile(counts.delays, 95)),
            "max": max(counts.delays),
        },
        "raised": counts.raised,
        "false": counts.false / max(counts.raised, 1),
        "flutter": counts.fluttered / approaches,
    }


def _approach(
    stage: GuidanceStage, case: Case, watched: list[Structure], tips: Float, axis: Float, sigma: float,
    rng: np.random.Generator, counts: _Counts,
) -> None:  # fmt: skip
    """Runs one approach through the stage and counts its alerts."""
    stated = float(np.hypot(sigma, LIMITS.segmentation_sigma_mm))
    blank = np.zeros((2, 2), np.uint16)
    due_since: dict[str, int] = {}
    reached: set[str] = set()
    raises: Counter[str] = Counter()
    for k, tip in enumerate(tips):
        frame = FrameRecord.of_counts(blank, seq=k)
        measured = tip + rng.normal(0, sigma, 3)
        frame.instruments = (Instrument(case.tools[0].id, "k-wire", None, None, measured, axis, sigma, "tracker", 0),)
        stage.process(frame, Budget(30))
        levels = {d.structure: d.level for d in frame.distances}
        true_mm = {w.name: _true_distance(case, w, tip, axis) for w in watched}
        for w in watched:
            if true_mm[w.name] <= (w.danger_mm or 0):
                due_since.setdefault(w.name, k)
            if w.name in due_since and w.name not in reached and levels[w.name] == "danger":
                reached.add(w.name)
                counts.delays.append(k - due_since[w.name])
                counts.late += counts.delays[-1] > 1
        for alert in frame.alerts:
            if alert.kind == "proximity" and alert.state in ("raised", "changed"):
                counts.raised += 1
                beyond = true_mm[str(alert.structure)] - float(alert.threshold_mm or 0)
                counts.false += beyond > SETTINGS.false_sigmas * stated
                raises[str(alert.structure)] += alert.state == "raised"
    unanswered = [k for name, k in due_since.items() if name not in reached]
    missed = sum(k < len(tips) - SETTINGS.frames_to_react for k in unanswered)
    counts.missed += missed
    counts.due += len(due_since) - (len(unanswered) - missed)
    counts.fluttered += any(v > 1 for v in raises.values())


def _surface(structure: Structure) -> Float:
    """Points of a structure's surface, LPS mm."""
    distances = structure.field
    at = np.argwhere(np.abs(distances.hundredths.astype(np.int32)) < 60)[:, ::-1]
    return distances.origin_ct + at * distances.spacing_mm


def _true_distance(case: Case, structure: Structure, tip: Float, axis: Float) -> float:
    """Distance of tip and shaft from a structure's surface, without error, mm."""
    tool = case.tools[0]
    along = np.arange(0.0, _LONGEST_TOOL_MM + SETTINGS.shaft_step_mm, SETTINGS.shaft_step_mm)
    steps = along[tool.length_mm >= along]
    out = np.empty((len(steps), 4))
    distances = structure.field
    sample_distances(distances.hundredths, distances.origin_ct, distances.spacing_mm, tip - steps[:, None] * axis, out)
    return float((out[:, 0] - np.where(steps > 0, tool.diameter_mm / 2, 0)).min())
