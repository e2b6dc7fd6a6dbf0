"""The pose of a C-arm by its joints (from encoders or a DICOM header), before any registration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry.se3 import exp_so3

# At zero angles: image right is the patient's left (+x LPS), image down is caudal (-z), rays run from anterior to
# posterior (+y). That is a patient lying prone with the source under the table, as in spine surgery.
_R_CAMERA_CT_AT_ZERO = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])


@dataclass(frozen=True, slots=True)
class ArmJoints:
    """The C-arm's joints at one exposure, by its encoders: :class:`CArmPose` without a patient.

    Attributes
    ----------
    orbital_deg, angular_deg, swivel_deg : float
    source_to_isocentre_mm : float or None
        None where it is not reported; the case's prior gives it then.
    """

    orbital_deg: float
    angular_deg: float
    swivel_deg: float = 0.0
    source_to_isocentre_mm: float | None = None

    def T_camera_room(self, source_to_isocentre_mm: float) -> NDArray[np.float64]:
        """Room to camera, shape (4, 4), mm: origin at the isocentre, axes as the patient's at the case's prior.

        Parameters
        ----------
        source_to_isocentre_mm : float
            Used where the joints do not report it.
        """
        reach = self.source_to_isocentre_mm or source_to_isocentre_mm
        return CArmPose((0, 0, 0), reach, self.orbital_deg, self.angular_deg, self.swivel_deg).T_camera_ct()


@dataclass(frozen=True)
class CArmPose:
    """A C-arm turned about an isocentre.

    Attributes
    ----------
    isocentre_ct : tuple of 3 float
        The point of the patient that stays in the middle of the image, LPS mm.
    source_to_isocentre_mm : float
    orbital_deg : float
        Turn about the patient's long axis; positive moves the detector to the patient's left.
    angular_deg : float
        Tilt about the patient's transverse axis; positive moves the detector towards the head.
    swivel_deg : float
        Turn of the image about the central ray.
    """

    isocentre_ct: tuple[float, float, float]
    source_to_isocentre_mm: float
    orbital_deg: float = 0.0
    angular_deg: float = 0.0
    swivel_deg: float = 0.0

    def T_camera_ct(self) -> NDArray[np.float64]:
        """Patient to camera, shape (4, 4), mm."""
        o, a, s = np.deg2rad([self.orbital_deg, self.angular_deg, self.swivel_deg])
        # The arm turns in the patient's frame, so its inverse is on the right; the swivel is a rotation of the image.
        arm = exp_so3([0, 0, -o]) @ exp_so3([a, 0, 0])
        R = exp_so3([0, 0, s]) @ _R_CAMERA_CT_AT_ZERO @ arm.T
        T = np.eye(4)
        T[:3, :3] = R
        T[:3, 3] = np.array([0, 0, self.source_to_isocentre_mm]) - R @ np.asarray(self.isocentre_ct)
        return T
