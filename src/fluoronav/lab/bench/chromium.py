"""A headless Chromium for benches and tests, and what its page and its processes say of themselves."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np

SIZE = {"width": 1280, "height": 720}  # of the page, px
# As on a computer without a GPU: software rendering, and a software GPU for WebGL (the 3D view). The other flags
# keep the browser from using the network.
FLAGS = [
    "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-gpu", "--enable-unsafe-swiftshader",
]  # fmt: skip


def find_chromium() -> str | None:
    """Path of the system's Chromium; None if there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def of_low_priority(chromium: str, niceness: int, folder: Path) -> str:
    """Writes a program that starts Chromium at a niceness, as `launch/systemd/fluoronav-screen.service` does.

    Linux weighs the processes of one session against those of others by the session's own niceness, where it groups
    them (autogroup): the program lowers both.

    Parameters
    ----------
    chromium : str
    niceness : int
        0 to 19; 0 returns `chromium` itself.
    folder : Path
        Where the program is written.

    Returns
    -------
    str
        Path of the program.
    """
    if niceness == 0:
        return chromium
    path = folder / "chromium-at-low-priority"
    lines = (
        "#!/bin/sh",
        f"{{ echo {niceness} > /proc/self/autogroup; }} 2>/dev/null",
        f'exec nice -n {niceness} {shlex.quote(chromium)} "$@"',
    )
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o755)
    return str(path)


def figures(page, heap_mb_before: float, shown_before: int, seconds: float) -> dict[str, Any]:
    """Overlay to pixels (ms), pictures shown a second, first picture (ms) and heap (MB) of the display's page.

    Parameters
    ----------
    page : playwright.sync_api.Page
    heap_mb_before, shown_before : float, int
        Heap, and number of pictures that were shown, when the run began.
    seconds : float
        Length of the run.
    """
    return {
        "overlay_to_pixels_ms": summary(page.evaluate("fluoronav.stats.overlayToPixels")),
        "shown_per_s": (page.evaluate("fluoronav.stats.shown") - shown_before) / seconds,
        "first_picture_ms": page.evaluate("fluoronav.stats.firstPictureAt"),
        "heap_mb": {"start": heap_mb_before, "end": heap_mb(page)},
    }


def summary(times_ms) -> dict[str, float]:
    """Median, 99th percentile and number of times, ms; zeros if there are none."""
    times = np.asarray(times_ms, dtype=np.float64)
    p50, p99 = np.percentile(times, (50, 99)) if len(times) else (0.0, 0.0)
    return {"p50": float(p50), "p99": float(p99), "count": len(times)}


def heap_mb(page) -> float:
    """The page's JavaScript heap after a garbage collection, MB."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    used = session.send("Runtime.getHeapUsage")["usedSize"]
    session.detach()
    return used / 1e6


def browser_processes() -> list[Any]:
    """The processes of the browsers that this process has started, as :class:`psutil.Process`."""
    import psutil

    return [p for p in psutil.Process().children(recursive=True) if "chrom" in _name(p)]


def _name(process) -> str:
    import psutil

    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def cpu_s(processes) -> float:
    """What processes have used of the processor so far, s; those that have ended count as nothing."""
    import psutil

    used = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        used += times.user + times.system
    return used
