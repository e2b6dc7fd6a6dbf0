"""Where in the image there is anything to see: inside the aperture and between the collimator's blades.

A C-arm's field is a disc cut off by straight blades. Its rim is found where the logarithm of the signal drops on the
way out, and shapes are fitted to it: a limb, the spine or an instrument that reaches the rim is as dark as what lies
behind a blade, but is neither round nor straight along the rim. To a pixel the rim is found by `rim.py`, from here on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

_RAYS, _STEPS = 360, 112
# A drop of the signal to a quarter within so many steps of a ray, to less than this share of the median: behind a blade
# scatter arrives.
_DROP, _REACH, _BEHIND_SHARE = 1.4, 2, 0.6
# A median below this share of the brightest signal is of what lies outside a small field: exposure control keeps
# anatomy above, where the open beam saturates. Of a small field's border the aperture's sides are this share, at least:
# a leg that fills all but a strip of air has one straight side. And without sides that have none opposite, as far from
# the middle (to this share of the longer side), it would be larger by this factor at most: blades close from both
# sides.
_OPPOSITE, _OFF_MIDDLE, _MOST_BY_ONE = -0.99, 0.12, 1.15
_DIM_SHARE, _LEAST_BOUNDED = 0.1, 0.6
_BRIGHT_SHARES, _LEAST_BRIGHT, _BRIGHTER, _BRIGHT_ENOUGH = (0.06, 0.12, 0.24), 0.06, 1.5, 0.12
# Signals below this share of the upper ones are nothing: noise of the dark level.
_FLOOR_SHARE = 0.01
# A side of the field is held by so many rim points (of a ray each), this well (share of the image's longer side).
_LEAST_POINTS, _OFF_SHARE = 14, 0.9 / 128
_MOST_SIDES, _TRIALS, _WIDE, _MOST_PASSED_OVER = 9, 160, 20, 16
_LIT_SHARE, _LIT_INSIDE = 0.5, 0.985
# A round field's radius is at most this share of the longer side; a diaphragm's dome may seem to have a larger one.
_LARGEST_SHARE = 0.8
# Along a blade the signal drops, to less than half, wherever there is this share of the median before it; so far from
# its edge (pixels of a 128 image). A driver's straight edge is one along a part of the field only.
_TELLING_SHARE, _HALF, _ACROSS_PX, _LEAST_ALONG = 0.1, 0.7, 3.0, 0.9
# Pixels of a 128 image by which the field is made smaller: the penumbra.
_MARGIN = 1.6
# Without signal, connected with the image's border, not explained by the rim, and of this share of the image: not seen
# either. (The darkest half percent passes for the dark level where there is no aperture.) So far inside the convex hull
# of what is lit (pixels of a 128 image) darkness is a limb's or an implant's, though.
_NOTHING_SHARE, _LEAST_NOTHING, _RIM_PX, _LEAST_LIT = 0.04, 0.015, 6, 0.01
_LEAST_OUTSIDE = 0.02


@dataclass(frozen=True)
class Aperture:
    """The field of a frame, found in a small version of it.

    Attributes
    ----------
    sides : tuple of ndarray
        Of the field, in pixels (column, row) of that version: a circle's centre, radius and a 0, or a line's normal,
        which points inwards, and its offset.
    seen : ndarray of bool, its shape
        Inside all sides, away from their penumbra, and not `nothing`.
    nothing : ndarray of bool, the same shape
        Without signal, and no side explains it.
    typical : float
        Counts above the dark level, the median of what lies inside or of the whole image.
    """

    sides: tuple[Float, ...]
    field_mask: NDArray[np.bool_]
    nothing: NDArray[np.bool_]
    typical: float


def find_aperture(counts: Float32) -> Aperture:
    """Finds what lies inside the aperture and between the blades.

    Parameters
    ----------
    counts : ndarray of float32, shape (rows, cols)
        A small version of the frame (128 pixels, say), bright = more X-ray.
    """
    dark = float(np.percentile(counts, 0.5))
    signal = np.maximum(cv2.blur(counts, (3, 3)) - np.float32(dark), 0)
    typical, bright = float(np.median(counts)) - dark, float(np.percentile(signal, 90))
    lit = _large(signal > _LIT_SHARE * typical)
    nothing_below = _NOTHING_SHARE * typical
    brightest = float(np.percentile(signal, 99))
    small = _small_field(signal, brightest) if typical < _DIM_SHARE * brightest else None
    if small is None:
        sides, distance = _field(signal, typical, bright, lit)
    else:
        sides, distance, lit, typical = small
    inside = distance > _MARGIN * max(counts.shape) / 128
    nothing = (signal <= nothing_below) & (distance > 0)
    _, region = cv2.connectedComponents((nothing | (distance <= 0)).astype(np.uint8), connectivity=4)
    border = np.unique(np.concatenate([region[0], region[-1], region[:, 0], region[:, -1]]))
    unexplained = nothing & np.isin(region, border[border > 0])
    # Narrow ones are instruments that reach the rim.
    unexplained = cv2.morphologyEx(unexplained.astype(np.uint8), cv2.MORPH_OPEN, np.ones((9, 9), np.uint8)) > 0
    unexplained &= (unexplained.mean() >= _LEAST_NOTHING) & ~_well_inside(lit)
    return Aperture(tuple(sides), inside & ~unexplained, unexplained, typical)


def dark_level(counts: Float32, field_mask: NDArray[np.bool_]) -> float:
    """What the detector reads without X-rays, where there is enough outside the field to tell; else 0.

    Parameters
    ----------
    counts : ndarray of float32, shape (rows, cols)
        As for :func:`find_aperture`.
    seen : ndarray of bool, the same shape
    """
    outside = counts[~field_mask]
    return float(np.percentile(outside, 10)) if outside.size > _LEAST_OUTSIDE * counts.size else 0.0


def _field(signal: Float32, median: float, bright: float, lit: NDArray[np.bool_]) -> tuple[list[Float], Float]:
    """The field's sides, and how far each pixel lies inside them, pixels; far where there is no rim."""
    rows, cols = signal.shape
    distance = np.full(signal.shape, float(max(rows, cols)))
    sides: list[Float] = []
    if not lit.any():
        return sides, distance
    # Noise of the dark level is no drop.
    floor = _FLOOR_SHARE * bright + 1e-3
    log = np.log(signal + np.float32(floor)).astype(np.float32)
    left = _rim(log, float(np.log(_BEHIND_SHARE * median + floor)), lit)
    telling = signal > _TELLING_SHARE * median
    lit_at = np.argwhere(lit)[::4, ::-1].astype(np.float64)
    off = _OFF_SHARE * max(rows, cols)
    y, x = np.mgrid[:rows, :cols]
    rng = np.random.default_rng(0)
    round_found = False

    def cuts(normal: Float, offset: float) -> bool:
        return _all_along(normal, offset, log, telling & (distance > 0))

    for _ in range(_MOST_SIDES):
        fits = [_line(left, lit_at, off, cuts)]
        if not round_found:
            fits.append(_circle(left, lit_at, off, rng))
        shape, held = max(fits, key=lambda fit: int(fit[1].sum()))
        if held.sum() < _LEAST_POINTS:
            break
        left = left[~held]
        round_found |= len(shape) == 4
        sides.append(shape)
        np.minimum(distance, depth(shape, x, y), out=distance)
    return sides, distance


def _small_field(signal: Float32, brightest: float) -> tuple[list[Float], Float, NDArray[np.bool_], float] | None:
    """Sides, distance, what is lit, and the typical signal of a field of less than half the image, if there is one.

    What is bright stands for it: the more leaks through the blades, the brighter that must be.
    """
    best, best_median = None, _LEAST_BRIGHT * brightest
    for share in _BRIGHT_SHARES:
        above = signal[signal > share * brightest]
        typical = float(np.median(above))
        lit = _large(signal > _LIT_SHARE * typical)
        sides, distance = _field(signal, typical, float(np.percentile(above, 90)), lit)
        inside = distance > 0
        if not inside.any():
            continue
        median = float(np.median(signal[inside]))
        # Far brighter, or it is what the one before left of the field.
        if (
            _bounded(inside)
            and _in_pairs(sides, inside)
            and median > (1.0 if best is None else _BRIGHTER) * best_median
        ):
            best, best_median = (sides, distance, lit, typical), median
        if best_median > _BRIGHT_ENOUGH * brightest:
            break
    return best


def _in_pairs(sides: list[Float], field: NDArray[np.bool_]) -> bool:
    """Whether a field is narrowed by its circle and by blades that stand opposite one another, about the middle."""
    rows, cols = field.shape
    y, x = np.mgrid[:rows, :cols]
    middle = np.array([cols - 1, rows - 1]) / 2

    def opposite(a: Float, b: Float) -> bool:
        off = (a[2] - b[2]) / 2 - float(a[:2] @ middle)
        return float(a[:2] @ b[:2]) < _OPPOSITE and abs(off) < _OFF_MIDDLE * max(rows, cols)

    wider = np.ones(field.shape, bool)
    for side in sides:
        if len(side) == 4 or any(len(other) == 3 and opposite(side, other) for other in sides):
            wider &= depth(side, x, y) > 0
    return bool(wider.sum() < _MOST_BY_ONE * field.sum())


def _bounded(field: NDArray[np.bool_]) -> bool:
    """Whether most of a field's border is not the image's own."""
    ring = field & (cv2.erode(field.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0) == 0)
    of_image = np.ones(field.shape, bool)
    of_image[1:-1, 1:-1] = False
    return bool((ring & ~of_image).sum() > _LEAST_BOUNDED * ring.sum())


def _rim(log: Float32, most_behind: float, lit: NDArray[np.bool_]) -> Float:
    """Places (column, row) where the signal drops to nothing on the way out from the middle of what is lit."""
    rows, cols = log.shape
    at = np.argwhere(lit).mean(0)[::-1]
    reach = float(np.hypot(rows, cols))
    step = reach / _STEPS
    # Beyond the image nothing drops: the last pixel goes on.
    polar = cv2.warpPolar(
        cv2.copyMakeBorder(log, rows, rows, cols, cols, cv2.BORDER_REPLICATE),
        (_STEPS, _RAYS), (float(at[0]) + cols, float(at[1]) + rows), reach,
        # From a field in a corner a ray may end beyond even that; left out, it would be what the memory held.
        cv2.WARP_POLAR_LINEAR | cv2.INTER_LINEAR | cv2.WARP_FILL_OUTLIERS,
    )  # fmt: skip
    drop = polar[:, : -2 * _REACH] - polar[:, 2 * _REACH :]
    behind = polar[:, 2 * _REACH :] < most_behind
    edge = (drop > _DROP) & behind & (drop >= cv2.dilate(drop, np.ones((1, 5), np.uint8)))
    angle = 2 * np.pi * np.arange(_RAYS) / _RAYS
    # Leaded blades leak: behind a bright one the aperture's own rim shows, too, so a ray may have several.
    ray, k = np.nonzero(edge)
    points = at + ((k + _REACH) * step)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)[ray]
    in_image = (points > 0.5).all(1) & (points[:, 0] < cols - 1.5) & (points[:, 1] < rows - 1.5)
    return points[in_image]


def _line(
    points: Float, lit: Float, off: float, cuts: Callable[[Float, float], bool]
) -> tuple[Float, NDArray[np.bool_]]:
    """The line (a normal that points inwards, and its offset) that holds the most points, and which."""
    none = np.zeros(3), np.zeros(len(points), bool)
    if len(points) < _LEAST_POINTS:
        return none
    angle = np.deg2rad(np.arange(0, 180, 1.0))
    normal = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    bins = np.floor(points @ normal.T / (2 * off)).astype(np.int64)
    bins -= bins.min()
    size = int(bins.max()) + 2
    cell = bins + size * np.arange(len(angle))
    held = np.bincount(cell.ravel(), minlength=size * len(angle))
    left = np.ones(len(points), bool)
    for _ in range(_MOST_PASSED_OVER):
        of_angle = held.reshape(-1, size)
        pairs = of_angle[:, :-1] + of_angle[:, 1:]
        a, b = np.unravel_index(int(pairs.argmax()), pairs.shape)
        near = left & ((bins[:, a] == b) | (bins[:, a] == b + 1))
        if near.sum() < _LEAST_POINTS:
            break
        n, middle = line_through(points[near])
        if ((lit - middle) @ n).mean() < 0:
            n = -n
        # What is lit lies on one side of a blade.
        if ((lit - middle) @ n > -1.5 * off).mean() > _LIT_INSIDE and cuts(n, float(middle @ n)):
            return np.array([*n, middle @ n]), np.abs((points - middle) @ n) < 1.3 * off
        left &= ~near  # a limb's edge, or an instrument's
        held -= np.bincount(cell[near].ravel(), minlength=len(held))
    return none


def _all_along(normal: Float, offset: float, log: Float32, field: NDArray[np.bool_]) -> bool:
    """Whether the signal drops across a line wherever it runs through the field."""
    rows, cols = log.shape
    reach = float(np.hypot(rows, cols))
    on = normal * offset + np.arange(-reach, reach)[:, None] * np.array([-normal[1], normal[0]])
    across = _ACROSS_PX * max(rows, cols) / 128 * normal
    (x, y), (behind_x, behind_y) = (np.rint(on + side * across).astype(int).T for side in (1, -1))
    in_image = (np.minimum(x, behind_x) >= 0) & (np.maximum(x, behind_x) < cols)
    in_image &= (np.minimum(y, behind_y) >= 0) & (np.maximum(y, behind_y) < rows)
    x, y, behind_x, behind_y = x[in_image], y[in_image], behind_x[in_image], behind_y[in_image]
    drop = (log[y, x] - log[behind_y, behind_x])[field[y, x]]
    return len(drop) == 0 or bool((drop > _HALF).mean() > _LEAST_ALONG)


def _circle(points: Float, lit: Float, off: float, rng: np.random.Generator) -> tuple[Float, NDArray[np.bool_]]:
    """The circle (centre, radius, 0) that holds the most points, and which."""
    none = np.zeros(4), np.zeros(len(points), bool)
    if len(points) < _LEAST_POINTS:
        return none
    three = points[rng.integers(len(points), size=(_TRIALS, 3))]
    a, b = three[:, 1] - three[:, 0], three[:, 2] - three[:, 0]
    cross = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    wide = np.abs(cross) > (_WIDE * off) ** 2  # three points that nearly lie on a line tell nothing
    if not wide.any():
        return none
    three, a, b, cross = three[wide], a[wide], b[wide], cross[wide]
    aa, bb = (a**2).sum(1), (b**2).sum(1)
    from_first = np.stack([b[:, 1] * aa - a[:, 1] * bb, a[:, 0] * bb - b[:, 0] * aa], 1) / (2 * cross[:, None])
    centre = three[:, 0] + from_first
    radius = np.linalg.norm(three[:, 0] - centre, axis=1)
    miss = np.abs(np.linalg.norm(points[None] - centre[:, None], axis=2) - radius[:, None])
    k = int((miss < off).sum(1).argmax())
    held = miss[k] < off
    c, r = centre[k], float(radius[k])
    for _ in range(2):  # least squares (Kasa)
        if held.sum() < _LEAST_POINTS:
            return none
        circle = circle_through(points[held])
        c, r = circle[:2], float(circle[2])
        held = np.abs(np.linalg.norm(points - c, axis=1) - r) < off
    too_large = r > _LARGEST_SHARE * off / _OFF_SHARE
    if too_large or (np.linalg.norm(lit - c, axis=1) < r + 1.5 * off).mean() < _LIT_INSIDE:
        return none
    return np.array([*c, r, 0.0]), held


def circle_through(points: Float) -> Float:
    """Centre, radius and a 0 of the circle through points (least squares, Kasa), shape (4,)."""
    q = np.linalg.lstsq(np.column_stack([2 * points, np.ones(len(points))]), (points**2).sum(1), rcond=None)[0]
    return np.array([*q[:2], np.sqrt(max(q[2] + q[:2] @ q[:2], 0)), 0.0])


def line_through(points: Float) -> tuple[Float, Float]:
    """Normal, to either side, and middle of the line through points (least squares across it), shape (2,) each."""
    middle = points.mean(0)
    return np.linalg.svd(points - middle, full_matrices=False)[2][1], middle


def depth(side: Float, x: NDArray, y: NDArray) -> Float:
    """How far pixels lie inside one of an aperture's sides."""
    if len(side) == 4:
        return side[2] - np.hypot(x - side[0], y - side[1])
    return side[0] * x + side[1] * y - side[2]


def _large(lit: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The large regions of what is lit."""
    _, region, stats, _ = cv2.connectedComponentsWithStats(lit.astype(np.uint8), connectivity=4)
    return np.isin(region, np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] >= _LEAST_LIT * lit.size) + 1)


def _well_inside(lit: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Well inside the convex hull of what is lit."""
    inside = np.zeros(lit.shape, np.uint8)
    if lit.any():
        outlines, _ = cv2.findContours(lit.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        hull = cv2.convexHull(np.concatenate(outlines))
        cv2.fillConvexPoly(inside, hull, 1)
    reach = max(round(_RIM_PX * max(lit.shape) / 128), 1)
    ring = cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return cv2.erode(ring, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))[1:-1, 1:-1] > 0
