"""The bench's own ray caster: exact lengths of rays in voxels, and in solid shapes.

It shares no code with the registration's projector and computes something else: not samples of an interpolated volume
at equal steps, but the exact integral over voxels of constant density (Siddon, Med Phys 12:252, 1985, by the traversal
of Amanatides and Woo, Eurographics 1987) on a finer grid.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fluoronav.kernels import njit

Float = NDArray[np.float64]
_OPTIONS = {"error_model": "numpy", "nogil": True, "boundscheck": False, "cache": True}


def pixel_rays(K: Float, rows: int, cols: int, T_camera_ct: Float, every_px: float) -> tuple[Float, NDArray]:
    """Rays from the X-ray source through the middles of square blocks of pixels.

    Parameters
    ----------
    K : ndarray, shape (3, 3)
        Intrinsic matrix, pixels; pixel centres at integers.
    rows, cols : int
    T_camera_ct : ndarray, shape (4, 4)
        Patient to camera, mm.
    every_px : float
        Side of a block, pixels.

    Returns
    -------
    source_ct : ndarray, shape (3,)
        LPS mm.
    directions_ct : ndarray of float32, shape (rows / every, cols / every, 3)
        Unit vectors.
    """
    v = (np.arange(round(rows / every_px)) + 0.5) * every_px - 0.5
    u = (np.arange(round(cols / every_px)) + 0.5) * every_px - 0.5
    pixels = np.stack([*np.meshgrid(u, v), np.ones((len(v), len(u)))], -1)
    in_camera = pixels @ np.linalg.inv(K).T
    in_camera /= np.linalg.norm(in_camera, axis=-1, keepdims=True)
    R, t = T_camera_ct[:3, :3], T_camera_ct[:3, 3]
    return -R.T @ t, (in_camera @ R).astype(np.float32)


@njit(**_OPTIONS)
def _siddon(codes, densities, low, spacing, source, directions, paths):
    """Adds what each ray crosses: `paths` (3, n), g/cm2."""
    nz, ny, nx = codes.shape
    size = (nx, ny, nz)
    step, cell = np.empty(3, np.int64), np.empty(3, np.int64)
    crossing, pitch = np.empty(3), np.empty(3)
    for r in range(directions.shape[0]):
        t0, t1 = 0.0, 1e9
        for a in range(3):
            d, begin = float(directions[r, a]), (low[a] - source[a])
            end = begin + size[a] * spacing
            if abs(d) > 1e-9:
                p, q = begin / d, end / d
                t0, t1 = max(t0, min(p, q)), min(t1, max(p, q))
            elif begin > 0 or end < 0:
                t1 = -1.0
        if t1 <= t0:
            continue
        for a in range(3):
            d = float(directions[r, a])
            at = (source[a] + d * (t0 + 1e-7) - low[a]) / spacing
            cell[a] = min(max(int(np.floor(at)), 0), size[a] - 1)
            if abs(d) > 1e-9:
                step[a] = 1 if d > 0 else -1
                face = cell[a] + (1 if d > 0 else 0)
                crossing[a] = (low[a] + face * spacing - source[a]) / d
                pitch[a] = spacing / abs(d)
            else:
                step[a], crossing[a], pitch[a] = 0, 1e12, 0.0
        t, soft, bone, iodine = t0, 0.0, 0.0, 0.0
        x, y, z = cell[0], cell[1], cell[2]
        while t < t1:
            code = codes[z, y, x]
            if crossing[0] <= crossing[1] and crossing[0] <= crossing[2]:
                until = min(crossing[0], t1)
                crossing[0] += pitch[0]
                x += step[0]
            elif crossing[1] <= crossing[2]:
                until = min(crossing[1], t1)
                crossing[1] += pitch[1]
                y += step[1]
            else:
                until = min(crossing[2], t1)
                crossing[2] += pitch[2]
                z += step[2]
            length = until - t
            t = until
            soft += length * densities[code, 0]
            bone += length * densities[code, 1]
            iodine += length * densities[code, 2]
            if x < 0 or y < 0 or z < 0 or x >= nx or y >= ny or z >= nz:
                break
        paths[0, r] += 0.1 * soft
        paths[1, r] += 0.1 * bone
        paths[2, r] += 0.1 * iodine


def add_voxels(
    codes: NDArray[np.int16], densities: NDArray[np.float32], origin_ct: ArrayLike, spacing_mm: float,
    source_ct: Float, directions_ct: NDArray[np.float32], paths: NDArray[np.float32],
) -> None:  # fmt: skip
    """Adds the mass that rays cross in a volume.

    Parameters
    ----------
    codes : ndarray of int16, shape (z, y, x)
        Along the patient's axes.
    densities : ndarray of float32, shape (codes, 3)
        Partial densities by code, g/cm3.
    origin_ct : array, shape (3,)
        Centre of voxel (0, 0, 0), LPS mm.
    spacing_mm : float
    source_ct, directions_ct : ndarray, shapes (3,) and (n, 3)
        Unit directions, LPS.
    paths : ndarray of float32, shape (3 or more, n)
        Added to, g/cm2.
    """
    low = np.asarray(origin_ct, np.float64) - spacing_mm / 2
    _siddon(codes, densities, low, float(spacing_mm), source_ct, directions_ct, paths)


@njit(**_OPTIONS)
def _cylinder(begin, axis, length, radius, source, directions, out):
    """Length of each ray inside a cylinder with flat ends, mm."""
    away = source - begin
    s_axis = away @ axis
    s_out = away - s_axis * axis
    for r in range(directions.shape[0]):
        d_axis = directions[r, 0] * axis[0] + directions[r, 1] * axis[1] + directions[r, 2] * axis[2]
        a = b = 0.0
        for k in range(3):
            d_out = directions[r, k] - d_axis * axis[k]
            a += d_out * d_out
            b += d_out * s_out[k]
        c = s_out @ s_out - radius * radius
        t0, t1 = 0.0, 1e9
        if a > 1e-12:
            root = b * b - a * c
            if root <= 0:
                continue
            root = np.sqrt(root)
            t0, t1 = (-b - root) / a, (-b + root) / a
        elif c >= 0:
            continue
        if abs(d_axis) > 1e-9:
            p, q = -s_axis / d_axis, (length - s_axis) / d_axis
            t0, t1 = max(t0, min(p, q)), min(t1, max(p, q))
        elif s_axis < 0 or s_axis > length:
            continue
        if t1 > max(t0, 0.0):
            out[r] += t1 - max(t0, 0.0)


def cylinder_mm(
    begin_ct: ArrayLike, end_ct: ArrayLike, radius_mm: float, source_ct: Float, directions_ct: NDArray
) -> NDArray[np.float32]:
    """Length of rays inside a cylinder with flat ends.

    Parameters
    ----------
    begin_ct, end_ct : array, shape (3,)
        Middles of its ends, LPS mm.
    radius_mm : float
    source_ct, directions_ct : ndarray, shapes (3,) and (n, 3)

    Returns
    -------
    ndarray of float32, shape (n,)
        mm.
    """
    begin, end = np.asarray(begin_ct, np.float64), np.asarray(end_ct, np.float64)
    length = float(np.linalg.norm(end - begin))
    out = np.zeros(len(directions_ct), np.float32)
    # Only rays that come near: the others are outside of a cone around the bounding sphere.
    middle = (begin + end) / 2 - source_ct
    distance = float(np.linalg.norm(middle))
    reach = np.hypot(length / 2, radius_mm)
    near = directions_ct @ (middle / distance).astype(np.float32) > np.sqrt(max(1 - (reach / distance) ** 2, 0)) - 1e-6
    some = np.zeros(int(near.sum()), np.float32)
    _cylinder(begin, (end - begin) / length, length, float(radius_mm), source_ct, directions_ct[near], some)
    out[near] = some
    return out
