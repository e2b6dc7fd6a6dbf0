"""Noise model of a detector: gain and floor of its counts, estimated from two frames of one scene."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class NoiseFit:
    """Settings of the estimate; all are chosen."""

    block_px: int = 16  # side of a block in which mean and variance are taken
    least_blocks: int = 40  # in the field of view
    bins: int = 12  # of blocks by brightness
    least_in_bin: int = 3  # blocks
    quantile: float = 0.35  # of the variances in a bin: motion raises those above


FIT = NoiseFit()


@dataclass(frozen=True)
class NoiseModel:
    """Poisson and Gauss: the variance of counts is ``gain * (counts - dark) + floor``.

    Attributes
    ----------
    gain : float
        Counts per detected photon.
    dark : float
        Counts without X-rays.
    floor : float
        Variance without X-rays, counts squared.
    """

    gain: float
    dark: float
    floor: float

    def stabilised(self, counts: NDArray) -> NDArray[np.float64]:
        """Counts transformed to a noise of 1 (generalised Anscombe transform).

        Murtagh, Starck and Bijaoui, Astron. Astrophys. Suppl. 112:179, 1995.
        """
        scale, slope, offset = self.root()
        return scale * np.sqrt(np.maximum(slope * np.asarray(counts, np.float64) + offset, 0))

    def root(self) -> tuple[float, float, float]:
        """Scale, slope and offset of :meth:`stabilised`: ``scale * sqrt(slope * counts + offset)``."""
        return 2 / self.gain, self.gain, 0.375 * self.gain**2 + self.floor - self.gain * self.dark

    def counts(self, stabilised: NDArray) -> NDArray[np.float64]:
        """The inverse of :meth:`stabilised` (the algebraic one)."""
        y = np.asarray(stabilised, np.float64)
        return (0.25 * self.gain**2 * y * y - 0.375 * self.gain**2 - self.floor) / self.gain + self.dark


def estimated_noise(
    first: NDArray, second: NDArray, dark: float, field_mask: NDArray[np.bool_] | None = None
) -> NoiseModel | None:
    """Fits a noise model to two frames of nearly the same scene.

    In each block, half the variance of the difference is the noise variance at the block's mean. Of the blocks of one
    brightness a low quantile is taken, since motion raises the variance of the others.

    Parameters
    ----------
    first, second : ndarray, shape (rows, cols)
        Counts.
    dark : float
        Counts without X-rays.
    field_mask : ndarray of bool, optional
        Field of view, any size.

    Returns
    -------
    NoiseModel or None
        None where too few blocks lie in the field of view.
    """
    block = FIT.block_px
    rows, cols = (n // block * block for n in first.shape)
    a, b = (x[:rows, :cols].astype(np.float32) for x in (first, second))
    difference = (a - b).reshape(rows // block, block, cols // block, block)
    variance = difference.var(axis=(1, 3)).ravel() / 2
    mean = ((a + b) / 2).reshape(rows // block, block, cols // block, block).mean(axis=(1, 3)).ravel() - dark
    use = (mean > 0) & (variance > 0)
    if field_mask is not None:
        small = cv2.resize(field_mask.astype(np.uint8), (cols // block, rows // block), interpolation=cv2.INTER_NEAREST)
        use &= small.ravel() > 0
    if use.sum() < FIT.least_blocks:
        return None
    mean, variance = mean[use], variance[use]
    edges = np.quantile(mean, np.linspace(0, 1, FIT.bins + 1))
    places, values = [], []
    for low, high in pairwise(edges):
        here = (mean >= low) & (mean <= high)
        if here.sum() >= FIT.least_in_bin:
            places.append(float(mean[here].mean()))
            values.append(float(np.quantile(variance[here], FIT.quantile)))
    x, y = np.array(places), np.array(values)
    # Weighted by relative error, so that dark and bright bins count alike.
    slope, intercept = np.polyfit(x, y, 1, w=1 / np.maximum(y, 1e-9))
    if not slope > 0:
        slope, intercept = float(np.median(y / np.maximum(x, 1e-9))), 0.0
    return NoiseModel(float(slope), dark, max(float(intercept), 0.0))
