"""Resources of one run of the bench: a temporary folder, the scene, and pipelines that faults share."""

from __future__ import annotations

import itertools
import re
import shutil
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from fluoronav.lab.bench.faults.loop import Loop
from fluoronav.lab.bench.faults.named_threads import NAMED_THREADS
from fluoronav.lab.bench.faults.row import BenchError
from fluoronav.lab.bench.faults.scene import Scene, load_scene
from fluoronav.paths import embedded_case

ALL_STAGES = ("attenuation", "registration", "detection", "instruments", "witness", "guidance", "view")
_SETTLING_S = 12.0  # until pose, tool and alarm are as before a fault; chosen


class Place:
    """One run of the bench.

    Parameters
    ----------
    size : int
        Pixels along a side of a frame.
    fps : float
    say : callable
        Called with the progress, in words.
    """

    def __init__(self, size: int, fps: float, say: Callable[[str], None] = lambda text: None) -> None:
        self.size, self.fps, self.say = size, fps, say
        self.root = Path(tempfile.mkdtemp(prefix="fluoronav-faults-"))
        self._loops: dict[str, Loop] = {}
        self._numbers = itertools.count(1)

    @cached_property
    def scene(self) -> Scene:
        """The scene, rendered on its first use."""
        return load_scene(self.root, self.size)

    def folder(self) -> Path:
        """A new empty folder."""
        path = self.root / f"row-{next(self._numbers)}"
        path.mkdir()
        return path

    def loop(self) -> Loop:
        """The pipeline that most faults share, tracking, with its danger alarm open; restarted if it is not.

        Raises
        ------
        BenchError
            It does not settle.
        """
        self._end_others("main")
        return self._settled(self._loop("main", cases={"second": str(self.second_case())}))

    def all_stages(self) -> Loop:
        """The pipeline with every stage."""
        self._end_others("all")
        return self._settled(self._loop("all", stages=list(ALL_STAGES)))

    def named_threads(self) -> Loop:
        """The pipeline whose threads the system knows by name, so that a fault can befall some of them."""
        self._end_others("named")
        loop = self._loop("named")
        loop.command = list(NAMED_THREADS)
        return self._settled(loop)

    def fresh(self) -> Loop:
        """The shared pipeline, not running."""
        self._end_others("main")
        loop = self._loop("main", cases={"second": str(self.second_case())})
        loop.stop()
        return loop

    def without_paths(self, text: str) -> str:
        """The text with paths relative to their fault's folder."""
        return re.sub(rf"{re.escape(str(self.root))}/(row-\d+/)?", "", text)

    def second_case(self) -> Path:
        """The embedded patient under another name."""
        path = self.root / "second" / "case.yaml"
        if not path.exists():
            write_case(path.parent, name="second-patient")
        return path

    def end(self, name: str) -> None:
        """Ends a shared pipeline."""
        if name in self._loops:
            self._loops.pop(name).close()

    def _end_others(self, name: str) -> None:
        for other in set(self._loops) - {name}:
            self.end(other)

    def close(self) -> None:
        """Ends everything and removes the folder."""
        for name in list(self._loops):
            self.end(name)
        shutil.rmtree(self.root, ignore_errors=True)

    def _loop(self, name: str, **launch: Any) -> Loop:
        if name not in self._loops:
            self._loops[name] = Loop(self.folder(), self.scene, self.fps, **launch)
        return self._loops[name]

    def _settled(self, loop: Loop) -> Loop:
        def ready() -> bool:
            return loop.steady() and loop.alarmed() and loop.health().get("state") not in (None, "failed", "starting")

        try:
            loop.wait(ready, _SETTLING_S, "settle")
        except BenchError:
            loop.stop()
            loop.start()
            loop.wait(ready, _SETTLING_S, "raise its alarm")
        return loop


def write_case(folder: Path, **change: Any) -> Path:
    """The embedded case in a folder of its own with other values for some of its keys; returns its file."""
    source = embedded_case()
    content = yaml.safe_load(source.read_text(encoding="utf-8"))
    for key in ("ct", "labels", "surroundings"):
        content[key] = str(source.parent / content[key])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "case.yaml"
    path.write_text(yaml.safe_dump(content | change), encoding="utf-8")
    return path
