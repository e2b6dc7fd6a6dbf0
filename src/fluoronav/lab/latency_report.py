"""Report of the latency from exposure to overlay, through real processes and sockets; method: docs/benches.md."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from fluoronav.lab import machine
from fluoronav.lab.simulation.rig import CapturedRun, tracking_errors, why_without_a_pose

_QUANTILES = {"p50": 50, "p90": 90, "p99": 99, "p99_9": 99.9, "max": 100}


def quantiles(values) -> dict[str, float]:
    """p50, p90, p99, p99.9 and the maximum; zeros if there are no values."""
    values = np.asarray(values, dtype=np.float64)
    if len(values) == 0:
        return dict.fromkeys(_QUANTILES, 0.0)
    return {name: float(np.percentile(values, q)) for name, q in _QUANTILES.items()}


def end_to_end_ms(run: CapturedRun) -> np.ndarray:
    """From exposure to overlay received, ms, shape (overlays,)."""
    return np.array([(t - o["t_acq"]) / 1e6 for t, o in run.overlays])


def first_pose_s(run: CapturedRun) -> float | None:
    """From the first frame sent to the first overlay with a pose received, s; None if there was none."""
    posed = next((t for t, o in run.overlays if o["registration"] is not None), None)
    if posed is None or not run.truth:
        return None
    return (posed - min(line["t_acq"] for line in run.truth.values())) / 1e9


def sent_fps(run: CapturedRun) -> float | None:
    """Rate at which the grabber sent, frames a second; None for fewer than two frames."""
    times = [line["t_acq"] for line in run.truth.values()]
    lasted_ns = max(times) - min(times) if len(times) > 1 else 0
    return 1e9 * (len(times) - 1) / lasted_ns if lasted_ns else None


def report(run: CapturedRun, target_ct, deadline_ms: float) -> dict[str, Any]:
    """The bench's JSON: latency, frames, tracking error, start, memory and load, machine.

    ``keyframes`` is what the last health message says of them: how many were rendered, by where. None where it says
    nothing.

    Parameters
    ----------
    run : CapturedRun
    target_ct : array, shape (3,)
        Point at which the tracking error is measured, LPS, mm.
    deadline_ms : float
    """
    latency = end_to_end_ms(run)
    overlays = [o for _, o in run.overlays]
    dropped = {r: sum(o["dropped"][r] for o in overlays) for r in ("network", "overload", "invalid")}
    names = list(overlays[0]["stages"]) if overlays else []
    stages = {name: quantiles([o["stages"][name] for o in overlays]) for name in names}
    stages["send"] = quantiles([(t - o["t_sent"]) / 1e6 for t, o in run.overlays])
    return {
        "end_to_end_ms": quantiles(latency),
        "stages_ms": stages,
        "frames": {
            "sent": run.sent,
            "received": run.health[-1][1]["frames"]["received"] if run.health else 0,
            "overlays": len(overlays),
            "missed": int((latency > deadline_ms).sum()),
            "dropped": dropped["network"] + dropped["overload"],
            "dropped_by_reason": dropped,
        },
        "tracking": _tracking(overlays, tracking_errors(run, target_ct)),
        "errors": sorted({health["error"] for _, health in run.health if health.get("error")}),
        "failed": why_without_a_pose(run),  # why the run has no result; empty where it has one
        "start_s": {
            "ready": run.start_to_ready_s,
            "first_overlay": run.start_to_overlay_s,
            "first_pose": first_pose_s(run),
        },
        "fps_sent": sent_fps(run),
        "keyframes": run.health[-1][1].get("keyframes") if run.health else None,
        "resting": run.health[-1][1].get("resting", {}) if run.health else {},
        "rested": _rested(run),
        "rss_mb": run.rss_mb,
        "cpu_percent": run.cpu_percent,
        "machine": machine.description(),
        "versions": {n: version(n) for n in ("fluoronav", "numpy", "numba", "pyzmq", "opencv-python-headless")}
        | {"python": platform.python_version()},
    }


def _rested(run: CapturedRun) -> dict[str, dict[str, Any]]:
    """Stages that rested, by name: for how long and of how long (health is said once a second), and why at last."""
    rested: dict[str, dict[str, Any]] = {}
    for _, health in run.health:
        for stage, why in health.get("resting", {}).items():
            seconds = rested.get(stage, {"s": 0})["s"] + 1
            rested[stage] = {"s": seconds, "of_s": len(run.health), "why": why}
    return rested


def _tracking(overlays: list[dict[str, Any]], errors: dict[str, np.ndarray]) -> dict[str, Any]:
    """Errors and bounds of the poses, statuses, and in which part of the frames with a pose the detection ran."""

    def absolute(values: np.ndarray) -> dict[str, float]:
        values = np.abs(values)
        return quantiles(values) | {"p95": float(np.percentile(values, 95)) if len(values) else 0.0}

    measured = len(errors["tre_mm"]) > 0
    statuses = [o["status"] for o in overlays]
    # Without a pose the instruments are predicted only.
    looks = [o["look"]["kind"] for o in overlays if o["registration"] and o.get("look")]
    return {
        **{name: absolute(errors[name]) for name in ("across_mm", "along_mm", "space_mm", "tre_mm", "tre_image_mm")},
        "covered_space": float((errors["space_mm"] <= errors["tre_mm"]).mean()) if measured else None,
        "covered_image": float((errors["across_mm"] <= errors["tre_image_mm"]).mean()) if measured else None,
        "with_pose": sum(o["registration"] is not None for o in overlays),
        "status": {s: statuses.count(s) for s in sorted(set(statuses))},
        "detection_ran": 1 - looks.count("none") / len(looks) if looks else None,
        "detection_looks": {kind: looks.count(kind) for kind in sorted(set(looks))},
    }


def table(result: dict[str, Any]) -> str:
    """The report as text."""
    lines = [*machine.words(result["machine"]), ""]
    lines += [f"{'ms':24}" + "".join(f"{name:>9}" for name in ("p50", "p90", "p99", "p99.9", "max"))]
    rows = {"end to end": result["end_to_end_ms"]} | {f"  {n}": q for n, q in result["stages_ms"].items()}
    lines += [f"{name:24}" + "".join(f"{q[k]:9.2f}" for k in _QUANTILES) for name, q in rows.items()]
    f = result["frames"]
    by = ", ".join(f"{n} {c}" for n, c in f["dropped_by_reason"].items())
    lines.append("")
    rate = f" at {result['fps_sent']:.1f} a second" if result["fps_sent"] else ""
    lines.append(
        f"frames: {f['sent']} sent{rate} = {f['overlays']} overlays + {f['dropped']} dropped ({by}); {f['missed']} late"
    )
    t = result["tracking"]
    if t["covered_space"] is not None:
        for name, label in (("across_mm", "across the ray"), ("space_mm", "in space")):
            lines.append(f"tracking error {label}: median {t[name]['p50']:.2f} mm, 95 % {t[name]['p95']:.2f} mm")
        lines.append(
            f"claimed 95 % bounds (median): {t['tre_image_mm']['p50']:.2f} mm across, {t['tre_mm']['p50']:.2f} mm in "
            f"space; they held for {t['covered_image']:.1%} and {t['covered_space']:.1%}"
        )
    if f["overlays"]:
        counted = ", ".join(f"{name} {count}" for name, count in t["status"].items())
        lines.append(f"status: {counted}; {t['with_pose']} of {f['overlays']} overlays with a pose")
        if f["missed"] > f["overlays"] / 2:
            lines.append(f"MOST FRAMES WERE LATE: {f['missed']} of {f['overlays']} overlays came after the deadline")
    if t["detection_ran"] is not None:
        kinds = ", ".join(f"{kind} {count}" for kind, count in t["detection_looks"].items())
        lines.append(f"detection looked in {t['detection_ran']:.1%} of the frames with a pose ({kinds})")
    lines += [f"{stage} rests: {why}" for stage, why in result["resting"].items()]
    lines += [
        f"{stage} rested for {r['s']} of {r['of_s']} s, and works again: {r['why']}"
        for stage, r in result["rested"].items()
        if stage not in result["resting"]
    ]
    if not result["rested"]:
        lines.append("no stage rested")
    if result["keyframes"]:
        lines.append(
            "keyframes rendered: " + ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in result["keyframes"].items())
        )
    if result["start_s"]["first_pose"] is not None:
        lines.append(f"first pose {result['start_s']['first_pose']:.2f} s after the first frame")
    lines.append(
        f"memory {result['rss_mb']:.0f} MB, load {result['cpu_percent']:.0f} % of a core; first overlay "
        f"{result['start_s']['first_overlay']:.1f} s after the start"
        if f["overlays"]
        else f"memory {result['rss_mb']:.0f} MB, load {result['cpu_percent']:.0f} % of a core; no overlay came"
    )
    lines += [f"THE PIPELINE SAID AN ERROR: {error}" for error in result["errors"]]
    if result["failed"]:
        lines.append(f"FAILED: {result['failed']}")
    return "\n".join(lines)


def draw_histogram(run: CapturedRun, deadline_ms: float, path: Path) -> None:
    """Writes the histogram of the latency with the deadline, as PNG; its title counts the overlays."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    latency = end_to_end_ms(run)
    figure, axis = plt.subplots(figsize=(8, 4), constrained_layout=True)
    top = max(deadline_ms * 1.2, float(np.percentile(latency, 99.9)) * 1.1 if len(latency) else 0.0)
    axis.hist(np.clip(latency, 0, top), bins=120, range=(0, top), color="#2e86c1")
    axis.set_yscale("symlog", linthresh=1)
    axis.axvline(deadline_ms, color="#c0392b", label=f"deadline {deadline_ms:g} ms")
    for name, q in (("median", 50), ("99 %", 99)) if len(latency) else ():
        value = float(np.percentile(latency, q))
        axis.axvline(value, color="#555555", linestyle=":" if q == 99 else "--", label=f"{name} {value:.1f} ms")
    axis.set_xlabel("exposure to overlay received, ms")
    axis.set_ylabel("frames")
    axis.set_title(f"{len(latency)} overlays of {run.sent} frames")
    axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
