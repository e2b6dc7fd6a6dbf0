"""Robust fits of planes, lines and spheres to points with outliers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
_TUKEY = 4.685  # of Tukey's biweight, in standard deviations: 95 % efficiency (Holland and Welsch 1977)
_ROUNDS = 15
_SAME = 1e-6


@dataclass(frozen=True)
class Plane:
    """A plane by a point on it and its unit normal, mm."""

    point: Float
    normal: Float


@dataclass(frozen=True)
class Sphere:
    """A sphere; `rms_mm` is the root mean square distance of the points that carry weight."""

    centre: Float
    radius_mm: float
    rms_mm: float
    used: int


def biweight(residuals: Float, least_scale: float) -> Float:
    """Weights of Tukey's biweight; the scale is the median absolute deviation times 1.4826."""
    scale = max(1.4826 * float(np.median(np.abs(residuals - np.median(residuals)))), least_scale)
    inside = np.clip(1 - (residuals / (_TUKEY * scale)) ** 2, 0, None)
    return inside**2


def fit_height_plane(uv: Float, w: Float, least_scale: float) -> tuple[float, float, float]:
    """The plane ``w = a + b u + c v`` by iteratively reweighted least squares.

    Parameters
    ----------
    uv : ndarray, shape (n, 2)
    w : ndarray, shape (n,)
    least_scale : float
        Residuals below are no outliers, mm.
    """
    columns = np.column_stack([np.ones(len(w)), uv])
    weights = np.ones(len(w))
    found = np.zeros(3)
    for _ in range(_ROUNDS):
        root = np.sqrt(weights)
        new = np.linalg.lstsq(columns * root[:, None], w * root, rcond=None)[0]
        if np.abs(new - found).max() < _SAME:
            break
        found = new
        weights = biweight(w - columns @ found, least_scale)
    return float(found[0]), float(found[1]), float(found[2])


def fit_sphere(points: Float, least_scale: float, centre: Float, radius_mm: float) -> Sphere:
    """A sphere by iteratively reweighted Gauss-Newton on the distances, from a start.

    Parameters
    ----------
    points : ndarray, shape (n, 3)
        mm.
    least_scale : float
        Residuals below are no outliers, mm.
    centre, radius_mm
        Where to start.
    """
    x = np.array([*centre, radius_mm], dtype=np.float64)
    weights = np.ones(len(points))
    for _ in range(4 * _ROUNDS):
        away = points - x[:3]
        distance = np.linalg.norm(away, axis=1)
        residuals = distance - x[3]
        weights = biweight(residuals, least_scale)
        jacobian = np.column_stack([-away / np.maximum(distance, 1e-9)[:, None], -np.ones(len(points))])
        root = np.sqrt(weights)
        step = np.linalg.lstsq(jacobian * root[:, None], -residuals * root, rcond=None)[0]
        x += step
        if np.abs(step).max() < _SAME:
            break
    away = np.linalg.norm(points - x[:3], axis=1) - x[3]
    rms = float(np.sqrt((weights * away**2).sum() / max(weights.sum(), 1e-9)))
    return Sphere(x[:3], float(x[3]), rms, int((weights > 0).sum()))


def fit_line(points: Float) -> tuple[Float, Float]:
    """Centroid and unit direction of a line by least squares of the distances, shape (3,) each."""
    middle = points.mean(0)
    return middle, np.linalg.svd(points - middle, full_matrices=False)[2][0]


def angle_deg(a: Float, b: Float) -> float:
    """Angle between two directions, 0 to 180."""
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), np.dot(a, b))))


def cross(a: Float, b: Float) -> Float:
    """The cross product of real vectors."""
    return np.asarray(np.cross(a, b), np.float64)


def unit(a: Float) -> Float:
    """The direction of a vector."""
    return np.asarray(a / np.linalg.norm(a), np.float64)


def without(a: Float, normal: Float) -> Float:
    """The unit direction of a vector within the plane that has this unit normal."""
    return unit(a - np.dot(a, normal) * normal)
