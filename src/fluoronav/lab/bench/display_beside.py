"""What a page beside the pipeline costs it: the pipeline with the page and without it, in turns in one run."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from fluoronav.lab.bench.chromium import SIZE, browser_processes, cpu_s, summary
from fluoronav.lab.simulation.rig import CapturedRun, capture_run


@dataclass(frozen=True, slots=True)
class Turns:
    """Lengths, s; all are chosen."""

    fps: float = 30.0  # frames a second
    turn_s: float = 10.0  # of one turn, with the page or without it
    settling_s: float = 3.0  # of a turn, left out: the page opens, or ends
    opening_s: float = 4.0  # for a page to open or end, on a busy computer
    start_s: float = 15.0  # the search for the patient, before the first turn
    wait_s: float = 150.0  # for the pipeline to start and to show something


TURNS = Turns()
_VERBS = {"display": "server", "run": "pipeline"}  # what `fluoronav <verb>` is called here


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: whether the page was open, when it was measured (ns since 1970), and what it took.

    `cpu_percent` is of the display's server, the browser and the pipeline; 100 is one core. The rest is the page's:
    None, or 0, where it was not open.
    """

    page: bool
    begin_ns: int
    end_ns: int
    cpu_percent: dict[str, float]
    overlay_to_pixels_ms: list[float]
    shown_per_s: float
    said: str


def bench_beside(
    browser, launch: dict[str, Any], seconds: float, size: tuple[int, int] = (SIZE["width"], SIZE["height"])
) -> dict[str, Any]:
    """Runs grabber, pipeline and server, and opens and closes a page in turns.

    Parameters
    ----------
    browser : playwright.sync_api.Browser
    launch : dict
        Content of a launch file.
    seconds : float
        With the page, and as long without it.
    size : tuple of int
        Width and height of the page, px.

    Returns
    -------
    dict
        ``alone`` and ``page``: of the pipeline exposure to overlay (ms: p50, p99, count), ``late`` (share of frames
        over the deadline), ``dropped``, ``cpu_percent``; ``page`` also has overlay to pixels (ms), ``shown_per_s`` and
        ``said``, what the page said about fewer or smaller pictures in how many turns. ``p99_ratio`` is page to alone.
    """
    from playwright.sync_api import Error

    rounds = max(round(seconds / TURNS.turn_s), 1)
    port = _free_port()
    frames = round((2 * rounds * (TURNS.turn_s + TURNS.opening_s) + TURNS.start_s) * TURNS.fps)
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    address = f"http://127.0.0.1:{port}/"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(capture_run, launch, frames, TURNS.fps, display_port=port)
        _wait_for(lambda: _serves(port), running)
        page.goto(address)
        _wait_for(lambda: page.evaluate("fluoronav.state.newest?.registration != null"), running)
        page.wait_for_timeout(1000 * TURNS.settling_s)
        turns: list[Turn] = []
        while len(turns) < 2 * rounds and not running.done():
            try:
                turns += [_turn(page, address, with_page) for with_page in (False, True)]
            except Error:  # the stream has ended meanwhile: whole pairs count
                if not turns:
                    raise
                break
        page.close()
        run = running.result()
    if not turns:
        raise RuntimeError("the stream ended before the page had been open and closed once: the computer is too busy")
    return result_of(run, turns, float(launch["deadline_ms"]))


def _turn(page, address: str, with_page: bool) -> Turn:
    page.goto(address if with_page else "about:blank")
    page.wait_for_timeout(1000 * TURNS.settling_s)
    if with_page:
        page.evaluate("fluoronav.stats.overlayToPixels.length = 0")
    before = page.evaluate("fluoronav.stats.shown") if with_page else 0
    processes = _processes()
    used, begin_ns, begin = {name: cpu_s(some) for name, some in processes.items()}, time.time_ns(), time.monotonic()
    page.wait_for_timeout(1000 * (TURNS.turn_s - TURNS.settling_s))
    took, end_ns = time.monotonic() - begin, time.time_ns()
    percent = {name: 100 * (cpu_s(some) - used[name]) / took for name, some in processes.items()}
    if not with_page:
        return Turn(False, begin_ns, end_ns, percent, [], 0.0, "")
    shown = page.evaluate("fluoronav.stats.overlayToPixels"), page.evaluate("fluoronav.stats.shown") - before
    said = page.evaluate("document.getElementById('thinned')?.textContent ?? ''")
    return Turn(True, begin_ns, end_ns, percent, shown[0], shown[1] / took, said)


def result_of(run: CapturedRun, turns: list[Turn], deadline_ms: float) -> dict[str, Any]:
    """The bench's figures of a run whose page was open in turns; see :func:`bench_beside`.

    Parameters
    ----------
    run : CapturedRun
    turns : list of Turn
    deadline_ms : float
    """
    out: dict[str, Any] = {}
    for name, some in (("alone", [t for t in turns if not t.page]), ("page", [t for t in turns if t.page])):
        # By the time of exposure, so that a frame that took long counts where it began.
        overlays = [(t, o) for t, o in run.overlays if any(s.begin_ns <= o["t_acq"] < s.end_ns for s in some)]
        took_ms = np.array([(t - o["t_acq"]) / 1e6 for t, o in overlays])
        out[name] = {
            "exposure_to_overlay_ms": summary(took_ms),
            "late": float((took_ms > deadline_ms).mean()) if len(took_ms) else 0.0,
            "dropped": sum(o["dropped"]["network"] + o["dropped"]["overload"] for _, o in overlays),
            "cpu_percent": {k: float(np.mean([s.cpu_percent[k] for s in some])) for k in some[0].cpu_percent},
        }
    with_page = [t for t in turns if t.page]
    said = [t.said for t in with_page if t.said]
    out["page"] |= {
        "overlay_to_pixels_ms": summary([ms for t in with_page for ms in t.overlay_to_pixels_ms]),
        "shown_per_s": float(np.mean([t.shown_per_s for t in with_page])),
        "said": {words: said.count(words) for words in sorted(set(said))},
    }
    alone = out["alone"]["exposure_to_overlay_ms"]["p99"]
    out["p99_ratio"] = out["page"]["exposure_to_overlay_ms"]["p99"] / alone if alone else None
    return out


def lines(result: dict[str, Any]) -> list[str]:
    """The figures as text."""
    out = ["the pipeline, exposure to overlay, in turns in one run:"]
    for name, words in (("alone", "alone"), ("page", "with the page beside it")):
        r = result[name]
        t, cpu = r["exposure_to_overlay_ms"], r["cpu_percent"]
        out.append(
            f"  {words}: p50 {t['p50']:.1f} ms, p99 {t['p99']:.1f} ms, {r['late']:.1%} of {t['count']} late, "
            f"{r['dropped']} dropped; of a core: " + ", ".join(f"{who} {percent:.0f} %" for who, percent in cpu.items())
        )
    page = result["page"]
    t = page["overlay_to_pixels_ms"]
    out.append(
        f"  the page: overlay to pixels p50 {t['p50']:.1f} ms, p99 {t['p99']:.1f} ms; {page['shown_per_s']:.1f} "
        "pictures a second" + "".join(f"; it said in {count} turns: {words}" for words, count in page["said"].items())
    )
    if result["p99_ratio"] is not None:
        out.append(f"  p99 with the page to alone: {result['p99_ratio']:.2f}")
    return out


def _processes() -> dict[str, list[Any]]:
    """Server, browser and pipeline among the processes that this process has started."""
    import psutil

    found: dict[str, list[Any]] = {"server": [], "browser": browser_processes(), "pipeline": []}
    for process in psutil.Process().children(recursive=True):
        try:
            command = process.cmdline()
        except psutil.NoSuchProcess:
            continue
        verb = next((after for word, after in pairwise(command) if word == "fluoronav"), "")
        if verb in _VERBS:
            found[_VERBS[verb]].append(process)
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serves(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False


def _wait_for(done: Callable[[], bool], running: Future[CapturedRun]) -> None:
    end = time.monotonic() + TURNS.wait_s
    while not done():
        if running.done():
            running.result()  # raises what has failed
            raise RuntimeError("the stream ended before the display showed anything")
        if time.monotonic() > end:
            raise RuntimeError(f"the display showed nothing in {TURNS.wait_s:.0f} s")
        time.sleep(0.3)
