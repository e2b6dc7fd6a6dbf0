"""A network moved over a volume in overlapping windows, as nnU-Net does, with memory for one row of windows alone.

Isensee et al., nnU-Net, Nature Methods 18 (2021): windows overlap by half, and are weighted by a Gaussian with a
standard deviation of an eighth of their size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Network = Callable[[Float32], Float32]


@dataclass(frozen=True, slots=True)
class WindowSettings:
    """How windows are laid and weighted.

    Attributes
    ----------
    step : float
        Share of a window from one to the next; nnU-Net's.
    sigma : float
        Standard deviation of the weights, as a share of the window; nnU-Net's.
    least_weight : float
        Smallest weight relative to the largest, so that no voxel is divided by zero; chosen.
    """

    step: float = 0.5
    sigma: float = 1 / 8
    least_weight: float = 1e-4


SETTINGS = WindowSettings()


def starts(size: int, window: int, step: float = SETTINGS.step) -> list[int]:
    """First voxel of each window along an axis that is at least as long as a window; the last window ends with it."""
    number = int(np.ceil((size - window) / (window * step))) + 1
    if number == 1:
        return [0]
    return [round(k * (size - window) / (number - 1)) for k in range(number)]


def weights(window: tuple[int, int, int], settings: WindowSettings = SETTINGS) -> Float32:
    """Weight of each voxel of a window, shape (z, y, x); 1 in its middle."""
    axes = []
    for n in window:
        at = (np.arange(n) - (n - 1) / 2) / (settings.sigma * n)
        axes.append(np.exp(-(at**2) / 2))
    product_of_all = axes[0][:, None, None] * axes[1][None, :, None] * axes[2][None, None, :]
    return np.maximum(product_of_all / product_of_all.max(), settings.least_weight).astype(np.float32)


def probabilities(
    volume: Float32, network: Network, window: tuple[int, int, int], advance: Callable[[float], None]
) -> Iterator[Float32]:
    """Probabilities of each plane of a volume, plane by plane.

    Parameters
    ----------
    volume : ndarray, shape (z, y, x)
        Normalised; at least as long as a window along each axis.
    network : callable
        Takes windows (1, 1, z, y, x) and returns logits (1, channels, z, y, x).
    window : tuple of int
        z, y, x.
    advance : callable
        Takes the share done.

    Yields
    ------
    ndarray, shape (channels, y, x)
        float32, sums to 1 over the channels.
    """
    rows = starts(volume.shape[0], window[0])
    places = list(product(starts(volume.shape[1], window[1]), starts(volume.shape[2], window[2])))
    weight = weights(window)
    sums: Float32 | None = None
    weighed = np.zeros((window[0], *volume.shape[1:]), np.float32)
    for k, z in enumerate(rows):
        for n, (y, x) in enumerate(places):
            where = (slice(None), slice(y, y + window[1]), slice(x, x + window[2]))
            logits = network(volume[z : z + window[0]][where][None, None])[0]
            if sums is None:
                sums = np.zeros((logits.shape[0], *weighed.shape), np.float32)
            sums[(slice(None), *where)] += logits * weight
            weighed[where] += weight
            advance((k * len(places) + n + 1) / (len(rows) * len(places)))
        assert sums is not None
        done = (rows[k + 1] if k + 1 < len(rows) else z + window[0]) - z
        for plane in range(done):
            yield softmax(sums[:, plane] / weighed[plane])
        # What the next row of windows shares with this one moves to the front.
        kept = window[0] - done
        sums[:, :kept], weighed[:kept] = sums[:, done:].copy(), weighed[done:].copy()
        sums[:, kept:], weighed[kept:] = 0, 0


def softmax(logits: Float32) -> Float32:
    """Probabilities over the first axis."""
    e = np.exp(logits - logits.max(0))
    return e / e.sum(0)
