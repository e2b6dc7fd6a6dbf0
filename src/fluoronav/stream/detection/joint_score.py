"""One score of a candidate from all that both networks say of it.

The first network sees the whole image, the second the pixels about the axis; neither knows whether the line leaves the
field, or what both say of its other end. Two logistic regressions combine all of it, which is stacked generalisation
(Wolpert, Neural Networks 5:241, 1992): the probability that an instrument ends there, and that this end is its tip. The
score is their product. They are two since a blunt end of wire is surely an end, and only its surroundings tell which:
where the wire leaves the field, the end in view is the tip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.stream.detection.same_instrument import same_line
from fluoronav.stream.detection.two_stage import Candidate, probability
from fluoronav.stream.frame import Detection

Float = NDArray[np.float64]

# Weights of each feature in the log-odds that an instrument ends there, and that this is its tip. The length is in
# pixels of a 1024 image. Fitted by engines/training/fit_joint.py on candidates of 4,500 simulated scenes.
WEIGHTS = {
    "first network's logit": (0.999, 0.848),
    "second network's logit of an end": (0.334, -0.115),
    "second network's logit of an end where the first put it": (0.262, -0.018),
    "second network's logit of the tip": (0.189, 0.998),
    "the line leaves the field": (1.421, 2.406),
    "first network's logit of the other end": (0.018, 0.708),
    "second network's logit of an end at the other end": (0.058, -0.362),
    "second network's logit of the tip at the other end": (-0.123, -0.671),
    "both networks name the same kind": (0.129, 0.876),
    "saturation ahead and on the shaft": (-33.367, 0.731),
    "log of the length": (0.745, -2.050),
    "1": (-5.769, 13.431),
}
_WEIGHTS = np.array(list(WEIGHTS.values()))
FEATURES = len(WEIGHTS) - 1


@dataclass(frozen=True)
class FeatureLimits:
    """How features are computed; chosen before the fit, which they are part of."""

    min_probability: float = 1e-6  # probabilities are clipped to this and to 1 less this, so that logits are finite
    # Logits of an other end that was not proposed.
    missing_first: float = -4.0
    missing_second: float = -12.0
    missing_tip: float = 0.0
    # The line is followed from the tail outwards; pixels of a 1024 image.
    outwards_px: float = 24.0
    outwards_step_px: float = 4.0
    min_length_px: float = 5.0  # pixels of a 1024 image


LIMITS = FeatureLimits()


def joint_scores(candidates: list[Candidate], field_mask: NDArray[np.bool_], frame_shape: tuple[int, ...]) -> Float:
    """Probability that each candidate is an instrument whose tip is there, shape (n,).

    Parameters
    ----------
    candidates : list of Candidate, n
    field_mask : ndarray of bool, any shape
        Field of view, over the whole frame.
    frame_shape : tuple of int
        (rows, cols) of the frame.
    """
    log_odds = candidate_features(candidates, field_mask, frame_shape) @ _WEIGHTS[:-1] + _WEIGHTS[-1]
    return np.array([probability(an_end) * probability(the_tip) for an_end, the_tip in log_odds])


def candidate_features(
    candidates: list[Candidate], field_mask: NDArray[np.bool_], frame_shape: tuple[int, ...]
) -> Float:
    """Features of each candidate, shape (n, 11), ordered as :data:`WEIGHTS`; parameters as of :func:`joint_scores`."""
    scale = max(frame_shape) / 1024
    by_first, by_second = [_logit(c.first.score) for c in candidates], [_logit(c.second.score) for c in candidates]
    of_tip = [_logit(c.tip_probability) for c in candidates]
    out = np.empty((len(candidates), FEATURES))
    for k, candidate in enumerate(candidates):
        first, second = candidate.first, candidate.second
        others = [m for m, other in enumerate(candidates) if m != k and _is_other_end(second, other.second, scale)]
        other_end = max(others, key=lambda m: by_first[m], default=None)
        length = math.dist(second.tip_px.tolist(), second.tail_px.tolist()) / scale
        out[k] = (
            by_first[k],
            by_second[k],
            _logit(candidate.score_at_first),
            of_tip[k],
            leaves_field(first, field_mask, frame_shape),
            LIMITS.missing_first if other_end is None else by_first[other_end],
            LIMITS.missing_second if other_end is None else by_second[other_end],
            LIMITS.missing_tip if other_end is None else of_tip[other_end],
            first.kind == second.kind,
            candidate.saturation,
            math.log(max(length, LIMITS.min_length_px)),
        )
    return out


def _is_other_end(d: Detection, other: Detection, scale: float) -> bool:
    """Whether a candidate is the other end of a line; one of the same direction is the same end."""
    return float(d.direction @ other.direction) < 0 and same_line(d, other, scale)


def leaves_field(d: Detection, field_mask: NDArray[np.bool_], frame_shape: tuple[int, ...]) -> bool:
    """Whether a candidate's tail lies at the field edge; parameters as of :func:`joint_scores`."""
    rows, cols = frame_shape
    mask_rows, mask_cols = field_mask.shape
    (tip_x, tip_y), (x, y) = d.tip_px.tolist(), d.tail_px.tolist()
    length = max(math.hypot(x - tip_x, y - tip_y), 1e-9)
    step = LIMITS.outwards_step_px * max(rows, cols) / 1024
    step_x, step_y = (x - tip_x) / length * step, (y - tip_y) / length * step
    for _ in range(round(LIMITS.outwards_px / LIMITS.outwards_step_px) + 1):
        if not (0 <= x < cols and 0 <= y < rows and field_mask[int(y * mask_rows / rows), int(x * mask_cols / cols)]):
            return True
        x, y = x + step_x, y + step_y
    return False


def _logit(p: float) -> float:
    p = min(max(p, LIMITS.min_probability), 1 - LIMITS.min_probability)
    return math.log(p / (1 - p))
