"""Proximity alerts over many simulated approaches: whether one is missed, how late it is, how many are for nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fluoronav.case import Case, load_case, sample_distances
from fluoronav.geometry import Camera
from fluoronav.paths import shipped
from fluoronav.stream.frame import Budget, FrameRecord, Instrument
from fluoronav.stream.guidance import GuidanceStage
from fluoronav.stream.guidance.distances import LIMITS

Float = NDArray[np.float64]

_FPS = 30.0
# An alert is for nothing when the true distance is beyond its threshold by more than so many sigmas of the measured
# one; a bound of 95 % comes early by 1.6 of them on average.
_FOR_NOTHING_SIGMAS = 4.0


def bench_alerts(approaches: int, seed: int) -> dict[str, Any]:
    """Straight approaches to the embedded case's watched structures, at 2 to 60 mm/s; some stop short.

    The tip is measured with an error of 0.2 to 1 mm (1 sigma a direction, as claimed); alerts come from the stage that
    the pipeline runs. The truth is the distance of tip and shaft without that error.

    Returns
    -------
    dict
        ``approaches``, ``due``, ``missed`` and ``late`` (share of the due ones, by more than one frame),
        ``delay_frames``, ``raised``, ``false`` (share of the raised ones), ``flutter`` (share of approaches in which
        one alert was raised more than once).
    """
    case, camera = load_case("embedded"), Camera.load(shipped("calibration/demo-carm.yaml"))
    stage = GuidanceStage()
    stage.prepare(case, camera)
    rng = np.random.default_rng(seed)
    watched = [s for s in case.structures if s.caution_mm is not None]
    surfaces = {s.name: _surface(s) for s in watched}
    missed = late = due = raised = false = fluttered = 0
    delays: list[int] = []
    blank = np.zeros((2, 2), np.uint16)
    for n in tqdm(range(approaches), "approaches", unit="approach"):
        s = watched[n % len(watched)]
        goal = surfaces[s.name][rng.integers(len(surfaces[s.name]))]
        axis = rng.standard_normal(3)
        axis /= np.linalg.norm(axis)
        speed, sigma = np.exp(rng.uniform(np.log(2), np.log(60))), rng.uniform(0.2, 1.0)
        stops = rng.uniform(-1, 12)
        travel = np.arange(30.0, stops, -speed / _FPS)[:400]
        tips = goal - travel[:, None] * axis
        stage.start_again()
        claimed = float(np.hypot(sigma, LIMITS.segmentation_sigma_mm))
        due_since: dict[str, int] = {}
        reached: dict[str, bool] = {}
        raises: dict[str, int] = {}
        for k, tip in enumerate(tips):
            frame = FrameRecord.of_counts(blank, seq=k)
            field_mask = tip + rng.normal(0, sigma, 3)
            tool = Instrument(case.tools[0].id, "k-wire", None, None, field_mask, axis, sigma, "tracker", 0)
            frame.instruments = (tool,)
            stage.process(frame, Budget(30))
            levels = {d.structure: d.level for d in frame.distances}
            true_mm = {w.name: _true_distance(case, w, tip, axis) for w in watched}
            for w in watched:
                if true_mm[w.name] <= (w.danger_mm or 0) and w.name not in due_since:
                    due_since[w.name] = k
                    due += 1
                if w.name in due_since and w.name not in reached and levels[w.name] == "danger":
                    reached[w.name] = True
                    delays.append(k - due_since[w.name])
                    late += delays[-1] > 1
            for alert in frame.alerts:
                if alert.kind != "proximity" or alert.state not in ("raised", "changed"):
                    continue
                name = str(alert.structure)
                raised += 1
                beyond = true_mm[name] - float(alert.threshold_mm or 0)
                false += beyond > _FOR_NOTHING_SIGMAS * claimed
                if alert.state == "raised":
                    raises[name] = raises.get(name, 0) + 1
        # One that was due in the last frame or two had no time to be late.
        missed += sum(1 for name, k in due_since.items() if name not in reached and k < len(tips) - 2)
        due -= sum(1 for name, k in due_since.items() if name not in reached and k >= len(tips) - 2)
        fluttered += any(v > 1 for v in raises.values())
    stage.close()
    return {
        "approaches": approaches,
        "due": due,
        "missed": missed / max(due, 1),
        "late": late / max(due, 1),
        "delay_frames": {
            "median": float(np.median(delays)),
            "p95": float(np.percentile(delays, 95)),
            "max": max(delays),
        },
        "raised": raised,
        "false": false / max(raised, 1),
        "flutter": fluttered / approaches,
    }


def _surface(structure) -> Float:
    """Points of a structure's surface, LPS mm."""
    field = structure.field
    at = np.argwhere(np.abs(field.hundredths.astype(np.int32)) < 60)[:, ::-1]
    return field.origin_ct + at * field.spacing_mm


_ALONG = np.arange(0.0, 152.0, 2.0)


def _true_distance(case: Case, structure, tip: Float, axis: Float) -> float:
    """Of tip and shaft, without error."""
    tool = case.tools[0]
    steps = _ALONG[tool.length_mm >= _ALONG]
    out = np.empty((len(steps), 4))
    field = structure.field
    sample_distances(field.hundredths, field.origin_ct, field.spacing_mm, tip - steps[:, None] * axis, out)
    return float((out[:, 0] - np.where(steps > 0, tool.diameter_mm / 2, 0)).min())
