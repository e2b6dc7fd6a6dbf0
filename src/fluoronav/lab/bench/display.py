"""From an overlay's arrival in the browser to its pixels, in a real browser with software rendering."""

from __future__ import annotations

import heapq
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import yaml
import zmq
from tqdm import tqdm

from fluoronav.case import load_case
from fluoronav.geometry import Camera
from fluoronav.lab import machine
from fluoronav.lab.bench import display_beside
from fluoronav.lab.bench.chromium import (
    FLAGS,
    SIZE,
    browser_processes,
    cpu_s,
    figures,
    find_chromium,
    heap_mb,
    of_low_priority,
)
from fluoronav.lab.process import end_process
from fluoronav.lab.simulation.rig import CapturedRun, capture_run, free_endpoints, why_without_a_pose
from fluoronav.lab.simulation.sequence import load_or_render
from fluoronav.site.launch import load_launch
from fluoronav.wire import encode

_SETTLING_S = 3.0  # after opening, before times count; chosen
_FPS = 30.0
_CAPTURED_FRAMES = 300  # of the pipeline, then replayed; chosen: 10 s


def bench_display(
    launch_path: Path,
    seconds: float,
    pipeline_seconds: float,
    viewers: int,
    niceness: int = 10,
    stages: list[str] | None = None,
    say: Callable[[str], None] = lambda text: None,
    size: tuple[int, int] = (SIZE["width"], SIZE["height"]),
) -> dict[str, Any]:
    """Measures the display alone, on recorded messages, and with the running pipeline.

    Parameters
    ----------
    launch_path : Path
        Its case is streamed.
    seconds, pipeline_seconds : float
        Of the run on recorded messages, and of the one with the pipeline.
    viewers : int
        Pages open at once during the run on recorded messages; the first is measured.
    niceness : int
        Of the browser, 0 to 19.
    stages : list of str, optional
        Of the pipeline, instead of the launch file's.
    say : callable
        Takes a line about the progress.
    size : tuple of int
        Width and height of the page, px.

    Returns
    -------
    dict
        ``recorded``: overlay to pixels (ms: p50, p99, count), pictures shown a second, first picture after opening
        (ms), JavaScript heap at start and end (MB), ``cpu_percent`` of server and browser (100 is one core), and
        ``memory_mb_each_minute``: the heap, and what the browser's processes and the server have for themselves.
        ``with_pipeline``: see :func:`fluoronav.lab.bench.display_beside.bench_beside`.

    Raises
    ------
    RuntimeError
        Playwright or Chromium is missing, or no recorded frame got a pose.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise RuntimeError("needs Playwright: pip install playwright") from error
    chromium = find_chromium()
    if chromium is None:
        raise RuntimeError("needs Chromium: apt-get install chromium")
    launch = load_launch(launch_path, **({"stages": stages} if stages else {})).model_dump(mode="json")
    say("recording 10 s of the pipeline")
    run = capture_run(launch, _CAPTURED_FRAMES, _FPS)
    if why := why_without_a_pose(run):
        raise RuntimeError(f"there is nothing to show: {why}")
    frames = load_or_render(load_case(launch["case"]), Camera.load(launch["camera"])).frames
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as name:
        program = of_low_priority(chromium, niceness, Path(name))
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        out: dict[str, Any] = {
            "machine": machine.description(), "viewers": viewers, "seconds": seconds, "size": list(size),
            "browser_niceness": niceness, "stages": list(launch["stages"]),
        }  # fmt: skip
        out["recorded"] = _recorded(browser, launch, run, frames, seconds, viewers, Path(name), size)
        say("beside the running pipeline, with the page and without it in turns")
        out["with_pipeline"] = display_beside.bench_beside(browser, launch, pipeline_seconds, size)
        browser.close()
    return out


def _recorded(
    browser, launch: dict, run: CapturedRun, frames, seconds: float, viewers: int, folder: Path, size: tuple[int, int]
) -> dict[str, Any]:
    import psutil

    endpoints = free_endpoints("tcp", folder)
    path = folder / "launch.yaml"
    path.write_text(yaml.safe_dump(launch | {"endpoints": endpoints}))
    context = zmq.Context.instance()
    pictures, said = context.socket(zmq.PUB), context.socket(zmq.PUB)
    for socket, endpoint in ((pictures, endpoints["frames"]), (said, endpoints["out"])):
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(endpoint)
    server = DisplayProcess(path)
    try:
        pages = [browser.new_page(viewport={"width": size[0], "height": size[1]}) for _ in range(viewers)]
        begin, opened, settled, heap, shown = time.monotonic(), False, False, 0.0, 0
        processes = {"server": [psutil.Process(server.process.pid)], "browser": browser_processes()}
        used, since = dict.fromkeys(processes, 0.0), begin
        memory: list[dict[str, float]] = []
        bar = tqdm(total=round(seconds), desc="recorded messages", unit="s")
        for k, due, kind, parts in _messages(run, frames, launch["source"]):
            time.sleep(max(begin + due - time.monotonic(), 0))
            elapsed = time.monotonic() - begin
            if elapsed > seconds + _SETTLING_S:
                break
            (pictures if kind == "frame" else said).send_multipart(parts())
            if not opened and k > 10:
                opened = True
                for page in pages:
                    page.goto(server.control)
            if opened and not settled and elapsed > _SETTLING_S:
                settled = True
                pages[0].evaluate("fluoronav.stats.overlayToPixels.length = 0")
                heap = heap_mb(pages[0])
                shown = pages[0].evaluate("fluoronav.stats.shown")
                used, since = {name: cpu_s(some) for name, some in processes.items()}, time.monotonic()
            if elapsed > _SETTLING_S + 60 * (len(memory) + 1):
                memory.append(_memory_mb(pages[0], server))
            bar.update(max(int(elapsed - _SETTLING_S) - bar.n, 0))
        took = time.monotonic() - since
        percent = {name: 100 * (cpu_s(some) - used[name]) / took for name, some in processes.items()}
        result = figures(pages[0], heap, shown, seconds) | {"cpu_percent": percent, "memory_mb_each_minute": memory}
        for page in pages:
            page.close()
        return result
    finally:
        server.close()
        pictures.close()
        said.close()


def _messages(run: CapturedRun, frames, source: str) -> Iterator[tuple[int, float, str, Callable[[], list[bytes]]]]:
    """The recorded messages, repeated without end: number, time (s), kind, and a function that makes the parts.

    Each overlay follows its frame by as long as it did in the recording.
    """

    def frame(k: int) -> list[bytes]:
        taken[k] = time.time_ns()
        counts = frames[run.truth[run.overlays[k % n][1]["seq"]]["frame"]]
        header = {
            "v": 1, "source": source, "seq": k, "t_acq": taken[k], "rows": counts.shape[0], "cols": counts.shape[1],
            "dtype": "u2", "bits": 16,
        }  # fmt: skip
        return [f"frame/{source}".encode(), encode(header), counts.tobytes()]

    def overlay(k: int) -> list[bytes]:
        # As of a pipeline that is in time: the display alone is measured.
        told = run.overlays[k % n][1] | in_time | {"seq": k, "t_acq": taken.pop(k)}
        return [f"overlay/{source}".encode(), encode(told)]

    in_time = {"t_recv": 0, "t_sent": 0, "missed": False, "dropped": {"network": 0, "overload": 0, "invalid": 0}}
    n, taken = len(run.overlays), dict[int, int]()
    waiting: list[tuple[float, int]] = []
    for k in count():
        while waiting and waiting[0][0] <= k / _FPS:
            due, before = heapq.heappop(waiting)
            yield before, due, "overlay", partial(overlay, before)
        yield k, k / _FPS, "frame", partial(frame, k)
        received, told = run.overlays[k % n]
        heapq.heappush(waiting, (k / _FPS + (received - told["t_acq"]) / 1e9, k))


def _memory_mb(page, server: DisplayProcess) -> dict[str, float]:
    """The page's JavaScript heap, and the unshared memory of the browser's processes and of the server."""
    import psutil

    some = browser_processes(), [psutil.Process(server.process.pid)]
    own = [sum(p.memory_full_info().uss for p in processes) / 1e6 for processes in some]
    return {"heap": heap_mb(page), "browser": own[0], "server": own[1]}


class DisplayProcess:
    """`fluoronav display` at a free port.

    Parameters
    ----------
    launch : Path

    Attributes
    ----------
    watch, control : str
        The printed addresses.
    """

    def __init__(self, launch: Path) -> None:
        command = [sys.executable, "-m", "fluoronav", "display", str(launch), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.watch, self.control = (self.process.stdout.readline().split()[1] for _ in range(2))

    def close(self) -> None:
        end_process(self.process)


def table(result: dict[str, Any]) -> str:
    """The figures as text."""
    r = result["recorded"]
    t, heap, cpu = r["overlay_to_pixels_ms"], r["heap_mb"], r["cpu_percent"]
    lines = [
        f"overlay received to pixels drawn, {result['size'][0]} x {result['size'][1]}, drawn in software, browser at "
        f"niceness {result['browser_niceness']}",
        f"  fed from recorded messages, {result['viewers']} viewers: p50 {t['p50']:.1f} ms, p99 {t['p99']:.1f} ms of "
        f"{t['count']}; {r['shown_per_s']:.1f} pictures a second; first picture after {r['first_picture_ms']:.0f} ms; "
        f"heap {heap['start']:.1f} to {heap['end']:.1f} MB; of a core: server {cpu['server']:.0f} %, browser "
        f"{cpu['browser']:.0f} %",
    ]
    for k, m in enumerate(r["memory_mb_each_minute"], 1):
        lines.append(f"  minute {k}: heap {m['heap']:.1f}, browser {m['browser']:.0f}, server {m['server']:.0f} MB")
    return "\n".join([*lines, *display_beside.lines(result["with_pipeline"])])
