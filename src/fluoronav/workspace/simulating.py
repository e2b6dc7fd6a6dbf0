"""Carries out a plan's surgery while a person changes it, in a process that keeps bones between changes."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from fluoronav.display.packing import with_head
from fluoronav.planning.plan.schema import Item
from fluoronav.process_pool import end_pool
from fluoronav.workspace.errors import NotInstalled, OutOfStep, Refused, WorkspaceError
from fluoronav.workspace.label_maps import mapped
from fluoronav.workspace.scan import Scan
from fluoronav.workspace.workers import end_with_the_server

if TYPE_CHECKING:
    from fluoronav.planning.meshes.parts import Part
    from fluoronav.planning.simulation.live import Live

P = ParamSpec("P")
R = TypeVar("R")


class Superseded(OutOfStep):
    """A newer value of the same page waits: this one needs not be carried out any more."""


class Simulating:
    """One process, started when it is first needed. Of each page, the newest request alone waits for it."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._turn = asyncio.Lock()
        self._newest: dict[Hashable, object] = {}

    async def run(self, page: Hashable, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Does a piece of work in turn, unless the page has asked for a newer one meanwhile.

        Parameters
        ----------
        page : hashable
            Who asks.
        work : callable
            A function of a module, with arguments that can be pickled.

        Raises
        ------
        Superseded
        WorkspaceError
            The process has ended; the next request starts another.
        """
        mine = self._newest[page] = object()
        try:
            async with self._turn:
                if self._newest[page] is not mine:
                    raise Superseded("a newer value has taken the place of this one")
                self._pool = self._pool or _pool()
                try:
                    return await asyncio.wrap_future(self._pool.submit(work, *args, **kwargs))
                except BrokenProcessPool as error:
                    self._pool = None
                    text = "the process that carries out surgery has ended: change a value again"
                    raise WorkspaceError(text) from error
        finally:
            if self._newest.get(page) is mine:
                del self._newest[page]

    def close(self) -> None:
        """Ends the process without waiting for its work."""
        if self._pool is not None:
            end_pool(self._pool, grace_s=0.0)


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn"), initializer=end_with_the_server
    )  # fmt: skip


# What the process keeps between two requests.
_kept: list[Live] = []


def _live() -> Live:
    if not _kept:
        try:
            from fluoronav.planning.simulation.live import Live
        except ImportError as error:
            raise NotInstalled(f"surgery cannot be simulated: its part is not installed ({error})") from error
        _kept.append(Live())
    return _kept[0]


def simulated(
    labels: Path, scan: Scan, structures: Mapping[str, int], items: Sequence[Item], exact: bool, prepare: Sequence[str]
) -> bytes:
    """Carries out a plan's cuts, moves, resections and implants: a packed message, as docs/workspace.md describes it.

    Parameters
    ----------
    labels : Path
        The unpacked label map; its name tells label maps apart.
    scan : Scan
    structures : mapping of str to int
        Labels by name, without rejected structures.
    items : sequence of Item
    exact : bool
    prepare : sequence of str
        Bones that will be cut.

    Raises
    ------
    Refused
        An item cannot be carried out.
    NotInstalled
    """
    live = _live()
    from fluoronav.planning.simulation.bodies import LabelMap

    grid = LabelMap(mapped(labels, scan), scan.spacing_mm, scan.origin_ct, scan.direction)
    try:
        bodies = live.bodies_of(grid, structures, str(labels))
        live.prepare(bodies, prepare)
        done = live.simulated(bodies, items, exact=exact)
    except ValueError as error:
        raise Refused(str(error)) from error
    return packed(done.parts, {"report": done.report})


def packed(parts: Sequence[Part], head: dict[str, Any]) -> bytes:
    """Bodies as they are drawn: float32 points (n, 3) LPS mm and uint32 triangles (m, 3) of each, one after another."""
    heads, payload = [], []
    for p in parts:
        mesh = p.mesh
        heads.append({
            "name": p.name, "kind": p.kind, "structure": p.structure, "colour": p.color, "points": len(mesh.points),
            "triangles": len(mesh.triangles), "T_moved_ct": None if p.T_moved_ct is None else p.T_moved_ct.tolist(),
        })  # fmt: skip
        payload += [mesh.points.astype("<f4").tobytes(), mesh.triangles.astype("<u4").tobytes()]
    return with_head({**head, "parts": heads}, b"".join(payload))
