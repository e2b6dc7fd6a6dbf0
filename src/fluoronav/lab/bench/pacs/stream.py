"""What a node that receives costs the live stream: runs without it and with it, in turns."""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fluoronav.case import load_case
from fluoronav.geometry import Camera
from fluoronav.lab.bench.pacs.rig import BenchNode, PacsBenchError, until
from fluoronav.lab.bench.pacs.sender import send_for_ever
from fluoronav.lab.bench.pacs.series import Template
from fluoronav.lab.latency_report import end_to_end_ms
from fluoronav.lab.simulation.rig import CapturedRun, capture_run, scaled_camera, why_without_a_pose
from fluoronav.lab.simulation.sequence import load_or_render
from fluoronav.site.launch import LaunchFile

FPS = 30.0
_PAUSE_S = 5.0  # between two series; chosen: a scanner makes one in minutes
_END_S = 60.0  # for the series that is on its way
_NOBODY = "http://127.0.0.1:9/dicom-web"  # no result is sent in this part


def bench_stream(
    folder: Path, series: Template, launch: LaunchFile, frames: int, pairs: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Runs `fluoronav run` as `bench latency` does, alone and beside a node that takes series in and makes cases.

    Parameters
    ----------
    folder : Path
        For the node.
    series : Template
    launch : LaunchFile
    frames, pairs : int
        Frames of a run, and runs of each kind: A B, then B A, and so on.
    say : callable

    Returns
    -------
    dict
        ``stream_p99_ms``: ``alone`` and ``beside``, from exposure to overlay, over all frames of all runs.
        ``stream_runs``: each run's ``p50_ms``, ``p99_ms``, ``late`` and ``series`` that were taken meanwhile.
    """
    with tempfile.TemporaryDirectory() as name:
        # Frames are rendered before the first run.
        load_or_render(load_case(launch.case), Camera.load(scaled_camera(launch.camera, 1024, Path(name))))
    times: dict[str, list[np.ndarray]] = {"alone": [], "beside": []}
    runs = []
    for k in range(pairs):
        for kind in ("alone", "beside") if k % 2 == 0 else ("beside", "alone"):
            place = folder / f"{kind}-{k}"
            ms, taken = _run(place, kind, series, launch, frames)
            times[kind].append(ms)
            p50, p99 = np.percentile(ms, (50, 99))
            late = int((ms > launch.deadline_ms).sum())
            runs.append({"kind": kind, "p50_ms": _ms(p50), "p99_ms": _ms(p99), "late": late, "series": taken})
            say(f"stream {kind}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, {taken} series taken meanwhile")
    return {
        "stream_p99_ms": {kind: _ms(np.percentile(np.concatenate(some), 99)) for kind, some in times.items()},
        "stream_runs": runs,
    }


def _run(folder: Path, kind: str, series: Template, launch: LaunchFile, frames: int) -> tuple[np.ndarray, int]:
    """Exposure to overlay of each frame, ms, and the number of series that a node took meanwhile."""
    if kind == "alone":
        return _captured(launch, frames), 0
    with _receiving(folder, series) as taken:
        before = taken.value
        ms = _captured(launch, frames)
        if taken.value == before:
            raise PacsBenchError("the node took no series while the stream ran: give it more --frames")
        return ms, taken.value - before


def _captured(launch: LaunchFile, frames: int) -> np.ndarray:
    run: CapturedRun = capture_run(launch.model_dump(mode="json"), frames, FPS)
    if why := why_without_a_pose(run):
        raise PacsBenchError(f"the stream gave no result: {why}")
    return end_to_end_ms(run)


@contextmanager
def _receiving(folder: Path, series: Template) -> Iterator[Any]:
    """A node that takes series all the time; yields the number of those that it took."""
    folder.mkdir(parents=True)
    spawn = multiprocessing.get_context("spawn")
    taken, ended = spawn.Value("i", 0), spawn.Event()
    node = BenchNode(folder / "site", _NOBODY)
    # The scanner is a process of its own, so that it does not delay what stamps the overlays.
    scanner = spawn.Process(
        target=send_for_ever, args=(series.slices, node.port, folder / "ct", _PAUSE_S, taken, ended), daemon=True
    )
    try:
        node.start()
        scanner.start()
        until(lambda: taken.value, "the node takes the first series")
        yield taken
    finally:
        ended.set()
        if scanner.pid is not None:
            scanner.join(_END_S)
            scanner.kill()
        node.stop()
        shutil.rmtree(folder)


def _ms(value: float) -> float:
    return round(float(value), 1)
