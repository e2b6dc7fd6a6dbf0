"""Exposure to overlay, through real processes and sockets. See docs/benches.md for the method."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from fluoronav.lab.simulation.rig import Recording, tracking_errors, why_without_a_pose

# A detection that was left out for want of time takes less.
_LEFT_OUT_MS = 0.5

_QUANTILES = {"p50": 50, "p90": 90, "p99": 99, "p99_9": 99.9, "max": 100}


def quantiles(values) -> dict[str, float]:
    """p50, p90, p99, p99.9 and the maximum; zeros where there is nothing."""
    values = np.asarray(values, dtype=np.float64)
    if len(values) == 0:
        return dict.fromkeys(_QUANTILES, 0.0)
    return {name: float(np.percentile(values, q)) for name, q in _QUANTILES.items()}


def end_to_end_ms(recording: Recording) -> np.ndarray:
    """Exposure to overlay received, per overlay."""
    return np.array([(t - o["t_acq"]) / 1e6 for t, o in recording.overlays])


def report(recording: Recording, target_ct, deadline_ms: float) -> dict[str, Any]:
    """The bench's JSON.

    Parameters
    ----------
    recording : Recording
    target_ct : array, shape (3,)
        Where the tracking error is measured.
    deadline_ms : float
    """
    latency = end_to_end_ms(recording)
    overlays = [o for _, o in recording.overlays]
    reasons = ("network", "overload", "invalid")
    dropped = {r: sum(o["dropped"][r] for o in overlays) for r in reasons}
    names = list(overlays[0]["stages"]) if overlays else []
    stages = {name: quantiles([o["stages"][name] for o in overlays]) for name in names}
    stages["send"] = quantiles([(t - o["t_sent"]) / 1e6 for t, o in recording.overlays])
    errors = tracking_errors(recording, target_ct)
    statuses = [o["status"] for o in overlays]
    detection = [o["stages"]["detection"] for o in overlays if o["registration"] and "detection" in o["stages"]]
    middle = lambda x: quantiles(np.abs(x)) | {"p95": float(np.percentile(np.abs(x), 95)) if len(x) else 0.0}  # noqa: E731
    return {
        "end_to_end_ms": quantiles(latency),
        "stages_ms": stages,
        "frames": {
            "sent": recording.sent,
            "received": recording.health[-1][1]["frames"]["received"] if recording.health else 0,
            "overlays": len(overlays),
            "missed": int((latency > deadline_ms).sum()),
            "dropped": dropped["network"] + dropped["overload"],
            "dropped_by_reason": dropped,
        },
        "tracking": {
            **{name: middle(errors[name]) for name in ("across_mm", "along_mm", "space_mm", "tre_mm", "tre_image_mm")},
            "covered_space": float((errors["space_mm"] <= errors["tre_mm"]).mean()) if len(errors["tre_mm"]) else None,
            "covered_image": float((errors["across_mm"] <= errors["tre_image_mm"]).mean())
            if len(errors["tre_mm"])
            else None,
            "with_pose": sum(o["registration"] is not None for o in overlays),
            "status": {s: statuses.count(s) for s in sorted(set(statuses))},
            # Of the frames with a pose; in the others the instruments are carried on.
            "detection_ran": float(np.mean(np.array(detection) > _LEFT_OUT_MS)) if detection else None,
        },
        # Why the run says nothing of what it was for; empty where it does.
        "failed": why_without_a_pose(recording),
        "start_s": {"ready": recording.start_to_ready_s, "first_overlay": recording.start_to_overlay_s},
        "rss_mb": recording.rss_mb,
        "cpu_percent": recording.cpu_percent,
        "machine": {"cpu": processor_name(), "cores": processor_cores(), "system": platform.platform()},
        "versions": {n: version(n) for n in ("fluoronav", "numpy", "numba", "pyzmq", "opencv-python-headless")}
        | {"python": platform.python_version()},
    }


def table(result: dict[str, Any]) -> str:
    """The report for people."""
    lines = [f"{'ms':24}" + "".join(f"{name:>9}" for name in ("p50", "p90", "p99", "p99.9", "max"))]
    rows = {"end to end": result["end_to_end_ms"]} | {f"  {n}": q for n, q in result["stages_ms"].items()}
    lines += [f"{name:24}" + "".join(f"{q[k]:9.2f}" for k in _QUANTILES) for name, q in rows.items()]
    f = result["frames"]
    by = ", ".join(f"{n} {c}" for n, c in f["dropped_by_reason"].items())
    lines.append("")
    lines.append(
        f"frames: {f['sent']} sent = {f['overlays']} overlays + {f['dropped']} dropped ({by}); {f['missed']} late"
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
        lines.append(f"detection had time in {t['detection_ran']:.0%} of the frames with a pose")
    lines.append(
        f"memory {result['rss_mb']:.0f} MB, load {result['cpu_percent']:.0f} % of a core; first overlay "
        f"{result['start_s']['first_overlay']:.1f} s after the start"
        if f["overlays"]
        else f"memory {result['rss_mb']:.0f} MB, load {result['cpu_percent']:.0f} % of a core; no overlay came"
    )
    if result["failed"]:
        lines.append(f"FAILED: {result['failed']}")
    return "\n".join(lines)


def draw_histogram(recording: Recording, deadline_ms: float, path: Path) -> None:
    """Histogram of exposure to overlay, with the deadline, as PNG; one that says so where no overlay came."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    latency = end_to_end_ms(recording)
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
    axis.set_title(f"{len(latency)} overlays of {recording.sent} frames")
    axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def processor_name() -> str:
    """This computer's processor, in its own words."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()


def processor_cores() -> int:
    """Cores that this process may use."""
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
