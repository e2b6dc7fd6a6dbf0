"""The parts of `fluoronav bench planning`, run one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from fluoronav.lab import machine

Say = Callable[[str], object]

# Name of each part, which is also its module here; each has `measure(data, say) -> dict` and `table(result) -> str`.
PARTS: tuple[str, ...] = ("segmentation", "measurements", "screws", "views", "page", "meshes")


def bench_planning(only: Sequence[str], data: Path, say: Say) -> dict[str, Any]:
    """Measures parts of the planning.

    Parameters
    ----------
    only : sequence of str
        Of :data:`PARTS`.
    data : Path
        The folder of real data (its `README.md` says what is in it).
    say : callable
        Takes a text for each step.

    Returns
    -------
    dict
        `machine`, and what each part measured under its name.
    """
    result: dict[str, Any] = {"machine": machine.description()}
    for name in only:
        say(f"{name} ...")
        result[name] = import_module(f"fluoronav.lab.bench.planning.{name}").measure(data, say)
    return result


def table(result: dict[str, Any]) -> str:
    """What was measured, for people."""
    parts = [p for p in PARTS if p in result]
    return "\n\n".join(import_module(f"fluoronav.lab.bench.planning.{p}").table(result[p]) for p in parts)
