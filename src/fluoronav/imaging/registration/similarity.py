"""Similarity of a DRR and a frame over patches, and the normal equations of its Gauss-Newton step.

Inside each patch p the frame's values F and the model's line integrals I are made zero-mean and unit-norm, written
F^ and I^. This removes gain, offset, slow shading and homogeneous soft tissue. The cost is

    sum_p w_p |F_p^ - I_p^|^2 = sum_p 2 w_p (1 - ncc_p)

With J~ the mean-free pose Jacobian of I, the Jacobian of I^ is ``(J~ - I^ (I^ . J~)) / |I~|``. The weights follow
from the patches' own correlations, so patches that an instrument or another bone covers drop out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.kernels import njit


@dataclass(frozen=True)
class SimilarityLimits:
    """When a patch counts; all chosen."""

    min_norm: float = 1e-6  # attenuation; a frame patch below it has no contrast
    min_power: float = 1e-10  # of mean-free line integrals; a model patch below it has no contrast
    min_correlation: float = 0.1  # patches below it have no weight
    min_of_median: float = 0.5  # nor have patches below this fraction of the median correlation


SIMILARITY = SimilarityLimits()
# Kernels take scalars.
_MIN_NORM, _MIN_POWER = SIMILARITY.min_norm, SIMILARITY.min_power

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
        Written; a patch without contrast becomes zero.
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
        scale = np.float32(1 / norm) if norm > _MIN_NORM else np.float32(0)
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
        ncc[p] = cross / np.sqrt(power) if power > _MIN_POWER else 0.0


@njit(inline="always", **_OPTIONS)
def _remove_means(model, at, pixels, scratch):
    """Writes one patch's line integrals and derivatives, each without its mean."""
    for c in range(7):
        total = np.float32(0)
        for i in range(pixels):
            total += model[c, at + i]
        mean = total / np.float32(pixels)
        for i in range(pixels):
            scratch[c, i] = model[c, at + i] - mean


@njit(inline="always", **_OPTIONS)
def _normalise_model(scale, pixels, scratch):
    """Makes the patch's line integrals unit-norm, and the derivatives those of the normalised integrals."""
    for i in range(pixels):
        scratch[0, i] *= scale
    for c in range(1, 7):
        along = np.float32(0)
        for i in range(pixels):
            along += scratch[0, i] * scratch[c, i]
        for i in range(pixels):
            scratch[c, i] = (scratch[c, i] - scratch[0, i] * along) * scale


@njit(inline="always", **_OPTIONS)
def _add_products(frame_hat, at, pixels, w, scratch, A, g):
    """Adds one patch to the gradient and to the lower triangle of the matrix."""
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
        _remove_means(model, at, pixels, scratch)
        power = np.float32(0)
        for i in range(pixels):
            power += scratch[0, i] * scratch[0, i]
        if power < _MIN_POWER:
            continue
        _normalise_model(np.float32(1 / np.sqrt(power)), pixels, scratch)
        residual = np.float32(0)
        for i in range(pixels):
            difference = frame_hat[at + i] - scratch[0, i]
            residual += difference * difference
        cost += w * residual
        _add_products(frame_hat, at, pixels, w, scratch, A, g)
    for c in range(6):
        for d in range(c):
            A[d, c] = A[c, d]
    return cost


def patch_weights(ncc: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    """Weight of each patch: the square of what its correlation exceeds the floor by; 0 below the floor.

    Noise lowers all correlations alike. The floor therefore follows their median.

    Parameters
    ----------
    ncc : ndarray, shape (n_patches,)
        From :func:`patch_correlations`.
    out : ndarray, shape (n_patches,)
        Written.
    """
    floor = max(SIMILARITY.min_correlation, SIMILARITY.min_of_median * float(np.median(ncc)))
    np.subtract(ncc, floor, out=out)
    np.maximum(out, 0, out=out)
    np.square(out, out=out)
