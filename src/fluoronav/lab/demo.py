"""`fluoronav demo`: from frames to guidance, with a picture and a report at the end."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.case import load_case
from fluoronav.geometry import Camera
from fluoronav.lab.demo_case import with_instruments
from fluoronav.lab.latency_report import draw_histogram, report, table
from fluoronav.lab.simulation.picture import draw_overlay
from fluoronav.lab.simulation.rig import CapturedRun, capture_run
from fluoronav.lab.simulation.sequence import Sequence, load_or_render
from fluoronav.paths import write_json
from fluoronav.site.launch import load_launch

_FPS = 30.0  # chosen: a usual pulse rate
_FILTERED_FRAMES = 12  # before the frame in the picture; chosen: the temporal filter remembers no more


def run_demo(
    launch_path: Path, seconds: float, out: Path, display_port: int | None = None, case_path: Path | None = None
) -> str:
    """Runs the loop on a case; writes a picture, a latency report, overlays and alerts to a folder.

    Parameters
    ----------
    launch_path : Path
    seconds : float
        Length of the stream.
    out : Path
    display_port : int, optional
        Port of the navigation display meanwhile.
    case_path : Path, optional
        A ``case.yaml`` or its folder; the launch file's case by default.

    Returns
    -------
    str
        Why it failed: no frame got a pose, or a process ended; empty on success. The files are written either way.

    Raises
    ------
    RigError
        The pipeline did not start.
    """
    out.mkdir(parents=True, exist_ok=True)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    instead = {} if case_path is None else {"case": str(with_instruments(case_path.resolve(), out, say))}
    launch = load_launch(launch_path, **instead)
    case = load_case(launch.case)
    camera = Camera.load(launch.camera)
    say(f"case {case.id}: {len(case.structures)} structures, {len(case.plan)} planned trajectories")
    sequence = load_or_render(case, camera)
    say(f"starting the pipeline and streaming {seconds:g} s at {_FPS:g} frames a second")
    run = capture_run(
        launch.model_dump(mode="json"),
        max(round(seconds * _FPS), 1),
        _FPS,
        progress=say,
        size=max(camera.rows, camera.cols),
        display_port=display_port,
    )
    result = report(run, case.target_ct, launch.deadline_ms)
    left = _write(run, sequence, result, launch.deadline_ms, out)
    print(table(result))
    for line in _alert_lines(run):
        print(line)
    print(f"left in {out}/: {', '.join(left)}")
    return result["failed"]


def _write(run: CapturedRun, sequence: Sequence, result: dict[str, Any], deadline_ms: float, out: Path) -> list[str]:
    """Writes report, histogram, overlays, alerts and picture; returns the files' names."""
    write_json(result, out / "latency.json")
    (out / "latency.txt").write_text(table(result) + "\n")
    draw_histogram(run, deadline_ms, out / "latency.png")
    for name, messages in (("overlays", run.overlays), ("alerts", run.alerts)):
        with (out / f"{name}.jsonl").open("w") as file:
            file.writelines(json.dumps(message) + "\n" for _, message in messages)
    left = ["latency.png", "latency.txt", "latency.json", "overlays.jsonl", "alerts.jsonl"]
    (out / "demo.png").unlink(missing_ok=True)  # of an earlier run
    if (overlay := _closest_overlay(run)) is not None:
        cv2.imwrite(str(out / "demo.png"), _drawn(run, sequence, overlay))
        left.insert(0, "demo.png")
    return left


def _alert_lines(run: CapturedRun) -> Iterator[str]:
    """One line for each change of an alert; open alerts are repeated on the wire."""
    said: dict[tuple[str, str | None], str] = {}
    for _, alert in run.alerts:
        words = f"{alert['state']} {alert['priority']} {alert['kind']}: {alert['text']}"
        about = alert["kind"], alert.get("structure")
        if said.get(about) != words:
            yield f"alert at frame {alert['seq']}: {words}"
        said[about] = words


def _closest_overlay(run: CapturedRun) -> dict[str, Any] | None:
    """The tracked overlay, on time if possible, in which the instrument is closest to a structure."""
    overlays = [overlay for _, overlay in run.overlays if overlay["seq"] in run.truth]
    shown = [o for o in overlays if o["status"] == "tracking" and o["outlines"]]
    shown = [o for o in shown if not o["missed"]] or shown
    if not shown:
        return overlays[-1] if overlays else None
    return min(shown, key=lambda o: min((d["lower_mm"] for d in o["distances"]), default=1e9))


def _drawn(run: CapturedRun, sequence: Sequence, overlay: dict[str, Any]) -> NDArray[np.uint8]:
    """The frame of an overlay, filtered with those before it, with the overlay drawn on it."""
    seq = overlay["seq"]
    sent = [run.truth[k]["frame"] for k in range(seq - _FILTERED_FRAMES, seq) if k in run.truth]
    before = [sequence.frames[k] for k in sent]
    return draw_overlay(sequence.frames[run.truth[seq]["frame"]], overlay, before)
