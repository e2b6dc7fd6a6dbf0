"""`fluoronav demo`: the main job, from frames to guidance, with something to look at afterwards."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2

from fluoronav.bench.latency import draw_histogram, report, table
from fluoronav.case import load_case
from fluoronav.geometry import Camera
from fluoronav.paths import write_json
from fluoronav.pipeline import load_launch
from fluoronav.simulation.picture import draw_overlay
from fluoronav.simulation.rig import Recording, record
from fluoronav.simulation.sequence import load_or_render

_FPS = 30.0


def run_demo(launch_path: Path, seconds: float, out: Path, display_port: int | None = None) -> None:
    """Runs the loop on the embedded case and leaves a picture, a latency report and the overlays in a folder.

    Parameters
    ----------
    launch_path : Path
    seconds : float
        How long to stream.
    out : Path
    display_port : int, optional
        Where to serve the navigation display meanwhile.
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
        launch.model_dump(mode="json"), round(seconds * _FPS), _FPS, progress=say, display_port=display_port
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
    overlay = _most_telling(recording)
    if overlay is not None:
        frame = sequence.frames[recording.truth[overlay["seq"]]["frame"]]
        cv2.imwrite(str(out / "demo.png"), draw_overlay(frame, overlay))
    print(text)
    for _, alert in recording.alerts:
        print(f"alert at frame {alert['seq']}: {alert['state']} {alert['priority']} {alert['kind']}: {alert['text']}")
    print(f"left in {out}/: demo.png, latency.png, latency.txt, latency.json, overlays.jsonl, alerts.jsonl")


def _most_telling(recording: Recording):
    """The overlay in which the instrument comes closest to something, of those that track."""
    shown = [o for _, o in recording.overlays if o["status"] == "tracking" and o["outlines"]]
    if not shown:
        return recording.overlays[-1][1] if recording.overlays else None
    return min(shown, key=lambda o: min((d["lower_mm"] for d in o["distances"]), default=1e9))
