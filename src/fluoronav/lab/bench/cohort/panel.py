"""The bench's own flat panel: from the share of the beam behind the patient to counts."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Blade:
    """A straight collimator blade: what lies beyond a line is behind lead.

    Attributes
    ----------
    angle_deg : float
        Of the line's outward normal: 0 is towards the image's right, 90 towards its bottom.
    at : float
        Distance of the line from the image's middle, as a fraction of half the image's width.
    """

    angle_deg: float
    at: float


@dataclass(frozen=True)
class Panel:
    """Settings of the panel and its collimator; all chosen for a mobile C-arm, as noted."""

    bits: int = 14
    photons: float = 80.0  # absorbed per pixel of 0.3 mm in the middle, median: 25 nGy a frame
    level: float = 0.25  # of full scale, which exposure control gives the signal in the middle
    control: float = 0.5  # side of exposure control's field in the middle, of the image's
    dark: float = 180.0  # counts without X-rays
    dark_pattern: float = 4.0  # of the dark level from column to column after correction, counts, 1 sigma
    electronic_photons: float = 2.5  # noise of the read-out, 1 sigma
    gain_pattern: float = 0.006  # residual gain variation from pixel to pixel, 1 sigma
    scatter: float = 0.2  # scatter over primary signal behind the grid, mean over the field; several times that
    # behind the spine, where the primary is weak
    scatter_mm: float = 45.0  # width of the scattered part that follows the primary, on the panel, 1 sigma
    scatter_even: float = 0.25  # share of the scatter that is even over the whole panel
    light_px: float = 0.75  # spread of light in the scintillator, 1 sigma, pixels of 0.3 mm
    glare: float = 0.05  # share of the light that is spread widely
    glare_mm: float = 6.0
    heel: float = 0.12  # fall of the beam from the top to the bottom
    blade_leak: float = 0.002  # of the beam behind the blades
    penumbra_mm: float = 1.2  # width of a blade's edge on the panel
    pitch_mm: float = 0.293


def field_px(blades: tuple[Blade, ...], rows: int, cols: int, panel: Panel) -> Float32:
    """Share of the beam that the blades let through, shape (rows, cols)."""
    y, x = np.mgrid[:rows, :cols].astype(np.float32)
    x, y = x - (cols - 1) / 2, y - (rows - 1) / 2
    edge = panel.penumbra_mm / panel.pitch_mm * cols / 1024
    through = np.ones((rows, cols), np.float32)
    for blade in blades:
        a = np.deg2rad(blade.angle_deg)
        inside = blade.at * cols / 2 - (np.float32(np.cos(a)) * x + np.float32(np.sin(a)) * y)
        through *= np.clip(inside / edge + 0.5, 0, 1)
    return panel.blade_leak + (1 - panel.blade_leak) * through


def counts_of(
    transmitted: Float32, blades: tuple[Blade, ...], panel: Panel, noise_gain: float, rng: np.random.Generator
) -> NDArray[np.uint16]:
    """Counts of one exposure.

    Scattered photons come from the patient, so that they also arrive in the shadow of the blades. Light spreads after
    photons were absorbed: the quantum noise is blurred as the picture is, the read-out's is not.

    Parameters
    ----------
    transmitted : ndarray of float32, shape (rows, cols)
        Share of the open beam's signal, unscattered.
    blades : tuple of Blade
    panel : Panel
    noise_gain : float
        Of the beam: variance over mean of the absorbed photons' signal.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of uint16, shape (rows, cols)
    """
    rows, cols = transmitted.shape
    scale = cols / 1024
    mm = scale / panel.pitch_mm  # pixels in a mm
    beam = field_px(blades, rows, cols, panel)
    primary = transmitted * beam * np.linspace(1 + panel.heel / 2, 1 - panel.heel / 2, rows, dtype=np.float32)[:, None]
    expected = primary + _scattered(primary, panel, mm)
    middle = tuple(slice(round(n * (1 - panel.control) / 2), round(n * (1 + panel.control) / 2)) for n in (rows, cols))
    control = expected[middle][beam[middle] > 0.5]
    per_photon = float(np.median(control if control.size else expected)) / panel.photons
    mean = np.maximum(expected / per_photon, 0) / noise_gain
    photons = (noise_gain * rng.poisson(mean)).astype(np.float32)
    sharp = cv2.GaussianBlur(photons, (0, 0), panel.light_px * scale)
    photons = (1 - panel.glare) * sharp + panel.glare * _wide(photons, panel.glare_mm * mm)
    photons *= 1 + panel.gain_pattern * rng.standard_normal((rows, cols), np.float32)
    photons += panel.electronic_photons * rng.standard_normal((rows, cols), np.float32)
    full = 2**panel.bits - 1
    counts = photons * (panel.level * full / panel.photons) + panel.dark
    counts += panel.dark_pattern * rng.standard_normal(cols, np.float32)[None]
    return np.clip(np.rint(counts), 0, full).astype(np.uint16)


def _scattered(primary: Float32, panel: Panel, px_per_mm: float) -> Float32:
    """Scattered signal: a smooth share of the primary, and a part that is even over the panel."""
    spread = _wide(primary, panel.scatter_mm * px_per_mm)
    even = np.float32(primary.mean())
    return panel.scatter * ((1 - panel.scatter_even) * spread + panel.scatter_even * even)


def _wide(image: Float32, sigma_px: float) -> Float32:
    """A wide Gaussian blur, computed on a small image."""
    by = max(int(sigma_px / 4), 1)
    small = cv2.resize(
        image, (max(image.shape[1] // by, 8), max(image.shape[0] // by, 8)), interpolation=cv2.INTER_AREA
    )
    sigma = sigma_px * small.shape[1] / image.shape[1]
    blurred = cv2.GaussianBlur(small, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return np.asarray(cv2.resize(blurred, image.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def as_video(counts: NDArray[np.uint16], dark: float) -> NDArray[np.uint8]:
    """The same picture as an 8-bit video signal: black at the dark level, white at the brightest 1 in 1000."""
    white = float(np.percentile(counts, 99.9))
    return np.clip(np.rint(255 * (counts - dark) / max(white - dark, 1)), 0, 255).astype(np.uint8)
