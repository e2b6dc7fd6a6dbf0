"""An instrument's tip in the patient from images: from two views, or, much less accurately, from one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera, inverse

Float = NDArray[np.float64]

# Width of a round shaft's shadow at half depth, where the ray's chord is half of the diameter: 0.866 of the diameter.
_WIDTH_OF_DIAMETER = float(np.sqrt(0.75))


@dataclass(frozen=True)
class TriangulationLimits:
    """When views determine a tip and an axis."""

    min_angle_deg: float = 10.0  # between beams; chosen
    min_axis_singular_ratio: float = 0.15  # of the shadow planes' normals; below it they are nearly one plane; chosen
    # Sigma of a shadow's width: its edges are blurred, and where the shaft is measured it is nearer or farther than
    # the tip. Measured with `bench instruments`: with 0.4 the 95 % bound held in 67 %.
    sigma_width_px: float = 1.0
    min_sigma_deg: float = 0.02  # of a direction in the image, so that no weight is infinite; chosen


LIMITS = TriangulationLimits()


@dataclass(frozen=True)
class TipEstimate:
    """A tip in the patient.

    Attributes
    ----------
    tip_ct : ndarray, shape (3,)
        LPS mm.
    covariance : ndarray, shape (3, 3)
        mm2, CT axes.
    axis_ct : ndarray, shape (3,), or None
        Unit vector from the tail to the tip; None where the views do not determine it.
    sigma_axis_deg : float
        1 sigma.
    views : int
    residual : float
        Root mean squared reprojection error in its expected sigmas.
    """

    tip_ct: Float
    covariance: Float
    axis_ct: Float | None
    sigma_axis_deg: float
    views: int
    residual: float

    @property
    def sigma_mm(self) -> float:
        """Error in the worst direction, 1 sigma."""
        return float(np.sqrt(np.linalg.eigvalsh(self.covariance)[-1]))


@dataclass(frozen=True)
class ImageObservation:
    """An instrument in one registered image.

    Attributes
    ----------
    T_camera_ct : ndarray, shape (4, 4)
    tip_px, direction : ndarray, shape (2,)
        The direction points from the tail to the tip.
    sigma_px, sigma_deg : float
        1 sigma, the registration's error across the ray included.
    """

    T_camera_ct: Float
    tip_px: Float
    direction: Float
    sigma_px: float
    sigma_deg: float


def triangulate(camera: Camera, observations: Sequence[ImageObservation]) -> TipEstimate | None:
    """The tip from two or more views, and the axis as the intersection of the planes of its shadows.

    Weighted linear triangulation (Hartley and Sturm, CVIU 68:146, 1997), the equations scaled to pixels by the depth of
    the previous solution.

    Parameters
    ----------
    camera : Camera
    observations : sequence of ImageObservation

    Returns
    -------
    TipEstimate or None
        None where the views are less than 10 degrees apart, or the axis lies in the plane of both rays.
    """
    beams = np.array([o.T_camera_ct[2, :3] for o in observations])
    widest = np.rad2deg(np.arccos(np.clip(np.abs(beams @ beams.T).min(), 0, 1)))
    if len(observations) < 2 or widest < LIMITS.min_angle_deg:
        return None
    rows, values, scales = [], [], []
    for o in observations:
        x, y, _ = camera.rays(o.tip_px)
        R, t = o.T_camera_ct[:3, :3], o.T_camera_ct[:3, 3]
        # x z = X: the point lies on the ray.
        rows += [R[0] - x * R[2], R[1] - y * R[2]]
        values += [x * t[2] - t[0], y * t[2] - t[1]]
        scales += [o.sigma_px, o.sigma_px]
    A, b, sigma_px = np.array(rows), np.array(values), np.array(scales)
    tip, weight = np.linalg.lstsq(A, b, rcond=None)[0], np.ones(len(b))
    for _ in range(2):
        depth = np.repeat([float(o.T_camera_ct[2, :3] @ tip + o.T_camera_ct[2, 3]) for o in observations], 2)
        if (depth <= 0).any():
            return None
        weight = camera.focal_px / (depth * sigma_px)
        tip = np.linalg.lstsq(A * weight[:, None], b * weight, rcond=None)[0]
    covariance = np.linalg.inv((A * weight[:, None]).T @ (A * weight[:, None]))
    freedom = 2 * len(observations) - 3
    residual = float(np.sqrt((((A @ tip - b) * weight) ** 2).sum() / freedom))
    axis, sigma_axis = _axis(camera, observations)
    return TipEstimate(
        np.array(tip, np.float64), np.array(covariance, np.float64), axis, sigma_axis, len(observations), residual
    )


def tip_from_width(
    camera: Camera,
    observation: ImageObservation,
    width_px: float,
    diameter_mm: float,
    sigma_width_px: float = LIMITS.sigma_width_px,
) -> TipEstimate:
    """The tip from one view, its depth from the width of the shaft's shadow: accurate to centimetres.

    Parameters
    ----------
    camera : Camera
    observation : ImageObservation
    width_px : float
        Of the shadow at half depth.
    diameter_mm : float
    sigma_width_px : float
        1 sigma.
    """
    depth = camera.focal_px * _WIDTH_OF_DIAMETER * diameter_mm / width_px
    ray = camera.rays(observation.tip_px)
    T_ct_camera = inverse(observation.T_camera_ct)
    tip = T_ct_camera[:3, :3] @ (ray * depth) + T_ct_camera[:3, 3]
    along = depth * sigma_width_px / width_px
    across = observation.sigma_px * depth / camera.focal_px
    unit = ray / np.linalg.norm(ray)
    in_camera = across**2 * (np.eye(3) - np.outer(unit, unit)) + along**2 * np.outer(unit, unit)
    R = T_ct_camera[:3, :3]
    return TipEstimate(tip, R @ in_camera @ R.T, None, np.inf, 1, 0.0)


def _axis(camera: Camera, observations: Sequence[ImageObservation]) -> tuple[Float | None, float]:
    """The direction that lies in the planes of all shadows, and its error (degrees, 1 sigma); None if undetermined."""
    normals, weights = [], []
    for o in observations:
        step = 100.0
        a, b = camera.rays(o.tip_px), camera.rays(o.tip_px - step * o.direction)
        n = np.cross(a, b)
        normals.append(o.T_camera_ct[:3, :3].T @ (n / np.linalg.norm(n)))
        weights.append(1 / np.deg2rad(max(o.sigma_deg, LIMITS.min_sigma_deg)))
    N = np.array(normals) * np.array(weights)[:, None]
    _, sizes, V = np.linalg.svd(N)
    if len(sizes) < 2 or sizes[1] < LIMITS.min_axis_singular_ratio * sizes[0]:
        return None, np.inf  # the planes are nearly one
    axis = V[2]
    o = observations[0]
    # Its sign is that of the first view's direction.
    ahead = (o.T_camera_ct[:3, :3] @ axis)[:2]
    ray = camera.rays(o.tip_px)
    flow = ahead - ray[:2] * (o.T_camera_ct[2, :3] @ axis)
    axis = axis if flow @ o.direction > 0 else -axis
    return axis, float(np.rad2deg(1 / sizes[1]))
