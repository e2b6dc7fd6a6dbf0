"""Rigid motions of space, SE(3), as 4 x 4 matrices and as twists.

A twist is ``(w, v)``: a rotation vector in radians followed by a translation in mm. Formulas after Murray, Li and
Sastry, *A Mathematical Introduction to Robotic Manipulation* (1994), chapter 2.
"""

# T and R are matrices, as in the book.
# pyright: reportConstantRedefinition=false

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]

# Below this angle (rad) the closed forms lose digits to cancellation, and their Taylor series are exact to 1e-16.
_SMALL_ANGLE = 1e-4


def skew(w: ArrayLike) -> Float:
    """Matrix of the cross product: ``skew(w) @ x == cross(w, x)``.

    Parameters
    ----------
    w : array_like, shape (3,)

    Returns
    -------
    ndarray, shape (3, 3)
    """
    x, y, z = np.asarray(w, dtype=np.float64)
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def _series(angle: float) -> tuple[float, float, float]:
    """``sin(a)/a``, ``(1 - cos(a))/a**2`` and ``(a - sin(a))/a**3``, also where a is small."""
    a2 = angle * angle
    if angle < _SMALL_ANGLE:
        return 1 - a2 / 6, 0.5 - a2 / 24, 1 / 6 - a2 / 120
    s, c = np.sin(angle), np.cos(angle)
    return float(s / angle), float((1 - c) / a2), float((angle - s) / (a2 * angle))


def exp_so3(w: ArrayLike) -> Float:
    """Rotation matrix of a rotation vector (Rodrigues' formula).

    Parameters
    ----------
    w : array_like, shape (3,)
        Axis times angle, radians.

    Returns
    -------
    ndarray, shape (3, 3)
    """
    K = skew(w)
    a, b, _ = _series(float(np.linalg.norm(np.asarray(w, dtype=np.float64))))
    return np.eye(3) + a * K + b * (K @ K)


def log_so3(R: ArrayLike) -> Float:
    """Rotation vector of a rotation matrix; the angle lies in [0, pi].

    Parameters
    ----------
    R : array_like, shape (3, 3)

    Returns
    -------
    ndarray, shape (3,)
        Radians.
    """
    R = np.asarray(R, dtype=np.float64)
    vee = np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]]) / 2
    sine = float(np.linalg.norm(vee))
    cosine = (float(np.trace(R)) - 1) / 2
    angle = float(np.arctan2(sine, cosine))
    if angle < _SMALL_ANGLE:
        return np.asarray(vee * (1 + angle * angle / 6), dtype=np.float64)
    if np.pi - angle > 1e-3:
        return np.asarray(vee * (angle / sine), dtype=np.float64)
    # Near a half turn the sine vanishes: the axis is the eigenvector of the symmetric part, its sign that of vee.
    _, vectors = np.linalg.eigh((R + R.T) / 2)
    axis = vectors[:, -1]
    return np.asarray(angle * axis * (-1.0 if axis @ vee < 0 else 1.0), dtype=np.float64)


def exp_se3(twist: ArrayLike) -> Float:
    """Rigid motion of a twist.

    Parameters
    ----------
    twist : array_like, shape (6,)
        ``(w, v)``: rotation vector (rad), translation part (mm).

    Returns
    -------
    ndarray, shape (4, 4)
    """
    twist = np.asarray(twist, dtype=np.float64)
    K = skew(twist[:3])
    a, b, c = _series(float(np.linalg.norm(twist[:3])))
    T = np.eye(4)
    T[:3, :3] += a * K + b * (K @ K)
    T[:3, 3] = (np.eye(3) + b * K + c * (K @ K)) @ twist[3:]
    return T


def log_se3(T: ArrayLike) -> Float:
    """Twist of a rigid motion; the inverse of :func:`exp_se3` for rotations below a half turn.

    Parameters
    ----------
    T : array_like, shape (4, 4)

    Returns
    -------
    ndarray, shape (6,)
        ``(w, v)``: rad, mm.
    """
    T = np.asarray(T, dtype=np.float64)
    w = log_so3(T[:3, :3])
    K = skew(w)
    _, b, c = _series(float(np.linalg.norm(w)))
    V = np.eye(3) + b * K + c * (K @ K)
    return np.concatenate([w, np.asarray(np.linalg.solve(V, T[:3, 3]), dtype=np.float64)])


def inverse(T_a_b: ArrayLike) -> Float:
    """``T_b_a`` of a rigid ``T_a_b``, without a general matrix inversion.

    Parameters
    ----------
    T_a_b : array_like, shape (4, 4)

    Returns
    -------
    ndarray, shape (4, 4)
    """
    T_a_b = np.asarray(T_a_b, dtype=np.float64)
    T_b_a = np.eye(4)
    T_b_a[:3, :3] = T_a_b[:3, :3].T
    T_b_a[:3, 3] = -T_a_b[:3, :3].T @ T_a_b[:3, 3]
    return T_b_a


def adjoint(T_a_b: ArrayLike) -> Float:
    """Maps twists of frame b to frame a: ``exp(adjoint(T) @ x) == T @ exp(x) @ inverse(T)``.

    Parameters
    ----------
    T_a_b : array_like, shape (4, 4)

    Returns
    -------
    ndarray, shape (6, 6)
    """
    T_a_b = np.asarray(T_a_b, dtype=np.float64)
    R = T_a_b[:3, :3]
    A = np.zeros((6, 6))
    A[:3, :3] = A[3:, 3:] = R
    A[3:, :3] = skew(T_a_b[:3, 3]) @ R
    return A


def moved_about(centre: ArrayLike, twist: ArrayLike) -> Float:
    """Motion that rotates about ``centre`` and translates: to first order ``x -> x + w x (x - centre) + v``.

    Parameters
    ----------
    centre : array_like, shape (3,)
        mm.
    twist : array_like, shape (6,)
        ``(w, v)``: rad, mm.

    Returns
    -------
    ndarray, shape (4, 4)
    """
    centre = np.asarray(centre, dtype=np.float64)
    T = exp_se3(twist)
    T[:3, 3] += centre - T[:3, :3] @ centre
    return T


def transform_points(T_a_b: ArrayLike, points_b: ArrayLike) -> Float:
    """Points of frame b in frame a.

    Parameters
    ----------
    T_a_b : array_like, shape (4, 4)
    points_b : array_like, shape (..., 3)
        mm.

    Returns
    -------
    ndarray, shape (..., 3)
        mm.
    """
    T_a_b = np.asarray(T_a_b, dtype=np.float64)
    return np.asarray(points_b, dtype=np.float64) @ T_a_b[:3, :3].T + T_a_b[:3, 3]


def moved_in_camera(T_camera_ct: ArrayLike, centre_ct: ArrayLike, R: ArrayLike, shift: ArrayLike) -> Float:
    """A pose after turning the patient about a point and shifting it, both in camera axes.

    Parameters
    ----------
    T_camera_ct : array_like, shape (4, 4)
    centre_ct : array_like, shape (3,)
        Stays where it is but for the shift; mm.
    R : array_like, shape (3, 3)
    shift : array_like, shape (3,)
        mm.
    """
    T = np.array(T_camera_ct, dtype=np.float64)
    centre = transform_points(T, centre_ct)
    T[:3, :3] = np.asarray(R) @ T[:3, :3]
    T[:3, 3] = centre + np.asarray(shift) - T[:3, :3] @ np.asarray(centre_ct)
    return T


def rotation_distance_deg(T_a_b: ArrayLike, T_a_c: ArrayLike) -> float:
    """Angle of the rotation between two poses, in degrees."""
    R = np.asarray(T_a_b, dtype=np.float64)[:3, :3].T @ np.asarray(T_a_c, dtype=np.float64)[:3, :3]
    return float(np.rad2deg(np.linalg.norm(log_so3(R))))


def is_rigid(T: ArrayLike, tolerance: float = 1e-3) -> bool:
    """Whether a matrix is a proper rigid motion: finite, orthonormal, right-handed, last row (0, 0, 0, 1)."""
    T = np.asarray(T, dtype=np.float64)
    if T.shape != (4, 4) or not np.isfinite(T).all():
        return False
    R = T[:3, :3]
    return bool(
        np.abs(R @ R.T - np.eye(3)).max() < tolerance
        and np.linalg.det(R) > 0
        and np.abs(T[3] - [0, 0, 0, 1]).max() < tolerance
    )


def frame_along(origin: ArrayLike, axis: ArrayLike) -> NDArray[np.float64]:
    """A right-handed frame with its z axis along a direction, as the matrix that maps points of the frame.

    Parameters
    ----------
    origin, axis : array, shape (3,)
        mm, and a direction of any length; the directions of x and y are arbitrary, but reproducible.

    Returns
    -------
    ndarray, shape (4, 4)
    """
    z = np.asarray(axis, np.float64) / np.linalg.norm(axis)
    x = np.cross([0.0, 1.0, 0.0] if abs(z[1]) < 0.9 else [1.0, 0.0, 0.0], z)
    x /= np.linalg.norm(x)
    T = np.eye(4)
    T[:3, 0], T[:3, 1], T[:3, 2], T[:3, 3] = x, np.cross(z, x), z, np.asarray(origin, np.float64)
    return T
