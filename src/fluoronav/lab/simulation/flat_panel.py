"""The simulated flat panel: from the beam behind the patient to counts, by scatter, blur, shading and noise."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.kernels import njit

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class _PanelModel:
    """Constants of the simulated image chain that are the same for every panel; all chosen, none is fitted."""

    usual_paths: float = 4.0  # mean free paths of a patient 20 cm thick, for which `scatter_to_primary` is stated
    least_transmitted: float = 1e-6  # fraction of the open beam; bounds the logarithm
    scatter_downsampling: int = 16  # scatter is computed in pixels so many times as large: it is that smooth
    field_edge_px: float = 1.0  # half width of the aperture's penumbra at this image size
    blade_penumbra: float = 6.0  # width of the blades' penumbra over the aperture's
    blade_transmission: float = 0.02  # fraction of the beam behind the lead blades
    heel: float = 0.10  # slope of the heel effect over half the image's height
    falloff: float = 0.12  # quadratic fall-off towards the edge


_MODEL = _PanelModel()


@dataclass(frozen=True)
class FlatPanel:
    """Settings of the simulated flat panel.

    Attributes
    ----------
    bits : int
        Stored bits, 8 to 16.
    photons : float
        Mean detected photons per pixel inside the aperture; exposure control holds it.
    scatter_to_primary : float
        Ratio behind the grid, for a wide beam and a patient of four mean free paths.
    scatter_sigma_px, blur_sigma_px : float
        Widths of the scatter and of the scintillator's point spread, pixels of a 1024 x 1024 image.
    electronic_photons : float
        Electronic noise, photons (1 sigma).
    fixed_pattern : float
        Residual gain variation from pixel to pixel (1 sigma).
    offset_fraction : float
        Dark level as a fraction of full scale.
    headroom : float
        Full scale as a multiple of the mean signal; brighter pixels saturate.
    aperture_fraction : float
        Diameter of the round aperture as a fraction of the image's width.
    collimator_fraction : float
        Position of the two lateral blades as a fraction of half the image's width.
    """

    bits: int = 16
    photons: float = 80.0
    scatter_to_primary: float = 0.35
    scatter_sigma_px: float = 90.0
    blur_sigma_px: float = 0.9
    electronic_photons: float = 3.0
    fixed_pattern: float = 0.01
    offset_fraction: float = 0.02
    headroom: float = 4.5
    aperture_fraction: float = 0.98
    collimator_fraction: float = 0.9


class ImageChain:
    """A flat panel at one image size, with fixed pattern, shading, aperture and blades.

    Parameters
    ----------
    settings : FlatPanel
    rows, cols : int
    seed : int
        Of the fixed pattern.

    Raises
    ------
    ValueError
        `settings.bits` is not 8 to 16.
    """

    def __init__(self, settings: FlatPanel, rows: int, cols: int, seed: int) -> None:
        if not 8 <= settings.bits <= 16:
            raise ValueError(f"bits is {settings.bits}; a detector stores 8 to 16")
        self.settings = settings
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:rows, :cols].astype(np.float32)
        x, y = (x - (cols - 1) / 2) / (cols / 2), (y - (rows - 1) / 2) / (rows / 2)
        radius = np.hypot(x, y)
        soft = 2 * _MODEL.field_edge_px / cols
        self.aperture = np.clip((settings.aperture_fraction - radius) / soft, 0, 1)
        penumbra = _MODEL.blade_penumbra * soft
        blade = np.clip((settings.collimator_fraction - np.abs(x)) / penumbra, 0, 1)
        heel = 1 - _MODEL.heel * y - _MODEL.falloff * radius**2
        leak = _MODEL.blade_transmission
        self._field = ((leak + (1 - leak) * blade) * self.aperture).astype(np.float32)
        self.shading = (heel * self._field).astype(np.float32)
        small = 1 / _MODEL.scatter_downsampling
        self._shading_small = cv2.resize(self.shading, None, fx=small, fy=small, interpolation=cv2.INTER_AREA)
        self.gain = (1 + settings.fixed_pattern * rng.standard_normal((rows, cols))).astype(np.float32)
        self.scale = cols / 1024
        self.field_mask = (self.aperture > 0.5) & (blade > 0.5)

    def counts(self, transmitted: Float32, seed: int) -> NDArray[np.uint16]:
        """Counts of one exposure.

        Parameters
        ----------
        transmitted : ndarray of float32, shape (rows, cols)
            Fraction of the open beam that reaches each pixel unscattered.
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
        per_photon = full * (1 - s.offset_fraction) / (s.headroom * s.photons)
        _expose(photons, self.gain, seed, s.electronic_photons, per_photon, s.offset_fraction * full, full, out)
        return out

    def exposure(self, transmitted: Float32) -> tuple[Float32, float]:
        """Expected photons, before noise.

        Scatter of a ray that crosses p mean free paths is proportional to p exp(-p) (Ohnesorge et al., Eur Radiol
        9:563, 1999), and is spread by one wide kernel. Scatter that arrives behind the blades is left out.

        Parameters
        ----------
        transmitted : ndarray of float32, shape (rows, cols)
            As for :meth:`counts`.

        Returns
        -------
        photons : ndarray of float32, shape (rows, cols)
            Per pixel.
        open_beam_photons : float
            Photons of a pixel in the open beam, without shading and scatter.
        """
        s = self.settings
        shape = (self._shading_small.shape[1], self._shading_small.shape[0])
        small = np.maximum(cv2.resize(transmitted, shape, interpolation=cv2.INTER_AREA), _MODEL.least_transmitted)
        scattered = (-s.scatter_to_primary / _MODEL.usual_paths) * small * np.log(small) * self._shading_small
        spread = cv2.GaussianBlur(
            scattered,
            (0, 0),
            s.scatter_sigma_px * self.scale / _MODEL.scatter_downsampling,
            borderType=cv2.BORDER_CONSTANT,
        )
        signal = cv2.resize(spread, transmitted.shape[::-1], interpolation=cv2.INTER_LINEAR)
        signal *= self._field
        signal += transmitted * self.shading
        signal = cv2.GaussianBlur(signal, (0, 0), s.blur_sigma_px * self.scale)
        open_beam_photons = s.photons / float(signal[self.field_mask].mean())
        return np.asarray(signal * np.float32(open_beam_photons), np.float32), open_beam_photons


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def _expose(photons, gain, seed, electronic, per_photon, offset, full, out):
    """Poisson noise (its normal limit above 60 photons), electronic noise, gain, offset, saturation and rounding."""
    for i in range(photons.shape[0]):
        np.random.seed(seed * 65536 + i)  # one stream per row: the same image on any number of threads
        for j in range(photons.shape[1]):
            mean = photons[i, j]
            n = float(np.random.poisson(mean)) if mean < 60 else mean + np.sqrt(mean) * np.random.normal()
            value = offset + per_photon * gain[i, j] * (n + electronic * np.random.normal())
            out[i, j] = np.uint16(min(max(np.rint(value), 0.0), full))
