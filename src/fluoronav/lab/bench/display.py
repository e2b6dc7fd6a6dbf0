"""From an overlay's arrival in the browser to its pixels, in a real browser with software rendering."""

from __future__ import annotations

import heapq
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import yaml
import zmq
from tqdm import tqdm

from fluoronav.case import load_case
from fluoronav.geometry import Camera
from fluoronav.lab import machine
from fluoronav.lab.process import end_process
from fluoronav.lab.simulation.rig import CapturedRun, capture_run, free_endpoints, why_without_a_pose
from fluoronav.lab.simulation.sequence import load_or_render
from fluoronav.site.launch import load_launch
from fluoronav.wire import encode

_SIZE = {"width": 1280, "height": 720}
# As on a computer without a GPU: software rendering, and a software GPU for WebGL (the 3D view). The other flags
# keep the browser from using the network.
CHROMIUM_FLAGS = [
    "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-gpu", "--enable-unsafe-swiftshader",
]  # fmt: skip
_SETTLING_S = 3.0  # after opening, before times count; chosen
_FPS = 30.0
_CAPTURED_FRAMES = 300  # of the pipeline, then replayed; chosen: 10 s


def bench_display(
    launch_path: Path,
    seconds: float,
    pipeline_seconds: float,
    viewers: int,
    say: Callable[[str], None] = lambda text: None,
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

    Returns
    -------
    dict
        ``recorded``, ``with_pipeline``: overlay to pixels (ms: p50, p99, count), frames shown a second, first picture
        after opening (ms), JavaScript heap at start and end (MB); ``recorded`` also has ``memory_mb_each_minute``: the
        heap, and what the browser's processes and the server have for themselves.

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
    launch = load_launch(launch_path).model_dump(mode="json")
    say("recording 10 s of the pipeline")
    run = capture_run(launch, _CAPTURED_FRAMES, _FPS)
    if why := why_without_a_pose(run):
        raise RuntimeError(f"there is nothing to show: {why}")
    frames = load_or_render(load_case(launch["case"]), Camera.load(launch["camera"])).frames
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as name:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        out: dict[str, Any] = {"machine": machine.description(), "viewers": viewers, "seconds": seconds, "size": _SIZE}
        out["recorded"] = _recorded(browser, launch, run, frames, seconds, viewers, Path(name))
        say("beside the running pipeline")
        out["with_pipeline"] = _with_pipeline(browser, launch, pipeline_seconds)
        browser.close()
    return out


def _recorded(
    browser, launch: dict, run: CapturedRun, frames, seconds: float, viewers: int, folder: Path
) -> dict[str, Any]:
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
        pages = [browser.new_page(viewport=_SIZE) for _ in range(viewers)]
        begin, opened, settled, heap, drawn = time.monotonic(), False, False, 0.0, 0
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
                heap = _heap_mb(pages[0])
                drawn = pages[0].evaluate("fluoronav.stats.drawn")
            if elapsed > _SETTLING_S + 60 * (len(memory) + 1):
                memory.append(_memory_mb(pages[0], server))
            bar.update(max(int(elapsed - _SETTLING_S) - bar.n, 0))
        result = _figures(pages[0], heap, drawn, seconds) | {"memory_mb_each_minute": memory}
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
        told = run.overlays[k % n][1] | {"seq": k, "t_acq": taken.pop(k)}
        return [f"overlay/{source}".encode(), encode(told)]

    n, taken = len(run.overlays), dict[int, int]()
    waiting: list[tuple[float, int]] = []
    for k in count():
        while waiting and waiting[0][0] <= k / _FPS:
            due, before = heapq.heappop(waiting)
            yield before, due, "overlay", partial(overlay, before)
        yield k, k / _FPS, "frame", partial(frame, k)
        received, told = run.overlays[k % n]
        heapq.heappush(waiting, (k / _FPS + (received - told["t_acq"]) / 1e9, k))


def _with_pipeline(browser, launch: dict, seconds: float) -> dict[str, Any]:
    import socket
    from concurrent.futures import ThreadPoolExecutor

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    page = browser.new_page(viewport=_SIZE)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(capture_run, launch, round((seconds + 12) * _FPS), _FPS, display_port=port)
        _wait_for(lambda: _opened(page, f"http://127.0.0.1:{port}/"), 120)
        _wait_for(lambda: page.evaluate("fluoronav.stats.overlaySeq !== null"), 120)
        page.wait_for_timeout(5000)
        page.evaluate("fluoronav.stats.overlayToPixels.length = 0")
        heap, drawn = _heap_mb(page), page.evaluate("fluoronav.stats.drawn")
        page.wait_for_timeout(1000 * seconds)
        result = _figures(page, heap, drawn, seconds)
        page.close()
        run = running.result()
    late = np.array([(received - o["t_acq"]) / 1e6 for received, o in run.overlays])
    return result | {"exposure_to_overlay_ms": {"p50": float(np.median(late)), "p99": float(np.percentile(late, 99))}}


def _figures(page, heap_mb: float, drawn: int, seconds: float) -> dict[str, Any]:
    times = np.array(page.evaluate("fluoronav.stats.overlayToPixels"))
    return {
        "overlay_to_pixels_ms": {
            "p50": float(np.median(times)), "p99": float(np.percentile(times, 99)), "count": len(times),
        },
        "drawn_per_s": (page.evaluate("fluoronav.stats.drawn") - drawn) / seconds,
        "first_picture_ms": page.evaluate("fluoronav.stats.firstPictureAt"),
        "heap_mb": {"start": heap_mb, "end": _heap_mb(page)},
    }  # fmt: skip


def _heap_mb(page) -> float:
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    used = session.send("Runtime.getHeapUsage")["usedSize"]
    session.detach()
    return used / 1e6


def _memory_mb(page, server: DisplayProcess) -> dict[str, float]:
    """The page's JavaScript heap, and the unshared memory of the browser's processes and of the server."""
    import psutil

    chromium = [p for p in psutil.Process().children(recursive=True) if "chrom" in p.name()]
    own = [
        sum(p.memory_full_info().uss for p in some) / 1e6 for some in (chromium, [psutil.Process(server.process.pid)])
    ]
    return {"heap": _heap_mb(page), "browser": own[0], "server": own[1]}


def _opened(page, address: str) -> bool:
    try:
        page.goto(address)
    except Exception as error:  # Playwright's error type cannot be imported without Playwright
        if "ERR_CONNECTION_REFUSED" not in str(error):
            raise
        return False
    return True


def _wait_for(done: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise RuntimeError(f"the display showed nothing in {seconds:.0f} s")
        time.sleep(0.3)


def find_chromium() -> str | None:
    """Path of the system's Chromium; None if there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


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
    lines = [f"overlay received to pixels drawn, {_SIZE['width']} x {_SIZE['height']}, drawn in software"]
    for name, text in (("recorded", f"fed from recorded messages, {result['viewers']} viewers"),
                       ("with_pipeline", "beside the running pipeline")):  # fmt: skip
        r = result[name]
        t, heap = r["overlay_to_pixels_ms"], r["heap_mb"]
        lines.append(
            f"  {text}: p50 {t['p50']:.1f} ms, p99 {t['p99']:.1f} ms of {t['count']}; {r['drawn_per_s']:.1f} frames a "
            f"second; first picture after {r['first_picture_ms']:.0f} ms; "
            f"heap {heap['start']:.1f} to {heap['end']:.1f} MB"
        )
    for k, m in enumerate(result["recorded"]["memory_mb_each_minute"], 1):
        lines.append(f"  minute {k}: heap {m['heap']:.1f}, browser {m['browser']:.0f}, server {m['server']:.0f} MB")
    e = result["with_pipeline"]["exposure_to_overlay_ms"]
    return "\n".join(
        [*lines, f"  the pipeline meanwhile: exposure to overlay p50 {e['p50']:.1f}, p99 {e['p99']:.1f} ms"]
    )
