"""The progress of an instrument along a planned trajectory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera, transform_points
from fluoronav.stream.frame import FrameRecord, PlanProgress

Float = NDArray[np.float64]

# Chosen: a trajectory within 25 degrees of the patient's long axis is shown with the front up, not the head.
_ALONG_SPINE_COS = float(np.cos(np.deg2rad(25)))


def lateral_axes(axis_ct: Float) -> Float:
    """Right and up for a viewer who looks along a trajectory, unit vectors, LPS, shape (2, 3).

    Parameters
    ----------
    axis_ct : ndarray, shape (3,)
        From entry to target, unit length. Up is towards the patient's head; for a trajectory along the spine it is
        towards the front.
    """
    head = np.array([0.0, 0.0, 1.0])
    up = head if abs(axis_ct @ head) < _ALONG_SPINE_COS else np.array([0.0, -1.0, 0.0])
    up = up - (up @ axis_ct) * axis_ct
    up = up / np.linalg.norm(up)
    return np.stack([np.cross(axis_ct, up), up])


class PlannedPath:
    """A planned trajectory.

    Parameters
    ----------
    name : str
    ends_ct : ndarray, shape (2, 3)
        Entry and target, LPS mm.
    """

    def __init__(self, name: str, ends_ct: Float) -> None:
        self.name, self._ends_ct = name, ends_ct
        along = ends_ct[1] - ends_ct[0]
        self._axis_ct = along / np.linalg.norm(along)
        self._lateral_ct = lateral_axes(self._axis_ct)

    def progress(self, frame: FrameRecord, camera: Camera) -> PlanProgress:
        """The first instrument with a known tip and axis, compared with the plan."""
        entry_px = target_px = None
        if frame.registration is not None:
            ends = transform_points(frame.registration.T_camera_ct, self._ends_ct)
            entry_px, target_px = (p if np.isfinite(p).all() else None for p in camera.project(ends))
        tracked = next((i for i in frame.instruments if i.tip_ct is not None and i.axis_ct is not None), None)
        if tracked is None or tracked.tip_ct is None or tracked.axis_ct is None:
            return PlanProgress(self.name, entry_px, target_px, None, None, None)
        cosine = float(np.clip(self._axis_ct @ tracked.axis_ct, -1, 1))
        entry_ct, target_ct = self._ends_ct
        offset = tracked.tip_ct - entry_ct
        lateral = offset - (offset @ self._axis_ct) * self._axis_ct
        return PlanProgress(
            self.name,
            entry_px,
            target_px,
            angle_deg=float(np.rad2deg(np.arccos(cosine))),
            lateral_mm=float(np.linalg.norm(lateral)),
            depth_left_mm=float((target_ct - tracked.tip_ct) @ self._axis_ct),
            lateral_offset_mm=self._lateral_ct @ lateral,
        )
