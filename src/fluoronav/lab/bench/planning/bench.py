"""The parts of `fluoronav bench planning`, run one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from fluoronav.lab import machine

Say = Callable[[str], object]

# Name of each part, which is also its module here; each has `measure(data, say) -> dict` and `table(result) -> str`.
PARTS: tuple[str, ...] = ("segmentation", "measurements", "screws", "views", "page", "surgery", "meshes")
# This part compares a network that is named with the atlas: its `measure` also takes the model's folder.
NETWORK = "network"


def bench_planning(only: Sequence[str], data: Path, say: Say, model: Path | None = None) -> dict[str, Any]:
    """Measures parts of the planning.

    Parameters
    ----------
    only : sequence of str
        Of :data:`PARTS`, or :data:`NETWORK`.
    data : Path
        The folder of real data (its `README.md` says what is in it).
    say : callable
        Takes a text for each step.
    model : Path, optional
        Folder of the network that the part `network` measures.

    Returns
    -------
    dict
        `machine`, and what each part measured under its name.

    Raises
    ------
    ValueError
        The part `network` is asked for without a model.
    """
    if NETWORK in only and model is None:
        raise ValueError("the part network compares a network with the atlas: name its folder with --model FOLDER")
    result: dict[str, Any] = {"machine": machine.description()}
    for name in only:
        say(f"{name} ...")
        module = import_module(f"fluoronav.lab.bench.planning.{name}")
        result[name] = module.measure(data, say, model) if name == NETWORK else module.measure(data, say)
    return result


def table(result: dict[str, Any]) -> str:
    """What was measured, for people."""
    parts = [p for p in (*PARTS, NETWORK) if p in result]
    return "\n\n".join(import_module(f"fluoronav.lab.bench.planning.{p}").table(result[p]) for p in parts)
