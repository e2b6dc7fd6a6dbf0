"""From the network's maps to instruments: a tip, and the line that runs from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fluoronav.stream.detection.network_input import KINDS, MAPS

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

TIP, TAIL = MAPS.index("tip"), MAPS.index("tail")
# A peak of the tip map counts from here on; the score of an instrument is the tip's times the line's.
_LEAST_TIP, LEAST_SCORE = 0.1, 0.35
_TIPS_APART_PX, _MOST, _MOST_PEAKS = 3, 8, 1024
# A line is followed in steps of one pixel of the grid, until it fades for so long.
_FADED, _FADED_FOR, _SHORTEST_PX, _LONGEST_PX = 0.25, 5, 5, 190
# It turns by so much a step at the most; less, once its first steps have shown which way it runs. The line is seen at
# once this far ahead; farther on by no more than so much: a needle that crosses a drill has a fainter line than it, and
# goes on beyond. Straight on where it makes no difference.
_TURN_DEG, _LATER_TURN_DEG, _FIRST_STEPS = 8.0, 3.0, 6
_NEAR_AHEAD_PX, _FAR_AHEAD_PX, _FAR_ENOUGH, _TURN_COST = (1.0, 3.0), (4.0, 6.0, 8.0, 10.0), 0.5, 0.04
# Another line from the same tip is one that is so much as strong over its first pixels, at least so far turned from the
# first: tips lie close together, and a tip on another's shaft has that to both sides.
_ANGLES, _FIRST_PX, _MOST_LINES = 120, 12, 3
_OTHER_SHARE, _OTHER_DEG = 0.6, 15.0
# A trace runs along another when so much of it is so near, and begins ahead of it when so far (pixels of the grid).
_MOST_NEAR, _NEAR_PX, _AHEAD_PX = 0.6, 2.0, 6.0
_ONE_WAY_COS = float(np.cos(np.deg2rad(_OTHER_DEG * 0.7)))


@dataclass(frozen=True)
class Trace:
    """An instrument on the grid of the maps.

    Attributes
    ----------
    kind : str
    score : float
        0 to 1.
    path : ndarray, shape (n, 2)
        (column, row) from the tip on, a point every pixel.
    """

    kind: str
    score: float
    path: Float


def trace_instruments(maps: Float32, least_score: float = LEAST_SCORE) -> list[Trace]:
    """Instruments in the maps, best first.

    Parameters
    ----------
    maps : ndarray of float32, shape (6, rows, cols)
        Probabilities, as :data:`fluoronav.stream.detection.network_input.MAPS` names them.
    least_score : float
        Weaker ones are left out.
    """
    line = _of_any_kind(maps[: len(KINDS)])
    found: list[Trace] = []
    for tip, probability in _peaks(maps[TIP]):
        for angle in _directions(line, tip[0], tip[1], np.deg2rad(_OTHER_DEG)):
            path = _follow(line, tip[0], tip[1], angle)
            if len(path) < _SHORTEST_PX:
                continue
            kind, strength = _along(maps[: len(KINDS)], line, path)
            score = float(np.sqrt(probability * strength))
            if score >= least_score:
                found.append(Trace(KINDS[kind], score, path))
    found.sort(key=lambda t: -t.score)
    kept: list[Trace] = []
    for trace in found:
        # Both ends of one line may look like tips: which it is, the second look says.
        if not any(_same_trace(trace, other) for other in kept):
            kept.append(trace)
    return kept[:_MOST]


def _peaks(tips: Float32) -> list[tuple[Float, float]]:
    """Places (column, row; to a fraction) and values of the peaks."""
    out = []
    for r, c in _highest(tips).tolist():
        here = tips[max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2]
        weight = here / here.sum()
        y = np.arange(max(r - 1, 0), max(r - 1, 0) + here.shape[0])
        x = np.arange(max(c - 1, 0), max(c - 1, 0) + here.shape[1])
        out.append((np.array([float(weight.sum(0) @ x), float(weight.sum(1) @ y)]), float(tips[r, c])))
    out.sort(key=lambda p: -p[1])
    return out[: 2 * _MOST]


def _same_trace(trace: Trace, other: Trace) -> bool:
    """Whether a trace says no more than a better one: both begin in one place and run one way, or most of it runs along
    the other in the same sense and it does not begin farther ahead.

    What begins farther ahead may be the whole of which the other is a part: a tip that lies on another instrument's
    shaft is taken for that one's, too.
    """
    along = float((trace.path[-1] - trace.path[0]) @ (other.path[-1] - other.path[0])) > 0
    begins_together = bool(np.linalg.norm(trace.path[0] - other.path[0]) < _TIPS_APART_PX)
    begun, other_begun = (t.path[min(_FIRST_PX, len(t.path) - 1)] - t.path[0] for t in (trace, other))
    one_way = float(begun @ other_begun) > _ONE_WAY_COS * float(np.linalg.norm(begun) * np.linalg.norm(other_begun))
    if begins_together and one_way:
        return True
    ahead = _share_near(trace.path[:1], other.path, _AHEAD_PX) == 0
    return along and not ahead and _share_near(trace.path, other.path, _NEAR_PX) > _MOST_NEAR


@njit(cache=True, nogil=True)
def _of_any_kind(lines):
    """Probability of an instrument's line, of whatever kind: a thin needle is half a K-wire to the network."""
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
def _along(lines, line, path):
    """The kind of which a path shows most, and the mean probability of a line along it; its tip does not count."""
    totals, strength = np.zeros(len(lines)), 0.0
    for k in range(1, len(path)):
        x, y = int(np.rint(path[k, 0])), int(np.rint(path[k, 1]))
        strength += line[y, x]
        for kind in range(len(lines)):
            totals[kind] += lines[kind, y, x]
    return int(totals.argmax()), strength / (len(path) - 1)


@njit(cache=True, nogil=True)
def _highest(tips):
    """Rows and columns, shape (n, 2), of what is higher than the least and than all around it."""
    rows, cols = tips.shape
    found = np.empty((_MOST_PEAKS, 2), np.int64)
    n = 0
    for r in range(rows):
        for c in range(cols):
            here = tips[r, c]
            if here <= _LEAST_TIP:
                continue
            peak = True
            for i in range(max(r - _TIPS_APART_PX, 0), min(r + _TIPS_APART_PX + 1, rows)):
                for j in range(max(c - _TIPS_APART_PX, 0), min(c + _TIPS_APART_PX + 1, cols)):
                    peak = peak and tips[i, j] <= here
            if peak and n < _MOST_PEAKS:
                found[n, 0], found[n, 1] = r, c
                n += 1
    return found[:n].copy()


@njit(cache=True, nogil=True)
def _share_near(path, other, near):
    """Which share of a path's points has one of the other's nearer than `near`."""
    count = 0
    for k in range(len(path)):
        for m in range(len(other)):
            if (path[k, 0] - other[m, 0]) ** 2 + (path[k, 1] - other[m, 1]) ** 2 < near * near:
                count += 1
                break
    return count / len(path)


@njit(cache=True, nogil=True)
def _at(image, x, y):
    rows, cols = image.shape
    if x < 0 or y < 0 or x > cols - 1.001 or y > rows - 1.001:
        return 0.0
    i, j = int(y), int(x)
    fy, fx = y - i, x - j
    top = image[i, j] * (1 - fx) + image[i, j + 1] * fx
    low = image[i + 1, j] * (1 - fx) + image[i + 1, j + 1] * fx
    return top * (1 - fy) + low * fy


@njit(cache=True, nogil=True)
def _directions(line, x, y, apart):
    """The angle at which a line leaves a tip; and those of others that are nearly as strong, strongest first."""
    totals = np.zeros(_ANGLES)
    for k in range(_ANGLES):
        a = 2 * np.pi * k / _ANGLES
        for step in range(1, _FIRST_PX + 1):
            totals[k] += min(_at(line, x + step * np.cos(a), y + step * np.sin(a)), 0.7)
    reach = int(np.ceil(apart * _ANGLES / (2 * np.pi)))
    out, n, least = np.empty(_MOST_LINES), 0, 0.0
    left = totals.copy()
    while n < _MOST_LINES:
        k = int(left.argmax())
        if left[k] <= least:
            break
        if totals[k] < totals[k - 1] or totals[k] < totals[(k + 1) % _ANGLES]:  # the flank of one that was taken
            left[k] = 0.0
            continue
        out[n] = 2 * np.pi * k / _ANGLES
        n += 1
        least = _OTHER_SHARE * totals.max()
        for near in range(k - reach + 1, k + reach):
            left[near % _ANGLES] = 0.0
    return out[:n]


@njit(cache=True, nogil=True)
def _follow(line, x, y, angle):
    """The path from a tip along a line that leaves it at an angle; the tip alone where none goes on."""
    path = np.empty((_LONGEST_PX + 1, 2))
    path[0, 0], path[0, 1] = x, y
    n, faded = 1, 0
    while n <= _LONGEST_PX:
        turn = np.deg2rad(_TURN_DEG if n <= _FIRST_STEPS else _LATER_TURN_DEG)
        best, chosen = -1.0, angle
        for k in range(-2, 3):
            a = angle + 0.5 * k * turn
            value = -_TURN_COST * abs(k)
            for ahead in _NEAR_AHEAD_PX:
                value += _at(line, x + ahead * np.cos(a), y + ahead * np.sin(a))
            for ahead in _FAR_AHEAD_PX:
                value += min(_at(line, x + ahead * np.cos(a), y + ahead * np.sin(a)), _FAR_ENOUGH)
            if value > best:
                best, chosen = value, a
        angle = chosen
        x, y = x + np.cos(angle), y + np.sin(angle)
        value = _at(line, x, y)
        faded = faded + 1 if value < _FADED else 0
        if x < 0 or y < 0 or x > line.shape[1] - 1 or y > line.shape[0] - 1:
            break
        path[n, 0], path[n, 1] = x, y
        n += 1
        if faded >= _FADED_FOR:
            break
    return path[: max(n - faded, 1)]
