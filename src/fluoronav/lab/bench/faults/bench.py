"""Runs the faults in their order, one row each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from fluoronav import __version__
from fluoronav.lab import machine
from fluoronav.lab.bench.faults import (
    cases,
    clocks,
    displays,
    inputs,
    jumps,
    pictures,
    processes,
    protocols,
    radiographs,
    requests,
    series,
    slowness,
    tools,
)
from fluoronav.lab.bench.faults.place import Place
from fluoronav.lab.bench.faults.row import BenchError, Fault, NotHere, row_failed, row_not_run, row_of

# Faults that share a pipeline are together; those most likely to spoil it are last.
FAULTS: tuple[Fault, ...] = (
    *processes.STREAMED[:1],
    *tools.FAULTS,
    *requests.FAULTS,
    *clocks.FAULTS,
    *pictures.FAULTS,
    *jumps.FAULTS,
    *processes.STREAMED[1:],
    *processes.WITH_ALL_STAGES,
    *slowness.WITH_ALL_STAGES,
    *slowness.WITH_NAMED_THREADS,
    *processes.ALONE,
    *inputs.FAULTS,
    *series.FAULTS,
    *cases.FAULTS,
    *radiographs.FAULTS,
    *protocols.FAULTS,
    *displays.FAULTS,
)


def chosen(names: Sequence[str]) -> tuple[Fault, ...]:
    """The faults with these names, in the bench's order; all of them without names.

    Raises
    ------
    ValueError
        No fault has that name.
    """
    known = {f.name for f in FAULTS}
    unknown = [n for n in names if n not in known]
    if unknown:
        raise ValueError(f"no fault is named {unknown[0]!r}: `fluoronav bench faults --list` names them")
    return tuple(f for f in FAULTS if not names or f.name in names)


def bench_faults(
    faults: Sequence[Fault], size: int, fps: float, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Produces each fault and judges the reaction.

    Parameters
    ----------
    faults : sequence of Fault
    size : int
        Pixels along a side of a frame.
    fps : float
        Frames per second.
    say : callable
        Called with each row, in words.

    Returns
    -------
    dict
        ``faults``: the rows; ``processor``, ``cores``, ``system``, ``machine``, ``version``, ``size``, ``fps``,
        ``seconds``.
    """
    place, begin, rows = Place(size, fps, say), time.monotonic(), []
    try:
        for k, fault in enumerate(faults, 1):
            say(f"[{k}/{len(faults)}] {fault.name}: {fault.expected}")
            row = _row(fault, place)
            row["seen"] = place.without_paths(row["seen"])
            rows.append(row)
            verdict = {True: "ok", False: "NOT OK", None: "not run"}[row["ok"]]
            say(f"    {verdict}: {row['seen']}")
    finally:
        place.close()
    described = machine.description()
    return {
        "faults": rows,
        "processor": described["cpu"],
        "cores": described["cores"],
        "system": described["system"],
        "machine": described,
        "version": __version__,
        "size": size,
        "fps": fps,
        "seconds": round(time.monotonic() - begin, 1),
    }


def _row(fault: Fault, place: Place) -> dict[str, Any]:
    try:
        return row_of(fault, fault.run(place))
    except NotHere as reason:
        return row_not_run(fault, str(reason))
    except BenchError as error:
        return row_failed(fault, str(error))
    except Exception as error:  # an error in one row must not cost the others
        return row_failed(fault, f"the row stumbled: {type(error).__name__}: {error}")
