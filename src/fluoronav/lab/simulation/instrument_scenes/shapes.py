"""Which instruments a scene has: their kinds and sizes, drawn at random.

Sizes are those of instruments in use; the ranges are chosen.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fluoronav.lab.simulation.metal import Metal, drill, k_wire, needle, screw

ShapeMaker = Callable[[np.random.Generator], Metal]
_STRAIGHT = 0.7  # fraction of the wires that are straight
_DRIVER_MM = 220  # length of a screw with its driver


def training_shape(rng: np.random.Generator) -> Metal:
    """An instrument of any kind, of sizes that are in use."""
    kind = rng.integers(4)
    if kind == 0:
        bent = 0.0 if rng.random() < _STRAIGHT else rng.uniform(1.5, 12)
        return k_wire(rng.choice([1.2, 1.4, 1.6, 1.8, 2.0, 2.4, 3.0]), rng.uniform(60, 280), rng.uniform(2, 7), bent)
    if kind == 1:
        d = rng.uniform(2.0, 5.0)
        return drill(d, rng.uniform(70, 200), rng.uniform(20, 70), rng.uniform(1.5, 3) * d, d * rng.uniform(0.9, 1.4))
    if kind == 2:
        d = rng.uniform(4.0, 7.5)
        return screw(d, rng.uniform(25, 55), rng.uniform(1.8, 3.2), rng.uniform(9, 14), rng.uniform(5, 9), _DRIVER_MM)
    d = rng.uniform(1.2, 3.4)
    return needle(d, d * rng.uniform(0.1, 0.25), rng.uniform(60, 180))


def unseen_shape(rng: np.random.Generator) -> Metal:
    """An instrument of a size between or beyond those of :func:`training_shape`."""
    kind = rng.integers(4)
    if kind == 0:
        bent = 0.0 if rng.random() < _STRAIGHT else rng.uniform(2, 9)
        return k_wire(rng.choice([1.5, 1.7, 2.2, 2.7]), rng.uniform(80, 250), rng.uniform(1.5, 5), bent)
    if kind == 1:
        d = rng.choice([2.7, 3.2, 4.5])
        return drill(d, rng.uniform(80, 160), rng.uniform(25, 50), 2.2 * d, d)
    if kind == 2:
        return screw(
            rng.choice([5.0, 6.2]), rng.choice([30.0, 40.0, 50.0]), 2.75, 12.5, rng.uniform(5.5, 10), _DRIVER_MM
        )
    d = rng.choice([1.27, 2.1, 3.05])
    return needle(d, 0.18 * d, rng.uniform(70, 150))
