"""Poses, pictures and surfaces in OpenIGTLink's patient frame.

OpenIGTLink uses RAS (x to the patient's right, y to the front, z to the head), mm. Ours is LPS: x and y change their
signs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera, is_rigid, transform_points

Float = NDArray[np.float64]

RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Chosen: the picture is placed behind the patient, at this multiple of the distance from the source to the target.
PICTURE_DEPTH = 1.35


def rigid_pose(numbers: Any) -> Float:
    """``T_camera_ct`` of an overlay, shape (4, 4).

    Raises
    ------
    ValueError
        It is no rigid, right-handed motion.
    """
    T = np.array(numbers, np.float64).reshape(4, 4)
    if not is_rigid(T):
        raise ValueError("T_camera_ct is no rigid, right-handed motion")
    return T


def tip_and_axis(instrument: dict[str, Any]) -> tuple[Float, Float]:
    """``tip_ct`` (mm) and ``axis_ct`` of an overlay's instrument, each of shape (3,).

    Raises
    ------
    ValueError
        They are not finite, or the axis is 0.
    """
    tip, axis = np.array(instrument["tip_ct"], np.float64), np.array(instrument["axis_ct"], np.float64)
    if tip.shape != (3,) or axis.shape != (3,) or not (np.isfinite([tip, axis]).all() and axis.any()):
        raise ValueError(f"{instrument['id']}: tip or axis is no point and direction")
    return tip, axis


def picture_pose(camera: Camera, T_ct_camera: Float | None, depth_mm: float, cols: int) -> Float:
    """``T_ras_index``: from (column, row, 0) of a picture to the patient.

    Parameters
    ----------
    camera : Camera
        Of the whole frame.
    T_ct_camera : ndarray, shape (4, 4), or None
        None places the picture in the camera's own frame.
    depth_mm : float
        Distance from the source to the plane of the picture.
    cols : int
        Columns of the picture; a view may be smaller than the frame.

    Returns
    -------
    ndarray, shape (4, 4)
    """
    T_ras_camera = np.eye(4) if T_ct_camera is None else RAS_FROM_LPS @ T_ct_camera
    K = camera.K
    scale = camera.cols / cols
    first_px = 0.5 * scale - 0.5  # centre of the picture's first pixel, in pixels of the frame
    plane = np.eye(4)
    plane[0, 0], plane[1, 1] = depth_mm * scale / K[0, 0], depth_mm * scale / K[1, 1]
    plane[:3, 3] = (
        (first_px - K[0, 2]) / K[0, 0] * depth_mm,
        (first_px - K[1, 2]) / K[1, 1] * depth_mm,
        depth_mm,
    )
    return T_ras_camera @ plane


def pixels_of(header: dict[str, Any], payload: bytes) -> NDArray[np.generic]:
    """The pixels of a frame or view, shape (rows, cols).

    Raises
    ------
    ValueError
        Size and payload disagree.
    """
    rows, cols = int(header["rows"]), int(header["cols"])
    image = np.frombuffer(payload, "<u2" if header.get("dtype") == "u2" else "u1")
    if min(rows, cols) < 1 or image.size != rows * cols:
        raise ValueError(f"{rows} x {cols} pixels are announced, {image.size} have come")
    return image.reshape(rows, cols)


def surface_in_ras(points: Float, triangles: NDArray[np.int64]) -> tuple[Float, NDArray[np.int64]]:
    """A surface in LPS mm, shapes (n, 3) and (m, 3), in RAS mm."""
    return transform_points(RAS_FROM_LPS, points) if len(points) else points, triangles


def age_ns(measured: dict[str, Any]) -> int:
    """Time since a pose was measured, ns; 0 where the pipeline does not tell it."""
    age_ms = measured.get("age_ms")
    return int(1e6 * age_ms) if isinstance(age_ms, int | float) and 0 <= age_ms < 1e9 else 0
