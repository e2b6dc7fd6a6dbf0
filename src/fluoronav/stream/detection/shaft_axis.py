"""The axis of a shaft from the centres of its shadow in profiles across it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fluoronav.kernels import njit
from fluoronav.stream.detection.axis_fit import fit_line, fit_line_robust, parabola_tangent, quadratic_coefficient
from fluoronav.stream.detection.cross_profiles import PROFILES, shadow_centres
from fluoronav.stream.detection.paths import along_and_across


@dataclass(frozen=True)
class AxisLimits:
    """When the fitted axis is that of the path; all chosen on simulated scenes of `bench instruments`."""

    max_turn_deg: float = 5.0  # from the path's own line; more: the shadow is another instrument's
    max_offset_px: float = 12.0  # the same beside the path, and over its length, which limits the turn of short paths
    path_sigma_px: float = 2.0  # of the path's own line, taken where the shadow cannot be measured
    min_parabola_points: int = 10
    min_sagitta_px: float = 3.0  # below it a shaft counts as straight
    min_sagitta_sigmas: float = 5.0


AXIS = AxisLimits()
# Kernels take scalars.
_MAX_TURN_RAD, _MAX_OFFSET_PX = float(np.deg2rad(AXIS.max_turn_deg)), AXIS.max_offset_px
_PATH_SIGMA_PX = AXIS.path_sigma_px
_MIN_PARABOLA_POINTS = AXIS.min_parabola_points
_MIN_SAGITTA_PX, _MIN_SAGITTA_SIGMAS = AXIS.min_sagitta_px, AXIS.min_sagitta_sigmas
_AVERAGED = PROFILES.averaged


@njit(cache=True, nogil=True)
def fit_axis(profiles, half_px, tip, centre, direction, normal, reach):
    """The axis through the centres of a shadow.

    Parameters
    ----------
    profiles : ndarray of float32, shape (n, 2 half_px + 1)
        Attenuation along `normal`.
    half_px : int
    tip : ndarray, shape (2,)
        The path's first point, (column, row).
    centre : ndarray, shape (n, 2)
        Of each profile, on the path.
    direction, normal : ndarray, shape (2,)
        Unit vectors of the path's chord, towards the tip, and across it.
    reach : float
        Arc length over which profiles were taken, pixels.

    Returns
    -------
    at_tip, axis : ndarray, shape (2,)
        The point of the axis beside the path's first point; the unit vector from tail to tip.
    width_px, sigma_deg : float
        Of the shadow, 0 where it could not be measured; and the direction's error, 1 sigma.
    """
    offset, width, valid = shadow_centres(profiles, half_px)
    middle = np.array([centre[:, 0].mean(), centre[:, 1].mean()])
    path_u, path_v = along_and_across(centre, middle, direction, normal)
    u, v = path_u, path_v + offset
    inliers = valid.copy()
    slope, intercept, sigma = 0.0, 0.0, np.inf
    if valid.sum() >= 6:
        slope, intercept, sigma = fit_line_robust(u, v, valid, inliers)
    path_slope, path_intercept = fit_line(path_u, path_v)
    # The path's own line is taken where too few profiles show a shadow, or the shadow is another instrument's.
    max_turn = max(_MAX_TURN_RAD, _MAX_OFFSET_PX / reach)
    turn = abs(np.arctan(slope) - np.arctan(path_slope))
    if sigma == np.inf or turn > max_turn or abs(intercept - path_intercept) > _MAX_OFFSET_PX:
        slope, intercept, sigma = path_slope, path_intercept, _PATH_SIGMA_PX
        inliers[:] = False
    if inliers.sum() >= _MIN_PARABOLA_POINTS:
        slope, intercept = _tangent_if_curved(u, v, inliers, path_u, path_v, max_turn, slope, intercept)
    axis = direction + slope * normal
    axis /= np.sqrt(np.sum(axis * axis))
    origin = middle + intercept * normal
    n = inliers.sum()
    width_px = np.median(width[inliers]) if n else 0.0
    spread = u[inliers].max() - u[inliers].min() if n else reach
    # Averaged profiles share their noise.
    sigma_deg = np.rad2deg(sigma / max(spread, 1.0) * np.sqrt(12 * _AVERAGED / max(n, 1)))
    return origin + axis * np.sum((tip - origin) * axis), axis, width_px, sigma_deg


@njit(cache=True, nogil=True)
def _tangent_if_curved(u, v, inliers, path_u, path_v, max_turn, slope, intercept):
    """The line given; or, of a curved shaft, the tangent nearest to the tip, where the path is curved alike."""
    quadratic, sigma_quadratic = quadratic_coefficient(u[inliers], v[inliers])
    half = (u[inliers].max() - u[inliers].min()) / 2
    if abs(quadratic) * half**2 > _MIN_SAGITTA_PX and abs(quadratic) > _MIN_SAGITTA_SIGMAS * sigma_quadratic:
        front = u[inliers].max()
        tangent, tangent_intercept = parabola_tangent(u[inliers], v[inliers], front)
        path_tangent, _ = parabola_tangent(path_u, path_v, front)
        if abs(np.arctan(tangent) - np.arctan(path_tangent)) < max_turn:
            return tangent, tangent_intercept
    return slope, intercept
