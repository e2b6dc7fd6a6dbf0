"""The femur: centre of its head, axis of its neck, its condyles, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fluoronav.planning.measurements.errors import Refused
from fluoronav.planning.measurements.fitting import Sphere, cross, fit_sphere, unit, without
from fluoronav.planning.measurements.mask import Float, StructureMask, Surface
from fluoronav.planning.plan.schema import Side


@dataclass(frozen=True, slots=True)
class FemurSettings:
    """How a femur is measured; lengths in mm."""

    head_radius: tuple[float, float] = (15.0, 33.0)  # adults 19 to 29 (Young 2013, heads of 38 to 58 mm), with a margin
    head_within: float = 70.0  # below the highest voxel the head's middle is looked for
    shell: tuple[float, float] = (0.8, 1.2)  # of the radius, from which the head's surface is taken
    most_slope: float = 0.85  # least cosine between the surface's normal and the radius: the neck's is smaller
    least_cover: float = 0.35  # of the sphere's surface that must be there: half, less the fovea and the neck
    outlier: float = 0.5
    neck: tuple[float, float] = (1.15, 1.65)  # radii from the head's middle, between which the neck is looked for
    neck_step: float = 1.0
    knee: float = 40.0  # height of the condyles, from the lowest voxel
    least_length: float = 250.0  # of a whole adult femur; below it the angle of an axis is not known to a degree
    cap: float = 2.5  # depth of the outermost part that a touching plane is fitted to; chosen: above a voxel


SETTINGS = FemurSettings()


@dataclass(frozen=True)
class Condyles:
    """The distal femur.

    Attributes
    ----------
    medial_distal, lateral_distal, medial_posterior, lateral_posterior : ndarray, shape (3,)
        Where planes touch the condyles from below and from behind, LPS mm.
    centre : ndarray, shape (3,)
        Of the knee: between the condyles, in the middle of their width; LPS mm.
    """

    medial_distal: Float
    lateral_distal: Float
    medial_posterior: Float
    lateral_posterior: Float
    centre: Float


def head_of(mask: StructureMask, boundary: Surface, side: Side) -> Sphere:
    """The sphere of the femoral head.

    The start is the thickest place at the upper, medial end. Points of the surface whose normal is not along the
    radius (the neck, the fovea) take no part, and outliers lose their weight (Tukey).

    Parameters
    ----------
    mask : StructureMask
    boundary : Surface
    side : "left" or "right"
        Of the patient.

    Raises
    ------
    Refused
        The head is cut off, or nothing there is round.
    """
    s = SETTINGS
    if "head" in mask.flat_ends() or "head" in mask.at_edge:
        raise Refused(f"{mask.name}: the volume or the label ends within its head")
    depth = mask.depth_mm()
    points, depths = mask.points_ct(), depth[mask.inside]
    upper = points[:, 2] > points[:, 2].max() - s.head_within
    towards = 1.0 if side == "right" else -1.0
    k = int(np.argmax(np.where(upper, depths + 0.15 * towards * points[:, 0], -np.inf)))
    centre, radius = points[k], float(depths[k])
    surface, normals = boundary.points, boundary.normals
    sphere = Sphere(centre, radius, np.inf, 0)
    near = np.zeros(len(surface), bool)
    for _ in range(8):
        away = surface - sphere.centre
        distance = np.linalg.norm(away, axis=1)
        along = np.einsum("ij,ij->i", away, normals) / np.maximum(distance, 1e-9)
        now = (distance > s.shell[0] * sphere.radius_mm) & (distance < s.shell[1] * sphere.radius_mm)
        now &= along > s.most_slope
        if np.count_nonzero(now) < 30:
            break
        sphere = fit_sphere(surface[now], s.outlier, sphere.centre, sphere.radius_mm)
        if (now == near).all():
            break
        near = now
    low, high = s.head_radius
    if not low <= sphere.radius_mm <= high or sphere.used < 30:
        raise Refused(
            f"{mask.name}: nothing at its upper end is as round as a femoral head of {low:g} to {high:g} mm radius"
        )
    cover = _cover(surface[near] - sphere.centre)
    if cover < s.least_cover:
        raise Refused(
            f"{mask.name}: only {100 * cover:.0f} % of its head's surface is there; {100 * s.least_cover:.0f} % must"
        )
    return sphere


def neck_of(mask: StructureMask, head: Sphere) -> Float:
    """The middle of the neck where it is narrowest, LPS mm, shape (3,); its axis goes there from the head's middle.

    Raises
    ------
    Refused
        No neck: the bone ends there.
    """
    s = SETTINGS
    points = mask.points_ct()
    away = np.linalg.norm(points - head.centre, axis=1)
    radii = np.arange(s.neck[0] * head.radius_mm, s.neck[1] * head.radius_mm, s.neck_step)
    best, best_area, lowest = None, np.inf, np.inf
    width = max(1.2 * float(mask.spacing_mm.max()), s.neck_step)
    for radius in radii:
        shell = points[np.abs(away - radius) < width]
        if len(shell) < 10:
            continue
        area = len(shell) * mask.voxel_mm3 / (2 * width)
        if area < best_area:
            best, best_area, lowest = shell.mean(0), area, float(shell[:, 2].min())
    if best is None or lowest - points[:, 2].min() < 1.5 * mask.spacing_mm.max():
        raise Refused(
            f"{mask.name}: the bone ends within its neck; the neck's axis needs the bone down to the trochanters"
        )
    for _ in range(3):
        best = _slab_middle(points, head.centre, best, head.radius_mm)
    return best


def condyles_of(mask: StructureMask, boundary: Surface, head_centre: Float, side: Side) -> Condyles:
    """Where the condyles are touched from below and from behind.

    Parameters
    ----------
    mask : StructureMask
    boundary : Surface
    head_centre : ndarray, shape (3,)
    side : "left" or "right"

    Raises
    ------
    Refused
        The knee's end is cut off.
    """
    check_whole(mask, "feet")
    surface = boundary.points
    axis = unit(head_centre - surface[np.argsort(surface[:, 2])[: len(surface) // 50]].mean(0))
    medial = np.array([-1.0 if side == "left" else 1.0, 0.0, 0.0])
    across = without(medial, axis)
    back = without(np.array([0.0, 1.0, 0.0]), axis)
    back = without(back, across)
    below = behind = [np.zeros(3), np.zeros(3)]
    centre = np.zeros(3)
    for _ in range(6):
        low = (surface @ axis).min()
        ends = surface[surface @ axis < low + SETTINGS.knee]
        inner, outer = (ends @ across).max(), (ends @ across).min()
        middle = (inner + outer) / 2
        halves = [ends[ends @ across > middle], ends[ends @ across <= middle]]
        behind = [contact_of(h, back) for h in halves]
        below = [contact_of(h, -axis) for h in halves]
        centre = _knee_centre(ends, halves, across, middle, axis, back)
        axis = unit(head_centre - centre)
        across = without(behind[0] - behind[1], axis)
        back = cross(axis, across)
        back = back if back[1] > 0 else -back
    return Condyles(below[0], below[1], behind[0], behind[1], centre)


def check_whole(mask: StructureMask, end: str) -> None:
    """Raises :class:`Refused` where a bone is cut off at "head" or "feet", or too short to have an axis."""
    if end in mask.flat_ends() or end in mask.at_edge:
        raise Refused(f"{mask.name}: is cut off towards the {end}; its axis needs the whole bone")
    length = float(np.ptp(mask.points_ct()[:, 2]))
    if length < SETTINGS.least_length:
        raise Refused(
            f"{mask.name}: is {length:.0f} mm long; an axis needs the whole bone, at least {SETTINGS.least_length:g} mm"
        )


def _cover(directions: Float) -> float:
    """Part of the sphere that points cover, in cells of equal area."""
    d = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    cells = np.unique(
        np.floor((d[:, 2] + 1) * 4.999).astype(int) * 20
        + np.floor((np.arctan2(d[:, 1], d[:, 0]) / np.pi + 1) * 9.99).astype(int)
    )
    return len(cells) / 200


def _slab_middle(points: Float, head: Float, neck: Float, radius: float) -> Float:
    """The middle of the bone in a thin slab across the axis at the neck."""
    axis = unit(neck - head)
    along = (points - head) @ axis
    across = np.linalg.norm(points - head - along[:, None] * axis, axis=1)
    slab = points[(np.abs(along - (neck - head) @ axis) < 2.5) & (across < 1.1 * radius)]
    return slab.mean(0) if len(slab) >= 10 else neck


def contact_of(points: Float, way: Float) -> Float:
    """Where a plane that comes from `way` touches: the top of a paraboloid through the outermost points.

    One voxel more or less at the top would move the outermost point alone by half a voxel.
    """
    reach = points @ way
    cap = points[reach > reach.max() - SETTINGS.cap]
    middle = cap.mean(0)
    a = without(np.eye(3)[int(np.argmin(np.abs(way)))], way)
    b = cross(way, a)
    u, v, w = (cap - middle) @ a, (cap - middle) @ b, (cap - middle) @ way
    if len(cap) < 12:
        return middle + (reach.max() - middle @ way) * way
    c = np.linalg.lstsq(np.column_stack([np.ones_like(u), u, v, u * u, u * v, v * v]), w, rcond=None)[0]
    bend = np.array([[2 * c[3], c[4]], [c[4], 2 * c[5]]])
    top = np.zeros(2)
    if np.linalg.eigvalsh(bend).max() < -1e-4:
        top = np.linalg.solve(bend, -c[1:3])
    if np.abs(top).max() > np.ptp(np.column_stack([u, v])) / 2:
        top = np.zeros(2)
    height = c[0] + c[1:3] @ top + top @ bend @ top / 2
    return middle + top[0] * a + top[1] * b + height * way


def _knee_centre(ends: Float, halves: list[Float], across: Float, middle: float, axis: Float, back: Float) -> Float:
    """In the middle of the condyles' width; as far back and down as the middle of the two condyles."""
    reach = [np.array([(h @ way).min() + (h @ way).max() for way in (back, axis)]) / 2 for h in halves]
    v, w = np.mean(reach, axis=0)
    return middle * across + v * back + w * axis
