"""Where a pose goes with the C-arm and with what moves steadily, and what other views say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import ArmJoints, inverse
from fluoronav.stream.registration.motion import SteadyMotion
from fluoronav.stream.registration.view_memory import ViewMemory, is_at_rest

Float = NDArray[np.float64]


class ArmMotion:
    """Carries poses along with the C-arm, and with the steady part of any other motion.

    Parameters
    ----------
    views : ViewMemory
    source_to_isocentre_mm : float
    centre_ct : ndarray, shape (3,)
        LPS mm.

    Attributes
    ----------
    T_camera_room : ndarray, shape (4, 4), or None
        In the frame at hand; None where its joints are unknown.
    """

    def __init__(self, views: ViewMemory, source_to_isocentre_mm: float, centre_ct: Float) -> None:
        self._views, self._source_to_isocentre_mm = views, source_to_isocentre_mm
        self._steady = SteadyMotion(centre_ct)
        self.T_camera_room: Float | None = None
        self._measured_at: Float | None = None  # T_camera_room when the pose was measured

    def take(self, joints: ArmJoints | None) -> None:
        """The joints of the frame at hand."""
        self.T_camera_room = None if joints is None else joints.T_camera_room(self._source_to_isocentre_mm)

    def found(self, T_camera_room: Float | None, t_local: int | None = None) -> None:
        """A pose was found where the C-arm stood so; `t_local` is the frame's time, ns, where it is that at hand."""
        self._measured_at = T_camera_room
        self._steady.forget(t_local)

    def measured(self, T_before: Float, T_now: Float, t_local: int) -> None:
        """The pose was measured in the frame at hand; before it was the other, shape (4, 4)."""
        self._steady.measured(self._carried(T_before), T_now, t_local)
        self._measured_at = self.T_camera_room

    def expected(self, T_camera_ct: Float, t_local: int) -> Float:
        """The pose that was measured last, carried along with the C-arm and its own motion to a frame's time, ns."""
        return self._steady.expected(self._carried(T_camera_ct), t_local)

    @property
    def has_turned(self) -> bool:
        """Whether the joints say that the C-arm has turned or moved since the pose was measured."""
        then, now = self._measured_at, self.T_camera_room
        return then is not None and now is not None and not is_at_rest(then, now)

    def _carried(self, T_camera_ct: Float) -> Float:
        then, now = self._measured_at, self.T_camera_room
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
