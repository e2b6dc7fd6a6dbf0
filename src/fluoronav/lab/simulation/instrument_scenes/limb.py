"""The anatomy behind the instruments: views of a CT, or a limb that is made up."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera
from fluoronav.lab.simulation.metal import Metal, axis_points, steel_mm

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

_NEAREST_MM = 120  # from the source; a body that comes nearer is left out
_WATER_PER_MM = 0.105  # g/cm2 of soft tissue in 1 mm
_SMALL_BONE_PER_MM = 0.16  # g/cm2 of a carpal or tarsal bone in 1 mm


@dataclass(frozen=True)
class Background:
    """Anatomy in the beam: water and bone along each ray, g/cm2, at half the camera's resolution."""

    water: Float32
    bone: Float32

    def varied(self, rng: np.random.Generator, size: tuple[int, int]) -> tuple[Float32, Float32]:
        """Water and bone, mirrored, thicker or thinner, at an image size (columns, rows)."""
        flip = rng.integers(4)
        thick, dense = rng.uniform(0.75, 1.25), rng.uniform(0.8, 1.2)
        out = []
        for image, factor in ((self.water, thick), (self.bone, thick * dense)):
            if flip:
                image = cv2.flip(image.astype(np.float32), int(flip) - 2)
            resized = cv2.resize(image.astype(np.float32) * factor, size, interpolation=cv2.INTER_CUBIC)
            out.append(np.maximum(resized, 0))
        return out[0], out[1]


def limb(rng: np.random.Generator, camera: Camera) -> Background:
    """A limb in the open beam: soft tissue with one to three long bones, or with a cluster of small ones.

    The bodies are of revolution. They teach the detector sharp cortical edges, edges against air, and marrow canals,
    which look like shafts.
    """
    water, bone = (np.zeros((camera.rows, camera.cols), np.float32) for _ in range(2))
    centre = camera.rays(rng.uniform(0.25, 0.75, 2) * [camera.cols, camera.rows]) * rng.uniform(550, 750)
    along = near_image_plane(rng, 25.0)
    across = np.cross(along, [0.0, 0.0, 1.0])
    across /= np.linalg.norm(across)

    def body(radius: NDArray, canal: NDArray, middle: Float, direction: Float, out: Float32, per_mm: float) -> None:
        metal = Metal("limb", radius.astype(np.float32), canal.astype(np.float32))
        points = axis_points(metal, middle + 0.5 * metal.length_mm * direction, direction, across)
        mm = np.zeros_like(out)
        if (points[:, 2] > _NEAREST_MM).all():
            steel_mm(metal, points, camera, mm)
        out += np.float32(per_mm) * mm

    s = np.linspace(-1, 1, 1500)
    flesh = rng.uniform(14, 42)
    outline = flesh * (1 + rng.uniform(-0.25, 0.25) * s + rng.uniform(0, 0.3) * s**2)
    body(outline, 0 * s, centre, along, water, _WATER_PER_MM)
    if rng.random() < 0.35:  # a wrist or a foot
        for _ in range(rng.integers(4, 12)):
            n = int(rng.uniform(40, 130))
            t = np.linspace(-1, 1, n)
            r = 0.1 * n * rng.uniform(0.6, 1.2) * np.sqrt(np.clip(1 - t**2, 0.01, 1))
            at = centre + rng.uniform(-0.8, 0.8) * flesh * across + rng.uniform(-35, 35) * along
            turned = along + rng.normal(0, 0.6, 3)
            cortex = np.clip(r - rng.uniform(1, 2), 0, None)
            body(r, cortex, at, turned / np.linalg.norm(turned), bone, _SMALL_BONE_PER_MM)
    for _ in range(rng.integers(1, 4)):
        n = int(rng.uniform(400, 1500))
        t = np.linspace(-1, 1, n)
        r = rng.uniform(3, min(15, 0.5 * flesh)) * (1 + rng.uniform(0, 1.2) * np.abs(t) ** rng.integers(4, 12))
        r *= np.clip((1 - np.abs(t)) * rng.uniform(8, 40), 0.05, 1) ** 0.5
        at = centre + rng.uniform(-0.7, 0.7) * flesh * across + rng.uniform(-80, 80) * along
        turned = along + rng.normal(0, 0.08, 3)
        body(r, r * rng.uniform(0.3, 0.8), at, turned / np.linalg.norm(turned), bone, rng.uniform(0.1, 0.19))
    return Background(water, bone)


def near_image_plane(rng: np.random.Generator, steepest_deg: float) -> Float:
    """A random unit vector at most `steepest_deg` out of the image plane, shape (3,)."""
    around, steep = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(-steepest_deg, steepest_deg))
    return np.array([np.cos(around) * np.cos(steep), np.sin(around) * np.cos(steep), np.sin(steep)])
