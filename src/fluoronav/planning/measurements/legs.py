"""Measures the hips and legs of a label map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fluoronav.planning.measurements.errors import Refused
from fluoronav.planning.measurements.femur import Condyles, condyles_of, head_of, neck_of
from fluoronav.planning.measurements.fitting import Sphere, angle_deg, without
from fluoronav.planning.measurements.leg import Tibia, hka_deg, mldfa_deg, mpta_deg, tibia_of, version_deg
from fluoronav.planning.measurements.mask import Float, StructureMask, Surface, surface_spread
from fluoronav.planning.measurements.results import Progress, Results
from fluoronav.planning.plan.schema import Side

_SIDES: tuple[Side, ...] = ("left", "right")
_FRONTAL = "in the frontal plane of the bone: its mechanical axis and the posterior condyles (Paley 2002)"
_HEAD = "robust sphere through the head's surface"


@dataclass(frozen=True)
class _Thigh:
    mask: StructureMask
    boundary: Surface
    head: Sphere
    neck: Float | None = None
    condyles: Condyles | None = None


def measure_legs(masks: Mapping[str, StructureMask], results: Results, progress: Progress) -> None:
    """Head, neck, axes and angles of each leg whose bones are there.

    Parameters
    ----------
    masks : mapping of str to StructureMask
        ``femur_left``, ``tibia_left`` and so on.
    results : Results
    progress : callable
    """
    for k, side in enumerate(_SIDES):
        thigh = tibia = None
        if (femur := masks.get(f"femur_{side}")) is not None:
            progress(f"measuring the {side} femur", k / 2)
            thigh = _thigh(femur.largest_piece(), side, results)
        if (shin := masks.get(f"tibia_{side}")) is not None:
            progress(f"measuring the {side} tibia", k / 2 + 0.25)
            tibia = _tibia(shin.largest_piece(), side, results)
        if femur is not None and shin is not None:
            with results.refusing("hka", f"leg_{side}"):
                _hka(thigh, tibia, side, results)


def _thigh(mask: StructureMask, side: Side, results: Results) -> _Thigh | None:
    boundary = mask.surface(mask.level())
    thigh: _Thigh | None = None
    with results.refusing("head", mask.name):
        head = head_of(mask, boundary, side)

        def again(moved: Surface) -> Float:
            other = head_of(mask, moved, side)
            return np.array([*other.centre, other.radius_mm])

        sd = surface_spread(mask.name, [boundary], again)
        at = head.centre[None]
        results.add("head_radius", mask.name, head.radius_mm, "mm", sd[3], _HEAD, at)
        method = f"{_HEAD}: how far its middle is off; the middle is the point"
        results.add("head_centre_error", mask.name, float(np.linalg.norm(sd[:3])), "mm", None, method, at)
        thigh = _Thigh(mask, boundary, head)
    if thigh is None:
        return None
    neck = condyles = None
    with results.refusing("neck_axis", mask.name):
        neck = neck_of(mask, thigh.head)
        length = float(np.linalg.norm(neck - thigh.head.centre))
        method = "from the head's middle to the middle of the narrowest section"
        results.add("neck_axis", mask.name, length, "mm", None, method, np.stack([thigh.head.centre, neck]))
    with results.refusing("mechanical_axis", mask.name):
        condyles = condyles_of(mask, boundary, thigh.head.centre, side)
    if condyles is not None:
        _femur_angles(mask, boundary, thigh.head, neck, condyles, side, results)
    return _Thigh(mask, boundary, thigh.head, neck, condyles)


def _femur_angles(
    mask: StructureMask, boundary: Surface, head: Sphere, neck: Float | None, condyles: Condyles, side: Side,
    results: Results,
) -> None:  # fmt: skip
    def again(moved: Surface) -> Float:
        h = head_of(mask, moved, side)
        c = condyles_of(mask, moved, h.centre, side)
        version = np.nan if neck is None else version_deg(h.centre, neck, c, side)
        return np.array(
            [mldfa_deg(h.centre, c), version, _condylar_deg(h.centre, c), np.linalg.norm(h.centre - c.centre)]
        )

    sd = surface_spread(mask.name, [boundary], again)
    c = condyles
    length = float(np.linalg.norm(head.centre - c.centre))
    axis = np.stack([head.centre, c.centre])
    results.add(
        "mechanical_axis", mask.name, length, "mm", sd[3], "from the head's middle to the middle of the condyles", axis
    )
    distal, behind = np.stack([c.medial_distal, c.lateral_distal]), np.stack([c.medial_posterior, c.lateral_posterior])
    results.add("mldfa", mask.name, mldfa_deg(head.centre, c), "deg", sd[0], _FRONTAL, np.concatenate([axis, distal]))
    method = "between the lines that touch the condyles from below and from behind"
    results.add(
        "condylar_axes",
        mask.name,
        _condylar_deg(head.centre, c),
        "deg",
        sd[2],
        method,
        np.concatenate([distal, behind]),
    )
    with results.refusing("version", mask.name):
        if neck is None:
            raise Refused(f"{mask.name}: without a neck there is no version")
        method = (
            "neck against the posterior condyles, along the mechanical axis (after Murphy 1987); positive: anteversion"
        )
        points = np.concatenate([np.stack([head.centre, neck]), behind])
        results.add("version", mask.name, version_deg(head.centre, neck, c, side), "deg", sd[1], method, points)


def _condylar_deg(head: Float, c: Condyles) -> float:
    """Angle between the distal and the posterior line of the condyles."""
    return angle_deg(c.medial_distal - c.lateral_distal, c.medial_posterior - c.lateral_posterior)


def _tibia(mask: StructureMask, side: Side, results: Results) -> tuple[Tibia, Float] | None:
    with results.refusing("mechanical_axis", mask.name):
        boundary = mask.surface(mask.level())
        tibia = tibia_of(mask, boundary, side)

        def again(moved: Surface) -> Float:
            other = tibia_of(mask, moved, side)
            return np.array([mpta_deg(other), np.linalg.norm(other.knee - other.ankle), *other.knee])

        sd = surface_spread(mask.name, [boundary], again)
        axis = np.stack([tibia.knee, tibia.ankle])
        length = float(np.linalg.norm(tibia.knee - tibia.ankle))
        method = "from the middle of the plateau to the middle of the ankle's section"
        results.add("mechanical_axis", mask.name, length, "mm", sd[1], method, axis)
        points = np.concatenate([axis, np.stack([tibia.medial, tibia.lateral])])
        results.add("mpta", mask.name, mpta_deg(tibia), "deg", sd[0], _FRONTAL, points)
        return tibia, sd
    return None


def _hka(thigh: _Thigh | None, tibia: tuple[Tibia, Float] | None, side: Side, results: Results) -> None:
    if thigh is None or thigh.condyles is None or tibia is None:
        raise Refused(f"the {side} leg: the hip-knee-ankle angle needs a whole femur and a whole tibia")
    shin, sd = tibia
    value = hka_deg(thigh.head.centre, thigh.condyles, shin, side)
    across = without(shin.across, np.array([0.0, 0.0, 1.0]))
    # Both knee middles move the angle by their error across over the length of the bone.
    off = float(np.abs(sd[2:5] @ np.abs(across)))
    lengths = [np.linalg.norm(thigh.head.centre - thigh.condyles.centre), np.linalg.norm(shin.knee - shin.ankle)]
    sigma = float(np.degrees(np.hypot(off / lengths[0], off / lengths[1])))
    points = np.stack([thigh.head.centre, thigh.condyles.centre, shin.knee, shin.ankle])
    method = "between the mechanical axes in the femur's frontal plane (Paley 2002); below 180: varus"
    results.add("hka", f"leg_{side}", value, "deg", sigma, method, points)
