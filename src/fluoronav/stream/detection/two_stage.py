"""Two networks on a frame: the first proposes candidates, the second judges each at full resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from fluoronav.geometry import Camera
from fluoronav.imaging.inference import InferenceSettings, Model, engine
from fluoronav.stream.detection.candidates import CandidateDetector, Proposal, warm_up
from fluoronav.stream.detection.network_input import KINDS
from fluoronav.stream.detection.profiles import saturation_along
from fluoronav.stream.detection.strip_image import ACROSS_SCALE_PX, SHIFT_SCALE_PX, TURN_SCALE_DEG, sample_strip
from fluoronav.stream.detection.tiles import Tile
from fluoronav.stream.frame import Detection, FrameRecord
from fluoronav.stream.stage import blank_counts

Float, Float32 = NDArray[np.float64], NDArray[np.float32]


@dataclass(frozen=True)
class SecondNetworkLimits:
    """What the second network is asked, and when its answer replaces what was measured.

    All chosen on scenes as those of training; pixels are those of a 1024 image.
    """

    max_candidates: int = 8  # in one frame
    min_sigma_px: float = 0.3  # of a tip
    # A candidate is judged again at its corrected tip and axis where these differ by more than this from the first ones
    # (the turn is `max_turn_deg`), and it may be an instrument.
    rejudge_shift_px: float = 3.0
    rejudge_min_score: float = 0.02
    rough_sigma_deg: float = 0.4  # an axis measured no better than this is replaced
    max_turn_deg: float = 2.0  # an axis that the strip shows turned by more, or beside it, was measured along something
    max_offset_px: float = 2.0  # else, such as a stretch of the field edge: it is replaced
    # Where saturation is measured, from the tip along the axis.
    ahead_px: tuple[float, float] = (4.0, 30.0)
    shaft_px: tuple[float, float] = (-30.0, -4.0)


LIMITS = SecondNetworkLimits()
_MAX_TURN_COS = float(np.cos(np.deg2rad(LIMITS.max_turn_deg)))


@dataclass(frozen=True)
class Candidate:
    """A candidate, right or wrong, as both networks judge it.

    Attributes
    ----------
    first, second : Detection
        With each network's score, 0 to 1: the first's that an instrument's tip is there; the second's that an
        instrument ends there, with its tip or its tail.
    score_at_first : float
        The second network's score at the tip and axis of the first. `second` may have been judged again elsewhere.
    tip_probability : float
        0 to 1, by the second network: that the end is the tip, not the tail.
    saturation : float
        0 to 1; high where the detector is saturated ahead of the tip and nearly so on the shaft: a wire that goes on
        there would seem to end, too.
    path_px : ndarray, shape (n, 2)
        The line that the first network's maps show, (column, row) from the tip, pixels of the frame.
    """

    first: Detection
    second: Detection
    score_at_first: float
    tip_probability: float
    saturation: float = 0.0
    path_px: Float = field(default_factory=lambda: np.zeros((0, 2)))


class TwoStageDetector:
    """Both networks for frames of one camera.

    Parameters
    ----------
    camera : Camera
    inference : InferenceSettings, optional
        The CPU by default.
    """

    def __init__(self, camera: Camera, inference: InferenceSettings | None = None) -> None:
        self.candidates = CandidateDetector(camera.rows, camera.cols, inference)
        self.first = self.candidates.model
        self.second = Model(engine("instrument-strips.onnx"), inference)
        self._longest = max(camera.rows, camera.cols)
        for counts in blank_counts(4, 4):
            _saturation(counts, np.zeros(2), np.ones(2), 1.0, 1.0, False)  # compiles
        warm_up(self.second)

    @property
    def provider(self) -> str:
        """What the networks run on; both where they differ."""
        first, second = self.first.provider, self.second.provider
        return first if first == second else f"{first}; second network: {second}"

    def detect(self, frame: FrameRecord, min_candidate_score: float) -> list[Candidate]:
        """Candidates in a frame, those of the best first score first; at most eight.

        Parameters
        ----------
        frame : FrameRecord
            With its pyramid and its field mask.
        min_candidate_score : float
            Minimum score of the first network, 0 to 1.
        """
        return self.judge(frame, self.propose(frame, min_candidate_score))

    def propose(self, frame: FrameRecord, min_score: float, tiles: Sequence[Tile] | None = None) -> list[Proposal]:
        """The first network's candidates, best first, at most eight; see :meth:`.CandidateDetector.propose`."""
        return self.candidates.propose(frame, min_score, tiles)[: LIMITS.max_candidates]

    def judge(self, frame: FrameRecord, proposals: Sequence[Proposal]) -> list[Candidate]:
        """Each proposal, as the second network judges it."""
        scale, full_scale = self._longest / 1024, float(frame.full_scale)
        first = [p.first for p in proposals]
        at_first = self._judge(frame, first)
        final = list(at_first)
        max_shift_px = LIMITS.rejudge_shift_px * scale
        again = [
            k for k, (before, (now, _)) in enumerate(zip(first, at_first, strict=True))
            if now.score > LIMITS.rejudge_min_score
            and (
                float(np.linalg.norm(now.tip_px - before.tip_px)) > max_shift_px
                or float(now.direction @ before.direction) < _MAX_TURN_COS
            )
        ]  # fmt: skip
        for k, judgement in zip(again, self._judge(frame, [at_first[k][0] for k in again]), strict=True):
            final[k] = judgement
        return [
            Candidate(
                before, now, once.score, tip_probability,
                _saturation(frame.corrected, now.tip_px, now.direction, scale, full_scale, frame.inverse),
                proposal.path_px,
            )
            for proposal, before, (once, _), (now, tip_probability) in zip(
                proposals, first, at_first, final, strict=True
            )
        ]  # fmt: skip

    def _judge(self, frame: FrameRecord, candidates: list[Detection]) -> list[tuple[Detection, float]]:
        """Each candidate as the second network corrects it, and the probability that its end is the tip."""
        assert frame.full_field_mask is not None
        strips, out = self.second.input, []
        for start in range(0, len(candidates), len(strips)):
            batch = candidates[start : start + len(strips)]
            strips[len(batch) :] = 0
            for k, d in enumerate(batch):
                sample_strip(
                    frame.corrected, frame.full_field_mask, d.tip_px, d.direction, frame.dark, frame.inverse, strips[k]
                )
            self.second.run()
            out += [
                (self._corrected(d, answer), probability(answer[9]))
                for d, answer in zip(batch, self.second.output, strict=False)
            ]
        return out

    def _corrected(self, d: Detection, answer: Float32) -> Detection:
        """A candidate with the second network's score, kind and tip; and with its axis where the measured one fails."""
        scale = self._longest / 1024
        shift, sigma = SHIFT_SCALE_PX * scale * float(answer[5]), SHIFT_SCALE_PX * scale * float(np.exp(answer[6]))
        direction, sigma_deg = d.direction, d.sigma_deg
        across, turn_deg = ACROSS_SCALE_PX * scale * float(answer[7]), TURN_SCALE_DEG * float(answer[8])
        if (
            sigma_deg > LIMITS.rough_sigma_deg
            or abs(turn_deg) > LIMITS.max_turn_deg
            or abs(across) > LIMITS.max_offset_px * scale
        ):
            turn, sigma_deg = np.deg2rad(turn_deg), LIMITS.rough_sigma_deg
            normal = np.array([-direction[1], direction[0]])
            direction = np.cos(turn) * direction + np.sin(turn) * normal
        else:
            across = 0.0
        tip = d.tip_px + shift * d.direction + across * np.array([-d.direction[1], d.direction[0]])
        return replace(
            d,
            kind=KINDS[int(answer[1:5].argmax())],
            score=probability(answer[0]),
            tip_px=tip,
            direction=direction,
            sigma_deg=sigma_deg,
            # The standard deviation of a Laplace distribution is root two times its scale.
            sigma_px=float(np.hypot(LIMITS.min_sigma_px * scale, np.sqrt(2) * sigma)),
        )


def _saturation(
    counts: NDArray, tip_px: Float, direction: Float, scale: float, full_scale: float, inverse: bool
) -> float:
    ahead, shaft = (
        saturation_along(counts, tip_px, direction, *stretch, scale, full_scale, inverse)
        for stretch in (LIMITS.ahead_px, LIMITS.shaft_px)
    )
    return ahead * shaft


def probability(log_odds: float) -> float:
    """Probability, 0 to 1, of log-odds."""
    return float(expit(float(log_odds)))
