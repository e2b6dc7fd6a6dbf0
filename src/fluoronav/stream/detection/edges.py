"""Where an instrument lies to a fraction of a pixel, measured on the frame as it came.

The network says where to look; what is reported is measured at full resolution: the axis by the centre of the shadow in
profiles across it, the tip by where the shadow begins along it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fluoronav.stream.detection.axis_fit import bow_of, curved_part, line_through, straight_part, tangent_at
from fluoronav.stream.detection.profiles import shadow_along

Float, Float32 = NDArray[np.float64], NDArray[np.float32]

_REACH_PX, _ALONG_STEP_PX = 320.0, 4.0
# Half the length of a profile: the shadow, and what is beside it; a screw and its head are wider than all else.
_HALF_PX, _HALF_OF_SCREW_PX = 22, 42
# Along the axis about the tip: where it is looked for, and how long its point may be.
_ALONG = np.arange(-40.0, 25.0)
_TIPS, _RAMPS = np.arange(-30.0, 18.0, 0.5), np.array([1.0, 3.0, 6.0, 10.0, 15.0, 21.0, 28.0])
_LEAST_SHADOW = 0.1
# A middle that stands off the chord by this much, and by so many sigmas, is a bend. It is looked for in all that is in
# view of the shaft, where the traced path stands off its own chord by the third; the shadow's middle must be seen in
# this share of it.
_BENT_PX, _BENT_SIGMAS, _MAYBE_BENT_PX, _BEND_STEP_PX, _BEND_SEEN = 3.0, 5.0, 2.0, 8.0, 0.5
# Farther off the path than this is not what the path is of: angle, or pixels over its length, and pixels beside it.
_ASTRAY_RAD, _ASTRAY_PX = float(np.deg2rad(5.0)), 12.0
# A path goes on as its first part does until it is farther off that one's line than the second; there it was still on
# it where it was nearer than the third.
_BEGINS_PX, _OFF_ITS_LINE_PX, _ON_ITS_LINE_PX = 72.0, 12.0, 4.0
# A path is straight but for what crosses it when so much of it lies on one line.
_MOST_OF_IT = 0.6
# Both are asked where the axis is known no better than this. Less than the second of a path is none.
_ROUGH_DEG, _LEAST_PX = 1.0, 40.0
# Errors of what is taken from the path because the picture is too noisy to measure it.
_PATH_SIGMA_PX, _LOST_TIP_SIGMA_PX = 2.0, 8.0


@dataclass(frozen=True)
class Measured:
    """An instrument at full resolution.

    Attributes
    ----------
    tip_px, direction : ndarray, shape (2,)
        (column, row); the unit direction points from the tail to the tip.
    tail_px : ndarray, shape (2,)
        Where it leaves the view, or ends.
    width_px : float
        Width of its shadow; 0 where it could not be measured.
    sigma_px : float
        Of the tip, 1 sigma.
    sigma_deg : float
        Of the direction.
    bend_px : float
        How far the middle of the axis stands off the chord from tail to tip, over all that is in view, towards the
        direction turned by a quarter from columns to rows; 0 where it is straight.
    """

    tip_px: Float
    direction: Float
    tail_px: Float
    width_px: float
    sigma_px: float
    sigma_deg: float
    sagitta_px: float


def measure(
    counts: NDArray, path_px: Float, dark: float, inverse: bool = False, kind: str = "k-wire"
) -> Measured | None:
    """Refines a path; None where it is too short. What cannot be measured is taken from the path, with its error.

    Parameters
    ----------
    counts : ndarray of uint8 or uint16, shape (rows, cols)
    path_px : ndarray, shape (n, 2)
        (column, row) from the tip on, right to a few pixels.
    dark : float
        Counts without X-rays.
    inverse : bool
        Dark means more X-rays.
    kind : str
        Says how wide a shadow to expect.
    """
    half_px = _HALF_OF_SCREW_PX if kind == "screw" else _HALF_PX
    length = _lengths(path_px)
    reach = min(float(length[-1]), _REACH_PX)
    if reach < _LEAST_PX:
        return None

    def of_first(reach: float, path: Float) -> tuple[Float, Float, float, float]:
        centre = _places(path, length, reach, _ALONG_STEP_PX)
        # The chord of the path's first part gives the direction in which profiles are taken.
        direction = _chord(path, length, reach)
        normal = np.array([-direction[1], direction[0]])
        shadow = _profiles(counts, centre, normal, half_px, dark, inverse)
        return _axis(shadow, half_px, path[0], centre, direction, normal, reach)

    # Both are asked of every path, for a few microseconds, so that they are compiled before the first that needs them.
    found, straight, line = of_first(reach, path_px), _straight_px(path_px, length), _straightened(path_px)
    if found[3] > _ROUGH_DEG:
        if _LEAST_PX < straight < reach:
            found = min(found, of_first(straight, path_px), key=lambda f: f[3])
        if len(line):
            found = min(found, of_first(reach, line), key=lambda f: f[3])
    at_tip, axis, width_px, sigma_deg = found
    moved, sigma_tip = _tip(counts, at_tip, axis, width_px, dark, inverse)
    sagitta_px = _bend(counts, path_px, length, half_px, dark, inverse)
    return Measured(at_tip + moved * axis, axis, path_px[-1], width_px, sigma_tip, sigma_deg, sagitta_px)


def _profiles(counts: NDArray, centre: Float, normal: Float, half_px: int, dark: float, inverse: bool) -> Float32:
    """The shadow across a shaft at each of these places."""
    return shadow_along(counts, centre - half_px * normal, normal, 2 * half_px + 1, dark, inverse)


@njit(cache=True, nogil=True)
def _axis(shadow, half_px, begins, centre, direction, normal, reach):
    """The axis through the middles of a shadow: where it is beside the path's beginning, its direction, the shadow's
    width, and the direction's error (deg)."""
    offset, width, strong = _middles(shadow, half_px)
    middle = np.array([centre[:, 0].mean(), centre[:, 1].mean()])
    path_u, path_v = _along_and_across(centre, middle, direction, normal)
    u, v = path_u, path_v + offset
    kept = strong.copy()
    slope, base, sigma = 0.0, 0.0, np.inf
    if strong.sum() >= 6:
        slope, base, sigma = straight_part(u, v, strong, kept)
    slope_of_path, base_of_path = line_through(path_u, path_v)
    # Where too few profiles show a shadow, or the shadow is something else's, the path's own middle line has to do.
    astray = max(_ASTRAY_RAD, _ASTRAY_PX / reach)
    turned = abs(np.arctan(slope) - np.arctan(slope_of_path))
    if sigma == np.inf or turned > astray or abs(base - base_of_path) > _ASTRAY_PX:
        slope, base, sigma = slope_of_path, base_of_path, _PATH_SIGMA_PX
        kept[:] = False
    if kept.sum() >= 10:
        bow, sigma_bow = bow_of(u[kept], v[kept])
        half = (u[kept].max() - u[kept].min()) / 2
        if abs(bow) * half**2 > _BENT_PX and abs(bow) > _BENT_SIGMAS * sigma_bow:
            # Near the tip the tangent counts, where the path bends so, too.
            front = u[kept].max()
            tangent, tangent_base = tangent_at(u[kept], v[kept], front)
            of_path, _ = tangent_at(path_u, path_v, front)
            if abs(np.arctan(tangent) - np.arctan(of_path)) < astray:
                slope, base = tangent, tangent_base
    axis = direction + slope * normal
    axis /= np.sqrt(np.sum(axis * axis))
    origin = middle + base * normal
    found = kept.sum()
    width_px = np.median(width[kept]) if found else 0.0
    spread = u[kept].max() - u[kept].min() if found else reach
    # Five profiles share their noise.
    sigma_deg = np.rad2deg(sigma / max(spread, 1.0) * np.sqrt(12 * 5 / max(found, 1)))
    return origin + axis * np.sum((begins - origin) * axis), axis, width_px, sigma_deg


@njit(cache=True, nogil=True)
def _along_and_across(points, origin, direction, normal):
    x, y = points[:, 0] - origin[0], points[:, 1] - origin[1]
    return x * direction[0] + y * direction[1], x * normal[0] + y * normal[1]


@njit(cache=True, nogil=True)
def _along_chord(path, far):
    """Direction and normal of a path's chord, so long, from end to beginning; and its points along and across it."""
    direction = (path[0] - path[-1]) / far
    normal = np.array([-direction[1], direction[0]])
    u, v = _along_and_across(path, path[-1], direction, normal)
    return direction, normal, u, v


@njit(cache=True, nogil=True)
def _lengths(path):
    """How far each point of a path lies along it from its first."""
    out = np.zeros(len(path))
    for k in range(1, len(path)):
        out[k] = out[k - 1] + np.hypot(path[k, 0] - path[k - 1, 0], path[k, 1] - path[k - 1, 1])
    return out


@njit(cache=True, nogil=True)
def _straight_px(path, length):
    """How far along it a path goes on as it begins: where it meets another instrument, it may turn into that one's."""
    n = np.searchsorted(length, _BEGINS_PX)
    if n < 4 or n >= len(path):
        return length[-1]
    chord = path[0] - path[n - 1]
    direction = chord / np.sqrt(np.sum(chord * chord))
    u, v = _along_and_across(path, path[0], direction, np.array([-direction[1], direction[0]]))
    slope, base = line_through(u[:n], v[:n])
    on_line = length[n - 1]
    for k in range(n, len(path)):
        off = abs(v[k] - base - slope * u[k])
        if off < _ON_ITS_LINE_PX:
            on_line = length[k]
        if off > _OFF_ITS_LINE_PX:
            return on_line
    return length[-1]


@njit(cache=True, nogil=True)
def _straightened(path):
    """The straight line that most of a path lies on, a point for each of its; none where it is of no such kind.

    Where another instrument crosses, the path may be drawn towards that one for a while.
    """
    chord = path[0] - path[-1]
    far = np.sqrt(np.sum(chord * chord))
    if far < 1:
        return path[:0].copy()
    direction, normal, u, v = _along_chord(path, far)
    kept = np.ones(len(path), np.bool_)
    slope, base, sigma = straight_part(u, v, kept.copy(), kept)
    if sigma > _ON_ITS_LINE_PX or kept.sum() < _MOST_OF_IT * len(path):
        return path[:0].copy()
    out = np.empty_like(path)
    for k in range(len(path)):
        for i in range(2):
            out[k, i] = path[-1, i] + u[k] * direction[i] + (base + slope * u[k]) * normal[i]
    return out


@njit(cache=True, nogil=True)
def _places(path, length, reach, step):
    """Where on a path profiles are taken, shape (n, 2): evenly, and away from what begins and ends there."""
    s = np.arange(6.0, reach - 4, step)
    out = np.empty((len(s), 2))
    out[:, 0], out[:, 1] = np.interp(s, length, path[:, 0]), np.interp(s, length, path[:, 1])
    return out


@njit(cache=True, nogil=True)
def _chord(path, length, reach):
    """The unit vector to a path's beginning from where it is so far along."""
    x = path[0, 0] - np.interp(reach, length, path[:, 0])
    y = path[0, 1] - np.interp(reach, length, path[:, 1])
    return np.array([x, y]) / np.hypot(x, y)


@njit(cache=True, nogil=True)
def _middles(shadow, half_px):
    """In profiles across a shaft: how far its shadow's middle lies from theirs, its width, and whether there is one."""
    depth = np.empty_like(shadow)
    _depths(shadow, depth)
    rows, n = depth.shape
    peak, at = np.zeros(rows, np.float32), np.zeros(rows, np.int64)
    for k in range(rows):
        at[k] = 6 + depth[k, 6 : n - 6].argmax()
        peak[k] = depth[k, at[k]]
    strong, offset, width = np.zeros(rows, np.bool_), np.zeros(rows), np.ones(rows)
    _half_widths(depth, peak, at, -half_px, strong, offset, width)
    return offset, width, strong


def _bend(counts: NDArray, path_px: Float, length: Float, half_px: int, dark: float, inverse: bool) -> float:
    """How far the middle of a shaft stands off its chord, as :class:`Measured` has it."""
    far = float(np.linalg.norm(path_px[0] - path_px[-1]))
    if len(path_px) < 6 or far < 1:
        return 0.0
    direction, normal, bow = _rough_bow(path_px, far)
    if abs(bow) * (far / 2) ** 2 < _MAYBE_BENT_PX:
        return 0.0
    centre = _places(path_px, length, float(length[-1]), _BEND_STEP_PX)
    shadow = _profiles(counts, centre, normal, half_px, dark, inverse)
    offset, _, kept = _middles(shadow, half_px)
    u, v = _along_and_across(centre, path_px[-1], direction, normal)
    v += offset
    if not curved_part(u, v, kept.copy(), kept, max(_BEND_SEEN * len(centre), 10.0)):
        return 0.0
    bow, sigma_bow = bow_of(u[kept], v[kept])
    half = (u[kept].max() - u[kept].min()) / 2
    # Neighbouring middles share their noise: five profiles are one measurement.
    clear = abs(bow) > _BENT_SIGMAS * np.sqrt(5) * sigma_bow
    # What is said is of the whole chord, although its ends may not be seen well.
    return float(-bow * (far / 2) ** 2) if clear and abs(bow) * half**2 > _BENT_PX else 0.0


@njit(cache=True, nogil=True)
def _rough_bow(path, far):
    """Direction and normal of a path's chord, so long, from its end to its beginning; and how the path is bowed."""
    direction, normal, u, v = _along_chord(path, far)
    bow, _ = bow_of(u, v)
    return direction, normal, bow


@njit(cache=True, nogil=True)
def _depths(shadow, depth):
    """How much darker each place of a profile is than the brighter of its two ends.

    Five profiles, one after the other along the shaft, are one measurement.
    """
    rows, n = shadow.shape
    for k in range(rows):
        for j in range(n):
            total = 0.0
            for i in range(-2, 3):
                total += shadow[min(max(k + i, 0), rows - 1), j]
            depth[k, j] = total / 5
        flank = min(np.median(depth[k, :6]), np.median(depth[k, n - 6 :]))
        for j in range(n):
            depth[k, j] = max(depth[k, j] - flank, 0)


@njit(cache=True, nogil=True)
def _half_widths(depth, peak, at, first, strong, offset, width):
    """Which profiles show a shadow that does not run off their ends, and its centre and width at half the height."""
    rows, n = depth.shape
    least = max(0.12, 0.4 * np.median(peak))
    for k in range(rows):
        if peak[k] <= least:
            continue
        level = 0.5 * peak[k]
        left = right = at[k]
        while left > 0 and depth[k, left - 1] > level:
            left -= 1
        while right < n - 1 and depth[k, right + 1] > level:
            right += 1
        # To a fraction: where the profile crosses one half.
        a, b = float(left), float(right)
        if left > 0:
            a -= (depth[k, left] - level) / max(depth[k, left] - depth[k, left - 1], 1e-9)
        if right < n - 1:
            b += (depth[k, right] - level) / max(depth[k, right] - depth[k, right + 1], 1e-9)
        width[k] = b - a
        offset[k] = (a + b) / 2 + first
        strong[k] = left > 1 and right < n - 2


def _tip(counts: NDArray, at: Float, axis: Float, width_px: float, dark: float, inverse: bool) -> tuple[float, float]:
    """How far the tip lies beyond a point of the axis (pixels along it), and the error of that, 1 sigma.

    About there where its end is lost in the noise.
    """
    normal = np.array([-axis[1], axis[0]])
    places = at + _ALONG[:, None] * axis

    def five(first: float, step: float) -> Float32:
        return shadow_along(counts, places + first * normal, step * normal, 5, dark, inverse)

    core, beside = min(max(width_px / 11, 0.5), 1.5), width_px / 2 + 2.5
    profile = _beyond_both_sides(five(-core, core / 2), five(-beside, -1.0), five(beside, 1.0))
    return _begins(profile, _ALONG, _SHAPES, _TIPS, _RAMPS)


@njit(cache=True, nogil=True)
def _beyond_both_sides(core, left, right):
    """How much darker the means of lines are than the darker ones of the two lines beside them."""
    out = np.empty(len(core))
    for k in range(len(core)):
        out[k] = core[k].mean() - min(left[k].mean(), right[k].mean())
    return out


@njit(cache=True, nogil=True)
def _begins(profile, along, shapes, tips, ramps):
    """Where a shadow's profile begins, of all places and lengths of point that fit it best; and the error, 1 sigma."""
    centred = profile - profile.mean()
    best, most = 0, -np.inf
    for k in range(len(shapes)):
        explained = np.sum(shapes[k] * centred)
        if explained > most:
            best, most = k, explained
    begins, ramp = tips[best // len(ramps)], ramps[best % len(ramps)]
    shape = np.minimum(np.maximum((begins - along) / ramp, 0.0), 1.0)
    height, base = line_through(shape, profile)
    noise = np.std(profile - height * shape - base)
    if height < max(_LEAST_SHADOW, 1.5 * noise):
        return 0.0, _LOST_TIP_SIGMA_PX
    # The shadow of a slender point sinks into the noise before it ends.
    return begins, np.hypot(0.5, ramp * noise / height)


def _shapes() -> Float:
    """Every profile that a tip may have (its place, and the length of its point), mean-free and of unit norm."""
    shapes = np.clip((_TIPS[:, None, None] - _ALONG) / _RAMPS[:, None], 0, 1).reshape(-1, len(_ALONG))
    shapes -= shapes.mean(1, keepdims=True)
    return shapes / np.linalg.norm(shapes, axis=1, keepdims=True)


_SHAPES = _shapes()
