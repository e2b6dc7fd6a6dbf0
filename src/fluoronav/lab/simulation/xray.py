"""The physics of a fluoroscopy beam: spectrum, materials and the ray march that measures both.

Mass attenuation coefficients are those of NIST (Hubbell and Seltzer, NISTIR 5632, 2004): liquid water, ICRU-44 cortical
bone and iron, which stands for surgical steel.
"""

from __future__ import annotations

import numpy as np
from numba import carray  # pyright: ignore[reportPrivateImportUsage]
from numpy.typing import NDArray

from fluoronav.geometry import inverse
from fluoronav.imaging.projector import BLOCK
from fluoronav.imaging.projector.stack import stack_float32
from fluoronav.kernels import njit

ENERGY_KEV = np.array([30.0, 40.0, 50.0, 60.0, 80.0])
# Photons of an 80 kV beam behind 3 mm Al and 0.1 mm Cu, binned around these energies, times their absorption in a
# 0.6 mm CsI scintillator; sums to 1.
DETECTED_SPECTRUM = np.array([0.09, 0.30, 0.31, 0.20, 0.10])
MU_WATER_CM2_G = np.array([0.3756, 0.2683, 0.2269, 0.2059, 0.1837])
MU_BONE_CM2_G = np.array([1.331, 0.6655, 0.4242, 0.3148, 0.2229])
MU_STEEL_PER_MM = np.array([8.176, 3.629, 1.958, 1.205, 0.5952]) * 7.87 / 10

_OPTIONS = {"fastmath": True, "error_model": "numpy", "nogil": True, "boundscheck": False, "cache": True}
_scratch = stack_float32(8 * BLOCK)
f32 = np.float32
i32 = np.int32
u32 = np.uint32

# CT numbers are stored with this added, so that they are not negative.
HU_OFFSET = 1024


def packed_hu(hu: NDArray[np.int16]) -> NDArray[np.int32]:
    """HU + 1024 with air around it, two neighbours along x in one word; shape (z + 3, y + 3, x + 3).

    One voxel of air before and two behind: a sample clamped to the last voxel but one is in air then.
    """
    values = np.pad(np.clip(hu.astype(np.int32) + HU_OFFSET, 0, 4095), (1, 2))
    values[..., :-1] |= values[..., 1:] << 16
    return values


@njit(**_OPTIONS)
def material_paths(
    packed, spacing, step_mm, M, source, box, ramp_mm, inside, directions, first_block, end_block, paths
):
    """Adds the water and bone mass along each ray, by trilinear sampling at equal steps.

    Parameters
    ----------
    packed : int32 (z, y, x)
        From :func:`packed_hu`.
    spacing : float32 (3,)
        mm, x y z.
    M : float32 (3, 3)
        Camera directions to patient axes.
    source : float32 (3,)
        X-ray source, mm from voxel (0, 0, 0) of the padded grid.
    box : float32 (2, 3)
        Corners of the region of the fine scan, mm from the same point.
    ramp_mm, inside : float
        Weights fall from 1 inside the box to 0 at its faces over ``ramp_mm``; with ``inside`` 0, 1 minus these.
    directions : float32 (2, n)
    paths : float32 (2, n)
        Added to: water and bone, g/cm2.
    """
    shape = packed.shape
    volume = packed.reshape(-1)
    width, plane = i32(shape[2]), i32(shape[1] * shape[2])
    scratch = carray(_scratch(), 8 * BLOCK)
    for b in range(first_block, end_block):
        first = b * BLOCK
        t_first, t_last = f32(1e9), f32(0)
        for r in range(BLOCK):
            x, y = directions[0, first + r], directions[1, first + r]
            length = np.sqrt(x * x + y * y + 1)
            t0, t1 = f32(0), f32(1e9)
            for a in range(3):
                d = (M[a, 0] * x + M[a, 1] * y + M[a, 2]) / length
                scratch[a * BLOCK + r] = source[a] / spacing[a]
                scratch[(3 + a) * BLOCK + r] = d / spacing[a]
                size = (shape[2 - a] - 2) * spacing[a]
                if abs(d) > f32(1e-6):
                    p, q = -source[a] / d, (size - source[a]) / d
                    t0, t1 = max(t0, min(p, q)), min(t1, max(p, q))
                elif source[a] < 0 or source[a] > size:
                    t1 = f32(-1)
            scratch[6 * BLOCK + r] = 0
            scratch[7 * BLOCK + r] = 0
            if t0 < t1:
                t_first, t_last = min(t_first, t0), max(t_last, t1)
        for n in range(i32((t_last - t_first) / step_mm) + 1):
            t = t_first + f32(n) * f32(step_mm)
            for r in range(BLOCK):
                x = min(max(scratch[r] + t * scratch[3 * BLOCK + r], f32(0)), f32(shape[2] - 2))
                y = min(max(scratch[BLOCK + r] + t * scratch[4 * BLOCK + r], f32(0)), f32(shape[1] - 2))
                z = min(max(scratch[2 * BLOCK + r] + t * scratch[5 * BLOCK + r], f32(0)), f32(shape[0] - 2))
                ix, iy, iz = i32(x), i32(y), i32(z)
                fx, fy, fz = x - f32(ix), y - f32(iy), z - f32(iz)
                at = u32(iz * plane + iy * width + ix)
                p, q = volume[at], volume[at + u32(width)]
                s, w = volume[at + u32(plane)], volume[at + u32(plane + width)]
                p0, p1 = f32(p & i32(0xFFFF)), f32(p >> i32(16))
                q0, q1 = f32(q & i32(0xFFFF)), f32(q >> i32(16))
                s0, s1 = f32(s & i32(0xFFFF)), f32(s >> i32(16))
                w0, w1 = f32(w & i32(0xFFFF)), f32(w >> i32(16))
                a0, a1 = p0 + fx * (p1 - p0), q0 + fx * (q1 - q0)
                c0, c1 = s0 + fx * (s1 - s0), w0 + fx * (w1 - w0)
                low, high = a0 + fy * (a1 - a0), c0 + fy * (c1 - c0)
                hu = low + fz * (high - low) - f32(HU_OFFSET)
                # Soft tissue to 100 HU, then a mixture with cortical bone (1.92 g/cm3), which is reached at 1700 HU.
                bone = min(max((hu - f32(100)) / f32(1600), f32(0)), f32(1.5))
                water = min(max(f32(1) + hu / f32(1000), f32(0)), f32(1.1)) * max(f32(1) - bone, f32(0))
                mx, my, mz = x * spacing[0], y * spacing[1], z * spacing[2]
                depth = min(min(mx - box[0, 0], box[1, 0] - mx), min(my - box[0, 1], box[1, 1] - my))
                depth = min(depth, min(mz - box[0, 2], box[1, 2] - mz))
                weight = min(max(depth / f32(ramp_mm), f32(0)), f32(1))
                weight = inside * weight + (1 - inside) * (f32(1) - weight)
                scratch[6 * BLOCK + r] += weight * water
                scratch[7 * BLOCK + r] += weight * bone
        for r in range(BLOCK):
            paths[0, first + r] += scratch[6 * BLOCK + r] * f32(step_mm * 0.1)
            paths[1, first + r] += scratch[7 * BLOCK + r] * f32(step_mm * 0.1 * 1.92)


class Scan:
    """A CT scan for the X-ray model: HU on its own grid, along the patient axes."""

    def __init__(self, hu: NDArray[np.int16], origin_ct: NDArray, spacing_mm: NDArray, step_mm: float) -> None:
        self.packed = packed_hu(hu)
        self.spacing = np.asarray(spacing_mm, dtype=np.float32)
        self.corner_ct = np.asarray(origin_ct, dtype=np.float64) - spacing_mm  # of the padding
        self.first_ct = np.asarray(origin_ct, dtype=np.float64)
        self.last_ct = self.first_ct + (np.array(hu.shape[::-1]) - 1) * spacing_mm
        self.step_mm = step_mm

    def add_paths(
        self, T_camera_ct: NDArray, directions: NDArray, paths: NDArray, box_ct: NDArray, ramp_mm: float, inside: bool
    ) -> None:
        """Adds the scan's part of the material paths; ``box_ct`` (2, 3) is the region of the fine scan."""
        T_ct_camera = inverse(T_camera_ct)
        material_paths(
            self.packed,
            self.spacing,
            np.float32(self.step_mm),
            T_ct_camera[:3, :3].astype(np.float32),
            (T_ct_camera[:3, 3] - self.corner_ct).astype(np.float32),
            (box_ct - self.corner_ct).astype(np.float32),
            np.float32(ramp_mm),
            np.float32(inside),
            directions,
            0,
            directions.shape[1] // BLOCK,
            paths,
        )


@njit(**_OPTIONS)
def transmission(water, bone, steel_mm, out):
    """Detected fraction of the open beam behind water, bone (g/cm2) and steel (mm); flat arrays of equal length."""
    for i in range(water.shape[0]):
        total = 0.0
        for e in range(5):
            total += DETECTED_SPECTRUM[e] * np.exp(
                -(MU_WATER_CM2_G[e] * water[i] + MU_BONE_CM2_G[e] * bone[i] + MU_STEEL_PER_MM[e] * steel_mm[i])
            )
        out[i] = total
