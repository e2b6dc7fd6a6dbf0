"""Where a tool's tip and shaft are in the frame of its marker: pivot and spin calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.case.tool import check_tip

Float = NDArray[np.float64]

_LEAST_POSES, _LEAST_SPREAD_DEG = 20, 8.0
_OUTLIER_SIGMAS = 4.0
# No tracker measures so near to its own origin, mm; in metres every tool is.
_NEAREST_PIVOT_MM = 20.0


class PivotError(ValueError):
    """Poses that do not tell; the text says what to do."""


@dataclass(frozen=True)
class PivotCalibration:
    """A tip in its marker's frame.

    Attributes
    ----------
    tip_mm : ndarray, shape (3,)
    sigma_mm : ndarray, shape (3,)
        1 sigma.
    pivot_tracker : ndarray, shape (3,)
        The point on which the tip stood, mm.
    rms_mm : float
        How far the tip strays from that point, root of the mean square.
    spread_deg : float
        How far the tool was tilted, root of the mean square, in the direction in which it was tilted least.
    poses, outliers : int
    """

    tip_mm: Float
    sigma_mm: Float
    pivot_tracker: Float
    rms_mm: float
    spread_deg: float
    poses: int
    outliers: int


def pivot_calibration(T_tracker_tool: Float) -> PivotCalibration:
    """The tip, from poses of a tool that turns about its tip.

    Solves ``R_i tip + t_i = pivot`` for tip and pivot by least squares (the algebraic one-step method; Yaniv, SPIE
    Medical Imaging 9415, 2015), again without the poses that do not fit.

    Parameters
    ----------
    T_tracker_tool : ndarray, shape (n, 4, 4)
        mm; at least 20.

    Raises
    ------
    PivotError
    """
    poses = np.asarray(T_tracker_tool, dtype=np.float64)
    if len(poses) < _LEAST_POSES:
        raise PivotError(
            f"{len(poses)} poses are too few: keep the tool in the tracker's view, {_LEAST_POSES} at least"
        )
    kept = np.ones(len(poses), bool)
    tip = pivot = np.zeros(3)
    for _ in range(4):
        R, t = poses[kept, :3, :3], poses[kept, :3, 3]
        A = np.concatenate([R, np.broadcast_to(-np.eye(3), R.shape)], axis=2).reshape(-1, 6)
        solved = np.linalg.lstsq(A, -t.ravel(), rcond=None)[0]
        tip, pivot = np.array(solved[:3], np.float64), np.array(solved[3:], np.float64)
        off = np.linalg.norm(poses[:, :3, :3] @ tip + poses[:, :3, 3] - pivot, axis=1)
        # Of three normal components the length has its median at 1.54 sigma.
        sigma = max(float(np.median(off[kept])) / 1.54, 1e-6)
        now = off < _OUTLIER_SIGMAS * sigma
        if now.sum() < _LEAST_POSES or (now == kept).all():
            break
        kept = now
    spread = _spread_deg(poses[kept, :3, :3])
    if spread < _LEAST_SPREAD_DEG:
        raise PivotError(
            f"the tool was tilted by {spread:.0f} degrees (rms) in one of its directions: tilt it by 20 or more to all "
            "sides while its tip stands still"
        )
    _check_unit(tip, pivot)
    R, t = poses[kept, :3, :3], poses[kept, :3, 3]
    off = R @ tip + t - pivot
    rms = float(np.sqrt((off**2).sum(1).mean()))
    A = np.concatenate([R, np.broadcast_to(-np.eye(3), R.shape)], axis=2).reshape(-1, 6)
    covariance = np.linalg.inv(A.T @ A) * float((off**2).mean())
    return PivotCalibration(tip, np.sqrt(np.diag(covariance)[:3]), pivot, rms, spread, len(poses), int((~kept).sum()))


def _check_unit(tip_mm: Float, pivot_tracker: Float) -> None:
    """Raises :class:`PivotError` where the poses are hardly in mm."""
    away = float(np.linalg.norm(pivot_tracker))
    if away < _NEAREST_PIVOT_MM:
        raise PivotError(
            f"the tip stands {away:.3g} mm from the tracker's origin and {np.linalg.norm(tip_mm):.2g} mm from its "
            "marker: the tracker's poses are not in mm (metres?); let it publish mm"
        )
    try:
        check_tip(tip_mm)
    except ValueError as error:
        raise PivotError(str(error)) from error


def spin_axis(T_tracker_tool: Float, tip_mm: Float) -> Float:
    """The shaft's direction in the marker's frame, from poses of a tool that is spun about its shaft.

    It is the direction that the turns leave alone: of all unit vectors a the one whose images ``R_i a`` stay together
    most.

    Parameters
    ----------
    T_tracker_tool : ndarray, shape (n, 4, 4)
    tip_mm : ndarray, shape (3,)
        From :func:`pivot_calibration`: tells the tip's end of the axis from the tail's (the marker is at the tail).

    Returns
    -------
    ndarray, shape (3,)
        Unit vector from the tail to the tip.

    Raises
    ------
    PivotError
    """
    R = np.asarray(T_tracker_tool, dtype=np.float64)[:, :3, :3]
    if len(R) < _LEAST_POSES:
        raise PivotError(f"{len(R)} poses are too few: keep the tool in the tracker's view, {_LEAST_POSES} at least")
    mean = R.mean(0)
    sizes, vectors = np.linalg.eigh(mean.T @ mean)
    if sizes[-1] - sizes[-2] < 0.01:
        raise PivotError("the tool was not spun far enough: turn it by 30 degrees or more about its shaft")
    axis = vectors[:, -1]
    return axis if axis @ tip_mm > 0 else -axis


def _spread_deg(R: Float) -> float:
    """How far the poses differ in the direction about which they tell least: root of the mean square, degrees."""
    mean = R.mean(0)
    least = float(np.linalg.eigvalsh(np.eye(3) - mean.T @ mean)[0])
    return float(np.rad2deg(np.arcsin(np.sqrt(np.clip(least, 0, 1)))))
