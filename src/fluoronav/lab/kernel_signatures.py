"""Writes `kernels/signatures.json`: has each part of the program call its kernels, and notes which it compiles.

Run it after a change of a kernel's arguments: ``python -m fluoronav.lab.kernel_signatures``
"""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numba.core import event

from fluoronav.case import load_case
from fluoronav.geometry import Camera
from fluoronav.kernels.signatures import FILE, spelled
from fluoronav.kernels.target import config
from fluoronav.paths import shipped

_SMALL = 0.25  # of the camera's size; kernels take every size


class Compiled(event.Listener):
    """Kernels that this process compiles because Python calls them, not because another kernel does.

    Attributes
    ----------
    found : dict of (str, tuple) to float
        Seconds by "module:function" and the types of the arguments.
    """

    def __init__(self) -> None:
        self.found: dict[tuple[str, tuple[Any, ...]], float] = {}
        self._begun: dict[int, list[float]] = defaultdict(list)

    def on_start(self, event: event.Event) -> None:
        self._begun[threading.get_ident()].append(time.perf_counter())

    def on_end(self, event: event.Event) -> None:
        running = self._begun[threading.get_ident()]
        began = running.pop()
        if not running and event.data is not None:
            function = event.data["dispatcher"].py_func
            name = f"{function.__module__}:{function.__qualname__}"
            self.found[name, tuple(event.data["args"])] = time.perf_counter() - began


@contextmanager
def compiled_here() -> Iterator[Compiled]:
    """Notes what is compiled inside."""
    listener = Compiled()
    event.register("numba:compile", listener)
    try:
        yield listener
    finally:
        event.unregister("numba:compile", listener)


def _stage(name: str) -> None:
    from fluoronav.stream.pipeline.stages import make_stages

    (stage,) = make_stages([name])
    camera = Camera.load(shipped("calibration/demo-carm.yaml")).scaled(_SMALL)
    stage.prepare(load_case("embedded"), camera, lambda text: None)
    stage.close()


def _attenuation() -> None:
    from fluoronav.imaging.xray.detector import DetectorCalibration, DetectorCorrection
    from fluoronav.stream.stage import blank_counts

    _stage("attenuation")
    plain = np.zeros((64, 64), np.float32)
    correction = DetectorCorrection(DetectorCalibration(plain, plain + 1, plain > 0))
    for counts in blank_counts(*plain.shape):
        correction(counts, 8)


def _simulate() -> None:
    from fluoronav.lab.simulation.scenario import Scenario
    from fluoronav.lab.simulation.sequence import load_or_render

    camera = Camera.load(shipped("calibration/demo-carm.yaml")).scaled(_SMALL)
    with tempfile.TemporaryDirectory() as folder:
        load_or_render(load_case("embedded"), camera, Scenario(anatomy_frames=2), cache=Path(folder))


def _openigtlink() -> None:
    from fluoronav.openigtlink.checksum import crc64

    for data in (b"for all", bytearray(b"kinds of"), memoryview(b"bytes")):
        crc64(data)


_STAGES = ("registration", "detection", "instruments", "witness", "guidance", "view")
PARTS: dict[str, Callable[[], None]] = {
    "attenuation": _attenuation,
    **{name: lambda name=name: _stage(name) for name in _STAGES},
    "simulate": _simulate,
    "openigtlink": _openigtlink,
}


def _recorded(part: str) -> dict[str, list[str]]:
    """Signatures by kernel of one part, the slowest to compile first; in a process of its own."""
    with tempfile.TemporaryDirectory() as folder, compiled_here() as compiled:
        config.CACHE_DIR = folder
        PARTS[part]()
    seconds: dict[str, float] = defaultdict(float)
    signatures: dict[str, list[str]] = defaultdict(list)
    for (name, arguments), took in compiled.found.items():
        seconds[name] += took
        signatures[name].append(f"({', '.join(map(spelled, arguments))},)")
    return {name: signatures[name] for name in sorted(seconds, key=lambda n: -seconds[n])}


def record() -> dict[str, dict[str, list[str]]]:
    """Signatures by part and kernel."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, max_tasks_per_child=1) as pool:
        return {part: found for part, found in zip(PARTS, pool.map(_recorded, PARTS), strict=True) if found}


if __name__ == "__main__":
    FILE.write_text(json.dumps(record(), indent=1) + "\n")
    print(f"written: {FILE}")
