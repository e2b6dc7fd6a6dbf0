"""Pivot and spin calibration: a tool's tip and shaft in the frame of its marker."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.case.tool import check_tip

Float = NDArray[np.float64]


@dataclass(frozen=True)
class PivotLimits:
    """Minimum data and rejection of outliers; all chosen."""

    min_poses: int = 20
    min_spread_deg: float = 8.0  # of the tilt, root mean square, in the direction of least tilt
    outlier_sigmas: float = 4.0
    rounds: int = 4  # of the fit without outliers, at most
    median_of_sigma: float = 1.54  # median length of a vector of three standard normal components
    min_sigma_mm: float = 1e-6
    # Distance of the pivot from the tracker's origin. No tracker measures nearer; poses in metres always seem nearer.
    min_pivot_mm: float = 20.0
    min_eigenvalue_gap: float = 0.01  # between the axis of a spin and the next direction, of the mean rotation squared


LIMITS = PivotLimits()


class PivotError(ValueError):
    """The poses do not determine the tip or the shaft; the text says what to do."""


@dataclass(frozen=True)
class PivotCalibration:
    """A tool's tip in the frame of its marker.

    Attributes
    ----------
    tip_mm : ndarray, shape (3,)
        Marker's frame.
    sigma_mm : ndarray, shape (3,)
        1 sigma of the tip.
    pivot_tracker : ndarray, shape (3,)
        The pivot point, tracker's frame, mm.
    rms_mm : float
        Residual: distance of the tip from the pivot point, root mean square.
    spread_deg : float
        Tilt of the tool, root mean square, in the direction of least tilt.
    poses, outliers : int
        Number of poses, and of those that were left out.
    """

    tip_mm: Float
    sigma_mm: Float
    pivot_tracker: Float
    rms_mm: float
    spread_deg: float
    poses: int
    outliers: int


def pivot_calibration(T_tracker_tool: Float) -> PivotCalibration:
    """The tip, from poses of a tool that rotates about its resting tip.

    Solves ``R_i tip + t_i = pivot`` for tip and pivot by least squares (the algebraic one-step method; Yaniv, SPIE
    Medical Imaging 9415, 2015), and repeats it without outliers.

    Parameters
    ----------
    T_tracker_tool : ndarray, shape (n, 4, 4)
        mm; at least 20.

    Raises
    ------
    PivotError
        The poses are too few, too similar, or not in mm.
    """
    poses = np.asarray(T_tracker_tool, dtype=np.float64)
    if len(poses) < LIMITS.min_poses:
        raise PivotError(
            f"{len(poses)} poses are too few: keep the tool in the tracker's view, {LIMITS.min_poses} at least"
        )
    kept = np.ones(len(poses), bool)
    tip = pivot = np.zeros(3)
    for _ in range(LIMITS.rounds):
        R, t = poses[kept, :3, :3], poses[kept, :3, 3]
        A = np.concatenate([R, np.broadcast_to(-np.eye(3), R.shape)], axis=2).reshape(-1, 6)
        solved = np.linalg.lstsq(A, -t.ravel(), rcond=None)[0]
        tip, pivot = np.array(solved[:3], np.float64), np.array(solved[3:], np.float64)
        residual = np.linalg.norm(poses[:, :3, :3] @ tip + poses[:, :3, 3] - pivot, axis=1)
        sigma = max(float(np.median(residual[kept])) / LIMITS.median_of_sigma, LIMITS.min_sigma_mm)
        inliers = residual < LIMITS.outlier_sigmas * sigma
        if inliers.sum() < LIMITS.min_poses or (inliers == kept).all():
            break
        kept = inliers
    spread = _spread_deg(poses[kept, :3, :3])
    if spread < LIMITS.min_spread_deg:
        raise PivotError(
            f"the tool was tilted by {spread:.0f} degrees (rms) in one of its directions: tilt it by 20 or more to all "
            "sides while its tip stands still"
        )
    _check_unit(tip, pivot)
    R, t = poses[kept, :3, :3], poses[kept, :3, 3]
    residual = R @ tip + t - pivot
    rms = float(np.sqrt((residual**2).sum(1).mean()))
    A = np.concatenate([R, np.broadcast_to(-np.eye(3), R.shape)], axis=2).reshape(-1, 6)
    covariance = np.linalg.inv(A.T @ A) * float((residual**2).mean())
    return PivotCalibration(tip, np.sqrt(np.diag(covariance)[:3]), pivot, rms, spread, len(poses), int((~kept).sum()))


def _check_unit(tip_mm: Float, pivot_tracker: Float) -> None:
    """Raises :class:`PivotError` if the poses cannot be in mm."""
    distance = float(np.linalg.norm(pivot_tracker))
    if distance < LIMITS.min_pivot_mm:
        raise PivotError(
            f"the tip stands {distance:.3g} mm from the tracker's origin and {np.linalg.norm(tip_mm):.2g} mm from its "
            "marker: the tracker's poses are not in mm (metres?); let it publish mm"
        )
    try:
        check_tip(tip_mm)
    except ValueError as error:
        raise PivotError(str(error)) from error


def spin_axis(T_tracker_tool: Float, tip_mm: Float) -> Float:
    """Direction of the shaft in the marker's frame, from poses of a tool that is spun about its shaft.

    It is the direction that the rotations change least: the unit vector a with the longest mean of ``R_i a``.

    Parameters
    ----------
    T_tracker_tool : ndarray, shape (n, 4, 4)
    tip_mm : ndarray, shape (3,)
        From :func:`pivot_calibration`. It decides the sign: the marker is at the tail.

    Returns
    -------
    ndarray, shape (3,)
        Unit vector from the tail to the tip.

    Raises
    ------
    PivotError
        The poses are too few or the tool was not spun far enough.
    """
    R = np.asarray(T_tracker_tool, dtype=np.float64)[:, :3, :3]
    if len(R) < LIMITS.min_poses:
        raise PivotError(
            f"{len(R)} poses are too few: keep the tool in the tracker's view, {LIMITS.min_poses} at least"
        )
    mean = R.mean(0)
    sizes, vectors = np.linalg.eigh(mean.T @ mean)
    if sizes[-1] - sizes[-2] < LIMITS.min_eigenvalue_gap:
        raise PivotError("the tool was not spun far enough: turn it by 30 degrees or more about its shaft")
    axis = vectors[:, -1]
    return axis if axis @ tip_mm > 0 else -axis


def _spread_deg(R: Float) -> float:
    """Rotation of the poses about their mean in the direction of least rotation, root mean square, degrees."""
    mean = R.mean(0)
    least = float(np.linalg.eigvalsh(np.eye(3) - mean.T @ mean)[0])
    return float(np.rad2deg(np.arcsin(np.sqrt(np.clip(least, 0, 1)))))
