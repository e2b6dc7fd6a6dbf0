"""Geometry of a traced path: points (column, row), shape (n, 2), from the tip to the tail."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fluoronav.kernels import njit
from fluoronav.stream.detection.axis_fit import fit_line, fit_line_robust


@dataclass(frozen=True)
class PathLimits:
    """Which part of a path is the instrument's own; all chosen on simulated scenes of crossing instruments."""

    first_part_px: float = 72.0  # the line through this part is extrapolated
    leaves_line_px: float = 12.0  # farther off the line: the path has turned into another instrument's
    on_line_px: float = 4.0  # nearer than this: still on the line
    min_straight_fraction: float = 0.6  # of a path's points on one line: the rest is drawn towards what crosses it
    # Profiles near the ends also show what begins or ends there.
    margin_tip_px: float = 6.0
    margin_tail_px: float = 4.0


PATH = PathLimits()
# Kernels take scalars.
_FIRST_PART_PX, _LEAVES_LINE_PX, _ON_LINE_PX = PATH.first_part_px, PATH.leaves_line_px, PATH.on_line_px
_MIN_STRAIGHT_FRACTION = PATH.min_straight_fraction
_MARGIN_TIP_PX, _MARGIN_TAIL_PX = PATH.margin_tip_px, PATH.margin_tail_px


@njit(cache=True, nogil=True)
def along_and_across(points, origin, direction, normal):
    """Coordinates of points along a direction and its normal."""
    x, y = points[:, 0] - origin[0], points[:, 1] - origin[1]
    return x * direction[0] + y * direction[1], x * normal[0] + y * normal[1]


@njit(cache=True, nogil=True)
def chord_frame(path, length):
    """Direction and normal of a path's chord of this length, from tail to tip; and the points along and across it."""
    direction = (path[0] - path[-1]) / length
    normal = np.array([-direction[1], direction[0]])
    u, v = along_and_across(path, path[-1], direction, normal)
    return direction, normal, u, v


@njit(cache=True, nogil=True)
def arc_lengths(path):
    """Arc length from the first point of a path to each."""
    out = np.zeros(len(path))
    for k in range(1, len(path)):
        out[k] = out[k - 1] + np.hypot(path[k, 0] - path[k - 1, 0], path[k, 1] - path[k - 1, 1])
    return out


@njit(cache=True, nogil=True)
def straight_length(path, arc_length):
    """Arc length up to which a path follows the line through its first part.

    Where a path meets another instrument, it may turn into that one's.
    """
    n = np.searchsorted(arc_length, _FIRST_PART_PX)
    if n < 4 or n >= len(path):
        return arc_length[-1]
    chord = path[0] - path[n - 1]
    direction = chord / np.sqrt(np.sum(chord * chord))
    u, v = along_and_across(path, path[0], direction, np.array([-direction[1], direction[0]]))
    slope, intercept = fit_line(u[:n], v[:n])
    on_line = arc_length[n - 1]
    for k in range(n, len(path)):
        residual = abs(v[k] - intercept - slope * u[k])
        if residual < _ON_LINE_PX:
            on_line = arc_length[k]
        if residual > _LEAVES_LINE_PX:
            return on_line
    return arc_length[-1]


@njit(cache=True, nogil=True)
def projected_on_line(path):
    """A path's points projected on the straight line through most of them; empty where there is no such line.

    Where another instrument crosses, the path may be drawn towards that one for a while.
    """
    chord = path[0] - path[-1]
    length = np.sqrt(np.sum(chord * chord))
    if length < 1:
        return path[:0].copy()
    direction, normal, u, v = chord_frame(path, length)
    inliers = np.ones(len(path), np.bool_)
    slope, intercept, sigma = fit_line_robust(u, v, inliers.copy(), inliers)
    if sigma > _ON_LINE_PX or inliers.sum() < _MIN_STRAIGHT_FRACTION * len(path):
        return path[:0].copy()
    out = np.empty_like(path)
    for k in range(len(path)):
        for i in range(2):
            out[k, i] = path[-1, i] + u[k] * direction[i] + (intercept + slope * u[k]) * normal[i]
    return out


@njit(cache=True, nogil=True)
def _point_at(path, arc_length, at):
    """Point of a path at an arc length, linearly interpolated; the ends beyond them.

    As two calls of ``np.interp``, which Numba compiles for four times as long.
    """
    if at <= arc_length[0]:
        return path[0, 0], path[0, 1]
    low, high = 0, len(arc_length) - 1
    if at >= arc_length[high]:
        return path[high, 0], path[high, 1]
    while high - low > 1:
        middle = (low + high) // 2
        if arc_length[middle] <= at:
            low = middle
        else:
            high = middle
    part = (at - arc_length[low]) / (arc_length[high] - arc_length[low])
    return path[low, 0] + part * (path[high, 0] - path[low, 0]), path[low, 1] + part * (path[high, 1] - path[low, 1])


@njit(cache=True, nogil=True)
def profile_centres(path, arc_length, reach, step):
    """Evenly spaced points of a path, shape (n, 2), away from both of its ends."""
    s = np.arange(_MARGIN_TIP_PX, reach - _MARGIN_TAIL_PX, step)
    out = np.empty((len(s), 2))
    for k in range(len(s)):
        out[k, 0], out[k, 1] = _point_at(path, arc_length, s[k])
    return out


@njit(cache=True, nogil=True)
def chord_direction(path, arc_length, reach):
    """Unit vector to a path's first point from the one at arc length `reach`."""
    x, y = _point_at(path, arc_length, reach)
    x, y = path[0, 0] - x, path[0, 1] - y
    return np.array([x, y]) / np.hypot(x, y)
