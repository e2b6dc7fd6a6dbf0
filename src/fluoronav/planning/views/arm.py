"""Which angles a C-arm can reach at a table; a simple geometry in the frame of the patient.

The patient lies prone, the source is under the table at zero angles (:mod:`fluoronav.geometry.carm`). The table is a
box in front of the patient (below), as long as the patient; the tube is a ball around the source, and the detector a
square plate. An angle is refused where tube or detector would touch the table or the patient. The C itself and the
floor are not modelled: the person at the arm sees them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import CArmPose, inverse

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ArmSpace:
    """Limits of the arm, and what stands around the isocentre.

    Attributes
    ----------
    orbital_deg, angular_deg : tuple of float
        Range of each angle; chosen: mobile C-arms turn by 90 to 100 degrees to a side and tilt by 40 to 45.
    tube_radius_mm : float
        Of the tube's housing around the source; chosen from mobile C-arms.
    detector_mm : float
        Side of the detector's housing; chosen: a 300 mm panel and its frame.
    source_to_detector_mm : float
        Of the demonstration's camera.
    table_below_mm, table_thick_mm, table_width_mm : float
        From the isocentre to the table's surface, its thickness and width; chosen: an adult's spine, a spine frame.
    patient_width_mm, patient_back_mm : float
        Width of the patient, and from the isocentre to the skin of the back; chosen: an adult.
    gap_mm : float
        That has to stay free; chosen: drapes.
    """

    orbital_deg: tuple[float, float] = (-90.0, 90.0)
    angular_deg: tuple[float, float] = (-40.0, 40.0)
    tube_radius_mm: float = 150.0
    detector_mm: float = 380.0
    source_to_detector_mm: float = 1000.0
    table_below_mm: float = 150.0
    table_thick_mm: float = 60.0
    table_width_mm: float = 520.0
    patient_width_mm: float = 440.0
    patient_back_mm: float = 110.0
    gap_mm: float = 20.0


SPACE = ArmSpace()


def angles(step_deg: float, space: ArmSpace = SPACE) -> list[tuple[float, float]]:
    """Orbital and angular angles on a grid within the arm's limits, degrees."""
    orbital = np.arange(np.ceil(space.orbital_deg[0] / step_deg), space.orbital_deg[1] / step_deg + 1e-9) * step_deg
    angular = np.arange(np.ceil(space.angular_deg[0] / step_deg), space.angular_deg[1] / step_deg + 1e-9) * step_deg
    return [(float(o), float(a)) for o in orbital for a in angular]


def obstacle(orbital_deg: float, angular_deg: float, reach_mm: float, space: ArmSpace = SPACE) -> str:
    """What an angle would collide with; empty where the arm can stand.

    Parameters
    ----------
    orbital_deg, angular_deg : float
    reach_mm : float
        From the source to the isocentre.
    """
    (low_o, high_o), (low_a, high_a) = space.orbital_deg, space.angular_deg
    if not (low_o <= orbital_deg <= high_o and low_a <= angular_deg <= high_a):
        return "beyond the arm's limits"
    T_patient_camera = inverse(CArmPose((0, 0, 0), reach_mm, orbital_deg, angular_deg).T_camera_ct())
    tube = T_patient_camera[:3, 3][None]
    half = space.detector_mm / 2
    at = np.linspace(-half, half, 9)
    u, v = np.meshgrid(at, at)
    plate = np.stack([u.ravel(), v.ravel(), np.full(u.size, space.source_to_detector_mm)], axis=1)
    detector = plate @ T_patient_camera[:3, :3].T + T_patient_camera[:3, 3]
    # LPS: y grows to the back, so the table lies at negative y.
    table = (space.table_width_mm / 2, -space.table_below_mm - space.table_thick_mm, -space.table_below_mm)
    patient = (space.patient_width_mm / 2, -space.table_below_mm, space.patient_back_mm)
    for name, box in (("table", table), ("patient", patient)):
        if _distance_mm(tube, *box) < space.tube_radius_mm + space.gap_mm:
            return f"tube and {name}"
        if _distance_mm(detector, *box) < space.gap_mm:
            return f"detector and {name}"
    return ""


def _distance_mm(points: Float, half_width: float, low: float, high: float) -> float:
    """Smallest distance of points to a box that is endless along the patient."""
    x = np.maximum(np.abs(points[:, 0]) - half_width, 0)
    y = np.maximum(np.maximum(low - points[:, 1], points[:, 1] - high), 0)
    return float(np.hypot(x, y).min())
