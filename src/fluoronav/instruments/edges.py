"""Where an instrument lies to a fraction of a pixel, measured on the frame as it came.

The network says where to look; what is reported is measured at full resolution: the axis by the centre of the shadow in
profiles across it, the tip by where the shadow begins along it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

Float = NDArray[np.float64]

_REACH_PX, _ALONG_STEP_PX = 320.0, 4.0
# Half the length of a profile: the shadow, and what is beside it; a screw and its head are wider than all else.
_HALF_PX, _HALF_OF_SCREW_PX = 22, 42
# Along the axis about the tip: where it is looked for, and how long its point may be.
_ALONG = np.arange(-40.0, 25.0)
_TIPS, _RAMPS = np.arange(-30.0, 18.0, 0.5), np.array([1.0, 3.0, 6.0, 10.0, 15.0, 21.0, 28.0])
_LEAST_SHADOW = 0.1
# Profiles whose shadow lies farther than this from the line (robust sigmas) belong to something else.
_OUTLIER = 2.5
# A middle that stands off the chord by this much, and by so many sigmas, is a bend.
_BENT_PX, _BENT_SIGMAS = 3.0, 5.0
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
        How far the axis stands off the chord over the part that was measured; 0 where it is straight.
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
    s = np.arange(6.0, reach - 4, _ALONG_STEP_PX)
    centre = np.stack([np.interp(s, length, path_px[:, k]) for k in (0, 1)], axis=1)
    # The chord of the path's first part gives the direction in which profiles are taken.
    chord = path_px[0] - np.array([np.interp(reach, length, path_px[:, k]) for k in (0, 1)])
    direction = chord / np.linalg.norm(chord)
    normal = np.array([-direction[1], direction[0]])
    across = np.arange(-half_px, half_px + 1, dtype=np.float64)
    shadow = shadow_at(counts, centre[:, None] + across[None, :, None] * normal, dark, inverse)
    # A running mean along the shaft: five profiles are one measurement.
    shadow = cv2.blur(shadow, (1, 5), borderType=cv2.BORDER_REPLICATE)
    flank = np.minimum(np.median(shadow[:, :6], 1), np.median(shadow[:, -6:], 1))[:, None]
    depth = np.clip(shadow - flank, 0, None)
    offset, width, strong = _centres(depth, across[0])
    place = centre + offset[:, None] * normal
    u = (place - centre.mean(0)) @ direction
    v = (place - centre.mean(0)) @ normal
    kept = strong.copy()
    # Where too few profiles show a shadow, the path's own middle line has to do.
    path_v = (centre - centre.mean(0)) @ normal
    line, sigma = _line((centre - centre.mean(0)) @ direction, path_v), _PATH_SIGMA_PX
    for _ in range(4 if strong.sum() >= 6 else 0):
        line = _line(u[kept], v[kept])
        off = v - (line[0] * u + line[1])
        sigma = max(1.4826 * float(np.median(np.abs(off[kept]))), 0.05)
        now = strong & (np.abs(off) < max(_OUTLIER * sigma, 0.7))
        if now.sum() < 6:
            break
        kept = now
    bend = 0.0
    if kept.sum() >= 10:
        curve, cov = np.polyfit(u[kept], v[kept], 2, cov=True)
        half = (u[kept].max() - u[kept].min()) / 2
        if abs(curve[0]) * half**2 > _BENT_PX and abs(curve[0]) > _BENT_SIGMAS * np.sqrt(cov[0, 0]):
            bend = float(curve[0] * half**2)
            # Near the tip the tangent counts.
            front = u[kept].max()
            slope = 2 * curve[0] * front + curve[1]
            line = slope, float(np.polyval(curve, front)) - slope * front
    axis = direction + line[0] * normal
    axis /= np.linalg.norm(axis)
    origin = centre.mean(0) + line[1] * normal
    width_px = float(np.median(width[kept])) if kept.any() else 0.0
    at_tip = origin + axis * ((path_px[0] - origin) @ axis)
    moved, sigma_tip = _tip(counts, at_tip, axis, width_px, dark, inverse)
    if moved is None:  # its end is lost in the noise: about where the path begins
        moved, sigma_tip = 0.0, _LOST_TIP_SIGMA_PX
    tip = at_tip + moved * axis
    spread = float(u[kept].max() - u[kept].min()) if kept.any() else reach
    # Five profiles share their noise.
    sigma_deg = float(np.rad2deg(sigma / max(spread, 1) * np.sqrt(12 * 5 / max(int(kept.sum()), 1))))
    return Measured(tip, axis, path_px[-1], width_px, sigma_tip, sigma_deg, bend)


def shadow_at(counts: NDArray, at: Float, dark: float, inverse: bool) -> Float:
    """Minus the logarithm of what is seen at places (column, row), shape of `at` without its last axis."""
    x, y = (np.ascontiguousarray(at[..., k], dtype=np.float32) for k in (0, 1))
    seen = cv2.remap(counts, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    value = seen.astype(np.float64)
    value = cv2.blur(value, (3, 1))  # across the shaft, which is wider
    full = float(np.iinfo(counts.dtype).max)
    value = (full - value if inverse else value) - dark
    return -np.log(np.maximum(value, 1e-4 * full))


def _line(x: Float, y: Float) -> tuple[float, float]:
    """Slope and intercept of the straight line through points."""
    mx, my = float(x.mean()), float(y.mean())
    dx = x - mx
    slope = float(dx @ (y - my)) / max(float(dx @ dx), 1e-12)
    return slope, my - slope * mx


def _centres(depth: Float, first: float) -> tuple[Float, Float, NDArray[np.bool_]]:
    """Of each profile: the shadow's centre, its width, and whether there is one."""
    core = depth[:, 6:-6]
    peak, at = core.max(1), core.argmax(1) + 6
    strong = peak > max(0.12, 0.4 * float(np.median(peak)))
    offset, width = np.zeros(len(depth)), np.ones(len(depth))
    _half_widths(depth, peak, at, first, strong, offset, width)
    return offset, width, strong


@njit(cache=True, nogil=True)
def _half_widths(depth, peak, at, first, strong, offset, width):
    """Centre and width at half the height of each profile that is strong; no longer strong if it runs off its end."""
    rows, n = depth.shape
    for k in range(rows):
        if not strong[k]:
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
    core = np.array([-1.0, -0.5, 0.0, 0.5, 1.0]) * min(max(width_px / 11, 0.5), 1.5)
    beside = width_px / 2 + 2.5 + np.arange(5)

    def strip(offsets: NDArray) -> NDArray:
        places = at + _ALONG[:, None, None] * axis + offsets[None, :, None] * normal
        return shadow_at(counts, places, dark, inverse).mean(1)

    profile = strip(core) - np.minimum(strip(-beside), strip(beside))
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
