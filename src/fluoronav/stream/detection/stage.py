"""Detection of instruments in each frame, within the time that is left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from fluoronav.imaging.inference import InferenceSettings
from fluoronav.stream.detection.identity import IdentityTracker
from fluoronav.stream.detection.joint_score import joint_scores
from fluoronav.stream.detection.same_instrument import same_instrument
from fluoronav.stream.detection.two_stage import TwoStageDetector
from fluoronav.stream.frame import RESERVE_MS, Budget, Detection, FrameRecord


@dataclass(frozen=True)
class ScoreLimits:
    """Minimum scores, 0 to 1; chosen on scenes as those of training."""

    candidate: float = 0.2  # of the first network, to be judged by the second
    new: float = 0.85  # joint score to start a track
    followed: float = 0.6  # joint score to continue a track


@dataclass(frozen=True)
class TimeLimits:
    """How the detection adapts to a computer's speed; all chosen on simulated times and two computers."""

    first_ms: float = 8.0  # assumed before the first frame
    overrun_fraction: float = 0.01  # of frames that may take longer than the estimate
    step_ms: float = 1.0  # of the estimate
    excess_gain: float = 0.25  # fraction of a large excess that is taken from one frame
    max_step_ms: float = 4.0  # one slow frame must not suspend the detection for seconds
    skipped_decay: float = 0.999  # of the estimate in a frame that is skipped, so that it is tried again
    # Frames skipped after one that the detection made late, doubled after the next such frame.
    min_rest_frames: int = 4
    max_rest_frames: int = 1800


SCORES, TIMES = ScoreLimits(), TimeLimits()


class DetectionStage:
    """Finds K-wires, drills, screws and needles in each frame.

    Without time for it, and while the patient is searched for, the instruments of the last frames are carried on with
    their age.
    """

    name = "detection"
    reads = frozenset({"corrected", "dark", "pyramid", "full_field_mask"})
    writes = frozenset({"detections"})

    def __init__(self, inference: InferenceSettings | None = None) -> None:
        self._inference = inference or InferenceSettings()
        self.engine = "none"
        self._estimate_ms = TIMES.first_ms
        self._rest_frames = self._resting = 0

    def prepare(self, case, camera, progress: Callable[[str], None] = lambda _: None) -> None:
        progress("detection: model")
        self.detector = TwoStageDetector(camera, self._inference)
        self.engine = self.detector.provider
        self._longest = max(camera.rows, camera.cols)
        self._identity = IdentityTracker(self._longest / 1024)

    def process(self, frame: FrameRecord, budget: Budget) -> None:
        self.engine = self.detector.provider
        left = budget.left_ms()
        # A search uses both cores, and without its pose a detection has no place in the patient.
        busy = frame.last_status == "searching" or self._resting > 0
        self._resting = max(self._resting - 1, 0)
        if busy or left < self._estimate_ms + RESERVE_MS or frame.full_field_mask is None:
            frame.detections = self._identity.update([], t_local=frame.t_local)
            self._estimate_ms *= TIMES.skipped_decay
            return
        frame.detections = self._identity.update(self.find(frame, SCORES.followed), SCORES.new, frame.t_local)
        self._learn_time(left, left - budget.left_ms())

    def _learn_time(self, left_ms: float, took_ms: float) -> None:
        """Rests after a late frame, and updates the estimate of the time for all but one in a hundred frames."""
        # A computer that is too slow for the detection would else make a frame late at each attempt.
        late = took_ms > left_ms - RESERVE_MS
        doubled = min(max(2 * self._rest_frames, TIMES.min_rest_frames), TIMES.max_rest_frames)
        self._rest_frames = self._resting = doubled if late else 0
        # A running quantile: Robbins and Monro, Ann. Math. Stat. 22:400, 1951.
        excess_ms = took_ms - self._estimate_ms
        if excess_ms > 0:
            step_ms = max(TIMES.step_ms * (1 - TIMES.overrun_fraction), TIMES.excess_gain * excess_ms)
            self._estimate_ms += min(step_ms, TIMES.max_step_ms)
        else:
            self._estimate_ms -= TIMES.step_ms * TIMES.overrun_fraction

    def find(self, frame: FrameRecord, min_score: float = SCORES.new) -> list[Detection]:
        """Instruments in one frame, best first, without identities.

        Parameters
        ----------
        frame : FrameRecord
            With its pyramid and its field mask.
        min_score : float
            Minimum joint score, 0 to 1; by default that to start a track.
        """
        assert frame.full_field_mask is not None
        candidates = self.detector.detect(frame, SCORES.candidate)
        scores = joint_scores(candidates, frame.full_field_mask, frame.corrected.shape)
        scored = [replace(c.second, score=float(score)) for c, score in zip(candidates, scores, strict=True)]
        kept: list[Detection] = []
        scale = self._longest / 1024
        for d in sorted((d for d in scored if d.score >= min_score), key=lambda d: -d.score):
            # Both ends of a line may be candidates for its tip, and one tip may be a candidate twice.
            if not any(same_instrument(d, other, scale) for other in kept):
                kept.append(d)
        return kept

    @property
    def models(self) -> dict[str, str]:
        return {"instruments": self.detector.first.sha256, "instrument-strips": self.detector.second.sha256}

    @property
    def fault(self) -> str:
        return self.detector.first.fault or self.detector.second.fault

    def idle(self, frame: FrameRecord, budget: Budget) -> None: ...

    def close(self) -> None: ...
