"""Width and height of a pedicle: its smallest cross-section along its axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.graph import MCP_Geometric

from fluoronav.planning.measurements.errors import Refused
from fluoronav.planning.measurements.fitting import cross, fit_line, unit
from fluoronav.planning.measurements.mask import Float, Mask, StructureMask, depths, labelled
from fluoronav.planning.measurements.vertebra import Body
from fluoronav.planning.plan.schema import Side


@dataclass(frozen=True, slots=True)
class PedicleSettings:
    """How a pedicle is looked for; lengths in mm."""

    step: float = 0.6  # grid of the way from body to arch, and of the sections; chosen: below the voxels of a CT
    across: float = 28.0  # how far from the midline is looked
    along: float = 20.0  # half of what is looked at along the vertebra's axis
    start: float = 5.0  # the way begins this far in front of the posterior wall
    goal: tuple[float, float] = (8.0, 13.0)  # and ends this far behind it: a pedicle is 6 to 10 mm long (Zindrick 1987)
    isthmus: tuple[float, float] = (-3.0, 9.0)  # behind the posterior wall, where the narrowest place is looked for
    depth_power: float = 4.0  # the way's cost is the depth to this negative power; chosen: it keeps to the middle
    near: float = 4.0  # the way's direction is that of its points within this of the narrowest
    turns: tuple[float, ...] = (-20.0, -10.0, 0.0, 10.0, 20.0)  # degrees, at which sections are compared
    reach: float = 3.0  # along the axis, both ways, in which the smallest cross-section is looked for
    half: float = 15.0  # of the cross-section's picture
    tallest: float = 24.0  # a taller section holds more than the pedicle (L5: 14 to 19, Zindrick 1987)
    least_mm2: float = 6.0  # of a section; chosen: below 2 x 3 mm nothing is measured
    midline: float = 1.5  # a section that reaches nearer to the midline belongs to the body or the lamina


SETTINGS = PedicleSettings()


@dataclass(frozen=True)
class Pedicle:
    """The narrowest cross-section of a pedicle.

    Attributes
    ----------
    side : "left" or "right"
    centre_ct, axis : ndarray, shape (3,)
        Middle of the section, LPS mm; direction towards the back.
    width_mm, height_mm : float
        Smallest caliper of the section, and the caliper across it.
    width_ct, height_ct : ndarray, shape (2, 3)
        Points to draw, LPS mm.
    area_mm2 : float
    """

    side: Side
    centre_ct: Float
    axis: Float
    width_mm: float
    height_mm: float
    width_ct: Float
    height_ct: Float
    area_mm2: float


def pedicle_of(mask: StructureMask, level: Float, body: Body, side: Side, near: Pedicle | None = None) -> Pedicle:
    """The narrowest section of the bridge between body and arch on one side.

    Parameters
    ----------
    mask : StructureMask
    level : ndarray
        Field whose zero is the boundary.
    body : Body
    side : "left" or "right"
        Of the patient.
    near : Pedicle, optional
        What another placing of the boundary gave: its axis is kept.

    Raises
    ------
    Refused
        No bridge on that side.
    """
    if near is None:
        centre_ct, axis_ct = _way(mask, level, body, side)
        axis_ct = _turned(mask, level, body, side, centre_ct, axis_ct)
    else:
        centre_ct, axis_ct = near.centre_ct, near.axis
    best: Pedicle | None = None
    for along in np.arange(-SETTINGS.reach, SETTINGS.reach + 0.1, SETTINGS.step):
        found = _section(mask, level, body, side, centre_ct + along * axis_ct, axis_ct)
        if found is None or found.height_mm > SETTINGS.tallest:
            continue
        if best is None or found.area_mm2 < best.area_mm2:
            best = found
    if best is None:
        raise Refused(f"{mask.name}: the {side} pedicle has no closed cross-section")
    return best


def bottleneck_mm(mask: StructureMask, body: Body, side: Side) -> float:
    """Diameter of the largest ball that passes from the body to the arch on one side, by the depth of the voxels.

    Another way to a pedicle's width, for comparison: a flood from the body's middle to behind the canal, in voxels at
    least as deep as r, for the largest r.
    """
    depth = mask.depth_mm()
    uvw = np.full((*mask.inside.shape, 3), np.nan)
    uvw[mask.inside] = body.frame.of_ct(mask.points_ct())
    way = uvw[..., 0] if side == "left" else -uvw[..., 0]
    u, v = np.nan_to_num(way, nan=-99.0), np.nan_to_num(uvw[..., 1], nan=-99.0)
    allowed = mask.inside & ((u > 0) | (v < body.wall - 3))
    start = allowed & (v < body.wall - 8)
    goal = allowed & (v > body.wall + 7) & (v < body.wall + 12)
    low, high = 0.0, float(depth.max())
    while high - low > 0.05:
        r = (low + high) / 2
        pieces, _ = labelled(allowed & (depth >= r), corners=True)
        joined = np.intersect1d(pieces[start], pieces[goal])
        low, high = (r, high) if (joined > 0).any() else (low, r)
    # The deepest voxel of a bridge lies half a voxel from its middle on average.
    return 2 * low


def _way(mask: StructureMask, level: Float, body: Body, side: Side) -> tuple[Float, Float]:
    """Narrowest place and direction, LPS, of the way from body to arch that keeps deepest in bone."""
    s = SETTINGS
    sign = 1.0 if side == "left" else -1.0
    u = np.arange(s.midline, s.across, s.step)
    v = np.arange(body.wall - s.start - 1, body.wall + s.goal[1], s.step)
    w = np.arange(-s.along, s.along + s.step / 2, s.step)
    uvw = np.stack(np.meshgrid(u * sign, v, w, indexing="ij"), axis=-1)
    inside = mask.sampled(level, body.frame.to_ct(uvw)) > 0
    depth = depths(inside) * s.step
    begins = np.argwhere(inside & (v < body.wall - s.start)[None, :, None])
    ends = np.argwhere(inside & (v > body.wall + s.goal[0])[None, :, None])
    if not len(begins) or not len(ends):
        raise Refused(f"{mask.name}: there is no bone between body and arch on the {side}")
    cost = np.where(inside, np.maximum(depth, 0.1) ** -s.depth_power, -1.0)
    flood = MCP_Geometric(cost)
    costs, _ = flood.find_costs(begins, ends)
    reached = costs[tuple(ends.T)]
    if not np.isfinite(reached).any():
        raise Refused(f"{mask.name}: body and arch are not joined on the {side}")
    way = np.array(flood.traceback(ends[int(np.argmin(reached))]))
    at = uvw[tuple(way.T)]
    behind = at[:, 1] - body.wall
    there = (behind >= s.isthmus[0]) & (behind <= s.isthmus[1])
    if not there.any():
        raise Refused(f"{mask.name}: no {side} pedicle was found between body and arch")
    narrow = np.flatnonzero(there)[int(np.argmin(depth[tuple(way[there].T)]))]
    close = np.linalg.norm(at - at[narrow], axis=1) <= s.near
    direction = fit_line(at[close])[1] if np.count_nonzero(close) > 3 else np.array([0.0, 1.0, 0.0])
    direction = direction if direction[1] > 0 else -direction
    return body.frame.to_ct(at[narrow]), direction @ body.frame.axes


def _turned(mask: StructureMask, level: Float, body: Body, side: Side, at_ct: Float, axis_ct: Float) -> Float:
    """The direction near a given one across which the section is smallest."""
    best, best_area = axis_ct, np.inf
    across, up = _basis(body, axis_ct)
    for a in SETTINGS.turns:
        for b in SETTINGS.turns:
            tried = unit(axis_ct + np.tan(np.radians(a)) * across + np.tan(np.radians(b)) * up)
            found = _piece(mask, level, body, side, at_ct, tried)
            if found is not None and found[1].sum() < best_area:
                best, best_area = tried, found[1].sum()
    return best


def _basis(body: Body, axis_ct: Float) -> tuple[Float, Float]:
    """Directions across a pedicle's axis: to the side, and towards the head; LPS."""
    across = unit(cross(axis_ct, body.frame.axes[2]))
    up = cross(across, axis_ct)
    return across, up if up @ body.frame.axes[2] > 0 else -up


def _piece(
    mask: StructureMask, level: Float, body: Body, side: Side, at_ct: Float, axis_ct: Float
) -> tuple[Float, Mask] | None:
    """Field and piece of the section at a point; None where it is not closed beside the canal."""
    s = SETTINGS
    across, up = _basis(body, axis_ct)
    line = np.arange(-s.half, s.half + s.step / 2, s.step)
    grid = at_ct + line[:, None, None] * across + line[None, :, None] * up
    field = mask.sampled(level, grid)
    pieces, _ = labelled(field > 0)
    i, j = np.nonzero(pieces)
    if not len(i):
        return None
    away = line[i] ** 2 + line[j] ** 2
    nearest = int(np.argmin(away))
    piece = pieces == pieces[i[nearest], j[nearest]]
    u = body.frame.of_ct(grid[piece])[:, 0] * (1 if side == "left" else -1)
    on_rim = piece[0].any() or piece[-1].any() or piece[:, 0].any() or piece[:, -1].any()
    small = np.count_nonzero(piece) * s.step**2 < s.least_mm2
    return None if on_rim or small or u.min() < s.midline or away[nearest] > 4 else (field, piece)


def _section(mask: StructureMask, level: Float, body: Body, side: Side, at_ct: Float, axis_ct: Float) -> Pedicle | None:
    """The cross-section at a point of the axis; None where it is not closed on itself."""
    found = _piece(mask, level, body, side, at_ct, axis_ct)
    if found is None:
        return None
    line = np.arange(-SETTINGS.half, SETTINGS.half + SETTINGS.step / 2, SETTINGS.step)
    area = np.count_nonzero(found[1]) * SETTINGS.step**2
    return _calipers(*found, line, at_ct, *_basis(body, axis_ct), axis_ct, side, area)


def _calipers(
    field: Float, piece: Mask, line: Float, at_ct: Float, across: Float, up: Float, axis_ct: Float, side: Side,
    area: float,
) -> Pedicle:  # fmt: skip
    """Smallest caliper of a section, and the one across it."""
    edge = _contour(np.where(ndimage.binary_dilation(piece), field, -1.0), line)
    middle = edge.mean(0)
    angles = np.radians(np.arange(0, 180, 3))
    ways = np.column_stack([np.cos(angles), np.sin(angles)])
    extent = np.ptp(edge @ ways.T, axis=0)
    k = int(np.argmin(extent))
    ends = []
    for way in (ways[k], np.array([-ways[k][1], ways[k][0]])):
        reach = (edge - middle) @ way
        plane = np.array([middle + way * reach.min(), middle + way * reach.max()])
        ends.append(at_ct + plane[:, :1] * across + plane[:, 1:] * up)
    width, height = (float(np.linalg.norm(e[1] - e[0])) for e in ends)
    centre = at_ct + middle[0] * across + middle[1] * up
    return Pedicle(side, centre, axis_ct, width, height, ends[0], ends[1], area)


def _contour(field: NDArray, line: Float) -> Float:
    """Points on the zero of a field on a square grid, shape (n, 2), mm: crossings between neighbours."""
    step = line[1] - line[0]
    found = []
    for axis in range(2):
        a = field if axis == 0 else field.T
        low, high = a[:-1], a[1:]
        i, j = np.nonzero((low > 0) != (high > 0))
        at = line[i] + step * low[i, j] / (low[i, j] - high[i, j])
        pair = np.column_stack([at, line[j]])
        found.append(pair if axis == 0 else pair[:, ::-1])
    return np.concatenate(found)
