"""Rigid motions and the C-arm camera: where a point of the patient falls in the image.

Conventions: millimetres; radians inside, degrees where a name ends in ``_deg``; patient (CT) coordinates are
DICOM LPS; camera axes are OpenCV's (x right, y down, z from the source to the detector); pixel centres lie at
integers. ``T_a_b`` maps points of frame b to frame a.
"""

from fluoronav.geometry.camera import Camera, CameraError
from fluoronav.geometry.carm import ArmJoints, CArmPose
from fluoronav.geometry.se3 import (
    adjoint,
    exp_se3,
    exp_so3,
    frame_along,
    inverse,
    is_rigid,
    log_se3,
    log_so3,
    moved_about,
    moved_in_camera,
    rotation_distance_deg,
    skew,
    transform_points,
)

__all__ = [
    "ArmJoints",
    "CArmPose",
    "Camera",
    "CameraError",
    "adjoint",
    "exp_se3",
    "exp_so3",
    "frame_along",
    "inverse",
    "is_rigid",
    "log_se3",
    "log_so3",
    "moved_about",
    "moved_in_camera",
    "rotation_distance_deg",
    "skew",
    "transform_points",
]
