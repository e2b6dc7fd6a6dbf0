"""An instrument at its place in a scene, and where it is in the image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera, exp_se3, transform_points
from fluoronav.lab.simulation.metal import Metal

Float = NDArray[np.float64]
# The motion since the first frame, about the tip's first position, (4, 4), as a function of time in frames.
Motion = Callable[[float], Float]


@dataclass(frozen=True)
class _AxisEnds:
    """How the ends of a visible axis are read; all chosen."""

    straight_chord_px: int = 300  # chord at an end that gives the direction there, of a straight axis
    bent_chord_px: int = 40  # the same of a bent one
    tail_px: float = 2.0  # a visible axis that ends so close to the tail shows it


_ENDS = _AxisEnds()


@dataclass(frozen=True)
class Placed:
    """An instrument of a scene.

    Attributes
    ----------
    metal : Metal
    points_camera : ndarray, shape (n, 3)
        Its axis from the tip on, mm.
    axis_px : ndarray, shape (m, 2)
        The visible part of the axis, from the tip on, (column, row), about one point per pixel.
    tip_hidden : bool
        Other metal along the ray through its tip is thicker than the tip itself, or the tip does not stand out from
        the noise, e.g. where the panel saturates.
    """

    metal: Metal
    points_camera: Float
    axis_px: Float
    tip_hidden: bool = False

    @property
    def kind(self) -> str:
        return self.metal.kind

    @property
    def tip_direction(self) -> Float:
        """Direction of the axis at the tip, pointing outwards, a unit vector (column, row)."""
        return self._outwards(self.axis_px)

    @property
    def tail_direction(self) -> Float:
        """The same at the other end of the visible axis."""
        return self._outwards(self.axis_px[::-1])

    def shows_tail(self, camera: Camera) -> bool:
        """Whether the tail is in the camera's view."""
        return float(np.linalg.norm(self.axis_px[-1] - camera.project(self.points_camera[-1]))) < _ENDS.tail_px

    def moved(self, motion: Float) -> Placed:
        """The instrument moved by `motion` (4, 4) about its tip; `axis_px` is left as it was."""
        tip = self.points_camera[0]
        return replace(self, points_camera=transform_points(motion, self.points_camera - tip) + tip)

    def _outwards(self, from_end: Float) -> Float:
        chord = _ENDS.bent_chord_px if self.metal.bend_mm else _ENDS.straight_chord_px
        outwards = from_end[0] - from_end[min(len(from_end) - 1, chord)]
        return outwards / max(float(np.hypot(*outwards)), 1e-9)


def visible_axis_px(points_camera: Float, camera: Camera, field_mask: NDArray[np.bool_]) -> Float:
    """The projected axis from the tip to where it leaves the field, about one point per pixel, shape (m, 2)."""
    uv = camera.project(points_camera)
    pieces = []
    for k in range(len(uv) - 1):
        n = max(int(np.linalg.norm(uv[k + 1] - uv[k])), 1)
        t = np.arange(n)[:, None] / n
        pieces.append(camera.project(points_camera[k] + t * (points_camera[k + 1] - points_camera[k])))
    axis = np.concatenate([*pieces, uv[-1:]])
    at = np.rint(axis).astype(int)
    inside = (at >= 0).all(1) & (at[:, 0] < camera.cols) & (at[:, 1] < camera.rows)
    inside[inside] = field_mask[at[inside, 1], at[inside, 0]]
    leaves = np.flatnonzero(~inside)
    return axis[: leaves[0]] if len(leaves) else axis


def hand_motion(rng: np.random.Generator) -> Motion:
    """A few millimetres and degrees, at up to 30 mm/s and 30 frames a second."""
    amplitude = np.concatenate([np.deg2rad(rng.uniform(-2, 2, 3)), rng.uniform(-8, 8, 3)])
    turns, phase = rng.uniform(0.1, 0.5, 6) / 30, rng.uniform(0, 2 * np.pi, 6)

    def at(frame: float) -> Float:
        return exp_se3(amplitude * (np.sin(2 * np.pi * turns * frame + phase) - np.sin(phase)))

    return at
