"""Lines and parabolas through the middles of a shadow, without those that are of something else."""

from __future__ import annotations

import numpy as np
from numba import njit

# Profiles whose shadow lies farther than this from the line (robust sigmas) belong to something else.
_OUTLIER = 2.5


@njit(cache=True, nogil=True)
def line_through(x, y):
    """Slope and intercept of the straight line through points."""
    mx, my = x.mean(), y.mean()
    cross, power = 0.0, 0.0
    for k in range(len(x)):
        cross += (x[k] - mx) * (y[k] - my)
        power += (x[k] - mx) ** 2
    slope = cross / max(power, 1e-12)
    return slope, my - slope * mx


@njit(cache=True, nogil=True)
def straight_part(u, v, strong, kept):
    """Slope, intercept and error of the line through a shadow's centres; `kept` loses what is of something else."""
    slope, base, sigma = 0.0, 0.0, 0.05
    for _ in range(4):
        slope, base = line_through(u[kept], v[kept])
        off = np.abs(v - (slope * u + base))
        sigma = max(1.4826 * np.median(off[kept]), 0.05)
        now = strong & (off < max(_OUTLIER * sigma, 0.7))
        if now.sum() < 6:
            break
        kept[:] = now
    return slope, base, sigma


@njit(cache=True, nogil=True)
def parabola_through(x, y):
    """The parabola through points, by orthogonal polynomials: Forsythe, J. SIAM 5:74, 1957.

    Middle of x; coefficients of x**2, x and 1 about it; and what is left of the power of x**2 beside the other two.
    """
    middle, n = x.mean(), len(x)
    x = x - middle
    power = np.sum(x * x)
    skew = np.sum(x**3) / power
    beside = x * x - power / n - skew * x
    left = np.sum(beside * beside)
    second = np.sum(beside * y) / left
    return middle, second, np.sum(x * y) / power - second * skew, y.mean() - second * power / n, left


@njit(cache=True, nogil=True)
def tangent_at(x, y, at):
    """Slope and intercept of what touches the parabola through points at a place."""
    middle, second, first, level, _ = parabola_through(x, y)
    x = at - middle
    slope = 2 * second * x + first
    return slope, level + first * x + second * x * x - slope * at


@njit(cache=True, nogil=True)
def curved_part(u, v, strong, kept, least):
    """As :func:`straight_part`, along a parabola; whether `least` profiles are left."""
    for _ in range(4):
        if kept.sum() < least:
            return False
        middle, second, first, level, _ = parabola_through(u[kept], v[kept])
        x = u - middle
        off = np.abs(v - (level + first * x + second * x * x))
        sigma = max(1.4826 * np.median(off[kept]), 0.05)
        kept[:] = strong & (off < max(_OUTLIER * sigma, 0.7))
    return kept.sum() >= least


@njit(cache=True, nogil=True)
def bow_of(x, y):
    """Leading coefficient of the parabola through points, and its standard error.

    What ``numpy.polyfit(x, y, 2, cov=True)`` gives.
    """
    middle, second, first, level, left = parabola_through(x, y)
    x = x - middle
    off = y - (level + first * x + second * x * x)
    return second, np.sqrt(np.sum(off * off) / (len(x) - 3) / left)
