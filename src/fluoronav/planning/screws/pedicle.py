"""A pedicle, found by the axis through it that has the most bone around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from fluoronav.planning.plan.schema import Side
from fluoronav.planning.screws.bone import Bone, VertebraError
from fluoronav.planning.screws.canal import Canal
from fluoronav.planning.screws.surfaces import Surfaces

Float = NDArray[np.float64]

SIGNS: dict[Side, float] = {"left": -1.0, "right": 1.0}  # of the vertebra's first axis, which is to the right


@dataclass(frozen=True, slots=True)
class PedicleSettings:
    """Where an axis is looked for, in the vertebra's frame."""

    behind_mm: float = 2.0  # of the canal's middle: where a pedicle begins; farther back are lamina and facet; chosen
    body_share: float = 0.65  # of the body that the axis is optimised over; chosen
    lateral_mm: float = 18.0  # from the canal's wall to the axis; the widest pedicles (L5) are 18 mm wide
    heights_mm: tuple[float, float] = (-16.0, 24.0)  # from the bone's middle; pedicles are in its upper half
    step_mm: float = 4.0  # between the axes that are tried first; chosen: a pedicle of 4 mm is met by one
    inward_deg: tuple[float, float] = (-5.0, 35.0)  # towards the midline; T12 goes straight, L5 30 degrees inwards
    steep_deg: float = 25.0  # up or down from the plane across the canal; chosen
    midline_mm: float = 3.0  # from the axis to the middle of the vertebra: two screws must pass each other; chosen
    mean_weight: float = 0.05  # of the mean depth beside the smallest: decides between equal axes; chosen
    deep_mm: float = 6.0  # deeper bone counts as this; wider than any screw
    starts: int = 5  # of the axes that are tried first; chosen: more find nothing better on 24 pedicles drawn by hand
    exact_steps: int = 60  # evaluations by voxels, twice; chosen: the width changes by less than 0.05 mm after them


SETTINGS = PedicleSettings()


@dataclass(frozen=True)
class Axis:
    """A straight line in the vertebra's frame.

    Attributes
    ----------
    at : ndarray, shape (3,)
        Where it crosses the plane across the vertebra in which the pedicle begins, mm.
    direction : ndarray, shape (3,)
        Unit vector to the front.
    """

    at: Float
    direction: Float

    def points(self, fronts: Float) -> Float:
        """Its points at places along the front axis, shape (n, 3)."""
        return self.at + ((fronts - self.at[1]) / self.direction[1])[:, None] * self.direction


@dataclass(frozen=True)
class Pedicle:
    """One pedicle.

    Attributes
    ----------
    side : Side
    axis : Axis
        The one whose smallest depth below the bone's surface is largest.
    radius_mm : float
        That depth: the thickest cylinder that the pedicle takes has this radius.
    isthmus : ndarray, shape (3,)
        Point of the axis in the narrowest section, in the vertebra's frame, mm.
    begins_mm : float
        Along the vertebra's front axis; behind it a screw passes lamina and facet, whose outer cortex it has to cross.
    """

    side: Side
    axis: Axis
    radius_mm: float
    isthmus: Float
    begins_mm: float


def begins_mm(canal: Canal, settings: PedicleSettings = SETTINGS) -> float:
    """Where a vertebra's pedicles begin along its front axis, mm."""
    return (canal.back_mm + canal.front_mm) / 2 - settings.behind_mm


class Search:
    """Axes of one pedicle, by four numbers: lateral place and height (mm), inward and upward angle (degrees).

    Parameters
    ----------
    bone : Bone
    surfaces : Surfaces
        Of the bone.
    canal : Canal
    side : Side
    """

    def __init__(
        self, bone: Bone, surfaces: Surfaces, canal: Canal, side: Side, settings: PedicleSettings = SETTINGS
    ) -> None:
        self._bone, self._surfaces, self._canal, self._settings, self._sign = (
            bone,
            surfaces,
            canal,
            settings,
            SIGNS[side],
        )
        self.begins_mm = begins_mm(canal, settings)
        end = canal.front_mm + settings.body_share * 2 * (canal.body_mm - canal.front_mm)
        self.fronts = np.arange(self.begins_mm, end, 1.0)

    def axis(self, x: Float) -> Axis:
        """The axis of four numbers."""
        inward, up = np.deg2rad(x[2:])
        direction = np.array([-self._sign * np.tan(inward), 1.0, np.tan(up)])
        return Axis(np.array([self._sign * x[0], self.begins_mm, x[1]]), direction / np.linalg.norm(direction))

    def numbers(self, axis: Axis) -> Float:
        """The four numbers of an axis."""
        d = axis.direction / axis.direction[1]
        angles = np.rad2deg(np.arctan([-self._sign * d[0], d[2]]))
        return np.array([self._sign * axis.at[0], axis.at[2], *angles])

    def depths_mm(self, axis: Axis) -> Float:
        """Depth of an axis below the bone's surface, by voxels, from the pedicle's beginning into the body."""
        return -self._surfaces.outside_mm(self._canal.to_ct(axis.points(self.fronts)))

    def penalty(self, x: Float) -> float:
        """What an axis costs that no surgeon would take."""
        low, high = self._settings.inward_deg
        over = max(low - x[2], x[2] - high, abs(x[3]) - self._settings.steep_deg, 0.0)
        lateral = self._sign * self.axis(x).points(self.fronts[[0, -1]])[:, 0]
        return 0.2 * over + max(self._settings.midline_mm - float(lateral.min()), 0.0)

    def cost(self, x: Float) -> float:
        """Smallest depth of an axis by the distance field, negative, with what decides between equals."""
        points_ct = self._canal.to_ct(self.axis(x).points(self.fronts))
        return self._cost(x, self._bone.depth_mm(points_ct))

    def exact_cost(self, x: Float) -> float:
        """The same by the voxels, 20 times slower, without the half voxel that the field loses on a ridge."""
        return self._cost(x, self.depths_mm(self.axis(x)))

    def _cost(self, x: Float, depth: Float) -> float:
        mean = float(np.minimum(depth, self._settings.deep_mm).mean())
        return -float(depth.min()) - self._settings.mean_weight * mean + self.penalty(x)

    def best(self) -> Axis:
        """The axis with the lowest cost."""
        s = self._settings
        laterals = np.arange(0.7 * self._canal.half_width_mm, self._canal.half_width_mm + s.lateral_mm, s.step_mm)
        heights = np.arange(*s.heights_mm, s.step_mm)
        grid = np.array(list(product(laterals, heights, (2.0, 14.0, 26.0), (-12.0, 0.0, 12.0))))
        order = np.argsort([self.cost(x) for x in grid])
        ends = [self.refined(start, self.cost) for start in grid[order[: s.starts]]]
        best = min(ends, key=self.cost)
        return self.axis(self.refined(best, self.exact_cost, most=s.exact_steps))

    @staticmethod
    def refined(start: Float, cost: Callable[[Float], float], most: int = 300) -> Float:
        """The four numbers near `start` with the lowest cost."""
        found, simplex = start, start + np.vstack([np.zeros(4), np.diag([1.0, 1.5, 5.0, 5.0])])
        for _ in range(2):
            options = {"initial_simplex": simplex, "xatol": 0.02, "fatol": 0.002, "maxfev": most}
            found = minimize(cost, simplex[0], method="Nelder-Mead", options=options).x
            # Started again from where it ended: the cost has ridges, on which a simplex collapses early.
            simplex = found + np.vstack([np.zeros(4), np.diag([-0.7, 0.7, 3.0, -3.0])])
        return found


def find_pedicle(bone: Bone, surfaces: Surfaces, canal: Canal, side: Side) -> Pedicle:
    """Finds a pedicle.

    Raises
    ------
    VertebraError
        No straight line leads through bone from behind the canal into the body.
    """
    search = Search(bone, surfaces, canal, side)
    axis = search.best()
    depth = search.depths_mm(axis)
    # The narrowest section is beside the canal; in the body the axis may come near an end plate.
    beside = search.fronts <= canal.front_mm + 2
    narrowest = int(np.argmin(depth[beside]))
    if depth[narrowest] <= 0:
        raise VertebraError(
            f"{bone.level} {side}: no straight way through bone leads beside the spinal canal into the "
            "body: the pedicle is missing or interrupted in its label; complete its segmentation"
        )
    isthmus = axis.points(search.fronts[narrowest : narrowest + 1])[0]
    return Pedicle(side, axis, float(max(depth.min(), 0.0)), isthmus, search.begins_mm)
