"""`fluoronav demo`: the main job, from frames to guidance, with something to look at afterwards."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.case import load_case
from fluoronav.geometry import Camera
from fluoronav.lab.latency_report import draw_histogram, report, table
from fluoronav.lab.simulation.picture import draw_overlay
from fluoronav.lab.simulation.rig import Recording, record
from fluoronav.lab.simulation.sequence import Sequence, load_or_render
from fluoronav.paths import write_json
from fluoronav.site.launch import load_launch

_FPS = 30.0
_FILTERED_FRAMES = 12  # before the pictured one: more are forgotten by the filter over time


def run_demo(launch_path: Path, seconds: float, out: Path, display_port: int | None = None) -> str:
    """Runs the loop on the embedded case and leaves a picture, a latency report and the overlays in a folder.

    Parameters
    ----------
    launch_path : Path
    seconds : float
        How long to stream.
    out : Path
    display_port : int, optional
        Where to serve the navigation display meanwhile.

    Returns
    -------
    str
        Why it failed: no frame got a pose, or a process ended. Empty where it did what it is for. What was recorded is
        left in the folder either way.

    Raises
    ------
    RigError
        The pipeline did not start.
    """
    out.mkdir(parents=True, exist_ok=True)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    launch = load_launch(launch_path)
    case = load_case(launch.case)
    camera = Camera.load(launch.camera)
    say(f"case {case.id}: {len(case.structures)} structures, {len(case.plan)} planned trajectories")
    sequence = load_or_render(case, camera)
    say(f"starting the pipeline and streaming {seconds:g} s at {_FPS:g} frames a second")
    recording = record(
        launch.model_dump(mode="json"),
        max(round(seconds * _FPS), 1),
        _FPS,
        progress=say,
        size=max(camera.rows, camera.cols),
        display_port=display_port,
    )
    result = report(recording, case.target_ct, launch.deadline_ms)
    text = table(result)
    write_json(result, out / "latency.json")
    (out / "latency.txt").write_text(text + "\n")
    draw_histogram(recording, launch.deadline_ms, out / "latency.png")
    with (out / "overlays.jsonl").open("w") as file:
        file.writelines(json.dumps(overlay) + "\n" for _, overlay in recording.overlays)
    with (out / "alerts.jsonl").open("w") as file:
        file.writelines(json.dumps(alert) + "\n" for _, alert in recording.alerts)
    left = ["latency.png", "latency.txt", "latency.json", "overlays.jsonl", "alerts.jsonl"]
    (out / "demo.png").unlink(missing_ok=True)  # of a run before this one
    if (overlay := _most_telling(recording)) is not None:
        cv2.imwrite(str(out / "demo.png"), _drawn(recording, sequence, overlay))
        left.insert(0, "demo.png")
    print(text)
    said: dict[tuple[str, str | None], str] = {}
    for _, alert in recording.alerts:
        words = f"{alert['state']} {alert['priority']} {alert['kind']}: {alert['text']}"
        about = alert["kind"], alert.get("structure")
        if said.get(about) != words:  # open alerts are repeated
            print(f"alert at frame {alert['seq']}: {words}")
        said[about] = words
    print(f"left in {out}/: {', '.join(left)}")
    return result["failed"]


def _most_telling(recording: Recording) -> dict[str, Any] | None:
    """The overlay in which the instrument comes closest to something, of those that track and are on time."""
    overlays = [overlay for _, overlay in recording.overlays if overlay["seq"] in recording.truth]
    shown = [o for o in overlays if o["status"] == "tracking" and o["outlines"]]
    shown = [o for o in shown if not o["missed"]] or shown
    if not shown:
        return overlays[-1] if overlays else None
    return min(shown, key=lambda o: min((d["lower_mm"] for d in o["distances"]), default=1e9))


def _drawn(recording: Recording, sequence: Sequence, overlay: dict[str, Any]) -> NDArray[np.uint8]:
    """The frame of an overlay and those sent before it, as a picture."""
    seq = overlay["seq"]
    sent = [recording.truth[k]["frame"] for k in range(seq - _FILTERED_FRAMES, seq) if k in recording.truth]
    before = [sequence.frames[k] for k in sent]
    return draw_overlay(sequence.frames[recording.truth[seq]["frame"]], overlay, before)
