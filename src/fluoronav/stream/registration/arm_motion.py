"""The C-arm's motion, where its joints are known: where a pose goes with it, and what other views say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import ArmJoints, inverse
from fluoronav.stream.registration.view_memory import ViewMemory

Float = NDArray[np.float64]


class ArmMotion:
    """Carries poses along with the C-arm.

    Parameters
    ----------
    views : ViewMemory
    source_to_isocentre_mm : float

    Attributes
    ----------
    T_camera_room : ndarray, shape (4, 4), or None
        In the frame at hand; None where its joints are unknown.
    measured_at : ndarray, shape (4, 4), or None
        The same when the pose was measured.
    """

    def __init__(self, views: ViewMemory, source_to_isocentre_mm: float) -> None:
        self._views, self._source_to_isocentre_mm = views, source_to_isocentre_mm
        self.T_camera_room: Float | None = None
        self.measured_at: Float | None = None

    def take(self, joints: ArmJoints | None) -> None:
        """The joints of the frame at hand."""
        self.T_camera_room = None if joints is None else joints.T_camera_room(self._source_to_isocentre_mm)

    def expected(self, T_camera_ct: Float) -> Float:
        """The pose that was measured last, carried along with the C-arm."""
        then, now = self.measured_at, self.T_camera_room
        if then is None or now is None or np.array_equal(then, now):
            return T_camera_ct
        return now @ inverse(then) @ T_camera_ct

    def fused(self, T_camera_ct: Float, covariance: Float, sure: bool) -> tuple[Float, Float]:
        """A pose and its covariance (camera axes), with what other views have said of a patient who holds still.

        Parameters
        ----------
        T_camera_ct : ndarray, shape (4, 4)
        covariance : ndarray, shape (6, 6)
            Of this frame alone.
        sure : bool
            Whether this view is remembered, too.
        """
        if self.T_camera_room is None:
            return T_camera_ct, covariance
        fused = self._views.fuse(self.T_camera_room, T_camera_ct, covariance)
        if sure:
            self._views.remember(self.T_camera_room, T_camera_ct, covariance)
        return fused.T_camera_ct, fused.covariance
