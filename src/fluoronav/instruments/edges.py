"""Where an instrument lies to a fraction of a pixel, measured on the frame as it came.

The network says where to look; what is reported is measured at full resolution: the axis by the centre of the shadow in
profiles across it, the tip by where the shadow begins along it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fluoronav.instruments.sampling import shadow_along

Float, Float32 = NDArray[np.float64], NDArray[np.float32]

_REACH_PX, _ALONG_STEP_PX = 320.0, 4.0
# Half the length of a profile: the shadow, and what is beside it; a screw and its head are wider than all else.
_HALF_PX, _HALF_OF_SCREW_PX = 22, 42
# Along the axis about the tip: where it is looked for, and how long its point may be.
_ALONG = np.arange(-40.0, 25.0)
_TIPS, _RAMPS = np.arange(-30.0, 18.0, 0.5), np.array([1.0, 3.0, 6.0, 10.0, 15.0, 21.0, 28.0])
_LEAST_SHADOW = 0.1
_FIFTHS = np.full(5, 0.2, np.float32)
# Profiles whose shadow lies farther than this from the line (robust sigmas) belong to something else.
_OUTLIER = 2.5
# A middle that stands off the chord by this much, and by so many sigmas, is a bend. It is looked for in all that is in
# view of the shaft, where the traced path stands off its own chord by the third; the shadow's middle must be seen in
# this share of it.
_BENT_PX, _BENT_SIGMAS, _MAYBE_BENT_PX, _BEND_STEP_PX, _BEND_SEEN = 3.0, 5.0, 2.0, 8.0, 0.5
# Farther off the path than this is not what the path is of: angle, or pixels over its length, and pixels beside it.
_ASTRAY_RAD, _ASTRAY_PX = float(np.deg2rad(5.0)), 12.0
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
    bend_px: float


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
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(path_px, axis=0), axis=1))])
    reach = min(float(length[-1]), _REACH_PX)
    if reach < 40:
        return None
    centre = _places(path_px, length, reach, _ALONG_STEP_PX)
    # The chord of the path's first part gives the direction in which profiles are taken.
    chord = path_px[0] - np.array([np.interp(reach, length, path_px[:, k]) for k in (0, 1)])
    direction = chord / np.linalg.norm(chord)
    normal = np.array([-direction[1], direction[0]])
    place, width, strong = _middles(counts, centre, normal, half_px, dark, inverse)
    middle = centre.mean(0)
    u, v = (place - middle) @ direction, (place - middle) @ normal
    kept = strong.copy()
    slope, base, sigma = _straight_part(u, v, strong, kept) if strong.sum() >= 6 else (0.0, 0.0, np.inf)
    path_u, path_v = (centre - middle) @ direction, (centre - middle) @ normal
    slope_of_path, base_of_path = _line(path_u, path_v)
    # Where too few profiles show a shadow, or the shadow is something else's, the path's own middle line has to do.
    astray = max(_ASTRAY_RAD, _ASTRAY_PX / reach)
    turned = abs(np.arctan(slope) - np.arctan(slope_of_path))
    if sigma == np.inf or turned > astray or abs(base - base_of_path) > _ASTRAY_PX:
        slope, base, sigma = slope_of_path, base_of_path, _PATH_SIGMA_PX
        kept[:] = False
    if kept.sum() >= 10:
        bow, sigma_bow = _bow(u[kept], v[kept])
        half = (u[kept].max() - u[kept].min()) / 2
        if abs(bow) * half**2 > _BENT_PX and abs(bow) > _BENT_SIGMAS * sigma_bow:
            # Near the tip the tangent counts, where the path bends so, too.
            front = float(u[kept].max())
            tangent, tangent_base = _tangent(u[kept], v[kept], front)
            of_path, _ = _tangent(path_u, path_v, front)
            if abs(np.arctan(tangent) - np.arctan(of_path)) < astray:
                slope, base = tangent, tangent_base
    axis = direction + slope * normal
    axis /= np.linalg.norm(axis)
    origin = middle + base * normal
    width_px = float(np.median(width[kept])) if kept.any() else 0.0
    at_tip = origin + axis * ((path_px[0] - origin) @ axis)
    moved, sigma_tip = _tip(counts, at_tip, axis, width_px, dark, inverse)
    if moved is None:  # its end is lost in the noise: about where the path begins
        moved, sigma_tip = 0.0, _LOST_TIP_SIGMA_PX
    tip = at_tip + moved * axis
    spread = float(u[kept].max() - u[kept].min()) if kept.any() else reach
    # Five profiles share their noise.
    sigma_deg = float(np.rad2deg(sigma / max(spread, 1) * np.sqrt(12 * 5 / max(int(kept.sum()), 1))))
    bend_px = _bend(counts, path_px, length, half_px, dark, inverse)
    return Measured(tip, axis, path_px[-1], width_px, sigma_tip, sigma_deg, bend_px)


def _places(path_px: Float, length: Float, reach: float, step: float) -> Float:
    """Where on a path profiles are taken, shape (n, 2): evenly, and away from what begins and ends there."""
    s = np.arange(6.0, reach - 4, step)
    return np.stack([np.interp(s, length, path_px[:, k]) for k in (0, 1)], axis=1)


def _middles(
    counts: NDArray, centre: Float, normal: Float, half_px: int, dark: float, inverse: bool
) -> tuple[Float, Float, NDArray[np.bool_]]:
    """In profiles across a shaft: where its shadow's middle lies, shape (n, 2), its width, and whether there is one."""
    shadow = shadow_along(counts, centre - half_px * normal, normal, 2 * half_px + 1, dark, inverse)
    depth = np.empty_like(shadow)
    _depths(shadow, depth)
    offset, width, strong = _centres(depth, -half_px)
    return centre + offset[:, None] * normal, width, strong


def _bend(counts: NDArray, path_px: Float, length: Float, half_px: int, dark: float, inverse: bool) -> float:
    """How far the middle of a shaft stands off its chord, as :class:`Measured` has it."""
    chord = path_px[0] - path_px[-1]
    far = float(np.linalg.norm(chord))
    if len(path_px) < 6 or far < 1:
        return 0.0
    direction = chord / far
    normal = np.array([-direction[1], direction[0]])
    rough = path_px - path_px.mean(0)
    bow, _ = _bow(rough @ direction, rough @ normal)
    if abs(bow) * (far / 2) ** 2 < _MAYBE_BENT_PX:
        return 0.0
    centre = _places(path_px, length, float(length[-1]), _BEND_STEP_PX)
    place, _, kept = _middles(counts, centre, normal, half_px, dark, inverse)
    u, v = (place - path_px[-1]) @ direction, (place - path_px[-1]) @ normal
    if not _curved_part(u, v, kept.copy(), kept, max(_BEND_SEEN * len(centre), 10.0)):
        return 0.0
    bow, sigma_bow = _bow(u[kept], v[kept])
    half = (u[kept].max() - u[kept].min()) / 2
    # Neighbouring middles share their noise: five profiles are one measurement.
    clear = abs(bow) > _BENT_SIGMAS * np.sqrt(5) * sigma_bow
    # What is said is of the whole chord, although its ends may not be seen well.
    return float(-bow * (far / 2) ** 2) if clear and abs(bow) * half**2 > _BENT_PX else 0.0


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
def _line(x, y):
    """Slope and intercept of the straight line through points."""
    mx, my = x.mean(), y.mean()
    cross, power = 0.0, 0.0
    for k in range(len(x)):
        cross += (x[k] - mx) * (y[k] - my)
        power += (x[k] - mx) ** 2
    slope = cross / max(power, 1e-12)
    return slope, my - slope * mx


@njit(cache=True, nogil=True)
def _straight_part(u, v, strong, kept):
    """Slope, intercept and error of the line through a shadow's centres; `kept` loses what is of something else."""
    slope, base, sigma = 0.0, 0.0, 0.05
    for _ in range(4):
        slope, base = _line(u[kept], v[kept])
        off = np.abs(v - (slope * u + base))
        sigma = max(1.4826 * np.median(off[kept]), 0.05)
        now = strong & (off < max(_OUTLIER * sigma, 0.7))
        if now.sum() < 6:
            break
        kept[:] = now
    return slope, base, sigma


@njit(cache=True, nogil=True)
def _parabola(x, y):
    """The parabola through points, by orthogonal polynomials: Forsythe, J. SIAM 5:74, 1957.

    Middle of x; coefficients of x**2, x and 1 about it; and what is left of the power of x**2 beside the other two.
    """
    middle, n = x.mean(), len(x)
    x = x - middle
    power = np.sum(x * x)
    skew = np.sum(x**3) / power
    beside = x * x - power / n - skew * x
    left = np.sum(beside * beside)
    second = np.sum(beside * y) / left
    return middle, second, np.sum(x * y) / power - second * skew, y.mean() - second * power / n, left


@njit(cache=True, nogil=True)
def _tangent(x, y, at):
    """Slope and intercept of what touches the parabola through points at a place."""
    middle, second, first, level, _ = _parabola(x, y)
    x = at - middle
    slope = 2 * second * x + first
    return slope, level + first * x + second * x * x - slope * at


@njit(cache=True, nogil=True)
def _curved_part(u, v, strong, kept, least):
    """As :func:`_straight_part`, along a parabola; whether `least` profiles are left."""
    for _ in range(4):
        if kept.sum() < least:
            return False
        middle, second, first, level, _ = _parabola(u[kept], v[kept])
        x = u - middle
        off = np.abs(v - (level + first * x + second * x * x))
        sigma = max(1.4826 * np.median(off[kept]), 0.05)
        kept[:] = strong & (off < max(_OUTLIER * sigma, 0.7))
    return kept.sum() >= least


@njit(cache=True, nogil=True)
def _bow(x, y):
    """Leading coefficient of the parabola through points, and its standard error.

    What ``numpy.polyfit(x, y, 2, cov=True)`` gives.
    """
    middle, second, first, level, left = _parabola(x, y)
    x = x - middle
    off = y - (level + first * x + second * x * x)
    return second, np.sqrt(np.sum(off * off) / (len(x) - 3) / left)


def _centres(depth: Float32, first: float) -> tuple[Float, Float, NDArray[np.bool_]]:
    """Of each profile: the shadow's centre, its width, and whether there is one."""
    core = depth[:, 6:-6]
    peak, at = core.max(1), core.argmax(1) + 6
    strong, offset, width = np.zeros(len(depth), bool), np.zeros(len(depth)), np.ones(len(depth))
    _half_widths(depth, peak, at, first, strong, offset, width)
    return offset, width, strong


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


def _tip(
    counts: NDArray, at: Float, axis: Float, width_px: float, dark: float, inverse: bool
) -> tuple[float | None, float]:
    """How far the tip lies beyond a point of the axis (pixels along it), and the error of that, 1 sigma."""
    normal = np.array([-axis[1], axis[0]])
    places = at + _ALONG[:, None] * axis

    def mean_of_five(first: float, step: float) -> Float32:
        return shadow_along(counts, places + first * normal, step * normal, 5, dark, inverse) @ _FIFTHS

    core, beside = min(max(width_px / 11, 0.5), 1.5), width_px / 2 + 2.5
    shadow = mean_of_five(-core, core / 2)
    profile = shadow - np.minimum(mean_of_five(-beside, -1.0), mean_of_five(beside, 1.0))
    centred = profile - profile.mean()
    explained = _SHAPES @ centred
    best = int(explained.argmax())
    begins, ramp = _TIPS[best // len(_RAMPS)], _RAMPS[best % len(_RAMPS)]
    shape = np.clip((begins - _ALONG) / ramp, 0, 1)
    height, base = _line(shape, profile)
    noise = float(np.std(profile - height * shape - base))
    if height < max(_LEAST_SHADOW, 1.5 * noise):
        return None, np.inf
    # The shadow of a slender point sinks into the noise before it ends.
    return float(begins), float(np.hypot(0.5, ramp * noise / height))


def _shapes() -> Float:
    """Every profile that a tip may have (its place, and the length of its point), mean-free and of unit norm."""
    shapes = np.clip((_TIPS[:, None, None] - _ALONG) / _RAMPS[:, None], 0, 1).reshape(-1, len(_ALONG))
    shapes -= shapes.mean(1, keepdims=True)
    return shapes / np.linalg.norm(shapes, axis=1, keepdims=True)


_SHAPES = _shapes()
