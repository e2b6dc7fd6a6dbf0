"""The tibia, and the angles of a leg: mLDFA, MPTA, HKA, and the version of the femur."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fluoronav.planning.measurements.errors import Refused
from fluoronav.planning.measurements.femur import Condyles, check_whole, contact_of
from fluoronav.planning.measurements.fitting import angle_deg, cross, fit_height_plane, unit, without
from fluoronav.planning.measurements.mask import Float, Mask, StructureMask, Surface
from fluoronav.planning.plan.schema import Side


@dataclass(frozen=True, slots=True)
class TibiaSettings:
    """How a tibia is measured; lengths in mm."""

    head: float = 25.0  # height of the tibial head, from the highest voxel
    ankle: float = 20.0  # of the section whose middle is the ankle's, above the tip of the malleolus (12 to 15 mm long)
    slab: float = 2.5  # half height of that section
    # Part of the width from the middle outwards in which the plateau is taken: beside the spines, within the rim.
    plateau: tuple[float, float] = (0.25, 0.8)
    plateau_depth: float = 0.6  # middle part of the depth
    upward: float = 0.8  # least cosine between the plateau's normals and the axis: no slope is above 25 degrees
    outlier: float = 0.5


SETTINGS = TibiaSettings()


@dataclass(frozen=True)
class Tibia:
    """The landmarks of a tibia, LPS mm, shape (3,) each.

    Attributes
    ----------
    knee, ankle : ndarray
        Ends of the mechanical axis.
    medial, lateral : ndarray
        Middles of the plateau's two halves.
    across : ndarray
        Unit vector to the medial side, along the posterior edge of the tibial head.
    """

    knee: Float
    ankle: Float
    medial: Float
    lateral: Float
    across: Float


def tibia_of(mask: StructureMask, boundary: Surface, side: Side) -> Tibia:
    """The landmarks of a whole tibia; raises :class:`Refused` where an end is cut off."""
    check_whole(mask, "head")
    check_whole(mask, "feet")
    surface, normals = boundary.points, boundary.normals
    head = surface[:, 2] > surface[:, 2].max() - 2 * SETTINGS.head
    surface, normals = surface[head], normals[head]
    ankle = _ankle(mask)
    axis = unit(surface[surface[:, 2] > surface[:, 2].max() - SETTINGS.head].mean(0) - ankle)
    across = without(np.array([-1.0 if side == "left" else 1.0, 0.0, 0.0]), axis)
    back = cross(axis, across)
    back = back if back[1] > 0 else -back
    knee = medial = lateral = np.zeros(3)
    for _ in range(5):
        kept = surface @ axis > (surface @ axis).max() - SETTINGS.head
        top, upward = surface[kept], normals[kept] @ axis > SETTINGS.upward
        u, v = top @ across, top @ back
        middle = (u.min() + u.max()) / 2
        behind = [contact_of(top[half], back) for half in (u > middle, u <= middle)]
        medial, lateral = _plateau(top, upward, across, back, axis)
        centre_v = (v.min() + v.max()) / 2
        height = ((medial + lateral) / 2) @ axis
        knee = middle * across + centre_v * back + height * axis
        axis = unit(knee - ankle)
        across = without(behind[0] - behind[1], axis)
        back = cross(axis, across)
        back = back if back[1] > 0 else -back
    return Tibia(knee, ankle, medial, lateral, across)


def _ankle(mask: StructureMask) -> Float:
    """Middle of the section above the malleolus, across the bone's axis."""
    points = mask.points_ct()
    axis, ankle = np.array([0.0, 0.0, 1.0]), np.zeros(3)
    head = points[points[:, 2] > points[:, 2].max() - SETTINGS.head].mean(0)
    for _ in range(4):
        along = points @ axis
        slab = points[np.abs(along - along.min() - SETTINGS.ankle) < SETTINGS.slab]
        if not len(slab):
            raise Refused(f"{mask.name}: has a gap above its ankle; mend the label")
        ankle = slab.mean(0)
        axis = unit(head - ankle)
    return ankle


def _plateau(top: Float, upward: Mask, across: Float, back: Float, axis: Float) -> tuple[Float, Float]:
    """Middles of the medial and the lateral half of the plateau, each on a plane through it beside the spines."""
    s = SETTINGS
    u, v, w = top @ across, top @ back, top @ axis
    middle_u, middle_v, half_u, half_v = (u.min() + u.max()) / 2, (v.min() + v.max()) / 2, np.ptp(u) / 2, np.ptp(v) / 2
    out = []
    for sign in (1, -1):
        part = sign * (u - middle_u) / half_u
        there = (
            upward & (part > s.plateau[0]) & (part < s.plateau[1]) & (np.abs(v - middle_v) < s.plateau_depth * half_v)
        )
        if np.count_nonzero(there) < 20:
            raise Refused("the tibial plateau was not found: is the bone whole?")
        centre = np.array([middle_u + sign * half_u * sum(s.plateau) / 2, middle_v])
        height, _, _ = fit_height_plane(np.column_stack([u, v])[there] - centre, w[there], s.outlier)
        out.append(centre[0] * across + centre[1] * back + height * axis)
    return out[0], out[1]


def frontal(axis: Float, medial_ward: Float) -> Float:
    """Normal of a bone's frontal plane: it holds the mechanical axis and the direction of the condyles."""
    return unit(cross(axis, without(medial_ward, unit(axis))))


def mldfa_deg(head: Float, condyles: Condyles) -> float:
    """Mechanical lateral distal femoral angle, in the femur's frontal plane (Paley 2002)."""
    axis = unit(head - condyles.centre)
    normal = frontal(axis, condyles.medial_posterior - condyles.lateral_posterior)
    line = condyles.lateral_distal - condyles.medial_distal
    return angle_deg(axis, without(line, normal))


def mpta_deg(tibia: Tibia) -> float:
    """Medial proximal tibial angle, in the tibia's frontal plane (Paley 2002)."""
    axis = unit(tibia.ankle - tibia.knee)
    line = without(tibia.medial - tibia.lateral, frontal(axis, tibia.across))
    return angle_deg(axis, line)


def hka_deg(head: Float, condyles: Condyles, tibia: Tibia, side: Side) -> float:
    """Hip-knee-ankle angle in the femur's frontal plane: 180 straight, less for varus (medial side)."""
    thigh = unit(head - condyles.centre)
    normal = frontal(thigh, condyles.medial_posterior - condyles.lateral_posterior)
    shank = without(tibia.ankle - tibia.knee, normal)
    medial_ward = without(condyles.medial_posterior - condyles.lateral_posterior, thigh)
    # A shank that points to the medial side of the thigh's axis makes the medial angle smaller: varus.
    bent = float(np.degrees(np.arcsin(np.clip(shank @ medial_ward, -1, 1))))
    return 180.0 - bent


def version_deg(head: Float, neck: Float, condyles: Condyles, side: Side) -> float:
    """Version of the femur: the neck against the posterior condyles, seen along the mechanical axis (Murphy 1987).

    Positive for anteversion: the head lies in front.
    """
    axis = unit(head - condyles.centre)
    condylar = without(condyles.medial_posterior - condyles.lateral_posterior, axis)
    towards_head = without(head - neck, axis)
    front = cross(axis, condylar)
    front = front if front[1] < 0 else -front
    return float(np.degrees(np.arctan2(towards_head @ front, towards_head @ condylar)))
