"""What is known of a find once both networks have seen it.

The first network saw the whole picture, the second each pixel about the axis; neither knows whether the line leaves the
field, or what both said of its other end. One score is made of all that by a logistic regression,
which is stacked generalisation (Wolpert, Neural Networks 5:241, 1992).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluoronav.instruments.looks import Looked, share
from fluoronav.records import Detection

Float = NDArray[np.float64]

# What each says, as log-odds; the length is in pixels of a 1024 image. Fitted by engines/fit_joint.py.
WEIGHTS = {
    "first look's logit": 1.363,
    "second look's logit": 0.414,
    "second look's logit where the first saw it": 0.226,
    "the line leaves the field": 1.779,
    "first look's logit of the other end": 0.295,
    "second look's logit of the other end": -0.115,
    "both looks say the same kind": 0.341,
    "log of the length": 0.417,
}
BIAS = -3.958
_WEIGHTS = np.array(list(WEIGHTS.values()))
_SURE = 1e-6
# Of an other end that nobody proposed.
_NO_FIRST, _NO_SECOND = -4.0, -12.0
_OUTWARDS_PX, _EVERY_PX = 24.0, 4.0
_LEAST_LENGTH_PX = 5.0
# Two finds are of one line when their axes differ by less than this (6 degrees, pixels of a 1024 image).
_SAME_AXIS_COS, _SAME_AXIS_PX = 0.9945, 10.0


def scores(looked: list[Looked], seen: NDArray[np.bool_], frame_shape: tuple[int, ...]) -> Float:
    """Probability that each find is an instrument whose tip is there, shape (n,).

    Parameters
    ----------
    looked : list of Looked, n
    seen : ndarray of bool
        Inside the aperture, any size.
    frame_shape : tuple of int
        (rows, cols) of the frame, in whose pixels the finds are.
    """
    return np.array([share(log_odds) for log_odds in features(looked, seen, frame_shape) @ _WEIGHTS + BIAS])


def features(looked: list[Looked], seen: NDArray[np.bool_], frame_shape: tuple[int, ...]) -> Float:
    """What is weighed of each find, shape (n, 8), in the order of :data:`WEIGHTS`; parameters as for :func:`scores`."""
    scale = max(frame_shape) / 1024
    by_first, by_second = [_logit(k.first.score) for k in looked], [_logit(k.second.score) for k in looked]
    out = np.empty((len(looked), len(WEIGHTS)))
    for k, one in enumerate(looked):
        before, now = one.first, one.second
        others = [m for m, other in enumerate(looked) if m != k and on_one_line(now, other.second, scale)]
        other_end = max(others, key=lambda m: by_first[m], default=None)
        length = float(np.linalg.norm(now.tip_px - now.tail_px)) / scale
        out[k] = (
            by_first[k],
            by_second[k],
            _logit(one.second_at_first),
            leaves_field(before, seen, frame_shape),
            _NO_FIRST if other_end is None else by_first[other_end],
            _NO_SECOND if other_end is None else by_second[other_end],
            before.kind == now.kind,
            np.log(max(length, _LEAST_LENGTH_PX)),
        )
    return out


def leaves_field(d: Detection, seen: NDArray[np.bool_], frame_shape: tuple[int, ...]) -> bool:
    """Whether the field ends where a find's line does."""
    rows_cols = np.array(frame_shape, float)
    outwards = d.tail_px - d.tip_px
    step = outwards / max(float(np.linalg.norm(outwards)), 1e-9) * _EVERY_PX * rows_cols.max() / 1024
    at = d.tail_px + np.arange(_OUTWARDS_PX / _EVERY_PX + 1)[:, None] * step
    outside = ((at < 0) | (at >= rows_cols[::-1])).any(1)
    if outside.any():
        return True
    col, row = (at * np.array(seen.shape[::-1]) / rows_cols[::-1]).astype(int).T
    return bool(not seen[row, col].all())


def on_one_line(d: Detection, other: Detection, scale: float) -> bool:
    """Whether two finds lie along each other: the same axis either way round, and the same stretch of it."""
    if abs(float(d.direction @ other.direction)) < _SAME_AXIS_COS:
        return False
    ends = np.stack([d.tip_px, d.tail_px]) - other.tip_px
    normal = np.array([-other.direction[1], other.direction[0]])
    if np.abs(ends.mean(0) @ normal) > _SAME_AXIS_PX * scale:
        return False
    along, reach = ends @ other.direction, float((other.tail_px - other.tip_px) @ other.direction)
    shared = min(along.max(), max(reach, 0.0)) - max(along.min(), min(reach, 0.0))
    return bool(shared > 0.5 * min(np.ptp(along), abs(reach)))


def _logit(p: float) -> float:
    p = min(max(p, _SURE), 1 - _SURE)
    return float(np.log(p / (1 - p)))
