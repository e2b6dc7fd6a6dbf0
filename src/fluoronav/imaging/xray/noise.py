"""How noisy a detector is: the gain and the floor of its counts, from two frames of one scene."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

_BLOCK = 16
_LEAST_BLOCKS = 40


@dataclass(frozen=True)
class NoiseModel:
    """Poisson and Gauss: the variance of counts is ``gain * (counts - dark) + floor``.

    Attributes
    ----------
    gain : float
        Counts for a detected photon.
    dark : float
        Counts without X-rays.
    floor : float
        Variance without X-rays, counts squared.
    """

    gain: float
    dark: float
    floor: float

    def stabilised(self, counts: NDArray) -> NDArray[np.float64]:
        """Counts so transformed that their noise is 1 everywhere (the generalised Anscombe transform).

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

    Half the variance of their difference, block by block, is the noise at the block's mean; of the blocks of one
    brightness the quieter ones are believed, since what moved is in the others.

    Parameters
    ----------
    first, second : ndarray, shape (rows, cols)
        Counts.
    dark : float
        Counts without X-rays.
    seen : ndarray of bool, optional
        Inside the aperture, any size.

    Returns
    -------
    NoiseModel or None
        None where the frames do not tell.
    """
    rows, cols = (n // _BLOCK * _BLOCK for n in first.shape)
    a, b = (x[:rows, :cols].astype(np.float32) for x in (first, second))
    difference = (a - b).reshape(rows // _BLOCK, _BLOCK, cols // _BLOCK, _BLOCK)
    variance = difference.var(axis=(1, 3)).ravel() / 2
    mean = ((a + b) / 2).reshape(rows // _BLOCK, _BLOCK, cols // _BLOCK, _BLOCK).mean(axis=(1, 3)).ravel() - dark
    use = (mean > 0) & (variance > 0)
    if field_mask is not None:
        small = cv2.resize(
            field_mask.astype(np.uint8), (cols // _BLOCK, rows // _BLOCK), interpolation=cv2.INTER_NEAREST
        )
        use &= small.ravel() > 0
    if use.sum() < _LEAST_BLOCKS:
        return None
    mean, variance = mean[use], variance[use]
    edges = np.quantile(mean, np.linspace(0, 1, 13))
    places, values = [], []
    for low, high in pairwise(edges):
        here = (mean >= low) & (mean <= high)
        if here.sum() >= 3:
            places.append(float(mean[here].mean()))
            values.append(float(np.quantile(variance[here], 0.35)))
    x, y = np.array(places), np.array(values)
    # Relative errors count alike from the darkest to the brightest.
    slope, intercept = np.polyfit(x, y, 1, w=1 / np.maximum(y, 1e-9))
    if not slope > 0:
        slope, intercept = float(np.median(y / np.maximum(x, 1e-9))), 0.0
    return NoiseModel(float(slope), dark, max(float(intercept), 0.0))
