"""Instruments in the picture: what the network sees, measured at full resolution, with an identity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fluoronav.imaging.inference import InferenceSettings
from fluoronav.stream.detection.identity import IdentityTracker
from fluoronav.stream.detection.joint_score import scores
from fluoronav.stream.detection.networks import Looks
from fluoronav.stream.detection.same_instrument import one_instrument
from fluoronav.stream.frame import Budget, Detection, FrameRecord

# Left for the stages behind this one and for sending, ms.
_RESERVE_MS = 3.0
# So seldom it may take longer than was thought; and how fast that is learned: in steps, and faster when it is far off,
# but never so much from one frame that it would be left out for seconds.
_LONGER, _LEARNED_MS, _LEARNED, _MOST_LEARNED_MS = 0.01, 1.0, 0.25, 4.0
# Finds of the first look that get a second, and what all that is known must say of a new one, and of one that goes on
# where an instrument was; chosen on scenes like those of training.
LEAST_PROPOSED, _LEAST_SCORE, _LEAST_FOLLOWED = 0.2, 0.85, 0.6
_FORGETS = 0.999
# A frame that it made late is followed by so many without it, twice as many after the next such frame.
_LEAST_REST_FRAMES, _MOST_REST_FRAMES = 4, 1800


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
        self._takes_ms = 8.0  # at most, but for one frame in a hundred
        self._rest_frames = self._resting = 0

    def prepare(self, case, camera, progress: Callable[[str], None] = lambda _: None) -> None:
        progress("detection: model")
        self.looks = Looks(camera, self._inference)
        self.engine = self.looks.provider
        self._longest = max(camera.rows, camera.cols)
        self._identity = IdentityTracker(self._longest / 1024)

    def process(self, frame: FrameRecord, budget: Budget) -> None:
        self.engine = self.looks.provider
        left = budget.left_ms()
        # A search has both cores, and what is seen could not be placed in the patient yet.
        busy = frame.last_status == "searching" or self._resting > 0
        self._resting = max(self._resting - 1, 0)
        if busy or left < self._takes_ms + _RESERVE_MS or frame.full_field_mask is None:
            frame.detections = self._identity.update([], t_local=frame.t_local)
            # One slow frame must not end it for good.
            self._takes_ms *= _FORGETS
            return
        frame.detections = self._identity.update(self.find(frame, _LEAST_FOLLOWED), _LEAST_SCORE, frame.t_local)
        took = left - budget.left_ms()
        # On a computer that is too slow for it, trying again and again would make a frame late each time.
        late = took > left - _RESERVE_MS
        self._rest_frames = min(max(2 * self._rest_frames, _LEAST_REST_FRAMES), _MOST_REST_FRAMES) if late else 0
        self._resting = self._rest_frames
        # A running quantile: Robbins and Monro, Ann. Math. Stat. 22:400, 1951.
        longer = took - self._takes_ms
        if longer > 0:
            self._takes_ms += min(max(_LEARNED_MS * (1 - _LONGER), _LEARNED * longer), _MOST_LEARNED_MS)
        else:
            self._takes_ms -= _LEARNED_MS * _LONGER

    def find(self, frame: FrameRecord, least_score: float = _LEAST_SCORE) -> list[Detection]:
        """What is in one frame, best first, without identities.

        Parameters
        ----------
        frame : FrameRecord
            With its pyramid.
        least_score : float
            What all that is known of it must say, 0 to 1; by default as for an instrument that nobody has seen before.
        """
        assert frame.full_field_mask is not None
        looked = self.looks.find(frame, LEAST_PROPOSED)
        by_all = scores(looked, frame.full_field_mask, frame.corrected.shape)
        found = [replace(k.second, score=float(score)) for k, score in zip(looked, by_all, strict=True)]
        kept: list[Detection] = []
        scale = self._longest / 1024
        for d in sorted((d for d in found if d.score >= least_score), key=lambda d: -d.score):
            # Both ends of a line may have been proposed as its tip, and one tip twice: the likelier one has it.
            if not any(one_instrument(d, other, scale) for other in kept):
                kept.append(d)
        return kept

    @property
    def models(self) -> dict[str, str]:
        return {"instruments": self.looks.first.sha256, "instrument-strips": self.looks.second.sha256}

    @property
    def fault(self) -> str:
        return self.looks.first.fault or self.looks.second.fault

    def idle(self, frame: FrameRecord, budget: Budget) -> None: ...

    def close(self) -> None: ...
