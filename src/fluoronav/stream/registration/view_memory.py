"""Views of a patient who holds still, fused while the C-arm moves from one to the next.

One view says little of depth; what another view saw across its ray says it much better, once it is known how the arm
has turned in between. That is known as well as the arm's encoders and its stiffness allow, and no better.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import exp_so3, inverse, log_so3, moved_in_camera, rotation_distance_deg, transform_points

Float = NDArray[np.float64]

# One view is kept for each so many degrees of the beam's direction; those closer to the present one share its errors.
_BIN_DEG, _APART_DEG, _MOST_VIEWS = 12.0, 20.0, 8
# A view that disagrees more than this (squared Mahalanobis distance, six degrees of freedom, 99 %) is not used, and
# forgotten when that goes on for half a minute of frames: the patient has moved since, or the arm is not where it says.
_DISAGREES, _FORGOTTEN_AFTER = 16.8, 900
# With the arm at rest the patient has moved when the pose moves by more than this (mm, in the plane and in depth).
_MOVED_IN_PLANE_MM, _MOVED_IN_DEPTH_MM = 1.5, 3.0
_AT_REST_DEG, _AT_REST_MM = 0.5, 0.5


@dataclass(slots=True)
class _View:
    T_camera_room: Float
    T_camera_ct: Float
    covariance: Float
    disagreed: int = 0


@dataclass(frozen=True, slots=True)
class Fused:
    """A pose with what other views add to it.

    Attributes
    ----------
    T_camera_ct : ndarray, shape (4, 4)
    covariance : ndarray, shape (6, 6)
        As of :func:`.confidence.covariance_in_camera`.
    views : int
        How many other views had a say.
    """

    T_camera_ct: Float
    covariance: Float
    views: int


class ViewMemory:
    """Remembers one pose for each direction of the beam.

    Parameters
    ----------
    centre_ct : ndarray, shape (3,)
        The point that the covariances are about.
    arm_deg, arm_mm : float
        How well the joints tell the change from one view to another, 1 sigma (:class:`fluoronav.geometry.Camera`).
    """

    def __init__(self, centre_ct: Float, arm_deg: float, arm_mm: float) -> None:
        self._centre_ct = np.asarray(centre_ct, dtype=np.float64)
        self._arm_rad, self._arm_mm = np.deg2rad(arm_deg), arm_mm
        self._views: dict[tuple[int, int], _View] = {}
        self._arrival: tuple[Float, Float] | None = None  # T_camera_room, T_camera_ct when the arm came to rest

    def __len__(self) -> int:
        return len(self._views)

    def clear(self) -> None:
        """Forgets every view: the patient has moved."""
        self._views.clear()
        self._arrival = None

    def fuse(self, T_camera_room: Float, T_camera_ct: Float, covariance: Float) -> Fused:
        """Adds what the remembered views know.

        Parameters
        ----------
        T_camera_room : ndarray, shape (4, 4)
            From the C-arm's joints.
        T_camera_ct, covariance : ndarray
            What this view alone says.
        """
        information, vector, used = np.zeros((6, 6)), np.zeros(6), 0
        arm = self._arm_covariance(T_camera_room, T_camera_ct)
        for key, view in list(self._views.items()):
            if _beam_angle_deg(view.T_camera_room, T_camera_room) < _APART_DEG:
                continue
            T_now_then = T_camera_room @ inverse(view.T_camera_room)
            off = self._difference(T_camera_ct, T_now_then @ view.T_camera_ct)
            R = np.kron(np.eye(2), T_now_then[:3, :3])
            view_covariance = R @ view.covariance @ R.T
            distance = float(off @ np.linalg.solve(covariance + view_covariance + arm, off))
            if distance > _DISAGREES:
                view.disagreed += 1
                if view.disagreed > _FORGOTTEN_AFTER:
                    del self._views[key]
                continue
            view.disagreed = 0
            # Half of the arm's error belongs to that view, the other half to this one, which all views share.
            weight = np.linalg.inv((view_covariance + arm / 2) * max(1.0, distance / 6))
            information += weight
            vector += weight @ off
            used += 1
        if not used:
            return Fused(T_camera_ct, covariance, 0)
        together = np.linalg.inv(information)
        gain = covariance @ np.linalg.inv(covariance + together + arm / 2)
        off = gain @ together @ vector
        T = moved_in_camera(T_camera_ct, self._centre_ct, exp_so3(off[:3]), off[3:])
        return Fused(T, covariance - gain @ covariance, used)

    def remember(self, T_camera_room: Float, T_camera_ct: Float, covariance: Float) -> None:
        """Keeps what a view alone says, in place of what was seen from there before.

        When the pose moves under an arm at rest, all other views are forgotten.
        """
        if self._arrival is None or not is_at_rest(self._arrival[0], T_camera_room):
            self._arrival = (T_camera_room, T_camera_ct)
        else:
            moved = self._difference(self._arrival[1], T_camera_ct)[3:]
            if np.hypot(moved[0], moved[1]) > _MOVED_IN_PLANE_MM or abs(moved[2]) > _MOVED_IN_DEPTH_MM:
                self.clear()
                self._arrival = (T_camera_room, T_camera_ct)
        beam = T_camera_room[2, :3]
        around = np.rad2deg(np.arctan2(beam[0], beam[1]))
        along = np.rad2deg(np.arcsin(np.clip(beam[2], -1, 1)))
        key = (round(around / _BIN_DEG), round(along / _BIN_DEG))
        self._views.pop(key, None)
        self._views[key] = _View(T_camera_room, T_camera_ct, covariance)
        if len(self._views) > _MOST_VIEWS:
            del self._views[next(iter(self._views))]

    def T_room_ct(self) -> Float | None:
        """Where the patient lay in the room when last seen, shape (4, 4); None where that is not known."""
        if not self._views:
            return None
        last = next(reversed(self._views.values()))
        return inverse(last.T_camera_room) @ last.T_camera_ct

    def _difference(self, T_from: Float, T_to: Float) -> Float:
        """(rotation, shift of the centre) that lead from one pose to another, camera axes, rad and mm, shape (6,)."""
        shift = transform_points(T_to, self._centre_ct) - transform_points(T_from, self._centre_ct)
        return np.concatenate([log_so3(T_to[:3, :3] @ T_from[:3, :3].T), shift])

    def _arm_covariance(self, T_camera_room: Float, T_camera_ct: Float) -> Float:
        """Of the change of view as the joints tell it; a turn moves what lies off the isocentre."""
        lever = float(np.linalg.norm(transform_points(T_camera_ct, self._centre_ct) - T_camera_room[:3, 3]))
        shift = self._arm_mm**2 + (self._arm_rad * lever) ** 2
        return np.diag([self._arm_rad**2] * 3 + [shift] * 3)


def is_at_rest(T_camera_room_before: Float, T_camera_room: Float) -> bool:
    """Whether the arm has not turned, nor carried the source away, since."""
    turned = rotation_distance_deg(T_camera_room_before, T_camera_room)
    shift_mm = np.linalg.norm(T_camera_room[:3, 3] - T_camera_room_before[:3, 3])
    return bool(turned < _AT_REST_DEG and shift_mm < _AT_REST_MM)


def _beam_angle_deg(T_a_room: Float, T_b_room: Float) -> float:
    """Angle between two beams, 0 to 90: a view from behind shows the same plane."""
    return float(np.rad2deg(np.arccos(min(abs(float(T_a_room[2, :3] @ T_b_room[2, :3])), 1.0))))
