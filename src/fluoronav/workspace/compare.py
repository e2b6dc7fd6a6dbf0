"""Two label maps compared: what differs, how much of each structure, and a mask to draw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.workspace.delta import Indices

_SLICES = 16  # compared at a time; chosen

Map = NDArray[np.uint16]


def differing(a: Map, b: Map) -> Indices:
    """Indices of the voxels that differ, ascending; both maps (z, y, x)."""
    plane = a.shape[1] * a.shape[2]
    found = [np.flatnonzero(x != y) + k * plane for k, x, y in _slabs(a, b)]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def compared(a: Map, b: Map, names: Mapping[int, str]) -> dict[str, Any]:
    """Voxels of each structure in both maps, how many differ, and the Dice coefficient (1: the same).

    Structures that do not differ are left out.
    """
    in_a: dict[int, int] = {}
    in_b: dict[int, int] = {}
    lost: dict[int, int] = {}
    gained: dict[int, int] = {}
    total = 0
    for _, x, y in _slabs(a, b):
        _count(in_a, x.reshape(-1))
        _count(in_b, y.reshape(-1))
        where = x != y
        total += int(where.sum())
        _count(lost, x[where])
        _count(gained, y[where])
    rows = []
    for label in sorted((lost.keys() | gained.keys()) - {0}):
        n_a, n_b = in_a.get(label, 0), in_b.get(label, 0)
        shared = n_a - lost.get(label, 0)
        rows.append({
            "label": label, "name": names.get(label, f"label_{label}"), "voxels_a": n_a, "voxels_b": n_b,
            "differing": lost.get(label, 0) + gained.get(label, 0), "dice": 2 * shared / (n_a + n_b),
        })  # fmt: skip
    return {"voxels": total, "structures": rows}


def difference_mask(a: Map, b: Map) -> NDArray[np.uint8]:
    """0: the same; 1: only `a` has a structure there; 2: only `b` has one; 3: they have different ones."""
    out = np.zeros(a.shape, np.uint8)
    changed = a != b
    out[changed & (b == 0)] = 1
    out[changed & (a == 0)] = 2
    out[changed & (a != 0) & (b != 0)] = 3
    return out


def _slabs(a: Map, b: Map) -> Iterator[tuple[int, Map, Map]]:
    for k in range(0, a.shape[0], _SLICES):
        yield k, a[k : k + _SLICES], b[k : k + _SLICES]


def _count(into: dict[int, int], values: Map) -> None:
    counts = np.bincount(values)
    for label in np.flatnonzero(counts).tolist():
        into[label] = into.get(label, 0) + int(counts[label])
