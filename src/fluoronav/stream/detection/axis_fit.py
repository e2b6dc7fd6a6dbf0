"""Line and parabola fits to the centres of a shadow, without the points of other shadows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fluoronav.kernels import njit


@dataclass(frozen=True)
class RobustFit:
    """Outlier rejection in the fits along a shaft; all chosen on simulated scenes of `bench instruments`."""

    outlier_sigmas: float = 2.5  # residual above this many robust sigmas: the point belongs to another shadow
    min_outlier_px: float = 0.7  # no residual below this is an outlier, however small the noise
    min_sigma_px: float = 0.05  # noise of a shadow's centre in an image without noise
    iterations: int = 4  # the set of inliers is stable by then
    min_line_points: int = 6  # fewer inliers: the previous fit is kept


ROBUST_FIT = RobustFit()
# Kernels take scalars.
_OUTLIER_SIGMAS, _MIN_OUTLIER_PX = ROBUST_FIT.outlier_sigmas, ROBUST_FIT.min_outlier_px
_MIN_SIGMA_PX, _ITERATIONS, _MIN_LINE_POINTS = (
    ROBUST_FIT.min_sigma_px,
    ROBUST_FIT.iterations,
    ROBUST_FIT.min_line_points,
)
_MAD_TO_SIGMA = 1.4826  # of a normal distribution


@njit(cache=True, nogil=True)
def _copy(source, out):
    """As ``out[:] = source``, for which Numba compiles two seconds long: its error speaks of both shapes."""
    for k in range(len(out)):
        out[k] = source[k]


@njit(cache=True, nogil=True)
def fit_line(x, y):
    """Slope and intercept of the least-squares line."""
    mx, my = x.mean(), y.mean()
    cross, power = 0.0, 0.0
    for k in range(len(x)):
        cross += (x[k] - mx) * (y[k] - my)
        power += (x[k] - mx) ** 2
    slope = cross / max(power, 1e-12)
    return slope, my - slope * mx


@njit(cache=True, nogil=True)
def fit_line_robust(u, v, valid, inliers):
    """Slope, intercept and residual sigma of the line through the inliers.

    `inliers` is the first guess, and is overwritten with the valid points near the line.
    """
    slope, intercept, sigma = 0.0, 0.0, _MIN_SIGMA_PX
    for _ in range(_ITERATIONS):
        slope, intercept = fit_line(u[inliers], v[inliers])
        residual = np.abs(v - (slope * u + intercept))
        sigma = max(_MAD_TO_SIGMA * np.median(residual[inliers]), _MIN_SIGMA_PX)
        now = valid & (residual < max(_OUTLIER_SIGMAS * sigma, _MIN_OUTLIER_PX))
        if now.sum() < _MIN_LINE_POINTS:
            break
        _copy(now, inliers)
    return slope, intercept, sigma


@njit(cache=True, nogil=True)
def fit_parabola(x, y):
    """Least-squares parabola by orthogonal polynomials (Forsythe, J. SIAM 5:74, 1957).

    Returns the mean of x; the coefficients of x**2, x and 1 about it; and the sum of squares of the quadratic
    polynomial, which is orthogonal to the other two.
    """
    middle, n = x.mean(), len(x)
    x = x - middle
    power = np.sum(x * x)
    skew = np.sum(x**3) / power
    orthogonal = x * x - power / n - skew * x
    left = np.sum(orthogonal * orthogonal)
    second = np.sum(orthogonal * y) / left
    return middle, second, np.sum(x * y) / power - second * skew, y.mean() - second * power / n, left


@njit(cache=True, nogil=True)
def parabola_tangent(x, y, at):
    """Slope and intercept of the tangent at `at` to the least-squares parabola."""
    middle, second, first, level, _ = fit_parabola(x, y)
    x = at - middle
    slope = 2 * second * x + first
    return slope, level + first * x + second * x * x - slope * at


@njit(cache=True, nogil=True)
def select_parabola_inliers(u, v, valid, inliers, min_inliers):
    """As :func:`fit_line_robust`, with a parabola; False where fewer than `min_inliers` remain."""
    for _ in range(_ITERATIONS):
        if inliers.sum() < min_inliers:
            return False
        middle, second, first, level, _ = fit_parabola(u[inliers], v[inliers])
        x = u - middle
        residual = np.abs(v - (level + first * x + second * x * x))
        sigma = max(_MAD_TO_SIGMA * np.median(residual[inliers]), _MIN_SIGMA_PX)
        _copy(valid & (residual < max(_OUTLIER_SIGMAS * sigma, _MIN_OUTLIER_PX)), inliers)
    return inliers.sum() >= min_inliers


@njit(cache=True, nogil=True)
def quadratic_coefficient(x, y):
    """Leading coefficient of the least-squares parabola, and its standard error.

    As of ``numpy.polyfit(x, y, 2, cov=True)``.
    """
    middle, second, first, level, left = fit_parabola(x, y)
    x = x - middle
    residual = y - (level + first * x + second * x * x)
    return second, np.sqrt(np.sum(residual * residual) / (len(x) - 3) / left)
