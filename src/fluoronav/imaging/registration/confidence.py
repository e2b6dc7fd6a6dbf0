"""Limits by which a registration is accepted, and error bounds from its covariance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


@dataclass(frozen=True)
class AcceptanceLimits:
    """When a pose is tracked and when it is lost."""

    # Patch scores of the fine level. On the embedded case at normal dose: right poses 0.6 and above, wrong below 0.45.
    tracking_score: float = 0.55
    lost_score: float = 0.42
    min_patches: int = 12  # with weight, in the fine level; chosen
    # Agreement over the whole field. Of 655 wrong poses at which Gauss-Newton had converged, the highest had 0.67
    # (ribs); of 724 right poses all but one had 0.72 and above. `bench registration` tests other views.
    tracking_agreement: float = 0.70
    lost_agreement: float = 0.45


@dataclass(frozen=True)
class UncertaintyFloor:
    """The model's own error (beam, segmentation, resampling), which does not shrink with the noise; 1 sigma.

    Fitted together with the information of a pixel in :mod:`.gauss_newton` (docs/registration.md).
    """

    image_mm: float = 0.1
    depth_mm: float = 1.75  # from one view


LIMITS = AcceptanceLimits()
FLOOR = UncertaintyFloor()
TRACKING_SCORE, LOST_SCORE, MIN_PATCHES = LIMITS.tracking_score, LIMITS.lost_score, LIMITS.min_patches
TRACKING_AGREEMENT, LOST_AGREEMENT = LIMITS.tracking_agreement, LIMITS.lost_agreement


def covariance_in_camera(information: Float, T_camera_ct: Float, views: int = 1) -> Float:
    """Covariance of the pose in camera axes, with the model's own error added.

    Parameters
    ----------
    information : ndarray, shape (6, 6)
        Information matrix of the twist (w, v) about a point, CT axes, rad and mm.
    T_camera_ct : ndarray, shape (4, 4)
        Patient to camera, mm.
    views : int
        Number of images. With more than one, the model's error in depth is that in the image plane.

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
    image, depth = FLOOR.image_mm, FLOOR.depth_mm if views == 1 else FLOOR.image_mm
    out[3:, 3:] += np.diag([image**2, image**2, depth**2])
    return out


def error_bounds_mm(covariance: Float, point_camera: Float) -> tuple[float, float]:
    """95 % bounds of the error at the point about which the covariance is given.

    Parameters
    ----------
    covariance : ndarray, shape (6, 6)
        From :func:`covariance_in_camera`.
    point_camera : ndarray, shape (3,)
        The point in camera axes, mm; the ray goes through it.

    Returns
    -------
    space_mm, across_ray_mm : float
        Radii that contain the error in 95 % of cases. The squared error is approximated by a scaled chi-squared
        variable with the same mean and variance (Satterthwaite, Biometrics Bulletin 2, 1946).
    """
    C = covariance[3:, 3:]
    ray = point_camera / np.linalg.norm(point_camera)
    across = np.eye(3) - np.outer(ray, ray)
    return _radius95(np.linalg.eigvalsh(C)), _radius95(np.linalg.eigvalsh(across @ C @ across))


def turn_bound_deg(covariance: Float) -> float:
    """95 % bound of the angle by which a pose is turned, degrees.

    Parameters
    ----------
    covariance : ndarray, shape (6, 6)
        From :func:`covariance_in_camera`.
    """
    return float(np.rad2deg(_radius95(np.linalg.eigvalsh(covariance[:3, :3]))))


def _radius95(variances: NDArray[np.floating]) -> float:
    """Radius that contains 95 % of a normal error with these variances along its principal axes."""
    variances = np.maximum(variances, 0)
    mean, spread = float(variances.sum()), float(2 * (variances**2).sum())
    if mean <= 0:
        return 0.0
    # c * chi2 with f degrees of freedom has this mean and variance. Its quantile is by Wilson and Hilferty (PNAS 17,
    # 1931), 4 microseconds on the frame path; `scipy.stats.chi2.ppf` takes 43.
    f, c = 2 * mean * mean / spread, spread / (2 * mean)
    h = 2 / (9 * f)
    return float(np.sqrt(c * f * max(1 - h + 1.645 * np.sqrt(h), 0) ** 3))
