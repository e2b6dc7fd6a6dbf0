"""Lines traced in the first network's maps, each from a tip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.kernels import njit
from fluoronav.stream.detection.network_input import KINDS, MAPS

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

TIP, TAIL = MAPS.index("tip"), MAPS.index("tail")


@dataclass(frozen=True)
class TracingLimits:
    """How lines are followed; pixels are those of the maps. All chosen on simulated maps and scenes."""

    min_tip: float = 0.1  # probability from which a peak of the tip map counts
    min_score: float = 0.35  # geometric mean of the probabilities of tip and line; the default
    tip_distance_px: int = 3  # between two tips
    max_traces: int = 8
    max_peaks: int = 1024
    # A line ends where it is fainter than this for so many steps of one pixel.
    end_probability: float = 0.25
    end_steps: int = 5
    min_length_px: int = 5
    max_length_px: int = 190
    # Largest turn in one step; less after the first steps, which show the direction.
    first_turn_deg: float = 8.0
    later_turn_deg: float = 3.0
    first_steps: int = 6
    # Distances ahead at which the line's probability is summed to choose the next step. Far ones count up to
    # `far_probability`: a needle that crosses a drill is fainter than it, and goes on beyond.
    near_ahead_px: tuple[float, ...] = (1.0, 3.0)
    far_ahead_px: tuple[float, ...] = (4.0, 6.0, 8.0, 10.0)
    far_probability: float = 0.5
    turn_cost: float = 0.04  # of half the largest turn: straight on where the probabilities are alike
    # Directions of lines at a tip. Several may leave it: tips lie close together, and a tip on another instrument's
    # shaft has that one's line on both sides.
    directions: int = 120
    direction_px: int = 12  # over which a direction's probability is summed
    direction_max_probability: float = 0.7  # a pixel counts up to this
    max_lines: int = 3
    min_line_of_strongest: float = 0.6  # fraction of the strongest line's sum
    min_angle_deg: float = 15.0  # between two lines
    # A trace runs along another where this fraction of its points is this near, and begins ahead of it where its tip is
    # farther away than this.
    same_fraction: float = 0.6
    same_px: float = 2.0
    ahead_px: float = 6.0


LIMITS = TracingLimits()
# Kernels take scalars.
_MIN_TIP, _TIP_DISTANCE_PX, _MAX_PEAKS = LIMITS.min_tip, LIMITS.tip_distance_px, LIMITS.max_peaks
_END_PROBABILITY, _END_STEPS, _MAX_LENGTH_PX = LIMITS.end_probability, LIMITS.end_steps, LIMITS.max_length_px
_FIRST_TURN_DEG, _LATER_TURN_DEG, _FIRST_STEPS = LIMITS.first_turn_deg, LIMITS.later_turn_deg, LIMITS.first_steps
_NEAR_AHEAD_PX, _FAR_AHEAD_PX = LIMITS.near_ahead_px, LIMITS.far_ahead_px
_FAR_PROBABILITY, _TURN_COST = LIMITS.far_probability, LIMITS.turn_cost
_DIRECTIONS, _DIRECTION_PX = LIMITS.directions, LIMITS.direction_px
_DIRECTION_MAX_PROBABILITY = LIMITS.direction_max_probability
_MAX_LINES, _MIN_LINE_OF_STRONGEST = LIMITS.max_lines, LIMITS.min_line_of_strongest
_SAME_DIRECTION_COS = float(np.cos(np.deg2rad(LIMITS.min_angle_deg * 0.7)))


@dataclass(frozen=True)
class Trace:
    """A line from a tip, on the grid of the maps.

    Attributes
    ----------
    kind : str
    score : float
        0 to 1.
    path : ndarray, shape (n, 2)
        (column, row) from the tip, a point every pixel.
    """

    kind: str
    score: float
    path: Float


def trace_instruments(maps: Float32, min_score: float = LIMITS.min_score, tips: Float32 | None = None) -> list[Trace]:
    """Traces in the maps, best first; at most eight.

    Parameters
    ----------
    maps : ndarray of float32, shape (6, rows, cols)
        Probabilities, as :data:`fluoronav.stream.detection.network_input.MAPS` names them.
    min_score : float
        0 to 1.
    tips : ndarray of float32, shape (rows, cols), optional
        The map of tips, where not that of the maps: 0 where none is to be proposed.
    """
    line = _any_kind(maps[: len(KINDS)])
    found: list[Trace] = []
    for tip, probability in _peaks(maps[TIP] if tips is None else tips):
        for angle in _line_directions(line, tip[0], tip[1], np.deg2rad(LIMITS.min_angle_deg)):
            path = _follow(line, tip[0], tip[1], angle)
            if len(path) < LIMITS.min_length_px:
                continue
            kind, strength = _kind_and_strength(maps[: len(KINDS)], line, path)
            score = float(np.sqrt(probability * strength))
            if score >= min_score:
                found.append(Trace(KINDS[kind], score, path))
    found.sort(key=lambda t: -t.score)
    kept: list[Trace] = []
    for trace in found:
        # Both ends of a line may look like tips; the second network tells which is.
        if not any(_same_trace(trace, other) for other in kept):
            kept.append(trace)
    return kept[: LIMITS.max_traces]


def _peaks(tips: Float32) -> list[tuple[Float, float]]:
    """Centroids (column, row) and probabilities of the tip map's peaks, most probable first."""
    out = []
    for r, c in _local_maxima(tips).tolist():
        window = tips[max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2]
        weight = window / window.sum()
        y = np.arange(max(r - 1, 0), max(r - 1, 0) + window.shape[0])
        x = np.arange(max(c - 1, 0), max(c - 1, 0) + window.shape[1])
        out.append((np.array([float(weight.sum(0) @ x), float(weight.sum(1) @ y)]), float(tips[r, c])))
    out.sort(key=lambda p: -p[1])
    return out[: 2 * LIMITS.max_traces]


def _same_trace(trace: Trace, other: Trace) -> bool:
    """Whether a trace repeats a better one.

    It does where both begin in one place in one direction; or where most of it runs along the other in the same
    direction and does not begin farther ahead. A trace that begins ahead may be the whole instrument, and the other
    begin at a tip on its shaft.
    """
    along = float((trace.path[-1] - trace.path[0]) @ (other.path[-1] - other.path[0])) > 0
    begins_together = bool(np.linalg.norm(trace.path[0] - other.path[0]) < LIMITS.tip_distance_px)
    first, other_first = (t.path[min(LIMITS.direction_px, len(t.path) - 1)] - t.path[0] for t in (trace, other))
    lengths = float(np.linalg.norm(first) * np.linalg.norm(other_first))
    if begins_together and float(first @ other_first) > _SAME_DIRECTION_COS * lengths:
        return True
    ahead = _fraction_near(trace.path[:1], other.path, LIMITS.ahead_px) == 0
    return along and not ahead and _fraction_near(trace.path, other.path, LIMITS.same_px) > LIMITS.same_fraction


@njit(cache=True, nogil=True)
def _any_kind(lines):
    """Probability of a line of any kind: the network's probability of a thin needle is half a K-wire's."""
    kinds, rows, cols = lines.shape
    out = np.empty((rows, cols), np.float32)
    for i in range(rows):
        for j in range(cols):
            total = lines[0, i, j]
            for k in range(1, kinds):
                total += lines[k, i, j]
            out[i, j] = min(total, np.float32(1))
    return out


@njit(cache=True, nogil=True)
def _kind_and_strength(lines, line, path):
    """The most probable kind along a path, and the mean probability of a line along it, without its tip."""
    totals, strength = np.zeros(len(lines)), 0.0
    for k in range(1, len(path)):
        x, y = int(np.rint(path[k, 0])), int(np.rint(path[k, 1]))
        strength += line[y, x]
        for kind in range(len(lines)):
            totals[kind] += lines[kind, y, x]
    return int(totals.argmax()), strength / (len(path) - 1)


@njit(cache=True, nogil=True)
def _local_maxima(tips):
    """Rows and columns, shape (n, 2), of the local maxima above the minimum."""
    rows, cols = tips.shape
    found = np.empty((_MAX_PEAKS, 2), np.int64)
    n = 0
    for r in range(rows):
        for c in range(cols):
            here = tips[r, c]
            if here <= _MIN_TIP:
                continue
            peak = True
            for i in range(max(r - _TIP_DISTANCE_PX, 0), min(r + _TIP_DISTANCE_PX + 1, rows)):
                for j in range(max(c - _TIP_DISTANCE_PX, 0), min(c + _TIP_DISTANCE_PX + 1, cols)):
                    peak = peak and tips[i, j] <= here
            if peak and n < _MAX_PEAKS:
                found[n, 0], found[n, 1] = r, c
                n += 1
    return found[:n].copy()


@njit(cache=True, nogil=True)
def _fraction_near(path, other, near):
    """Fraction of a path's points that have one of the other's nearer than `near`."""
    count = 0
    for k in range(len(path)):
        for m in range(len(other)):
            if (path[k, 0] - other[m, 0]) ** 2 + (path[k, 1] - other[m, 1]) ** 2 < near * near:
                count += 1
                break
    return count / len(path)


@njit(cache=True, nogil=True)
def _at(image, x, y):
    """Bilinear interpolation, 0 outside."""
    rows, cols = image.shape
    if x < 0 or y < 0 or x > cols - 1.001 or y > rows - 1.001:
        return 0.0
    i, j = int(y), int(x)
    fy, fx = y - i, x - j
    top = image[i, j] * (1 - fx) + image[i, j + 1] * fx
    low = image[i + 1, j] * (1 - fx) + image[i + 1, j + 1] * fx
    return top * (1 - fy) + low * fy


@njit(cache=True, nogil=True)
def _line_directions(line, x, y, min_angle):
    """Angles at which lines leave a tip, strongest first."""
    totals = np.zeros(_DIRECTIONS)
    for k in range(_DIRECTIONS):
        a = 2 * np.pi * k / _DIRECTIONS
        for step in range(1, _DIRECTION_PX + 1):
            totals[k] += min(_at(line, x + step * np.cos(a), y + step * np.sin(a)), _DIRECTION_MAX_PROBABILITY)
    reach = int(np.ceil(min_angle * _DIRECTIONS / (2 * np.pi)))
    out, n, min_total = np.empty(_MAX_LINES), 0, 0.0
    left = totals.copy()
    while n < _MAX_LINES:
        k = int(left.argmax())
        if left[k] <= min_total:
            break
        if totals[k] < totals[k - 1] or totals[k] < totals[(k + 1) % _DIRECTIONS]:  # the flank of a line that was taken
            left[k] = 0.0
            continue
        out[n] = 2 * np.pi * k / _DIRECTIONS
        n += 1
        min_total = _MIN_LINE_OF_STRONGEST * totals.max()
        for near in range(k - reach + 1, k + reach):
            left[near % _DIRECTIONS] = 0.0
    return out[:n]


@njit(cache=True, nogil=True)
def _follow(line, x, y, angle):
    """The path from a tip along a line that leaves it at an angle; the tip alone where the line ends at once."""
    path = np.empty((_MAX_LENGTH_PX + 1, 2))
    path[0, 0], path[0, 1] = x, y
    n, faint = 1, 0
    while n <= _MAX_LENGTH_PX:
        turn = np.deg2rad(_FIRST_TURN_DEG if n <= _FIRST_STEPS else _LATER_TURN_DEG)
        best, chosen = -1.0, angle
        for k in range(-2, 3):
            a = angle + 0.5 * k * turn
            value = -_TURN_COST * abs(k)
            for ahead in _NEAR_AHEAD_PX:
                value += _at(line, x + ahead * np.cos(a), y + ahead * np.sin(a))
            for ahead in _FAR_AHEAD_PX:
                value += min(_at(line, x + ahead * np.cos(a), y + ahead * np.sin(a)), _FAR_PROBABILITY)
            if value > best:
                best, chosen = value, a
        angle = chosen
        x, y = x + np.cos(angle), y + np.sin(angle)
        value = _at(line, x, y)
        faint = faint + 1 if value < _END_PROBABILITY else 0
        if x < 0 or y < 0 or x > line.shape[1] - 1 or y > line.shape[0] - 1:
            break
        path[n, 0], path[n, 1] = x, y
        n += 1
        if faint >= _END_STEPS:
            break
    return path[: max(n - faint, 1)]
