"""Where in the patient an instrument is that only pictures show: from two views, or, much less well, from one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera, inverse

Float = NDArray[np.float64]

# The half-width of a round shaft's shadow is where its chord is half of the longest: 0.866 of its diameter.
_WIDTH_OF_DIAMETER = float(np.sqrt(0.75))
_LEAST_ANGLE_DEG = 10.0
# Of a shadow's width, 1 sigma: its edges are blurred, and where the shaft is measured it is nearer or farther than the
# tip. With 0.4 the bench's bound held in 67 %.
SIGMA_WIDTH_PX = 1.0


@dataclass(frozen=True)
class InSpace:
    """A tip in the patient.

    Attributes
    ----------
    tip_ct : ndarray, shape (3,)
        LPS mm.
    covariance : ndarray, shape (3, 3)
        mm2, CT axes.
    axis_ct : ndarray, shape (3,), or None
        Unit vector from the tail to the tip; None from one view.
    sigma_axis_deg : float
        1 sigma.
    views : int
    residual : float
        Root of the mean squared reprojection error over its expected value; 1 is what the sigmas promise.
    """

    tip_ct: Float
    covariance: Float
    axis_ct: Float | None
    sigma_axis_deg: float
    views: int
    residual: float

    @property
    def sigma_mm(self) -> float:
        """Of the least well known direction, 1 sigma."""
        return float(np.sqrt(np.linalg.eigvalsh(self.covariance)[-1]))


@dataclass(frozen=True)
class Sighting:
    """An instrument in one registered view.

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


def triangulated(camera: Camera, sightings: Sequence[Sighting]) -> InSpace | None:
    """The tip that two or more views show, and the axis as the line in which the planes of its shadows meet.

    Weighted linear triangulation (Hartley and Sturm, CVIU 68:146, 1997), the equations scaled to pixels by the depth of
    the first solution and solved again.

    Parameters
    ----------
    camera : Camera
    sightings : sequence of Sighting

    Returns
    -------
    InSpace or None
        None where the views are less than 10 degrees apart, or the axis lies in the plane of both rays.
    """
    beams = np.array([s.T_camera_ct[2, :3] for s in sightings])
    widest = np.rad2deg(np.arccos(np.clip(np.abs(beams @ beams.T).min(), 0, 1)))
    if len(sightings) < 2 or widest < _LEAST_ANGLE_DEG:
        return None
    rows, values, scales = [], [], []
    for s in sightings:
        x, y, _ = camera.rays(s.tip_px)
        R, t = s.T_camera_ct[:3, :3], s.T_camera_ct[:3, 3]
        # x z = X: the point lies on the ray.
        rows += [R[0] - x * R[2], R[1] - y * R[2]]
        values += [x * t[2] - t[0], y * t[2] - t[1]]
        scales += [s.sigma_px, s.sigma_px]
    A, b, sigma_px = np.array(rows), np.array(values), np.array(scales)
    tip, weight = np.linalg.lstsq(A, b, rcond=None)[0], np.ones(len(b))
    for _ in range(2):
        depth = np.repeat([float(s.T_camera_ct[2, :3] @ tip + s.T_camera_ct[2, 3]) for s in sightings], 2)
        if (depth <= 0).any():
            return None
        weight = camera.focal_px / (depth * sigma_px)
        tip = np.linalg.lstsq(A * weight[:, None], b * weight, rcond=None)[0]
    covariance = np.linalg.inv((A * weight[:, None]).T @ (A * weight[:, None]))
    freedom = 2 * len(sightings) - 3
    residual = float(np.sqrt((((A @ tip - b) * weight) ** 2).sum() / freedom))
    axis, sigma_axis = _axis(camera, sightings)
    return InSpace(
        np.array(tip, np.float64), np.array(covariance, np.float64), axis, sigma_axis, len(sightings), residual
    )


def from_width(
    camera: Camera, sighting: Sighting, width_px: float, diameter_mm: float, sigma_width_px: float
) -> InSpace:
    """The tip from one view, its depth from how wide the shaft's shadow is: good to centimetres.

    Parameters
    ----------
    camera : Camera
    sighting : Sighting
    width_px : float
        Between the places where the shadow is half as deep as in its middle.
    diameter_mm : float
    sigma_width_px : float
        1 sigma.
    """
    depth = camera.focal_px * _WIDTH_OF_DIAMETER * diameter_mm / width_px
    ray = camera.rays(sighting.tip_px)
    T_ct_camera = inverse(sighting.T_camera_ct)
    tip = T_ct_camera[:3, :3] @ (ray * depth) + T_ct_camera[:3, 3]
    along = depth * sigma_width_px / width_px
    across = sighting.sigma_px * depth / camera.focal_px
    unit = ray / np.linalg.norm(ray)
    in_camera = across**2 * (np.eye(3) - np.outer(unit, unit)) + along**2 * np.outer(unit, unit)
    R = T_ct_camera[:3, :3]
    return InSpace(tip, R @ in_camera @ R.T, None, np.inf, 1, 0.0)


def _axis(camera: Camera, sightings: Sequence[Sighting]) -> tuple[Float | None, float]:
    """The direction that lies in the planes of all shadows, and its error (degrees, 1 sigma)."""
    normals, weights = [], []
    for s in sightings:
        step = 100.0
        a, b = camera.rays(s.tip_px), camera.rays(s.tip_px - step * s.direction)
        n = np.cross(a, b)
        normals.append(s.T_camera_ct[:3, :3].T @ (n / np.linalg.norm(n)))
        weights.append(1 / np.deg2rad(max(s.sigma_deg, 0.02)))
    N = np.array(normals) * np.array(weights)[:, None]
    _, sizes, V = np.linalg.svd(N)
    if len(sizes) < 2 or sizes[1] < 0.15 * sizes[0]:
        return None, np.inf  # the planes are nearly one
    axis = V[2]
    s = sightings[0]
    # Towards the tip, as the first view shows it.
    ahead = (s.T_camera_ct[:3, :3] @ axis)[:2]
    ray = camera.rays(s.tip_px)
    flow = ahead - ray[:2] * (s.T_camera_ct[2, :3] @ axis)
    axis = axis if flow @ s.direction > 0 else -axis
    return axis, float(np.rad2deg(1 / sizes[1]))
