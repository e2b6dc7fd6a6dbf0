"""Parametric bones as label maps, whose measurements are known: vertebrae, femur, tibia, a lesion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

Float = NDArray[np.float64]
Solid = Callable[[Float], NDArray[np.bool_]]


def turned(axis: int, degrees: float) -> Float:
    """Rotation matrix about x (0), y (1) or z (2)."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    out = np.eye(3)
    out[i, i], out[i, j], out[j, i], out[j, j] = c, -s, s, c
    return out


@dataclass(frozen=True)
class SyntheticVertebra:
    """A vertebra: a body with two endplates, two pedicles, an arch and three processes; lengths mm, angles degrees.

    Its frame: x to the left, y to the back, z to the head, the middle of the body at 0.
    """

    width: float = 44.0
    depth: float = 34.0
    height_front: float = 27.0
    height_back: float = 28.0
    pedicle_width: float = 8.0
    pedicle_height: float = 14.0
    pedicle_turn: float = 10.0  # towards the midline in front
    canal: float = 22.0
    open_ring: bool = False

    def inside(self, p: Float) -> NDArray[np.bool_]:
        """Whether points, shape (..., 3), are bone."""
        x, y, z = p[..., 0], p[..., 1], p[..., 2]
        slope = (self.height_back - self.height_front) / self.depth
        half = (self.height_front + self.height_back) / 4 + slope * y / 2
        back = self.depth / 2
        body = ((2 * x / self.width) ** 2 + (2 * y / self.depth) ** 2 < 1) | (
            (np.abs(x) < 0.32 * self.width) & (y > 0) & (y < back)
        )
        out = body & (np.abs(z) < half)
        behind = back + self.canal * 0.8
        for sign in (1, -1):
            out |= self._pedicle(sign, x, y, z, back)
            facet = (np.abs(x - sign * 17) < 6) & (np.abs(y - back - 14) < 5) & (z > -22) & (z < 20)
            process = (np.abs(z - 4) < 5) & (np.abs(y - back - 14) < 4) & (sign * x > 15) & (sign * x < 38)
            near = np.abs(y - behind + sign * x / 4) < 3
            lamina = (sign * x >= 0) & (sign * x < 19) & near & (np.abs(z + 2) < 9)
            out |= facet | process | (lamina & (not self.open_ring))
        spinous = (np.abs(x) < 3) & (y > behind - 2) & (y < behind + 26) & (np.abs(z + 6) < 9)
        return out if self.open_ring else out | spinous

    def _pedicle(self, sign: int, x: Float, y: Float, z: Float, back: float) -> NDArray[np.bool_]:
        # Its axis goes through a point beside the canal and turns towards the midline in front.
        t = np.radians(self.pedicle_turn) * sign
        dx, dy = x - sign * (self.canal / 2 + self.pedicle_width / 2 + 0.5), y - back - 5
        across, along = dx * np.cos(t) - dy * np.sin(t), dx * np.sin(t) + dy * np.cos(t)
        inside = (2 * across / self.pedicle_width) ** 2 + (2 * (z - 4) / self.pedicle_height) ** 2 < 1
        return inside & (along > -14) & (along < 9)


@dataclass(frozen=True)
class SyntheticLeg:
    """A straight-built leg with its angles; lengths mm, angles degrees. The left leg; the right one is mirrored."""

    head_radius: float = 24.0
    femur: float = 420.0  # from the head's middle to the knee's
    tibia: float = 360.0
    version: float = 12.0
    mldfa: float = 87.5
    mpta: float = 87.0
    hka: float = 178.0
    neck_shaft: float = 128.0
    pose: Float = field(default_factory=lambda: np.eye(3))  # of the whole leg

    def femur_inside(self, p: Float) -> NDArray[np.bool_]:
        """Femur in a frame with the knee's middle at 0: x lateral, y to the back, z to the head."""
        head = np.array([0.0, 0.0, self.femur])
        # From the head the neck goes down and to the side; version turns it about z, backwards to the side.
        down = np.radians(self.neck_shaft - 90)
        turn = np.radians(self.version)
        neck = np.array([np.cos(down) * np.cos(turn), np.cos(down) * np.sin(turn), -np.sin(down)])
        base = head + 52 * neck
        out = np.linalg.norm(p - head, axis=-1) < self.head_radius
        out |= _rod(p, head, base, 0.58 * self.head_radius)
        out |= _rod(p, base + [4, 0, 10], base - [0, 0, 45], 17)
        out |= _rod(p, base, np.array([2.0, 0.0, 60.0]), 13.5)
        out |= _rod(p, np.array([2.0, 0.0, 62.0]), np.array([0.0, 0.0, 22.0]), 22)
        tilt = np.tan(np.radians(90 - self.mldfa))
        for x in (-25.0, 25.0):
            # Alike: planes that touch both from below or behind are parallel to the line of their middles.
            out |= np.linalg.norm((p - [x, 0.0, tilt * x]) / [1.0, 1.25, 1.0], axis=-1) < 21
        return out

    def tibia_inside(self, p: Float) -> NDArray[np.bool_]:
        """Tibia in a frame with the knee's middle at 0 and the ankle at (0, 0, -tibia)."""
        x, y, z = p[..., 0], p[..., 1], p[..., 2]
        slope = np.tan(np.radians(90 - self.mpta))
        top = slope * x
        plate = ((x / 37) ** 2 + (y / 24) ** 2 < 1) & (z < top) & (z > -30)
        spines = (np.abs(np.abs(x) - 4) < 3) & (np.abs(y) < 6) & (z < 8) & (z > -10)
        out = plate | spines
        out |= _rod(p, np.array([0.0, 0.0, -25.0]), np.array([0.0, 0.0, -self.tibia + 15]), 13)
        ankle = (x**2 + (y * 1.1) ** 2 < 19**2) & (np.abs(z + self.tibia - 8) < 15)
        malleolus = ((x + 14) / 6) ** 2 + (y / 9) ** 2 + ((z + self.tibia) / 20) ** 2 < 1
        return out | ankle | malleolus

    def solids(self, side: str, hip_ct: Float) -> dict[str, Solid]:
        """Femur and tibia in LPS mm."""
        out_ward = 1.0 if side == "left" else -1.0
        flip = np.diag([out_ward, 1.0, 1.0])
        knee = np.array([0.0, 0.0, -self.femur])
        # Varus turns the shank about the knee towards the midline.
        bend = turned(1, 180 - self.hka)

        def femur(p: Float) -> NDArray[np.bool_]:
            local = (p - hip_ct) @ self.pose @ flip - knee
            return self.femur_inside(local)

        def tibia(p: Float) -> NDArray[np.bool_]:
            local = (p - hip_ct) @ self.pose @ flip - knee - [0, 0, -30.0]
            return self.tibia_inside(local @ bend)

        return {f"femur_{side}": femur, f"tibia_{side}": tibia}


def _rod(p: Float, a: Float, b: Float, radius: float) -> NDArray[np.bool_]:
    along = np.asarray(b, float) - a
    t = np.clip((p - a) @ along / (along @ along), 0, 1)
    return np.linalg.norm(p - a - t[..., None] * along, axis=-1) < radius


def label_map(
    solids: dict[int, Solid], low_ct: Float, high_ct: Float, spacing_mm: tuple[float, float, float],
    direction: Float | None = None,
) -> sitk.Image:  # fmt: skip
    """Solids on a grid, each with its label; later ones lie over earlier ones.

    Parameters
    ----------
    solids : dict of int to callable
        Label value to what says which points, shape (..., 3) LPS mm, are inside.
    low_ct, high_ct : ndarray, shape (3,)
        Corners of the box, LPS mm.
    spacing_mm : tuple of 3 float
        Along x, y, z.
    direction : ndarray, shape (3, 3), optional
        Columns: the axes of the grid; the patient's by default.
    """
    size = np.ceil((np.asarray(high_ct) - low_ct) / spacing_mm).astype(int) + 1
    axes = np.eye(3) if direction is None else direction
    voxels = np.zeros(size[::-1], np.uint8)
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    middle = (np.asarray(low_ct) + high_ct) / 2
    origin = middle - axes @ ((size - 1) * np.array(spacing_mm) / 2)
    for k in range(size[2]):
        index = np.stack([x, y, np.full_like(x, k)], axis=-1) * np.array(spacing_mm)
        points = index @ axes.T + origin
        for value, inside in solids.items():
            voxels[k][inside(points)] = value
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(list(spacing_mm))
    image.SetOrigin(origin.tolist())
    image.SetDirection(axes.ravel().tolist())
    return image
