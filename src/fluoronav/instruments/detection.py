"""Instruments in the picture: what the network sees, measured at full resolution, with an identity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fluoronav.inference import InferenceSettings, Model, engine
from fluoronav.instruments.identity import IdentityTracker
from fluoronav.instruments.network_input import KINDS
from fluoronav.instruments.proposals import Proposer
from fluoronav.instruments.strips import ACROSS_SCALE_PX, MOST, SHIFT_SCALE_PX, TURN_SCALE_DEG, strip
from fluoronav.records import Budget, Detection, FrameRecord

# Left for the stages behind this one and for sending, ms.
_RESERVE_MS = 3.0
# So seldom it may take longer than was thought; and how fast that is learned: in steps, and faster when it is far off.
_LONGER, _LEARNED_MS, _LEARNED = 0.01, 1.0, 0.25
# Finds of the first network that get a second look, and what that must say of a new one, and of one that goes on where
# an instrument was; chosen on scenes like those of training.
_LEAST_PROPOSED, _LEAST_SCORE, _LEAST_FOLLOWED = 0.3, 0.8, 0.3
# Logits of both looks in the joint score: what is added, and how much each counts; a score says no more than this.
_JOINT, _SURE = (-0.45, 1.84, 0.58), 1e-6
_LEAST_SIGMA_PX = 0.3
# Looked at again where tip and axis turned out to be, if they are farther off than this (pixels of a 1024 image) and if
# it may be one at all: the second answer is the better one.
_MOVED_PX, _LEAST_AGAIN = 3.0, 0.02
# An axis that was measured no better than this is as the strip as a whole shows it; and one that was measured along
# something else, where the strip shows it turned, or beside it, by so much: a short stretch at the field's edge, say.
_ROUGH_DEG, _ASTRAY_DEG, _ASTRAY_PX = 0.4, 2.0, 2.0
# Two finds are of one line when their axes differ by less than this (6 degrees, pixels of a 1024 image).
_SAME_AXIS_COS, _SAME_AXIS_PX = 0.9945, 10.0
_ASTRAY_COS = float(np.cos(np.deg2rad(_ASTRAY_DEG)))
_FORGETS = 0.999
# A frame that it made late is followed by so many without it, twice as many after the next such frame.
_LEAST_REST_FRAMES, _MOST_REST_FRAMES = 4, 1800


class DetectionStage:
    """Finds K-wires, drills, screws and needles in each frame.

    Without time for it, and while the patient is searched for, the instruments of the last frames are carried on with
    their age.
    """

    name = "detection"

    def __init__(self, inference: InferenceSettings | None = None) -> None:
        self._inference = inference or InferenceSettings()
        self.engine = "none"
        self._takes_ms = 8.0  # at most, but for one frame in a hundred
        self._rest_frames = self._resting = 0

    def prepare(self, case, camera, progress: Callable[[str], None] = lambda _: None) -> None:
        progress("detection: model")
        self.proposer = Proposer(camera.rows, camera.cols, self._inference)
        self.judge = Model(engine("instrument-strips.onnx"), self._inference)
        self.engine = self.proposer.model.provider
        self._longest = max(camera.rows, camera.cols)
        self._identity = IdentityTracker(self._longest / 1024)
        for _ in range(3):
            self.judge.run()

    def process(self, frame: FrameRecord, budget: Budget) -> None:
        frame.models["instruments"] = self.proposer.model.sha256
        frame.models["instrument-strips"] = self.judge.sha256
        self.engine = self.proposer.model.provider
        frame.engine_fault = frame.engine_fault or self.proposer.model.fault or self.judge.fault
        left = budget.left_ms()
        # A search has both cores, and what is seen could not be placed in the patient yet.
        busy = frame.status == "searching" or self._resting > 0
        self._resting = max(self._resting - 1, 0)
        if busy or left < self._takes_ms + _RESERVE_MS or frame.seen is None:
            frame.detections = self._identity.update([])
            # One slow frame must not end it for good.
            self._takes_ms *= _FORGETS
            return
        frame.detections = self._identity.update(self.find(frame, _LEAST_FOLLOWED), _LEAST_SCORE)
        took = left - budget.left_ms()
        # On a computer that is too slow for it, trying again and again would make a frame late each time.
        late = took > left - _RESERVE_MS
        self._rest_frames = min(max(2 * self._rest_frames, _LEAST_REST_FRAMES), _MOST_REST_FRAMES) if late else 0
        self._resting = self._rest_frames
        # A running quantile: Robbins and Monro, Ann. Math. Stat. 22:400, 1951.
        longer = took - self._takes_ms
        self._takes_ms += max(_LEARNED_MS * (1 - _LONGER), _LEARNED * longer) if longer > 0 else -_LEARNED_MS * _LONGER

    def find(self, frame: FrameRecord, least_score: float = _LEAST_SCORE) -> list[Detection]:
        """What is in one frame, best first, without identities.

        Parameters
        ----------
        frame : FrameRecord
            With its pyramid.
        least_score : float
            What the second look must say, 0 to 1; by default as for an instrument that nobody has seen before.
        """
        assert frame.seen is not None
        weak = self.proposer.find(frame, _LEAST_PROPOSED)[:MOST]
        if not weak:
            return []
        found = self._looked_at(frame, weak)
        far = _MOVED_PX * self._longest / 1024
        again = [
            k for k, (before, now) in enumerate(zip(weak, found, strict=True))
            if now.score > _LEAST_AGAIN
            and (
                float(np.linalg.norm(now.tip_px - before.tip_px)) > far
                or float(now.direction @ before.direction) < _ASTRAY_COS
            )
        ]  # fmt: skip
        for k, d in zip(again, self._looked_at(frame, [found[k] for k in again]), strict=True):
            found[k] = d
        found = [
            replace(now, score=joint_score(before.score, now.score)) for before, now in zip(weak, found, strict=True)
        ]
        kept: list[Detection] = []
        for d in sorted((d for d in found if d.score >= least_score), key=lambda d: -d.score):
            # Both ends of a line may have been proposed as its tip: the likelier one has it.
            if not any(on_one_line(d, other, self._longest / 1024) for other in kept):
                kept.append(d)
        return kept

    def _looked_at(self, frame: FrameRecord, finds: list[Detection]) -> list[Detection]:
        """The finds as the second network sees them."""
        assert frame.seen is not None
        strips, out = self.judge.input, []
        for first in range(0, len(finds), len(strips)):
            some = finds[first : first + len(strips)]
            strips[len(some) :] = 0
            for k, d in enumerate(some):
                strip(frame.counts, frame.seen, d.tip_px, d.direction, frame.dark, frame.inverse, strips[k])
            self.judge.run()
            out += [self._judged(d, said) for d, said in zip(some, self.judge.output, strict=False)]
        return out

    def _judged(self, d: Detection, said: NDArray[np.float32]) -> Detection:
        """A find with what the second look says of it: whether it is one, of which kind, and where its tip is."""
        scale = self._longest / 1024
        shift, sigma = SHIFT_SCALE_PX * scale * float(said[5]), SHIFT_SCALE_PX * scale * float(np.exp(said[6]))
        direction, sigma_deg = d.direction, d.sigma_deg
        across, turn_deg = ACROSS_SCALE_PX * scale * float(said[7]), TURN_SCALE_DEG * float(said[8])
        if sigma_deg > _ROUGH_DEG or abs(turn_deg) > _ASTRAY_DEG or abs(across) > _ASTRAY_PX * scale:
            turn, sigma_deg = np.deg2rad(turn_deg), _ROUGH_DEG
            normal = np.array([-direction[1], direction[0]])
            direction = np.cos(turn) * direction + np.sin(turn) * normal
        else:
            across = 0.0
        tip = d.tip_px + shift * d.direction + across * np.array([-d.direction[1], d.direction[0]])
        return replace(
            d,
            kind=KINDS[int(said[1:5].argmax())],
            score=float(1 / (1 + np.exp(-np.clip(said[0], -30, 30)))),
            tip_px=tip,
            direction=direction,
            sigma_deg=sigma_deg,
            # Of a Laplace error: root two times its scale.
            sigma_px=float(np.hypot(_LEAST_SIGMA_PX * scale, np.sqrt(2) * sigma)),
        )

    def idle(self) -> None: ...

    def close(self) -> None: ...


def joint_score(first: float, second: float) -> float:
    """What both looks say together, 0 to 1.

    A logistic regression of their logits (stacked generalisation: Wolpert, Neural Networks 5:241, 1992), fitted to
    finds in scenes that neither was trained on. The first saw the whole picture, the second each pixel.
    """
    by_first, by_second = (np.log(p / (1 - p)) for p in np.clip([first, second], _SURE, 1 - _SURE))
    return float(1 / (1 + np.exp(-(_JOINT[0] + _JOINT[1] * by_first + _JOINT[2] * by_second))))


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
