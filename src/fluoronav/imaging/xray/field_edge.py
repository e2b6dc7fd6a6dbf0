"""The rim of the field to a pixel: the aperture's sides, fitted again to where the signal halves across them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.imaging.xray.field_of_view import Aperture, circle_through, depth, line_through

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

# Profiles across a side, in pixels of a 512 image from inside to outside: so far both ways, and this often.
_REACH, _STEP = 16.0, 0.5
# What is inside and outside, on them: beyond a blade's penumbra.
_INSIDE, _OUTSIDE = (5.0, 12.0), (-16.0, -6.0)
_LINE_STEP, _ROUND = 2.0, 720
_LEAST_BRIGHT, _LEAST_DROP = 0.15, 0.5  # shares of what is typical, and of what is inside
_LEAST_POINTS, _FARTHEST, _CORNER = 20, 8.0, 4.0
_OUTLIER, _LEAST_SPREAD, _FITS = 2.5, 0.3, 4
# So far the field stays off a rim that was found, and off one that was not: its estimate is coarse, and lies outside.
_MARGIN, _MARGIN_COARSE = 2.0, 5.0


def exposed_mask(aperture: Aperture, counts: Float32) -> NDArray[np.bool_]:
    """What the beam reaches, up to the rim.

    Parameters
    ----------
    aperture : Aperture
        Found in a smaller version.
    counts : ndarray of float32, shape (rows, cols)
        The frame at 512 pixels, bright = more X-ray.

    Returns
    -------
    ndarray of bool, shape (rows, cols)
        True where the whole beam arrives, to 4 pixels (of 1024) of where half of it does.
    """
    rows, cols = counts.shape
    larger = max(counts.shape) / max(aperture.field_mask.shape)
    scale = max(counts.shape) / 512
    full_field_mask = ~_resized(aperture.nothing, counts.shape)
    sides = [_enlarged(side, larger) for side in aperture.sides]
    dark = float(np.percentile(counts[::4, ::4], 0.5))
    y, x = np.arange(rows, dtype=np.float32)[:, None], np.arange(cols, dtype=np.float32)[None]
    for k, side in enumerate(sides):
        fine = _refined(side, sides[:k] + sides[k + 1 :], counts, dark, aperture.typical)
        margin = scale * (_MARGIN_COARSE if fine is None else _MARGIN)
        side = side if fine is None else fine
        if len(side) == 4:
            full_field_mask &= (x - np.float32(side[0])) ** 2 + (y - np.float32(side[1])) ** 2 < max(
                side[2] - margin, 0
            ) ** 2
        else:
            full_field_mask &= np.float32(side[0]) * x + np.float32(side[1]) * y > side[2] + margin
    return full_field_mask


def _resized(mask: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    return cv2.resize(mask.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST) > 0


def _enlarged(side: Float, factor: float) -> Float:
    """A side in pixels of an image that is so much larger."""
    if len(side) == 4:
        return np.array([*((side[:2] + 0.5) * factor - 0.5), side[2] * factor, 0.0])
    return np.array([*side[:2], side[2] * factor + (factor - 1) / 2 * side[:2].sum()])


def _refined(side: Float, others: list[Float], counts: Float32, dark: float, typical: float) -> Float | None:
    """The side through where the signal is half of what it is inside; None where too little of it is seen."""
    scale = max(counts.shape) / 512
    at, inwards = _along(side, counts.shape)
    clear = (at > 2).all(1) & (at < np.array(counts.shape[::-1]) - 3).all(1)
    for other in others:
        clear &= depth(other, at[:, 0], at[:, 1]) > _CORNER * scale
    at, inwards = at[clear], inwards[clear]
    if len(at) < _LEAST_POINTS:
        return None
    crossing, found = _crossings(at, inwards * scale, counts, dark, typical)
    if found.sum() < _LEAST_POINTS:
        return None
    points, crossing = at[found] + (crossing[:, None] * scale * inwards)[found], crossing[found]
    fine = side.copy()
    fine[2] += float(np.median(crossing)) * scale * (-1 if len(side) == 4 else 1)
    for _ in range(_FITS):  # without what lies off: a limb's edge, an instrument
        off = np.abs(depth(fine, points[:, 0], points[:, 1]))
        held = off < _OUTLIER * max(1.48 * float(np.median(off)), _LEAST_SPREAD * scale)
        if held.sum() < _LEAST_POINTS:
            return None
        fine = _fitted(points[held], fine)
    return fine if float(np.abs(depth(fine, at[:, 0], at[:, 1])).max()) < _FARTHEST * scale else None


def _along(side: Float, shape: tuple[int, ...]) -> tuple[Float, Float]:
    """Places along a side, in the image or not, and which way is inwards there; both (n, 2)."""
    if len(side) == 4:
        angle = 2 * np.pi * np.arange(_ROUND) / _ROUND
        inwards = -np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return side[:2] - side[2] * inwards, inwards
    reach = 1.5 * max(shape)
    on = np.arange(-reach, reach, _LINE_STEP)[:, None] * np.array([-side[1], side[0]])
    at = side[2] * side[:2] + on
    return at, np.broadcast_to(side[:2], at.shape)


def _crossings(
    at: Float, inwards: Float, counts: Float32, dark: float, typical: float
) -> tuple[Float, NDArray[np.bool_]]:
    """How far inwards of each place the signal halves, and whether it does, seen from inside."""
    k = np.arange(-_REACH, _REACH + _STEP, _STEP)
    u = (at[:, None] + k[None, :, None] * inwards[:, None]).astype(np.float32)
    profile = cv2.remap(counts, u[..., 0], u[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    profile = cv2.blur(profile - np.float32(dark), (3, 5))
    inside, outside = (np.median(profile[:, (k > a) & (k < b)], axis=1) for a, b in (_INSIDE, _OUTSIDE))
    half = (inside + outside) / 2
    # Of the places where it is less than half the first on the way out from where it is all.
    begin = int(np.searchsorted(k, _INSIDE[0] + 1))
    dim = profile[:, begin::-1] <= half[:, None]
    last = begin - dim.argmax(1)
    n = np.arange(len(last))
    low, high = profile[n, last], profile[n, last + 1]
    share = np.clip((half - low) / np.maximum(high - low, 1e-6), 0, 1)
    found = dim.any(1) & ~dim[:, 0] & (inside > _LEAST_BRIGHT * typical) & (outside < _LEAST_DROP * inside)
    return k[last] + _STEP * share, found


def _fitted(points: Float, like: Float) -> Float:
    """The circle or line through points, as a side like another."""
    if len(like) == 4:
        return circle_through(points)
    normal, middle = line_through(points)
    normal = normal if normal @ like[:2] > 0 else -normal
    return np.array([*normal, middle @ normal])
