"""The ray march: Joseph's method with all six pose derivatives in one pass.

P. M. Joseph, *An improved algorithm for reprojecting rays through pixel images*, IEEE Trans. Med. Imaging 1 (1982):
a ray is sampled once in each slice along the axis to which it is most parallel, by bilinear interpolation inside the
slice. With mu_k the sample in slice k at the point x_k, g_k its gradient and h the step,

    I = h sum mu_k,    dI/dv = h sum g_k,    dI/dw = h sum (x_k - c) x g_k

for a camera that is moved by the twist (w, v) about the point c. Only the two in-plane gradients are sampled. With
the step direction e = (du, dv, 1), the third follows by summation by parts, since the grid is zero at its border:
``sum g.e = 0`` and ``sum k (g.e) = -sum mu``.

A block of neighbouring rays goes through each slice together; accumulators are on the stack (:mod:`.stack`). A slice
takes three loops: the intersections (vector instructions), the loads of voxels (scalar, one ray after the other), and
the sums (vector instructions). Vector gathers, which LLVM would choose for the loads, are microcode on many processors:
on an AMD EPYC with AVX-512, the march took 1.5 times as long with them. The slice index is innermost in memory, so that
the next sample of a ray is in the same cache line as the last or in the next one. With each slice as a plane of its own
it is 200 kB away, and the march takes 1.2 times as long.
"""

from __future__ import annotations

import numpy as np
from numba import carray  # pyright: ignore[reportPrivateImportUsage]

from fluoronav.imaging.projector.stack import one_by_one, stack_float32, stack_int32
from fluoronav.kernels import njit

BLOCK = 64
"""Rays that step through the volume together."""

_OPTIONS = {"fastmath": True, "error_model": "numpy", "nogil": True, "boundscheck": False, "cache": True}

_ray_scratch = stack_float32(4 * BLOCK)
_fraction_scratch = stack_float32(2 * BLOCK)
_voxel_scratch = stack_int32(2 * BLOCK)
_sum_scratch = stack_float32(BLOCK)
_gradient_scratch = stack_float32(5 * BLOCK)

f32 = np.float32
u32 = np.uint32
i32 = np.int32


@njit(inline="always", **_OPTIONS)
def _set_up_rays(ray, directions, first, M, source, k_mid):
    """Writes where each ray of a block crosses slice ``k_mid`` (u, v), and its step per slice (du, dv)."""
    for r in range(BLOCK):
        x, y = directions[0, first + r], directions[1, first + r]
        du = M[0, 0] * x + M[0, 1] * y + M[0, 2]
        dv = M[1, 0] * x + M[1, 1] * y + M[1, 2]
        dk = M[2, 0] * x + M[2, 1] * y + M[2, 2]
        du /= dk
        dv /= dk
        ray[r] = source[0] + (k_mid - source[2]) * du
        ray[BLOCK + r] = source[1] + (k_mid - source[2]) * dv
        ray[2 * BLOCK + r] = du
        ray[3 * BLOCK + r] = dv


@njit(inline="always", **_OPTIONS)
def _slices_met(ray, k_mid, shape):
    """First and one past the last slice in which any ray of the block is inside the grid."""
    first, last = f32(shape[0]), f32(0)
    for r in range(BLOCK):
        lo, hi = f32(0), f32(shape[0] - 1)
        for axis in range(2):
            at, step = ray[axis * BLOCK + r], ray[(2 + axis) * BLOCK + r]
            size = f32(shape[2 - axis] - 1)
            if abs(step) > f32(1e-6):
                a, b = k_mid - at / step, k_mid + (size - at) / step
                lo, hi = max(lo, min(a, b)), min(hi, max(a, b))
            elif at < 0 or at > size:
                hi = f32(-1)
        if lo <= hi:
            first, last = min(first, lo), max(last, hi)
    return max(i32(first), i32(0)), min(i32(last) + i32(2), i32(shape[0]))


@njit(inline="always", **_OPTIONS)
def _fetch(volume, width, deep, ray, t, k, u_max, v_max, fractions, voxels):
    """Writes the four voxels around each ray in slice ``k``, two in a word, and the ray's fractions between them."""
    for r in range(BLOCK):
        u = min(max(ray[r] + t * ray[2 * BLOCK + r], f32(0)), u_max)
        v = min(max(ray[BLOCK + r] + t * ray[3 * BLOCK + r], f32(0)), v_max)
        iu, iv = i32(u), i32(v)
        fractions[r] = u - f32(iu)
        fractions[BLOCK + r] = v - f32(iv)
        voxels[r] = (iv * width + iu) * deep + k
    for r in range(BLOCK):
        at = u32(one_by_one(voxels[r]))
        voxels[r] = volume[at]
        voxels[BLOCK + r] = volume[at + u32(width * deep)]


@njit(**_OPTIONS)
def march(packed, scale, spacing, M, source, directions, k_range, integrals, first_block, end_block):
    """Line integrals of the rays in blocks ``first_block`` to ``end_block``.

    Parameters
    ----------
    packed : int32 (v, u, k)
        From :meth:`AttenuationGrid.packed`.
    scale, spacing : float32
        1/mm of one packed step; mm between voxels.
    M : float32 (3, 3)
        Camera directions to voxel axes (u, v, k).
    source : float32 (3,)
        X-ray source in padded voxel coordinates (u, v, k).
    directions : float32 (2, n)
        Camera-frame x and y of each ray at z = 1; n is a multiple of BLOCK.
    k_range : int32 (2,)
        First and one past the last slice between source and detector.
    integrals : float32 (n,)
        Written.
    """
    shape = (packed.shape[2], packed.shape[0], packed.shape[1])
    volume = packed.reshape(-1)
    width, deep = i32(shape[2]), i32(shape[0])
    u_max, v_max = f32(shape[2] - 2), f32(shape[1] - 2)
    k_mid = f32(shape[0] // 2)
    ray = carray(_ray_scratch(), 4 * BLOCK)
    fractions, voxels = carray(_fraction_scratch(), 2 * BLOCK), carray(_voxel_scratch(), 2 * BLOCK)
    total = carray(_sum_scratch(), BLOCK)
    for b in range(first_block, end_block):
        first = b * BLOCK
        _set_up_rays(ray, directions, first, M, source, k_mid)
        k_first, k_end = _slices_met(ray, k_mid, shape)
        for r in range(BLOCK):
            total[r] = 0
        for k in range(max(k_first, k_range[0]), min(k_end, k_range[1])):
            t = f32(k) - k_mid
            _fetch(volume, width, deep, ray, t, i32(k), u_max, v_max, fractions, voxels)
            for r in range(BLOCK):
                fu, fv = fractions[r], fractions[BLOCK + r]
                p, q = voxels[r], voxels[BLOCK + r]
                p0, p1 = f32(p & i32(0xFFFF)), f32(p >> i32(16))
                q0, q1 = f32(q & i32(0xFFFF)), f32(q >> i32(16))
                low, high = p0 + fu * (p1 - p0), q0 + fu * (q1 - q0)
                total[r] += low + fv * (high - low)
        for r in range(BLOCK):
            du, dv = ray[2 * BLOCK + r], ray[3 * BLOCK + r]
            integrals[first + r] = total[r] * scale * spacing * np.sqrt(1 + du * du + dv * dv)


@njit(**_OPTIONS)
def march_with_derivatives(
    packed, scale, spacing, M, source, directions, k_range, axes, parity, centre, out, first_block, end_block
):
    """Line integrals and their derivatives by the camera's twist.

    Parameters are those of :func:`march`, and

    axes : int32 (3,)
        Indices of u, v and k in (x, y, z).
    parity : float32
        +1 where (u, v, k) is an even permutation of (x, y, z), else -1.
    centre : float32 (3,)
        Point about which the twist rotates, padded voxel coordinates (u, v, k).
    out : float32 (7, n)
        Written: integral, then dI/dw (per rad, x y z), then dI/dv (per mm, x y z).
    """
    shape = (packed.shape[2], packed.shape[0], packed.shape[1])
    volume = packed.reshape(-1)
    width, deep = i32(shape[2]), i32(shape[0])
    u_max, v_max = f32(shape[2] - 2), f32(shape[1] - 2)
    k_mid = np.rint(centre[2])
    ray = carray(_ray_scratch(), 4 * BLOCK)
    fractions, voxels = carray(_fraction_scratch(), 2 * BLOCK), carray(_voxel_scratch(), 2 * BLOCK)
    sums = carray(_gradient_scratch(), 5 * BLOCK)
    for b in range(first_block, end_block):
        first = b * BLOCK
        _set_up_rays(ray, directions, first, M, source, k_mid)
        k_first, k_end = _slices_met(ray, k_mid, shape)
        for r in range(5 * BLOCK):
            sums[r] = 0
        for k in range(max(k_first, k_range[0]), min(k_end, k_range[1])):
            t = f32(k) - k_mid
            _fetch(volume, width, deep, ray, t, i32(k), u_max, v_max, fractions, voxels)
            for r in range(BLOCK):
                fu, fv = fractions[r], fractions[BLOCK + r]
                p, q = voxels[r], voxels[BLOCK + r]
                p0, p1 = f32(p & i32(0xFFFF)), f32(p >> i32(16))
                q0, q1 = f32(q & i32(0xFFFF)), f32(q >> i32(16))
                slope_low, slope_high = p1 - p0, q1 - q0
                low, high = p0 + fu * slope_low, q0 + fu * slope_high
                g_v = high - low
                g_u = slope_low + fv * (slope_high - slope_low)
                sums[r] += low + fv * g_v
                sums[BLOCK + r] += g_u
                sums[2 * BLOCK + r] += g_v
                sums[3 * BLOCK + r] += t * g_u
                sums[4 * BLOCK + r] += t * g_v
        for r in range(BLOCK):
            du, dv = ray[2 * BLOCK + r], ray[3 * BLOCK + r]
            h = scale * np.sqrt(1 + du * du + dv * dv)  # times spacing for mm; gradients are per voxel, so it cancels
            mu = sums[r]
            g_u, g_v = sums[BLOCK + r], sums[2 * BLOCK + r]
            tg_u, tg_v = sums[3 * BLOCK + r], sums[4 * BLOCK + r]
            g_k = -(du * g_u + dv * g_v)
            tg_k = -mu - (du * tg_u + dv * tg_v)
            # sum (x_k - c) x g_k, with x_k - c = a + t e: a where the ray crosses slice k_mid, e = (du, dv, 1).
            a_u, a_v, a_k = ray[r] - centre[0], ray[BLOCK + r] - centre[1], k_mid - centre[2]
            m_u = a_v * g_k - a_k * g_v + dv * tg_k - tg_v
            m_v = a_k * g_u - a_u * g_k + tg_u - du * tg_k
            m_k = a_u * g_v - a_v * g_u + du * tg_v - dv * tg_u
            turn = h * spacing * parity
            out[0, first + r] = h * spacing * mu
            out[1 + axes[0], first + r] = turn * m_u
            out[1 + axes[1], first + r] = turn * m_v
            out[1 + axes[2], first + r] = turn * m_k
            out[4 + axes[0], first + r] = h * g_u
            out[4 + axes[1], first + r] = h * g_v
            out[4 + axes[2], first + r] = h * g_k
