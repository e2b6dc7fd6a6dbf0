"""How far a shaft is curved, over all of it that is in view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.kernels import njit
from fluoronav.stream.detection.axis_fit import quadratic_coefficient, select_parabola_inliers
from fluoronav.stream.detection.cross_profiles import PROFILES, shadow_centres
from fluoronav.stream.detection.paths import along_and_across, chord_frame, profile_centres
from fluoronav.stream.detection.profiles import profiles_across
from fluoronav.stream.detection.shaft_axis import AXIS

Float = NDArray[np.float64]


@dataclass(frozen=True)
class SagittaLimits:
    """When a sagitta is measured and reported; all chosen on simulated bent and straight wires."""

    min_path_sagitta_px: float = 2.0  # of the traced path; below it nothing is measured
    step_px: float = 8.0  # between profiles
    min_inlier_fraction: float = 0.5  # of the profiles that must show the shaft
    min_inliers: float = 10.0


SAGITTA = SagittaLimits()


def sagitta_px(counts: NDArray, path_px: Float, arc_length: Float, half_px: int, dark: float, inverse: bool) -> float:
    """Offset of a shaft's middle from the chord between its tail and its tip, as `Detection.sagitta_px`.

    Parameters
    ----------
    counts : ndarray of uint8 or uint16, shape (rows, cols)
    path_px : ndarray, shape (n, 2)
        (column, row), from the tip to the tail.
    arc_length : ndarray, shape (n,)
    half_px : int
        Half the length of a profile.
    dark : float
        Counts without X-rays.
    inverse : bool
        Dark means more X-rays.

    Returns
    -------
    float
        Pixels; 0 where the shaft is straight, or its curvature is not clear.
    """
    chord = float(np.linalg.norm(path_px[0] - path_px[-1]))
    if len(path_px) < 6 or chord < 1:
        return 0.0
    direction, normal, quadratic = _path_curvature(path_px, chord)
    if abs(quadratic) * (chord / 2) ** 2 < SAGITTA.min_path_sagitta_px:
        return 0.0
    centre = profile_centres(path_px, arc_length, float(arc_length[-1]), SAGITTA.step_px)
    profiles = profiles_across(counts, centre, normal, half_px, dark, inverse)
    offset, _, inliers = shadow_centres(profiles, half_px)
    u, v = along_and_across(centre, path_px[-1], direction, normal)
    v += offset
    min_inliers = max(SAGITTA.min_inlier_fraction * len(centre), SAGITTA.min_inliers)
    if not select_parabola_inliers(u, v, inliers.copy(), inliers, min_inliers):
        return 0.0
    quadratic, sigma_quadratic = quadratic_coefficient(u[inliers], v[inliers])
    half = (u[inliers].max() - u[inliers].min()) / 2
    # Averaged profiles share their noise.
    clear = abs(quadratic) > AXIS.min_sagitta_sigmas * np.sqrt(PROFILES.averaged) * sigma_quadratic
    # Of the whole chord, although its ends may not be measured.
    sagitta = float(-quadratic * (chord / 2) ** 2)
    return sagitta if clear and abs(quadratic) * half**2 > AXIS.min_sagitta_px else 0.0


@njit(cache=True, nogil=True)
def _path_curvature(path, chord):
    """Direction and normal of a path's chord, and the quadratic coefficient of the path over it."""
    direction, normal, u, v = chord_frame(path, chord)
    quadratic, _ = quadratic_coefficient(u, v)
    return direction, normal, quadratic
