"""The beam of the bench's own X-ray renderer: attenuation of materials, the tube's spectrum, what the panel absorbs.

Mass attenuation coefficients are those of NIST (Hubbell and Seltzer, Tables of X-Ray Mass Attenuation Coefficients,
NISTIR 5632, version 1.4, 2004), interpolated in the logarithms of energy and coefficient, as NIST advises.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]

# Rows of `paths`: what a ray crosses, g/cm2.
SOFT, BONE, IODINE, IRON = range(4)
MATERIALS = ("soft", "bone", "iodine", "iron")  # iron stands for steel
DENSITY_G_CM3 = {"soft": 1.06, "bone": 1.92, "iodine": 4.93, "iron": 7.874, "csi": 4.51}
DENSITY_G_CM3 |= {"water": 1.0, "aluminium": 2.699, "copper": 8.96}

_KEV = (20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0)
# cm2/g. "soft" is soft tissue and "bone" cortical bone, both after ICRU report 44.
_SMOOTH = {
    "water": (0.8096, 0.3756, 0.2683, 0.2269, 0.2059, 0.1837, 0.1707, 0.1505),
    "soft": (0.8230, 0.3790, 0.2688, 0.2264, 0.2048, 0.1823, 0.1693, 0.1492),
    "bone": (4.001, 1.331, 0.6655, 0.4242, 0.3148, 0.2229, 0.1855, 0.1480),
    "iron": (25.68, 8.176, 3.629, 1.958, 1.205, 0.5952, 0.3717, 0.1964),
    "aluminium": (3.441, 1.128, 0.5685, 0.3681, 0.2778, 0.2018, 0.1704, 0.1378),
    "copper": (33.79, 10.92, 4.862, 2.613, 1.593, 0.7630, 0.4584, 0.2217),
}
# With K edges at 33.17 (iodine) and 35.98 keV (caesium).
_EDGED = {
    "iodine": (
        (20.0, 30.0, 33.1693, 33.1694, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0),
        (25.43, 8.561, 6.553, 35.82, 22.10, 12.32, 7.579, 3.510, 1.942, 0.6978),
    ),
    "csi": (
        (20.0, 30.0, 33.1693, 33.1694, 35.9845, 35.9846, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0),
        (26.86, 9.045, 6.923, 21.22, 17.19, 30.27, 22.97, 12.87, 7.921, 3.677, 2.035, 0.7290),
    ),
}


def mass_attenuation_cm2_g(material: str, kev: ArrayLike) -> Float:
    """Mass attenuation coefficient of a material, cm2/g, in the shape of `kev` (20 to 150)."""
    energies, values = _EDGED[material] if material in _EDGED else (_KEV, _SMOOTH[material])
    return np.exp(np.interp(np.log(kev), np.log(energies), np.log(values)))


@dataclass(frozen=True)
class Tube:
    """Tube and filter of a C-arm, and its scintillator."""

    kvp: float = 80.0  # usual for a trunk
    aluminium_mm: float = 3.0  # inherent and added filters of mobile C-arms
    copper_mm: float = 0.1
    csi_mg_cm2: float = 180.0  # 0.5 mm of columns, packed to 80 %
    bin_kev: float = 5.0  # chosen: bins of 2 keV change an open beam's response by less than 1 in 1000


@dataclass(frozen=True)
class Beam:
    """A spectrum in bins.

    Attributes
    ----------
    kev : ndarray, shape (bins,)
    signal : ndarray, shape (bins,)
        Share of each bin in the panel's signal, which is the absorbed energy; sums to 1.
    coefficients_cm2_g : ndarray, shape (4, bins)
        Of `MATERIALS`.
    noise_gain : float
        Variance over mean of the signal, relative to photons that all have the same energy: 1 for one energy.
    """

    kev: Float
    signal: Float
    coefficients_cm2_g: Float
    noise_gain: float

    @classmethod
    def of(cls, tube: Tube) -> Beam:
        """Bremsstrahlung after Kramers (Phil Mag 46:836, 1923), filtered, times its absorption in the scintillator."""
        kev = np.arange(20 + tube.bin_kev / 2, tube.kvp, tube.bin_kev)
        photons = (tube.kvp - kev) / kev
        for material, mm in (("aluminium", tube.aluminium_mm), ("copper", tube.copper_mm)):
            photons *= np.exp(-mass_attenuation_cm2_g(material, kev) * DENSITY_G_CM3[material] * mm / 10)
        absorbed = photons * (1 - np.exp(-mass_attenuation_cm2_g("csi", kev) * tube.csi_mg_cm2 / 1000))
        return cls._of_absorbed(kev, absorbed)

    @classmethod
    def of_one_energy(cls, kev: float) -> Beam:
        """All photons have the same energy."""
        return cls._of_absorbed(np.array([kev]), np.ones(1))

    @classmethod
    def _of_absorbed(cls, kev: Float, absorbed: Float) -> Beam:
        energy = absorbed * kev
        gain = float(absorbed.sum() * (absorbed * kev**2).sum() / energy.sum() ** 2)
        coefficients = np.array([mass_attenuation_cm2_g(m, kev) for m in MATERIALS])
        return cls(kev, energy / energy.sum(), coefficients, gain)

    def transmitted(self, paths: NDArray[np.float32]) -> NDArray[np.float32]:
        """Share of the open beam's signal behind `paths` (g/cm2, shape (4, n)); shape (n,)."""
        out = np.zeros(paths.shape[1], np.float32)
        mu = self.coefficients_cm2_g.astype(np.float32)
        for e, share in enumerate(self.signal):
            out += np.float32(share) * np.exp(-(mu[:, e] @ paths))
        return out


CT_KEV = 70.0  # mean energy of a CT's beam at 120 kV behind a trunk
_LUNG_AND_FAT_HU, _MARROW_HU = 0.0, 100.0  # up to the first it is soft tissue of low density, above the second bone
CONTRAST = 4096  # added to a voxel's code where its excess over blood is iodine
AIR_HU, MOST_HU, BLOOD_HU = -1024, 3071, 45
CONTRAST_HU = 90  # chosen: denser voxels of a vessel hold contrast


def coded(hu: NDArray, contrast: NDArray[np.bool_] | None = None) -> NDArray[np.int16]:
    """CT numbers as indices of :func:`densities_g_cm3`, same shape; `contrast` marks vessels that hold iodine."""
    codes = (np.clip(np.rint(hu), AIR_HU, MOST_HU) - AIR_HU).astype(np.int16)
    if contrast is not None:
        codes[contrast] += CONTRAST
    return codes


def densities_g_cm3() -> NDArray[np.float32]:
    """Partial densities of soft tissue, bone and iodine by voxel code, g/cm3, shape (8192, 3).

    A voxel is a mixture whose linear attenuation at the CT's mean energy is what its CT number says: soft tissue of
    variable density up to 100 HU, then soft tissue and cortical bone; in vessels with contrast blood and iodine.
    """
    hu = np.arange(AIR_HU, MOST_HU + 1).astype(np.float64)
    water, soft, bone, iodine = (mass_attenuation_cm2_g(m, CT_KEV) for m in ("water", "soft", "bone", "iodine"))
    mu = np.maximum(water * (1 + hu / 1000), 0)
    out = np.zeros((2 * len(hu), 3), np.float32)
    marrow = water * (1 + _MARROW_HU / 1000)
    cortex = bone * DENSITY_G_CM3["bone"]
    share = np.clip((mu - marrow) / (cortex - marrow), 0, 1)
    out[: len(hu), 0] = np.where(share > 0, (1 - share) * marrow, mu) / soft
    out[: len(hu), 1] = np.where(share < 1, share * cortex, mu) / bone
    blood = np.minimum(mu, water * (1 + BLOOD_HU / 1000))
    out[len(hu) :, 0] = blood / soft
    out[len(hu) :, 2] = (mu - blood) / iodine
    return out
