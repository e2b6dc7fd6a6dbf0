"""A scene on its way to the panel: the beam behind all of it, and whether a piece of metal can be seen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.lab.simulation.flat_panel import ImageChain
from fluoronav.lab.simulation.xray import transmission

Float32 = NDArray[np.float32]

_BLUR_PX = (2, 8)  # length of the motion blur in one exposure, pixels of a 1024 image; chosen


@dataclass
class Exposure:
    """What lies in the beam: water and bone, g/cm2, and steel, mm; each of shape (rows, cols)."""

    chain: ImageChain
    water: Float32
    bone: Float32
    steel: Float32

    @cached_property
    def beam(self) -> Float32:
        """Fraction of the open beam behind all of it."""
        beam = np.empty(self.steel.size, np.float32)
        transmission(self.water.ravel(), self.bone.ravel(), self.steel.ravel(), beam)
        return beam.reshape(self.steel.shape)

    def counts(self, seed: int) -> NDArray[np.uint16]:
        """The panel's counts."""
        return self.chain.counts(self.beam, seed)

    @cached_property
    def _detected(self) -> tuple[Float32, float]:
        return self.chain.exposure(self.beam)

    def contrast_to_noise(self, own: Float32, where: NDArray[np.bool_]) -> float:
        """Contrast-to-noise ratio of a piece of metal over its whole area, against the same image without it.

        Parameters
        ----------
        own : ndarray of float32, shape (rows, cols)
            Its steel, mm.
        where : ndarray of bool, shape (rows, cols)
            The part of it that counts.
        """
        at, chain, settings = np.nonzero(where & self.chain.field_mask), self.chain, self.chain.settings
        without = np.empty(len(at[0]), np.float32)
        transmission(self.water[at], self.bone[at], np.maximum(self.steel[at] - own[at], 0), without)
        photons, open_beam_photons = self._detected
        now, full = photons[at], settings.headroom * settings.photons
        # Scatter is the same with it and without.
        gained = open_beam_photons * chain.shading[at] * (without - self.beam[at])
        difference = np.minimum(now + gained, full) - np.minimum(now, full)
        return float(np.sqrt((difference**2 / (now + settings.electronic_photons**2)).sum()))


def motion_blurred(steel: Float32, rng: np.random.Generator, scale: float) -> Float32:
    """Steel blurred along a random line; `scale` is the image's width over 1024."""
    n = int(rng.uniform(*_BLUR_PX) * scale) | 1
    if n < 3:
        return steel
    kernel = np.zeros((n, n), np.float32)
    angle = rng.uniform(0, np.pi)
    c = n // 2
    off = c * np.array([np.cos(angle), np.sin(angle)])
    cv2.line(kernel, tuple(np.rint(c - off).astype(int).tolist()), tuple(np.rint(c + off).astype(int).tolist()), 1.0)
    return np.asarray(cv2.filter2D(steel, -1, kernel / kernel.sum()), dtype=np.float32)
