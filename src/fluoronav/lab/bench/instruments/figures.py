"""Figures of detections against the instruments of a scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from fluoronav.lab.bench.matching import SAME_PX, nearest, off_px
from fluoronav.lab.simulation.instrument_scenes import Placed
from fluoronav.stream.detection.network_input import KINDS
from fluoronav.stream.frame import RADIUS_95_2D, Detection

Float = NDArray[np.float64]


@dataclass(frozen=True)
class BentLimits:
    """Which instruments count as bent, by the sagitta of the visible axis; chosen: what an eye sees, and does not."""

    bent_px: float = 5.0  # and more
    straight_px: float = 1.0  # and less


LIMITS = BentLimits()


def compared(
    found: list[Detection], placed: tuple[Placed, ...], focal_px: float
) -> tuple[list[dict[str, Any]], list[Detection]]:
    """One row for each instrument of a scene, and the detections that match none."""
    left, rows = list(found), []
    for p in placed:
        tip, direction = p.axis_px[0], p.tip_direction
        row: dict[str, Any] = {
            "kind": p.kind, "found": False, "visible_px": len(p.axis_px), "bend_mm": p.metal.bend_mm,
            "tip_hidden": p.tip_hidden, "visible_bend_px": _sagitta_px(p.axis_px),
        }  # fmt: skip
        match = nearest(left, tip, direction)
        if match is not None:
            k, off = match
            d = left.pop(k)
            row |= {
                "found": True,
                "tip_px": off,
                "tip_mm": off * float(p.points_camera[0, 2]) / focal_px,
                "direction_deg": float(np.rad2deg(np.arccos(np.clip(d.direction @ direction, -1, 1)))),
                "called": d.kind,
                "sigma_px": d.sigma_px,
                "score": d.score,
                "bend_px": d.sagitta_px,
            }
        rows.append(row)
    return rows, left


def at_other_end(d: Detection, placed: tuple[Placed, ...]) -> bool:
    """Whether a detection is at the other end of an instrument's visible axis."""
    return any(off_px(d, p.axis_px[-1], p.tail_direction) < SAME_PX for p in placed)


def _sagitta_px(axis_px: Float) -> float:
    """Signed sagitta of an axis, tip first, over the chord from its tail to its tip."""
    chord = axis_px[0] - axis_px[-1]
    off = (axis_px - axis_px[-1]) @ np.array([-chord[1], chord[0]]) / max(float(np.hypot(*chord)), 1e-9)
    return float(off[np.abs(off).argmax()])


def figures(rows: list[dict[str, Any]], false: list[Detection], frames: int, dose: float) -> dict[str, Any]:
    """Figures of all exposures at one dose, and by kind."""

    def of(those: list[dict[str, Any]]) -> dict[str, Any]:
        hit = [r for r in those if r["found"]]
        in_sight = [r for r in those if not r["tip_hidden"]]

        def q(key: str, percent: float) -> float | None:
            return float(np.percentile([r[key] for r in hit], percent)) if hit else None

        return {
            "instruments": len(those),
            "detection_rate": len(hit) / max(len(those), 1),
            "detection_rate_95": interval_95(len(hit), len(those)),
            # Of the instruments whose tip is not hidden.
            "detection_rate_tip_in_sight": sum(r["found"] for r in in_sight) / max(len(in_sight), 1),
            "tip_px": {"median": q("tip_px", 50), "p95": q("tip_px", 95)},
            "tip_mm": {"median": q("tip_mm", 50), "p95": q("tip_mm", 95)},
            "direction_deg": q("direction_deg", 50),
            "kind_right": float(np.mean([r["kind"] == r["called"] for r in hit])) if hit else None,
            "held": float(np.mean([r["tip_px"] < RADIUS_95_2D * r["sigma_px"] for r in hit])) if hit else None,
        }

    whole = of(rows)
    whole["count"] = whole.pop("instruments")
    hit = [r for r in rows if r["found"]]
    bent = [r for r in hit if abs(r["visible_bend_px"]) >= LIMITS.bent_px]
    straight = [r for r in hit if abs(r["visible_bend_px"]) < LIMITS.straight_px]
    off = [abs(r["bend_px"] - r["visible_bend_px"]) for r in bent if r["bend_px"]]
    whole["bent"] = {
        "count": len(bent),
        "called_bent": sum(r["bend_px"] != 0 for r in bent) / max(len(bent), 1),
        "px_off": float(np.median(off)) if off else None,
        "straight": len(straight),
        "straight_called_bent": sum(r["bend_px"] != 0 for r in straight) / max(len(straight), 1),
    }
    return whole | {
        "photons": dose,
        "false_per_frame": len(false) / frames,
        "false_per_frame_95": interval_95(min(len(false), frames), frames),
        "kinds": {
            kind: of([r for r in rows if r["kind"] == kind])
            # By the kind that they were given.
            | {"false_per_frame": sum(d.kind == kind for d in false) / frames}
            for kind in KINDS
        },
    }


def interval_95(count: int, of: int) -> tuple[float, float]:
    """95 % Wilson interval of a proportion; (0, 1) without a sample."""
    if not of:
        return 0.0, 1.0
    interval = binomtest(count, of).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
