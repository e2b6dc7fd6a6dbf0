"""Linear attenuation from Hounsfield units, and the grid through which rays are cast."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fluoronav.kernels import njit

# Zero voxels around the grid: two on each side, so that a sample clamped to the border has neither value nor gradient.
PADDING = 2

# In-plane axes (u, v) and dominant axis, as indices into (x, y, z), by dominant axis; u is contiguous in memory.
# Image rows run along u where the C-arm's image is upright, so the rays of a row share cache lines.
AXES = {0: (1, 2, 0), 1: (0, 2, 1), 2: (0, 1, 2)}


@dataclass(frozen=True)
class BeamModel:
    """Attenuation in a filtered 80 kV fluoroscopy beam, whose effective energy is about 60 keV (NIST XCOM).

    Attributes
    ----------
    water_per_mm : float
        Linear attenuation of water at 60 keV, 1/mm (0.206 cm2/g).
    bone_slope : float
        Slope above `bone_from_hu`, relative to soft tissue. A CT beam is harder, about 70 keV behind a trunk. Cortical
        bone attenuates 2.9 times as much as water at 60 keV and 2.6 times at 70 keV: (2.9 - 1) / (2.6 - 1) = 1.2.
    bone_from_hu : float
        CT number from which tissue is bone, HU; chosen.
    """

    water_per_mm: float = 0.0206
    bone_slope: float = 1.2
    bone_from_hu: float = 100.0


BEAM = BeamModel()


def attenuation_of_hu(hu: NDArray[np.floating] | NDArray[np.integer] | np.float32) -> NDArray[np.float32]:
    """Linear attenuation of CT numbers in a fluoroscopy beam, 1/mm.

    Bilinear: ``water * (1 + HU / 1000)`` up to 100 HU, with a steeper slope above; at least 0.

    Parameters
    ----------
    hu : ndarray
        Hounsfield units, any shape.

    Returns
    -------
    ndarray of float32, the same shape
    """
    hu = np.asarray(hu, dtype=np.float32)
    # In place: a case has ten million voxels, and the start of the stream waits for them.
    relative = np.asarray(hu - np.float32(BEAM.bone_from_hu))
    np.maximum(relative, 0, out=relative)
    relative *= np.float32(BEAM.bone_slope - 1)
    relative += hu
    relative /= 1000
    relative += 1
    relative *= np.float32(BEAM.water_per_mm)
    return np.maximum(relative, 0, out=relative)


@dataclass(frozen=True)
class AttenuationGrid:
    """Attenuation on a grid with equal spacing along the patient axes.

    Attributes
    ----------
    voxels : ndarray of float32, shape (z, y, x)
        Linear attenuation, 1/mm; 0 outside the grid.
    origin_ct : ndarray, shape (3,)
        Centre of voxel (0, 0, 0), LPS mm, ordered (x, y, z).
    spacing_mm : float
    known_ct : ndarray, shape (2, 3), or None
        Lowest and highest corner of the part that a CT covers, LPS mm; beyond it the voxels are a guess. None where all
        is known.
    """

    voxels: NDArray[np.float32]
    origin_ct: NDArray[np.float64]
    spacing_mm: float
    known_ct: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.voxels.ndim != 3 or min(self.voxels.shape) < 2:
            raise ValueError(f"an attenuation grid needs at least 2 voxels along each axis, not {self.voxels.shape}")
        if not np.isfinite(self.voxels).all():
            raise ValueError("the attenuation grid has values that are not finite")
        if not self.voxels.max() > 0:
            raise ValueError("the attenuation grid is empty: every voxel is air")
        padded = np.prod([n + 2 * PADDING for n in self.voxels.shape])
        if padded >= 2**31:
            raise ValueError(f"the attenuation grid {self.voxels.shape} is too large: crop it or use a coarser spacing")

    def mirrored(self, x_ct: float) -> AttenuationGrid:
        """The grid reflected in the sagittal plane at ``x_ct`` (mm)."""
        last = self.origin_ct[0] + (self.voxels.shape[2] - 1) * self.spacing_mm
        origin = np.array([2 * x_ct - last, *self.origin_ct[1:]])
        known = self.known_ct
        if known is not None:
            known = np.array([[2 * x_ct - known[1, 0], *known[0, 1:]], [2 * x_ct - known[0, 0], *known[1, 1:]]])
        return AttenuationGrid(np.ascontiguousarray(self.voxels[:, :, ::-1]), origin, self.spacing_mm, known)

    @cached_property
    def scale(self) -> float:
        """1/mm of one step of the 15-bit packed values."""
        return float(self.voxels.max()) / 32767.0

    def packed(self, dominant: int) -> NDArray[np.int32]:
        """The padded grid for one dominant axis, with two neighbours along u in each 32-bit word.

        One load fetches both ends of an interpolation along u: 2 loads a sample instead of 4.

        Parameters
        ----------
        dominant : int
            0, 1 or 2 for x, y or z.

        Returns
        -------
        ndarray of int32, shape (v, u, dominant)
            Low half: value at u, high half: value at u + 1, in units of `scale`.
        """
        u, v, k = AXES[dominant]
        xyz = self.voxels.transpose(2, 1, 0).transpose(v, u, k)
        words = np.zeros([n + 2 * PADDING for n in xyz.shape], np.int32)
        _pack(xyz, np.float32(self.scale), words)
        return words

    @property
    def padded_origin_ct(self) -> NDArray[np.float64]:
        """Centre of the first padded voxel, LPS mm."""
        return np.asarray(self.origin_ct, dtype=np.float64) - PADDING * self.spacing_mm

    @property
    def centre_ct(self) -> NDArray[np.float64]:
        """Middle of the grid, LPS mm."""
        shape_xyz = np.array(self.voxels.shape[::-1])
        return np.asarray(self.origin_ct, dtype=np.float64) + self.spacing_mm * (shape_xyz - 1) / 2


@njit(cache=True, nogil=True)
def _pack(voxels, scale, words):
    """Writes each voxel into the lower half of its own word and the upper half of its predecessor's along u."""
    rows, cols, depth = voxels.shape
    for i in range(rows):
        for j in range(cols):
            before, here = words[i + PADDING, j + PADDING - 1], words[i + PADDING, j + PADDING]
            for k in range(depth):
                step = np.int32(np.rint(max(voxels[i, j, k], np.float32(0)) / scale))
                before[k + PADDING] |= step << 16
                here[k + PADDING] = step
