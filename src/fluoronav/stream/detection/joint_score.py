"""What is known of a find once both networks have seen it.

The first network saw the whole picture, the second each pixel about the axis; neither knows whether the line leaves the
field, or what both said of its other end. Two logistic regressions make probabilities of all that, which is stacked
generalisation (Wolpert, Neural Networks 5:241, 1992): that an instrument ends there, and that this end is its tip.
Their product is the score. They are two, since a blunt end of wire is surely an end, and only its surroundings say of
which sort: where the wire leaves the field it is the tip.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fluoronav.stream.detection.networks import Looked, share
from fluoronav.stream.detection.same_instrument import on_one_line
from fluoronav.stream.frame import Detection

Float = NDArray[np.float64]

# What each says as log-odds of both: that an instrument ends there, and that this is its tip. The length is in pixels
# of a 1024 image. Fitted by engines/training/fit_joint.py.
WEIGHTS = {
    "first look's logit": (0.999, 0.848),
    "second look's logit of an end": (0.334, -0.115),
    "second look's logit of an end where the first saw it": (0.262, -0.018),
    "second look's logit of the tip": (0.189, 0.998),
    "the line leaves the field": (1.421, 2.406),
    "first look's logit of the other end": (0.018, 0.708),
    "second look's logit of an end at the other end": (0.058, -0.362),
    "second look's logit of the tip at the other end": (-0.123, -0.671),
    "both looks say the same kind": (0.129, 0.876),
    "the shadow fades where the detector saturates": (-33.367, 0.731),
    "log of the length": (0.745, -2.050),
    "1": (-5.769, 13.431),
}
_WEIGHTS = np.array(list(WEIGHTS.values()))
FEATURES = len(WEIGHTS) - 1
_SURE = 1e-6
# Of an other end that nobody proposed.
_NO_FIRST, _NO_SECOND, _NO_TIP = -4.0, -12.0, 0.0
_OUTWARDS_PX, _EVERY_PX = 24.0, 4.0
_LEAST_LENGTH_PX = 5.0


def scores(looked: list[Looked], field_mask: NDArray[np.bool_], frame_shape: tuple[int, ...]) -> Float:
    """Probability that each find is an instrument whose tip is there, shape (n,).

    Parameters
    ----------
    looked : list of Looked, n
    seen : ndarray of bool
        Inside the aperture, any size.
    frame_shape : tuple of int
        (rows, cols) of the frame, in whose pixels the finds are.
    """
    log_odds = features(looked, field_mask, frame_shape) @ _WEIGHTS[:-1] + _WEIGHTS[-1]
    return np.array([share(an_end) * share(the_tip) for an_end, the_tip in log_odds])


def features(looked: list[Looked], field_mask: NDArray[np.bool_], frame_shape: tuple[int, ...]) -> Float:
    """What is weighed of each find, shape (n, 11), ordered as :data:`WEIGHTS`; parameters as for :func:`scores`."""
    scale = max(frame_shape) / 1024
    by_first, by_second = [_logit(k.first.score) for k in looked], [_logit(k.second.score) for k in looked]
    of_tip = [_logit(k.tip_rather) for k in looked]
    out = np.empty((len(looked), FEATURES))
    for k, one in enumerate(looked):
        before, now = one.first, one.second
        others = [m for m, other in enumerate(looked) if m != k and _is_other_end(now, other.second, scale)]
        other_end = max(others, key=lambda m: by_first[m], default=None)
        length = math.dist(now.tip_px.tolist(), now.tail_px.tolist()) / scale
        out[k] = (
            by_first[k],
            by_second[k],
            _logit(one.second_at_first),
            of_tip[k],
            leaves_field(before, field_mask, frame_shape),
            _NO_FIRST if other_end is None else by_first[other_end],
            _NO_SECOND if other_end is None else by_second[other_end],
            _NO_TIP if other_end is None else of_tip[other_end],
            before.kind == now.kind,
            one.fade,
            math.log(max(length, _LEAST_LENGTH_PX)),
        )
    return out


def _is_other_end(d: Detection, other: Detection, scale: float) -> bool:
    """Whether a find is of the other end of a find's line; one that points the same way is of the same end."""
    return float(d.direction @ other.direction) < 0 and on_one_line(d, other, scale)


def leaves_field(d: Detection, field_mask: NDArray[np.bool_], frame_shape: tuple[int, ...]) -> bool:
    """Whether the field ends where a find's line does."""
    rows, cols = frame_shape
    seen_rows, seen_cols = field_mask.shape
    (tip_x, tip_y), (x, y) = d.tip_px.tolist(), d.tail_px.tolist()
    length = max(math.hypot(x - tip_x, y - tip_y), 1e-9)
    step = _EVERY_PX * max(rows, cols) / 1024
    step_x, step_y = (x - tip_x) / length * step, (y - tip_y) / length * step
    for _ in range(round(_OUTWARDS_PX / _EVERY_PX) + 1):
        if not (0 <= x < cols and 0 <= y < rows and field_mask[int(y * seen_rows / rows), int(x * seen_cols / cols)]):
            return True
        x, y = x + step_x, y + step_y
    return False


def _logit(p: float) -> float:
    p = min(max(p, _SURE), 1 - _SURE)
    return math.log(p / (1 - p))
