"""The edges of a field of view: a circle (round collimator or image intensifier) and straight collimator blades."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

# Pixels of the longer side of the images in which the field of view is found, and in which its edges are refined.
FIELD_SIDE, EDGE_SIDE = 128, 512

_ANGLES = 720  # points along a circle
_STEP_PX = 2.0  # between points along a line


@dataclass(frozen=True, eq=False, slots=True)
class Circle:
    """A round edge; the field lies inside.

    Attributes
    ----------
    centre_px : ndarray, shape (2,)
        (column, row).
    radius_px : float
    """

    centre_px: Float
    radius_px: float

    @classmethod
    def through(cls, points_px: Float) -> Circle:
        """Algebraic least-squares fit (Kåsa, IEEE Trans. Instrum. Meas. 25, 1976) to points, shape (n, 2)."""
        design = np.column_stack([2 * points_px, np.ones(len(points_px))])
        q = np.linalg.lstsq(design, (points_px**2).sum(1), rcond=None)[0]
        return cls(q[:2], np.sqrt(max(q[2] + q[:2] @ q[:2], 0)))

    def signed_distance(self, x: NDArray, y: NDArray) -> Float:
        """Distance of pixels (column x, row y) from the edge, positive inside the field, pixels."""
        return self.radius_px - np.hypot(x - self.centre_px[0], y - self.centre_px[1])

    def mask(self, x: NDArray[np.float32], y: NDArray[np.float32], margin_px: float) -> NDArray[np.bool_]:
        """Pixels that lie at least `margin_px` inside, in single precision."""
        squared = (x - np.float32(self.centre_px[0])) ** 2 + (y - np.float32(self.centre_px[1])) ** 2
        return squared < np.float64(max(self.radius_px - margin_px, 0)) ** 2

    def enlarged(self, factor: float) -> Circle:
        """The same edge in an image `factor` times as large, pixel centres at integers."""
        return Circle((self.centre_px + 0.5) * factor - 0.5, self.radius_px * factor)

    def moved_inwards(self, by_px: float) -> Circle:
        return replace(self, radius_px=self.radius_px - by_px)

    def refitted(self, points_px: Float) -> Circle:
        """The circle through points, shape (n, 2)."""
        return Circle.through(points_px)

    def samples(self, shape: tuple[int, ...]) -> tuple[Float, Float]:
        """Points along the edge, inside the image of that shape or not, and the unit vectors inwards; (n, 2) each."""
        angle = 2 * np.pi * np.arange(_ANGLES) / _ANGLES
        inwards = -np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return self.centre_px - self.radius_px * inwards, inwards


@dataclass(frozen=True, eq=False, slots=True)
class Line:
    """The straight edge of a collimator blade; the field lies on the side to which the normal points.

    Attributes
    ----------
    normal : ndarray, shape (2,)
        Unit vector (column, row).
    offset_px : float
        Of points on the edge along the normal.
    """

    normal: Float
    offset_px: float

    @classmethod
    def through(cls, points_px: Float, inwards: Float) -> Line:
        """Total least-squares fit to points, shape (n, 2); the normal points to the side of `inwards`, shape (2,)."""
        normal, mean_px = normal_and_mean(points_px)
        normal = normal if normal @ inwards > 0 else -normal
        return cls(normal, float(mean_px @ normal))

    def signed_distance(self, x: NDArray, y: NDArray) -> Float:
        """Distance of pixels (column x, row y) from the edge, positive inside the field, pixels."""
        return self.normal[0] * x + self.normal[1] * y - self.offset_px

    def mask(self, x: NDArray[np.float32], y: NDArray[np.float32], margin_px: float) -> NDArray[np.bool_]:
        """Pixels that lie at least `margin_px` inside, in single precision."""
        along = np.float32(self.normal[0]) * x + np.float32(self.normal[1]) * y
        return along > np.float64(self.offset_px + margin_px)

    def enlarged(self, factor: float) -> Line:
        """The same edge in an image `factor` times as large, pixel centres at integers."""
        return Line(self.normal, self.offset_px * factor + (factor - 1) / 2 * self.normal.sum())

    def moved_inwards(self, by_px: float) -> Line:
        return replace(self, offset_px=self.offset_px + by_px)

    def refitted(self, points_px: Float) -> Line:
        """The line through points, shape (n, 2), with the field on the same side."""
        return Line.through(points_px, self.normal)

    def samples(self, shape: tuple[int, ...]) -> tuple[Float, Float]:
        """Points along the edge, inside the image of that shape or not, and the unit vectors inwards; (n, 2) each."""
        reach = 1.5 * max(shape)
        along = np.arange(-reach, reach, _STEP_PX)[:, None] * np.array([-self.normal[1], self.normal[0]])
        points = self.offset_px * self.normal + along
        return points, np.broadcast_to(self.normal, points.shape)


Edge = Circle | Line


def normal_and_mean(points_px: Float) -> tuple[Float, Float]:
    """Unit normal (of either sign) and mean of the total least-squares line through points, shape (2,) each."""
    mean_px = points_px.mean(0)
    return np.linalg.svd(points_px - mean_px, full_matrices=False)[2][1], mean_px
