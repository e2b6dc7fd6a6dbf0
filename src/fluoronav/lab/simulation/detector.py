"""From the beam behind the patient to the counts of a flat panel: scatter, blur, shading, quanta, electronics."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

# A patient whose scatter is `scatter_to_primary` of what comes through unscattered: mean free paths, some 20 cm.
_USUAL_PATHS = 4.0
_LEAST_TRANSMITTED = 1e-6
_COARSER = 16  # scatter is worked out in pixels so much larger


@dataclass(frozen=True)
class Detector:
    """Settings of the simulated image chain.

    Attributes
    ----------
    bits : int
        8 to 16: bits stored.
    photons : float
        Mean detected photons per pixel inside the aperture; exposure control holds it.
    scatter_to_primary : float
        Ratio behind the grid, where the beam is wide and the patient four mean free paths thick.
    scatter_sigma_px, blur_sigma_px : float
        Widths of the scatter and of the scintillator's point spread, pixels of a 1024 x 1024 image.
    electronic_photons : float
        Noise of the electronics, in photons (1 sigma).
    fixed_pattern : float
        Residual gain variation from pixel to pixel (1 sigma).
    offset_share : float
        Dark level as a share of full scale.
    headroom : float
        Full scale as a multiple of the mean signal; what is brighter saturates.
    aperture_share : float
        Diameter of the round aperture as a share of the image's width.
    collimator_share : float
        Where the two lateral blades stand, as a share of half the image's width.
    """

    bits: int = 16
    photons: float = 80.0
    scatter_to_primary: float = 0.35
    scatter_sigma_px: float = 90.0
    blur_sigma_px: float = 0.9
    electronic_photons: float = 3.0
    fixed_pattern: float = 0.01
    offset_share: float = 0.02
    headroom: float = 4.5
    aperture_share: float = 0.98
    collimator_share: float = 0.9


class ImageChain:
    """The detector of one image size, with its fixed pattern, shading, aperture and blades."""

    def __init__(self, settings: Detector, rows: int, cols: int, seed: int) -> None:
        if not 8 <= settings.bits <= 16:
            raise ValueError(f"bits is {settings.bits}; a detector stores 8 to 16")
        self.settings = settings
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:rows, :cols].astype(np.float32)
        x, y = (x - (cols - 1) / 2) / (cols / 2), (y - (rows - 1) / 2) / (rows / 2)
        radius = np.hypot(x, y)
        soft = 2.0 / cols
        self.aperture = np.clip((settings.aperture_share - radius) / soft, 0, 1)
        # Lead blades let 2 % through; their penumbra is wider than a pixel.
        blade = np.clip((settings.collimator_share - np.abs(x)) / (6 * soft), 0, 1)
        heel = 1 - 0.10 * y - 0.12 * radius**2
        self._field = ((0.02 + 0.98 * blade) * self.aperture).astype(np.float32)
        self.shading = (heel * self._field).astype(np.float32)
        self._shading_small = cv2.resize(
            self.shading, None, fx=1 / _COARSER, fy=1 / _COARSER, interpolation=cv2.INTER_AREA
        )
        self.gain = (1 + settings.fixed_pattern * rng.standard_normal((rows, cols))).astype(np.float32)
        self.scale = cols / 1024
        self.field_mask = (self.aperture > 0.5) & (blade > 0.5)

    def counts(self, transmitted: Float32, seed: int) -> NDArray[np.uint16]:
        """Counts of one exposure.

        Parameters
        ----------
        transmitted : ndarray of float32, shape (rows, cols)
            Share of the open beam that reaches each pixel unscattered.
        seed : int
            Of the noise.

        Returns
        -------
        ndarray of uint16
        """
        s = self.settings
        photons, _ = self.exposure(transmitted)
        out = np.empty(transmitted.shape, np.uint16)
        full = 2**s.bits - 1
        per_photon = full * (1 - s.offset_share) / (s.headroom * s.photons)
        _expose(photons, self.gain, seed, s.electronic_photons, per_photon, s.offset_share * full, full, out)
        return out

    def exposure(self, transmitted: Float32) -> tuple[Float32, float]:
        """What is detected on the mean, before the noise.

        Scatter comes from where the beam meets matter: of a ray that is attenuated by p mean free paths it is in
        proportion to p exp(-p) (Ohnesorge et al., Eur Radiol 9:563, 1999), spread by one wide kernel. The open air does
        not scatter, nor what no beam reaches; what arrives behind the blades is left out.

        Parameters
        ----------
        transmitted : ndarray of float32, shape (rows, cols)
            As for :meth:`counts`.

        Returns
        -------
        photons : ndarray of float32, shape (rows, cols)
            Of each pixel.
        per_share : float
            Photons that a pixel would get of the open beam, without shading and scatter.
        """
        s = self.settings
        shape = (self._shading_small.shape[1], self._shading_small.shape[0])
        small = np.maximum(cv2.resize(transmitted, shape, interpolation=cv2.INTER_AREA), _LEAST_TRANSMITTED)
        scattered = (-s.scatter_to_primary / _USUAL_PATHS) * small * np.log(small) * self._shading_small
        spread = cv2.GaussianBlur(
            scattered, (0, 0), s.scatter_sigma_px * self.scale / _COARSER, borderType=cv2.BORDER_CONSTANT
        )
        signal = cv2.resize(spread, transmitted.shape[::-1], interpolation=cv2.INTER_LINEAR)
        signal *= self._field
        signal += transmitted * self.shading
        signal = cv2.GaussianBlur(signal, (0, 0), s.blur_sigma_px * self.scale)
        per_share = s.photons / float(signal[self.field_mask].mean())
        return np.asarray(signal * np.float32(per_share), np.float32), per_share


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def _expose(photons, gain, seed, electronic, per_photon, offset, full, out):
    """Poisson quanta (their normal limit above 60), electronic noise, gain, offset, saturation and rounding."""
    for i in range(photons.shape[0]):
        np.random.seed(seed * 65536 + i)  # one stream a row: the same image on any number of threads
        for j in range(photons.shape[1]):
            mean = photons[i, j]
            n = float(np.random.poisson(mean)) if mean < 60 else mean + np.sqrt(mean) * np.random.normal()
            value = offset + per_photon * gain[i, j] * (n + electronic * np.random.normal())
            out[i, j] = np.uint16(min(max(np.rint(value), 0.0), full))
