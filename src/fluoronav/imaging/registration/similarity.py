"""How well a DRR fits a frame, patch by patch, and the Gauss-Newton equations that improve it.

Inside each patch p the frame's values F and the model's line integrals I are made zero-mean and unit-norm, written
F^ and I^, so that gain, offset, slow shading and homogeneous soft tissue fall out. Minimised is

    sum_p w_p |F_p^ - I_p^|^2 = sum_p 2 w_p (1 - ncc_p)

With J~ the mean-free pose Jacobian of I, the Jacobian of I^ is ``(J~ - I^ (I^ . J~)) / |I~|``. The weights come from
the patches' own correlations, which drops patches that an instrument or another bone lies across.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

_OPTIONS = {"fastmath": True, "error_model": "numpy", "nogil": True, "boundscheck": False, "cache": True}


@njit(**_OPTIONS)
def normalise_patches(image, first_row, first_col, size, out, contrast):
    """Cuts patches out of a frame and makes each zero-mean and unit-norm.

    Parameters
    ----------
    image : float32 (rows, cols)
        Attenuation.
    first_row, first_col : int32 (n_patches,)
        Upper left pixel of each patch.
    size : int
        Pixels along a side.
    out : float32 (n_patches * size * size,)
        Written; a patch without any contrast becomes zero.
    contrast : float32 (n_patches,)
        Written: standard deviation inside the patch before normalisation.
    """
    pixels = size * size
    for p in range(first_row.shape[0]):
        at = p * pixels
        total = 0.0
        for i in range(size):
            for j in range(size):
                value = image[first_row[p] + i, first_col[p] + j]
                out[at + i * size + j] = value
                total += value
        mean = np.float32(total / pixels)
        power = 0.0
        for i in range(pixels):
            out[at + i] -= mean
            power += out[at + i] * out[at + i]
        norm = np.sqrt(power)
        contrast[p] = norm / size
        scale = np.float32(1 / norm) if norm > 1e-6 else np.float32(0)
        for i in range(pixels):
            out[at + i] *= scale


@njit(**_OPTIONS)
def patch_correlations(frame_hat, model, size, ncc):
    """Normalised cross correlation of each patch of normalised frame values with the model's line integrals."""
    pixels = size * size
    for p in range(ncc.shape[0]):
        at = p * pixels
        total, power, cross = 0.0, 0.0, 0.0
        for i in range(pixels):
            total += model[at + i]
        mean = total / pixels
        for i in range(pixels):
            value = model[at + i] - mean
            power += value * value
            cross += value * frame_hat[at + i]
        ncc[p] = cross / np.sqrt(power) if power > 1e-10 else 0.0


@njit(**_OPTIONS)
def normal_equations(frame_hat, model, size, weights, scratch, A, g):
    """Accumulates ``sum w J^T J`` and ``sum w J^T (F^ - I^)`` over all patches.

    Parameters
    ----------
    frame_hat : float32 (n_patches * size * size,)
        From :func:`normalise_patches`.
    model : float32 (7, >= n_patches * size * size)
        Line integrals and derivatives, from the projector.
    size : int
    weights : float64 (n_patches,)
    scratch : float32 (7, size * size)
    A : float64 (6, 6)
        Written.
    g : float64 (6,)
        Written.

    Returns
    -------
    float
        ``sum w |F^ - I^|^2``.
    """
    pixels = size * size
    A[:] = 0
    g[:] = 0
    cost = 0.0
    for p in range(weights.shape[0]):
        w = weights[p]
        if w <= 0:
            continue
        at = p * pixels
        for c in range(7):
            total = np.float32(0)
            for i in range(pixels):
                total += model[c, at + i]
            mean = total / np.float32(pixels)
            for i in range(pixels):
                scratch[c, i] = model[c, at + i] - mean
        power = np.float32(0)
        for i in range(pixels):
            power += scratch[0, i] * scratch[0, i]
        if power < 1e-10:
            continue
        scale = np.float32(1 / np.sqrt(power))
        for i in range(pixels):
            scratch[0, i] *= scale
        for c in range(1, 7):
            along = np.float32(0)
            for i in range(pixels):
                along += scratch[0, i] * scratch[c, i]
            for i in range(pixels):
                scratch[c, i] = (scratch[c, i] - scratch[0, i] * along) * scale
        residual = np.float32(0)
        for i in range(pixels):
            difference = frame_hat[at + i] - scratch[0, i]
            residual += difference * difference
        cost += w * residual
        for c in range(1, 7):
            # F^ - I^ and F^ have the same product with J^, which is orthogonal to I^.
            total = np.float32(0)
            for i in range(pixels):
                total += scratch[c, i] * frame_hat[at + i]
            g[c - 1] += w * total
            for d in range(1, c + 1):
                total = np.float32(0)
                for i in range(pixels):
                    total += scratch[c, i] * scratch[d, i]
                A[c - 1, d - 1] += w * total
    for c in range(6):
        for d in range(c):
            A[d, c] = A[c, d]
    return cost


def patch_weights(ncc: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    """Weight of each patch from its own correlation: 0 below the floor, then rising with the square.

    The floor follows the median, so that at low dose, where every correlation falls, patches are still told apart.
    """
    floor = max(0.1, 0.5 * float(np.median(ncc)))
    np.subtract(ncc, floor, out=out)
    np.maximum(out, 0, out=out)
    np.square(out, out=out)
