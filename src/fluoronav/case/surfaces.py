"""Points on the surfaces of structures and of no-go regions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fluoronav.case.no_go import NoGo

if TYPE_CHECKING:
    from fluoronav.case.loading import Structure

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SurfaceSettings:
    """How surfaces are sampled; all are chosen."""

    point_step_mm: float = 1.0  # between the points of a surface
    most_steps: int = 120  # along the longest side of a structure; larger ones get coarser points
    most_points: int = 60_000  # of one surface
    near_steps: float = 0.9  # from a grid point to the surface, for a point that is moved onto it
    block: int = 4  # grid points along a side of a block, which is searched only if the surface may come near
    block_margin: float = 1.3  # on its reach, since a distance field is rounded


SETTINGS = SurfaceSettings()
_BLOCK = SETTINGS.block
# From a block's middle to its corner, and on to the surface, in steps.
_BLOCK_REACH = SETTINGS.block_margin * ((_BLOCK - 1) / 2 * np.sqrt(3) + SETTINGS.near_steps)


def surface_points(obstacle: Structure | NoGo) -> Float:
    """Points on a surface, LPS mm, about a millimetre apart (farther on large no-go regions), shape (n, 3).

    Points of a grid near the surface are moved along the gradient of the distance by the distance.
    """
    bounds = _bounds_ct(obstacle)
    if bounds is None:
        return np.empty((0, 3))
    low, high = bounds
    step_mm = max(SETTINGS.point_step_mm, float((high - low).max()) / SETTINGS.most_steps)
    axes = [np.arange(a, b + step_mm, step_mm) for a, b in zip(low, high, strict=True)]
    # A distance changes by at most the length of a step, so most blocks of the grid can be skipped.
    middles = [axis[::_BLOCK] + (_BLOCK - 1) / 2 * step_mm for axis in axes]
    of_block = _sampled(obstacle, np.stack(np.meshgrid(*middles, indexing="ij"), axis=-1).reshape(-1, 3))[:, 0]
    maybe = (np.abs(of_block) < _BLOCK_REACH * step_mm).reshape([len(m) for m in middles])
    for k, axis in enumerate(axes):
        maybe = maybe.repeat(_BLOCK, axis=k).take(np.arange(len(axis)), axis=k)
    points = np.stack([axis[at] for axis, at in zip(axes, np.nonzero(maybe), strict=True)], axis=-1)
    out = _sampled(obstacle, points)
    near = np.abs(out[:, 0]) < SETTINGS.near_steps * step_mm
    found = points[near] - out[near, :1] * out[near, 1:]
    keep = np.linspace(0, len(found) - 1, min(len(found), SETTINGS.most_points)).astype(int)
    return found[keep]


def _sampled(obstacle: Structure | NoGo, points: Float) -> Float:
    out = np.empty((len(points), 4))
    obstacle.distances(points, out)
    return out


def _bounds_ct(obstacle: Structure | NoGo) -> tuple[Float, Float] | None:
    """Corners of a box around it; None where there is nothing in it."""
    if isinstance(obstacle, NoGo):
        return obstacle.bounds_ct()
    field = obstacle.field
    inside = np.argwhere(field.hundredths < 0)
    if len(inside) == 0:
        return None
    return (
        field.origin_ct + (inside.min(0)[::-1] - 1) * field.spacing_mm,
        field.origin_ct + (inside.max(0)[::-1] + 1) * field.spacing_mm,
    )
