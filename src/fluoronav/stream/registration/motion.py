"""How poses change from frame to frame: what is expected, and what is implausible."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import inverse, moved_about, rotation_distance_deg, transform_points
from fluoronav.imaging.registration.gauss_newton import twist_between
from fluoronav.stream.registration.settings import SETTINGS

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MotionLimits:
    """Motion of the patient against the camera.

    Attributes
    ----------
    frame_deg, frame_in_plane_mm, frame_depth_mm : float
        From one frame to the next, 1 sigma, camera axes; chosen: a deep breath is 10 mm a second.
    second_deg, second_mm : float
        In a second, 1 sigma: the same at ten frames a second.
    jump_deg, jump_mm : float
        Beyond this the patient, or the C-arm, was moved; chosen: twice the above.
    implausible_deg, implausible_mm : float
        No patient moves so far from one frame to the next; chosen.
    trend_gain : float
        Weight of the newest motion in the steady one. Chosen: with half of an error left by the one iteration of a
        frame, the pose follows an arm that begins to turn within ten frames, and does not swing.
    trend_ms : float
        A motion over a longer time says nothing of the next frame's; chosen.
    """

    frame_deg: float = 0.4
    frame_in_plane_mm: float = 1.0
    frame_depth_mm: float = 1.0
    second_deg: float = 4.0
    second_mm: float = 10.0
    jump_deg: float = 0.8
    jump_mm: float = 1.0
    implausible_deg: float = 10.0
    implausible_mm: float = 25.0
    trend_gain: float = 0.2
    trend_ms: float = 300.0


LIMITS = MotionLimits()


class SteadyMotion:
    """How the pose goes on: an arm that turns and a patient who breathes move alike from frame to frame.

    Without it a pose that takes one iteration a frame stays behind an arm that turns, and ever farther the faster.

    Parameters
    ----------
    centre_ct : ndarray, shape (3,)
        The point that twists are about, LPS mm.
    """

    def __init__(self, centre_ct: Float) -> None:
        self._centre_ct = np.asarray(centre_ct, np.float64)
        self._per_ms = np.zeros(6)  # the camera's twist, CT axes, rad and mm
        self._at: int | None = None  # ns, when the pose was measured last

    def forget(self, t_local: int | None = None) -> None:
        """Nothing is known of the motion from here on; `t_local` is when the pose was measured, ns."""
        self._per_ms[:], self._at = 0, t_local

    def expected(self, T_camera_ct: Float, t_local: int) -> Float:
        """The pose that was measured last, shape (4, 4), moved on to a frame's time, ns."""
        ms = self._since_ms(t_local)
        if not 0 < ms <= LIMITS.trend_ms or not self._per_ms.any():
            return T_camera_ct
        return inverse(moved_about(self._centre_ct, ms * self._per_ms) @ inverse(T_camera_ct))

    def measured(self, T_before: Float, T_now: Float, t_local: int) -> None:
        """Takes a measured pose, and the one before; a jump is no steady motion."""
        ms = self._since_ms(t_local)
        if not 0 < ms <= LIMITS.trend_ms or is_elsewhere(T_before, T_now, self._centre_ct):
            self.forget(t_local)
            return
        newest = twist_between(T_before, T_now, self._centre_ct) / ms
        self._per_ms += LIMITS.trend_gain * (newest - self._per_ms)
        self._at = t_local

    def _since_ms(self, t_local: int) -> float:
        return 0.0 if self._at is None else (t_local - self._at) / 1e6


def change_between(T_before: Float, T_now: Float, centre_ct: Float) -> tuple[Float, float]:
    """Shift of a point in the camera's frame, mm, shape (3,), and the rotation, degrees, between two poses."""
    shift_mm = transform_points(T_now, centre_ct) - transform_points(T_before, centre_ct)
    return shift_mm, rotation_distance_deg(T_before, T_now)


def is_plausible(T_before: Float, T_now: Float, centre_ct: Float) -> bool:
    """Whether a patient can have moved from one pose to another between two frames."""
    shift_mm, turn_deg = change_between(T_before, T_now, centre_ct)
    return bool(np.linalg.norm(shift_mm) < LIMITS.implausible_mm and turn_deg < LIMITS.implausible_deg)


def motion_information(T_camera_ct: Float, frames: int) -> Float:
    """Information matrix of the motion over some frames, shape (6, 6): the prior of :func:`.gauss_newton.refine`."""
    R = T_camera_ct[:3, :3]
    information = np.zeros((6, 6))
    information[:3, :3] = np.eye(3) / np.deg2rad(frames * LIMITS.frame_deg) ** 2
    in_plane, depth = frames * LIMITS.frame_in_plane_mm, frames * LIMITS.frame_depth_mm
    information[3:, 3:] = R.T @ np.diag(1 / np.array([in_plane, in_plane, depth]) ** 2) @ R
    return information


def motion_covariance(age_ms: float) -> Float:
    """Covariance of the motion since a pose was measured, shape (6, 6), rad and mm."""
    turn, shift = np.deg2rad(LIMITS.second_deg) * age_ms / 1e3, LIMITS.second_mm * age_ms / 1e3
    return np.diag([turn**2] * 3 + [shift**2] * 3)


def is_elsewhere(T_before: Float, T_now: Float, centre_ct: Float) -> bool:
    """Whether patches that were placed for one pose are to be placed anew for another."""
    shift_mm, turn_deg = change_between(T_before, T_now, centre_ct)
    return bool(np.linalg.norm(shift_mm) > SETTINGS.replace_mm or turn_deg > SETTINGS.replace_deg)
