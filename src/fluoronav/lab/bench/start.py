"""`fluoronav bench start`: from the start of the pipeline's process to the first overlay, by phase.

Three computers are played: one that has run the pipeline before, one after the installation (`fluoronav kernels build`
has run, nothing else is cached), and one on which nothing was ever compiled.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from fluoronav.case import load_case
from fluoronav.geometry import Camera
from fluoronav.kernels.target import in_words, this_target
from fluoronav.lab import machine
from fluoronav.lab.simulation.rig import capture_run
from fluoronav.lab.simulation.sequence import load_or_render
from fluoronav.paths import cache_folder
from fluoronav.site.launch import LaunchFile
from fluoronav.stream.pipeline.start import IN_TURN

COMPUTERS = ("warm", "installed", "cold")
_FRAMES, _FPS = 30, 30.0
_PHASE = re.compile(r"([a-z][a-z ]*) (\d+\.\d+) s")


def bench_start(launch: LaunchFile, runs: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Starts the pipeline on each of the three computers.

    Parameters
    ----------
    launch : LaunchFile
    runs : int
        Starts of each; what is compiled or cached is taken away between them.
    say : callable
        Told of each start.

    Returns
    -------
    dict
        `kernels_build_s`, and for each computer `runs`: seconds to `ready` and to `first_overlay`, and by phase.
    """
    load_or_render(load_case(launch.case), Camera.load(launch.camera))
    rendered = cache_folder("sequences")
    result: dict[str, Any] = {computer: [] for computer in COMPUTERS}
    with tempfile.TemporaryDirectory() as name:
        kernels = Path(name) / "kernels"
        with _caches(Path(name) / "build", kernels, rendered):
            began = time.monotonic()
            subprocess.run([sys.executable, "-m", "fluoronav", "kernels", "build"], check=True, stdout=sys.stderr)
            result["kernels_build_s"] = time.monotonic() - began
        for run in range(runs):
            for computer in ("installed", "warm", "cold"):
                # The second start in a folder is the warm one.
                home = Path(name) / f"{'cold' if computer == 'cold' else 'installed'}-{run}"
                with _caches(home, home / "kernels" if computer == "cold" else kernels, rendered):
                    row = _start(launch)
                result[computer].append(row)
                say(f"{computer}: first overlay after {row['first_overlay']:.1f} s")
    return {
        **result,
        "kernels_for": this_target(),
        "stages": list(launch.stages),
        "machine": machine.description(),
    }


@contextmanager
def _caches(home: Path, kernels: Path, rendered: Path) -> Iterator[None]:
    """Caches for the processes that are started inside: empty ones, but for the rendered frames."""
    (home / "fluoronav").mkdir(parents=True, exist_ok=True)
    if not (home / "fluoronav" / "sequences").exists():
        (home / "fluoronav" / "sequences").symlink_to(rendered)
    before = dict(os.environ)
    os.environ |= {"XDG_CACHE_HOME": str(home), "NUMBA_CACHE_DIR": str(kernels)}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def _start(launch: LaunchFile) -> dict[str, Any]:
    """One start: seconds to `ready` and `first_overlay` from the start of the process, and by phase."""
    lines: list[str] = []
    run = capture_run(launch.model_dump(mode="json"), _FRAMES, _FPS, progress=lines.append)
    phases = phases_of(lines)
    before = run.start_to_ready_s - sum(phases.get(phase, 0.0) for phase in IN_TURN)
    return {
        "ready": run.start_to_ready_s,
        "first_overlay": run.start_to_overlay_s,
        "phases": {"process, imports, sockets": before} | phases,
    }


def phases_of(lines: list[str]) -> dict[str, float]:
    """Seconds of each phase that the pipeline's log says."""
    said = [line.strip().removeprefix("start: ") for line in lines if line.strip().startswith("start: ")]
    return {phase: float(seconds) for phase, seconds in _PHASE.findall(said[-1] if said else "")}


def table(result: dict[str, Any]) -> str:
    """Medians as text, s."""
    rows = {"first overlay": lambda row: row["first_overlay"], "ready": lambda row: row["ready"]}
    names = dict.fromkeys(phase for computer in COMPUTERS for row in result[computer] for phase in row["phases"])
    rows |= {f"  {name}": lambda row, name=name: row["phases"].get(name, 0.0) for name in names}
    lines = [f"{'s, median':26}" + "".join(f"{computer:>12}" for computer in COMPUTERS)]
    for name, value in rows.items():
        lines.append(f"{name:26}" + "".join(f"{median(map(value, result[c])):12.2f}" for c in COMPUTERS))
    lines.append(f"kernels are for {in_words(result['kernels_for'])}; built ahead in {result['kernels_build_s']:.1f} s")
    return "\n".join(lines)
