"""The positioner's angles of one frame.

XA gives the angles of the first frame, and of an arm that moves an increment for every frame, counted from the first
one (PS3.3 C.8.7.5, PS3.17 FFF.2.1.3.1.2). Enhanced XA gives each frame its own angles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.xray_header import XrayHeader

_MOST_DEG = 180.0  # of an angle; chosen
_TAGS = {"Primary": ("(0018,1510)", "(0018,1520)"), "Secondary": ("(0018,1511)", "(0018,1521)")}


@dataclass(frozen=True)
class PositionerAngles:
    """Angles of a frame.

    Attributes
    ----------
    primary_deg : float
        Positive where the detector is to the patient's left (LAO).
    secondary_deg : float
        Positive where the detector is towards the head (CRA).
    source : str
        Where they are from, in words.
    """

    primary_deg: float
    secondary_deg: float
    source: str


def read_angles(header: XrayHeader) -> PositionerAngles:
    """The angles of the header's frame.

    Raises
    ------
    DicomError
        They are missing, or those of another frame.
    """
    primary, moved = _angle(header, "Primary")
    secondary, also_moved = _angle(header, "Secondary")
    for name, value in (("PositionerPrimaryAngle", primary), ("PositionerSecondaryAngle", secondary)):
        if abs(value) > _MOST_DEG:
            raise DicomError(
                f"{header.path}: its positioner angles are more than {_MOST_DEG:g} degrees ({name} {value:g})"
            )
    if header.is_per_frame("PositionerPrimaryAngle"):
        source = "the frame's functional groups"
    elif moved or also_moved:
        source = f"those of frame 1 and the increments of frame {header.frame}"
    else:
        source = "PositionerPrimaryAngle (0018,1510) and PositionerSecondaryAngle (0018,1511)"
    return PositionerAngles(primary, secondary, source)


def _angle(header: XrayHeader, axis: str) -> tuple[float, bool]:
    """An angle of the frame, degrees, and whether an increment is in it."""
    name, tag = f"Positioner{axis}Angle", _TAGS[axis][0]
    value = header.number(name)
    if value is None:
        raise DicomError(f"{header.path}: has no {name} {tag}: give a camera file with --camera and a pose with --init")
    if header.is_per_frame(name) or header.frame == 1:
        return value, False
    increments = _increments(header, axis)
    if increments is None:
        if header.word("PositionerMotion") == "DYNAMIC":
            raise DicomError(
                f"{header.path}: the C-arm moved (PositionerMotion (0018,1500) DYNAMIC), {name}Increment "
                f"{_TAGS[axis][1]} is missing and the angles are of frame 1, not {header.frame}: give a camera file "
                "with --camera and a pose with --init"
            )
        return value, False
    return value + float(increments[header.frame - 1]), True


def _increments(header: XrayHeader, axis: str) -> np.ndarray | None:
    """An increment for each frame, from the first frame, degrees; None where there are none."""
    name, tag = f"Positioner{axis}AngleIncrement", _TAGS[axis][1]
    value = header.get(name)
    if value is None:
        return None
    values = [value] if isinstance(value, (str, int, float)) else value
    try:
        increments = np.array([float(v) for v in values])
    except (TypeError, ValueError):
        increments = np.array([np.nan])
    if not np.isfinite(increments).all():
        raise DicomError(f"{header.path}: {name} {tag} is {str(value)[:40]!r}; numbers were expected")
    if not increments.any():
        return np.zeros(header.frames)
    do = "give a camera file with --camera and a pose with --init"
    if len(increments) != header.frames:
        raise DicomError(
            f"{header.path}: {name} {tag} has {len(increments)} values for {header.frames} frames; the angles of frame "
            f"{header.frame} are not known: {do}"
        )
    if len(increments) > 2 and np.ptp(increments[1:]) == 0:
        # Read as the standard says, the arm would have moved once and stood still; some systems write steps.
        raise DicomError(
            f"{header.path}: {name} {tag} is {increments[1]:g} in every frame, which reads as the step from one frame "
            f"to the next, not from the first one; the angles of frame {header.frame} are not known: {do}"
        )
    return increments
