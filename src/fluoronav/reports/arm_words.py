"""A C-arm's angles in words."""

from __future__ import annotations

import numpy as np

from fluoronav.geometry import CArmPose

_SMALLEST_DEG = 0.5  # smaller angles are none in words; chosen: angles are said in whole degrees


def arm_words(orbital_deg: float, angular_deg: float) -> str:
    """A view as radiographers name it: by the side of the patient that the detector is at.

    LPO and RPO are left and right posterior oblique, LAO and RAO left and right anterior oblique. With the patient
    prone and the source below (:class:`fluoronav.geometry.CArmPose`) the detector is behind the patient, so that a
    small orbital angle is LPO or RPO. The degrees are those of the two joints.

    Returns
    -------
    str
        Such as "LPO 20°, cranial 10°".
    """
    along = CArmPose((0, 0, 0), 1.0, orbital_deg, 0.0).T_camera_ct()[2, :3]  # from the source to the detector, LPS
    left, back = float(along[0]), float(along[1])
    from_axis_deg = float(np.rad2deg(np.arctan2(abs(left), abs(back))))
    side = "L" if left > 0 else "R"
    if from_axis_deg < _SMALLEST_DEG:
        turned = "AP" if back > 0 else "PA"
    elif from_axis_deg > 90 - _SMALLEST_DEG:
        turned = f"lateral, detector on the patient's {'left' if left > 0 else 'right'}"
    else:
        turned = f"{side}{'P' if back > 0 else 'A'}O {from_axis_deg:.0f}°"
    if abs(angular_deg) < _SMALLEST_DEG:
        return f"{turned}, no tilt"
    return f"{turned}, {'cranial' if angular_deg > 0 else 'caudal'} {abs(angular_deg):.0f}°"


def joint_words(orbital_deg: float, angular_deg: float) -> str:
    """The same as the display's menu of planned views says it: "orbital 20°, angular -10°"."""
    return f"orbital {orbital_deg:g}°, angular {angular_deg:g}°"
