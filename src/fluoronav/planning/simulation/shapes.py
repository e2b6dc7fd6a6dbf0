"""Shapes of implants from a few sizes. Lengths in mm; each in its own frame, which its function states."""

from __future__ import annotations

import numpy as np
from manifold3d import CrossSection, Manifold

_SEGMENTS = 64  # of a full circle; chosen: a 6 mm screw is then round to 0.01 mm
_SMALL_SEGMENTS = 32


def pedicle_screw(diameter_mm: float, length_mm: float) -> Manifold:
    """Shaft with a conical tip, and a head with the slot for a rod; the thread is not modelled.

    z runs along the shaft from the entry point (origin) to the tip; the slot runs along y.
    """
    r, tip = diameter_mm / 2, min(diameter_mm, length_mm / 3)
    shaft = Manifold.cylinder(length_mm - tip, r, r, _SEGMENTS)
    shaft += Manifold.cylinder(tip, r, r / 5, _SEGMENTS).translate((0, 0, length_mm - tip))
    head = Manifold.cylinder(15, 6.5, 6.5, _SEGMENTS) - Manifold.cube((6.0, 20, 10), True).translate((0, 0, 2))
    return shaft + head.translate((0, 0, -14.9))


def rod(diameter_mm: float, length_mm: float, bend_radius_mm: float = 0.0) -> Manifold:
    """A rod, straight or bent to a circle.

    It begins at the origin along z and bends towards -y; `length_mm` is that of its axis.
    """
    r = diameter_mm / 2
    if not bend_radius_mm:
        return Manifold.cylinder(length_mm, r, r, _SEGMENTS)
    if bend_radius_mm <= r or length_mm > 2 * np.pi * bend_radius_mm * 0.9:
        raise ValueError("bend_radius_mm must be larger than the rod's radius, and long enough for its length")
    section = CrossSection.circle(r, _SMALL_SEGMENTS).translate((bend_radius_mm, 0))
    turned = Manifold.revolve(section, _SEGMENTS * 4, float(np.degrees(length_mm / bend_radius_mm)))
    # A revolution begins in the plane y = 0 about z: its tangent y becomes z, and the way to the centre -y.
    T = np.array([[0.0, 0, 1, 0], [1, 0, 0, -bend_radius_mm], [0, 1, 0, 0]])
    return turned.transform(T)


def plate(length_mm: float, width_mm: float, thickness_mm: float, holes: int, hole_mm: float) -> Manifold:
    """A flat plate with round ends and a row of holes.

    Origin: middle of the side towards the bone. x along the plate, z away from the bone.
    """
    if hole_mm >= width_mm or holes * hole_mm >= length_mm:
        raise ValueError("the holes do not fit into the plate: check width_mm, length_mm, holes and hole_mm")
    outline = plate_outline(length_mm, width_mm)
    at = np.linspace(-1, 1, holes) * (length_mm / 2 - width_mm / 2) if holes > 1 else np.zeros(holes)
    for x in at:
        outline -= CrossSection.circle(hole_mm / 2, _SMALL_SEGMENTS).translate((float(x), 0))
    return Manifold.extrude(outline, thickness_mm)


def plate_outline(length_mm: float, width_mm: float) -> CrossSection:
    """The plate without its holes."""
    end = CrossSection.circle(width_mm / 2, _SEGMENTS)
    reach = (length_mm - width_mm) / 2
    return CrossSection.batch_hull([end.translate((-reach, 0)), end.translate((reach, 0))])


def knee_tibial(width_mm: float, depth_mm: float, thickness_mm: float, stem_mm: float) -> Manifold:
    """A tibial tray with a stem.

    Origin: middle of the underside, on the tibial cut. x to the patient's left, y to the back, z to the femur.
    """
    stem = Manifold.cylinder(stem_mm, 5, 7, _SEGMENTS).translate((0, 0, -stem_mm))
    keel = Manifold.cube((width_mm * 0.45, 3, stem_mm * 0.6), True).translate((0, 0, -stem_mm * 0.3 + 0.05))
    return Manifold.extrude(tibial_outline(width_mm, depth_mm), thickness_mm) + stem + keel


def tibial_outline(width_mm: float, depth_mm: float) -> CrossSection:
    """Two round condyles and a notch at the back; x to the left, y to the back."""
    half = CrossSection.circle(1.0, _SEGMENTS)
    outline = CrossSection.batch_hull(
        [half.scale((width_mm * 0.29, depth_mm / 2)).translate((s * width_mm * 0.21, 0)) for s in (-1, 1)]
    )
    notch = CrossSection.circle(1.0, _SEGMENTS).scale((width_mm * 0.13, depth_mm * 0.22)).translate((0, depth_mm / 2))
    return outline - notch


def knee_femoral(width_mm: float, depth_mm: float, thickness_mm: float) -> Manifold:
    """A femoral component: five flat faces inside, a round outside, a notch between the condyles at the back.

    Origin: middle of the distal cut. x to the patient's left, y to the back, z to the hip. `depth_mm` is the distance
    from the anterior face of the flange to the posterior condyles.
    """
    inner = _femoral_bone(depth_mm, thickness_mm)
    outside = CrossSection.circle(1.0, _SEGMENTS * 2)
    front = outside.scale((depth_mm * 0.30, depth_mm * 0.34)).translate(
        (-depth_mm * 0.20, depth_mm * 0.34 - thickness_mm)
    )
    back = outside.scale((depth_mm * 0.36, depth_mm * 0.36)).translate(
        (depth_mm * 0.14, depth_mm * 0.36 - thickness_mm)
    )
    flange = CrossSection.square((thickness_mm, depth_mm * 0.5)).translate((-depth_mm / 2, depth_mm * 0.3))
    profile = CrossSection.batch_hull([front, back, flange]) - inner
    # Above the posterior condyles the bone is free.
    profile -= CrossSection.square((depth_mm, depth_mm)).translate((0, depth_mm * 0.52))
    # The profile's axes are y and z: the extrusion becomes x.
    body = Manifold.extrude(profile, width_mm).translate((0, 0, -width_mm / 2))
    body = body.transform(np.array([[0.0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]]))
    notch = Manifold.cube((width_mm * 0.28, depth_mm * 0.75, depth_mm * 1.4), True)
    whole = body - notch.translate((0, depth_mm * 0.42, depth_mm * 0.3))
    return max(whole.decompose(), key=lambda m: m.volume())


def _femoral_bone(depth_mm: float, thickness_mm: float) -> CrossSection:
    """The cut femur from the side (y to the back, z to the hip): distal, two chamfers, anterior and posterior cut."""
    front, back, chamfer, top = -depth_mm / 2 + thickness_mm, depth_mm / 2 - thickness_mm, depth_mm * 0.14, depth_mm * 2
    corners = [
        (front + chamfer, 0), (back - chamfer, 0), (back, chamfer), (back, top), (front, top), (front, chamfer)
    ]  # fmt: skip
    return CrossSection([np.array(corners, np.float64)])


def femoral_outline(width_mm: float, depth_mm: float, thickness_mm: float) -> CrossSection:
    """What of the component lies on the distal cut: the flat face without its chamfers, and without the notch."""
    low, high = -depth_mm / 2 + thickness_mm + depth_mm * 0.14, depth_mm / 2 - thickness_mm - depth_mm * 0.14
    half = width_mm / 2
    return CrossSection([np.array([(-half, low), (half, low), (half, high), (-half, high)], np.float64)])
