"""No-go regions, drawn by the planner and not segmented: spheres, capsules and boxes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from fluoronav.case.schema import Color, Margin, Name, Point, Radius, Strict

Float = NDArray[np.float64]


class Sphere(Strict):
    """The points within a radius of a centre."""

    centre_ct: Point
    radius_mm: Radius


class Capsule(Strict):
    """The points within a radius of a line segment."""

    from_ct: Point
    to_ct: Point
    radius_mm: Radius


class Box(Strict):
    """A box along the patient's axes."""

    low_ct: Point
    high_ct: Point

    @model_validator(mode="after")
    def _has_volume(self) -> Box:
        if not (np.subtract(self.high_ct, self.low_ct) > 0).all():
            raise ValueError("high_ct must be larger than low_ct in x, y and z")
        return self


class NoGo(Strict):
    """A no-go region; instruments near it raise alerts as near a structure."""

    name: Name
    color: Color = "#ff8000"
    caution_mm: Margin
    danger_mm: Margin
    sphere: Sphere | None = None
    capsule: Capsule | None = None
    box: Box | None = None

    @model_validator(mode="after")
    def _one_shape(self) -> NoGo:
        if sum(shape is not None for shape in (self.sphere, self.capsule, self.box)) != 1:
            raise ValueError("give one of `sphere`, `capsule` and `box`")
        if self.caution_mm <= self.danger_mm:
            raise ValueError("caution_mm must be larger than danger_mm")
        return self

    def distances(self, points_ct: Float, out: Float) -> None:
        """Signed distances to the surface (mm, negative inside) and unit vectors away from it.

        Parameters
        ----------
        points_ct : ndarray, shape (n, 3)
            LPS mm.
        out : ndarray, shape (n, 4)
            Written to, as by :func:`fluoronav.case.sample_distances`.
        """
        if self.box is not None:
            _from_box(points_ct, np.array(self.box.low_ct), np.array(self.box.high_ct), out)
        elif self.capsule is not None:
            c = self.capsule
            _from_capsule(points_ct, np.array(c.from_ct), np.array(c.to_ct), c.radius_mm, out)
        elif self.sphere is not None:
            centre = np.array(self.sphere.centre_ct)
            _from_capsule(points_ct, centre, centre, self.sphere.radius_mm, out)

    def bounds_ct(self) -> tuple[Float, Float]:
        """Low and high corner of its bounding box, 1 mm larger, LPS mm, shape (3,) each."""
        if self.box is not None:
            return np.array(self.box.low_ct) - 1, np.array(self.box.high_ct) + 1
        if self.capsule is not None:
            ends, r = np.array([self.capsule.from_ct, self.capsule.to_ct]), self.capsule.radius_mm
        else:
            assert self.sphere is not None
            ends, r = np.array([self.sphere.centre_ct]), self.sphere.radius_mm
        return ends.min(0) - r - 1, ends.max(0) + r + 1


def _from_capsule(points: Float, a: Float, b: Float, radius: float, out: Float) -> None:
    step = b - a
    along = np.clip((points - a) @ step / max(float(step @ step), 1e-12), 0, 1)
    off = points - a - along[:, None] * step
    length = np.linalg.norm(off, axis=1)
    out[:, 0] = length - radius
    out[:, 1:] = off / np.maximum(length, 1e-9)[:, None]


def _from_box(points: Float, low: Float, high: Float, out: Float) -> None:
    off = np.abs(points - (low + high) / 2) - (high - low) / 2
    side = np.where(points > (low + high) / 2, 1.0, -1.0)
    outside = np.maximum(off, 0)
    length = np.linalg.norm(outside, axis=1)
    nearest = off.argmax(1)
    out[:, 0] = np.where(length > 0, length, off.max(1))
    inwards = np.zeros_like(points)
    inwards[np.arange(len(points)), nearest] = 1.0
    away = np.where((length > 0)[:, None], outside / np.maximum(length, 1e-9)[:, None], inwards)
    out[:, 1:] = side * away
