"""A pose and its covariance as the frame record holds them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import transform_points
from fluoronav.imaging.registration.confidence import error_bounds_mm, turn_bound_deg
from fluoronav.stream.frame import RegistrationResult
from fluoronav.stream.registration.motion import motion_covariance

Float = NDArray[np.float64]


def as_result(T_camera_ct: Float, score: float, covariance: Float, centre_ct: Float) -> RegistrationResult:
    """A pose as it is reported.

    Parameters
    ----------
    T_camera_ct : ndarray, shape (4, 4)
    score : float
    covariance : ndarray, shape (6, 6)
        From :func:`covariance_in_camera`.
    centre_ct : ndarray, shape (3,)
        The point that it is about, LPS mm.
    """
    space_mm, image_mm = error_bounds_mm(covariance, transform_points(T_camera_ct, centre_ct))
    sigma = np.sqrt(np.diag(covariance))
    sigma[:3] = np.rad2deg(sigma[:3])
    return RegistrationResult(
        T_camera_ct, min(score, 1.0), sigma, space_mm, image_mm, 0, turn_deg=turn_bound_deg(covariance)
    )


def aged(last: RegistrationResult, covariance: Float, centre_ct: Float, age_ms: float) -> RegistrationResult:
    """A pose that is handed on: as old as it is, and as uncertain as a patient who breathes makes it.

    Parameters
    ----------
    last : RegistrationResult
        As it was handed on last.
    covariance : ndarray, shape (6, 6)
        Of when it was measured.
    centre_ct : ndarray, shape (3,)
        The point that it is about, LPS mm.
    age_ms : float
        Since it was measured.
    """
    older = as_result(last.T_camera_ct, last.score, covariance + motion_covariance(age_ms), centre_ct)
    return replace(older, age=last.age + 1, age_ms=age_ms, accepted=last.accepted, bone=last.bone)
