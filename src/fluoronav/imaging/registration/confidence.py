"""How far a registration may be wrong, and what it may be called."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

# Scores of the fine level on the embedded case: right poses 0.6 and above at normal dose, wrong ones below 0.45.
TRACKING_SCORE = 0.55
LOST_SCORE = 0.42
MIN_PATCHES = 12
# Agreement over the whole field: of 655 wrong poses that Gauss-Newton had settled in the best had 0.67 (ribs); of 724
# right ones that rested all but one had 0.72 and above. The bench judges poses of other views.
TRACKING_AGREEMENT = 0.70
LOST_AGREEMENT = 0.45

# The model's own error (beam, segmentation, resampling) does not shrink with the noise: floors, 1 sigma.
_FLOOR_IMAGE_MM = 0.1
_FLOOR_DEPTH_MM = 1.75


def covariance_in_camera(information: Float, T_camera_ct: Float, views: int = 1) -> Float:
    """Covariance of the pose in camera axes, with the model's own error added.

    Parameters
    ----------
    information : ndarray, shape (6, 6)
        Of the twist (w, v) about a point, CT axes, rad and mm.
    T_camera_ct : ndarray, shape (4, 4)
    views : int
        Seen from several sides, depth is as well known as the rest.

    Returns
    -------
    ndarray, shape (6, 6)
        Of (rotation, translation of that point), rad and mm, camera axes.
    """
    scale = 1 / np.sqrt(np.maximum(np.diag(information), 1e-12))
    scaled = information * np.outer(scale, scale) + 1e-6 * np.eye(6)
    covariance = np.linalg.inv(scaled) * np.outer(scale, scale)
    R = np.zeros((6, 6))
    R[:3, :3] = R[3:, 3:] = T_camera_ct[:3, :3]
    out = R @ covariance @ R.T
    depth = _FLOOR_DEPTH_MM if views == 1 else _FLOOR_IMAGE_MM
    out[3:, 3:] += np.diag([_FLOOR_IMAGE_MM**2, _FLOOR_IMAGE_MM**2, depth**2])
    return out


def error_bounds_mm(covariance: Float, point_camera: Float) -> tuple[float, float]:
    """95 % bounds of the error at the point that the covariance is about.

    Parameters
    ----------
    covariance : ndarray, shape (6, 6)
        From :func:`covariance_in_camera`.
    point_camera : ndarray, shape (3,)
        That point in the camera's frame; it gives the ray.

    Returns
    -------
    space_mm, across_ray_mm : float
        Radii that hold the error in 95 % of cases, by matching the first two moments of its square (Satterthwaite).
    """
    C = covariance[3:, 3:]
    ray = point_camera / np.linalg.norm(point_camera)
    across = np.eye(3) - np.outer(ray, ray)
    return _radius95(np.linalg.eigvalsh(C)), _radius95(np.linalg.eigvalsh(across @ C @ across))


def _radius95(variances: NDArray[np.floating]) -> float:
    variances = np.maximum(variances, 0)
    mean, spread = float(variances.sum()), float(2 * (variances**2).sum())
    if mean <= 0:
        return 0.0
    # c * chi2 with f degrees of freedom has this mean and variance; Wilson and Hilferty's cube gives its quantile.
    f, c = 2 * mean * mean / spread, spread / (2 * mean)
    h = 2 / (9 * f)
    return float(np.sqrt(c * f * max(1 - h + 1.645 * np.sqrt(h), 0) ** 3))
