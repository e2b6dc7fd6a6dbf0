"""What lies in the beam and not in the CT: pedicle screws with rods, and the surgeon's hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import transform_points
from fluoronav.lab.bench.cohort.motion import Motion
from fluoronav.lab.bench.cohort.people import VERTEBRAE, Person, Region
from fluoronav.lab.bench.cohort.physics import BONE, DENSITY_G_CM3, IRON, MATERIALS, SOFT
from fluoronav.lab.bench.cohort.rays import cylinder_mm
from fluoronav.lab.spinal_hardware import construct

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Cylinder:
    """A solid cylinder in CT axes; `material` is a row of the paths."""

    begin_ct: tuple[float, float, float]
    end_ct: tuple[float, float, float]
    radius_mm: float
    material: int
    displaces: bool = True  # soft tissue, as far as it lies in the patient


@dataclass(frozen=True)
class ScrewPlaces:
    """Where screws go in a vertebra that has no plan; all chosen."""

    length_mm: float = 42.0
    entry_mm: tuple[float, float] = (15.0, 19.0)  # from the bone's middle: to the side, to the back
    towards_middle_deg: float = 15.0  # of the screw's axis


PLACES = ScrewPlaces()


def screws_and_rods(person: Person, region: Region, screws: int, motion: Motion) -> list[Cylinder]:
    """Steel pedicle screws in the target and its neighbours, two to a vertebra, joined by two rods.

    Parameters
    ----------
    person : Person
    region : Region
    screws : int
        6 for three vertebrae, 10 for five. Where the CT shows fewer, fewer are placed.
    motion : Motion
        The screws move with their bones.

    Returns
    -------
    list of Cylinder
    """
    assert person.labels is not None
    half = screws // 4
    there = [n for n in range(region.target - half, region.target + half + 1) if n in VERTEBRAE]
    there = [n for n in there if (person.labels.voxels == n).sum() > 200]
    sides: dict[int, list[tuple[Float, Float]]] = {-1: [], 1: []}
    for label in there:
        middle = np.mean(person.bone_points_ct(label), 0)
        for side, screws_of in sides.items():
            entry = middle + [side * PLACES.entry_mm[0], PLACES.entry_mm[1], 0]
            a = np.deg2rad(PLACES.towards_middle_deg)
            tip = entry + PLACES.length_mm * np.array([-side * np.sin(a), -np.cos(a), 0])
            entry, tip = transform_points(motion.of_bone(label), np.array([entry, tip]))
            screws_of.append((entry, tip))
    return [_cylinder(b.from_ct, b.to_ct, b.radius_mm, IRON) for b in construct(sides.values())]


def hand(T_camera_ct: Float, rng: np.random.Generator) -> list[Cylinder]:
    """A hand between the patient and the panel, reaching in from a side of the picture; fingers spread.

    Bones are cylinders of cortical bone with the width of their cortex together, in soft tissue.
    """
    angle = rng.uniform(0, 2 * np.pi)
    along = np.array([np.cos(angle), np.sin(angle), 0.0])
    side = np.array([-along[1], along[0], 0.0])
    wrist = np.array([0, 0, 840.0]) - 135 * along + rng.uniform(-20, 20) * side
    in_camera: list[tuple[Float, Float, float, int]] = [(wrist - 60 * along, wrist, 26.0, SOFT)]
    for k, (palm, finger) in enumerate(((60, 85), (62, 95), (60, 88), (55, 70), (30, 55))):
        spread = np.deg2rad((-12, -3, 6, 16, -45)[k])
        way = np.cos(spread) * along + np.sin(spread) * side
        base = wrist + (12 * k - 20 if k < 4 else -25) * side
        knuckle = base + palm * way
        in_camera.append((base, knuckle, 13.0, SOFT))
        in_camera.append((base + 3 * way, knuckle - 3 * way, 3.2, BONE))
        for n, share in enumerate((0.45, 0.3, 0.25)):
            begin = knuckle + finger * (0, 0.45, 0.75)[n] * way
            end = begin + finger * share * way
            in_camera.append((begin, end, 8.5 - n, SOFT))
            in_camera.append((begin + 2 * way, end - 2 * way, 2.8 - 0.4 * n, BONE))
    T_ct_camera = np.linalg.inv(T_camera_ct)
    out = []
    for a, b, radius, material in in_camera:
        begin, end = transform_points(T_ct_camera, np.array([a, b]))
        out.append(_cylinder(begin, end, radius, material, displaces=False))
    return out


def _cylinder(begin: Float, end: Float, radius: float, material: int, displaces: bool = True) -> Cylinder:
    a, b = (tuple(float(x) for x in p) for p in (begin, end))
    return Cylinder(a, b, radius, material, displaces)  # type: ignore[arg-type]


def add_shapes(shapes: list[Cylinder], source_ct: Float, directions_ct, paths: NDArray[np.float32]) -> None:
    """Adds the mass of shapes to `paths` (4, n), g/cm2; metal in the patient replaces soft tissue."""
    for s in shapes:
        mm = cylinder_mm(s.begin_ct, s.end_ct, s.radius_mm, source_ct, directions_ct)
        paths[s.material] += (DENSITY_G_CM3[MATERIALS[s.material]] / 10) * mm
        if s.displaces:
            paths[SOFT] -= (DENSITY_G_CM3["soft"] / 10) * mm
    np.maximum(paths, 0, out=paths)
