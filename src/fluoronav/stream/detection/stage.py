"""Detection of instruments in each frame, within the time that is left."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from fluoronav.imaging.inference import InferenceSettings, MissingError
from fluoronav.stream.detection.attention import Attention, Plan
from fluoronav.stream.detection.identity import Expected, IdentityTracker
from fluoronav.stream.detection.network_input import INPUT_PX
from fluoronav.stream.detection.pace import Pace
from fluoronav.stream.detection.same_instrument import same_instrument
from fluoronav.stream.detection.tiles import TILE_PX, TILES
from fluoronav.stream.detection.two_stage import TwoStageDetector
from fluoronav.stream.frame import Budget, Detection, FrameRecord
from fluoronav.stream.look import Look

log = logging.getLogger("fluoronav")


@dataclass(frozen=True)
class ScoreLimits:
    """Minimum scores, 0 to 1; chosen on scenes as those of training."""

    candidate: float = 0.2  # of the first network, to be judged by the second
    new: float = 0.85  # joint score to start a track
    followed: float = 0.6  # joint score to continue a track


@dataclass(frozen=True)
class FirstTimes:
    """Times that are assumed before the first look of each kind; chosen: those of a computer with AVX-512 VNNI."""

    whole_ms: float = 8.0
    part_ms: float = 4.0
    known_ms: float = 1.0


SCORES, FIRST_TIMES = ScoreLimits(), FirstTimes()


class DetectionStage:
    """Finds K-wires, drills, screws and needles in each frame.

    On a CPU a frame looks at one or two tiles in turn, and about the known instruments; on a GPU at all of it. Without
    time for that, and while the patient is searched for, the instruments of the last frames are carried on with their
    age.

    Parameters
    ----------
    inference : InferenceSettings, optional
        The CPU by default.
    looks : {"auto", "whole", "shares"}
        At all of each frame, or in shares. `auto` decides by what runs the networks.
    """

    name = "detection"
    reads = frozenset({"corrected", "dark", "pyramid", "full_field_mask"})
    writes = frozenset({"detections", "look"})

    def __init__(
        self, inference: InferenceSettings | None = None, looks: Literal["auto", "whole", "shares"] = "auto"
    ) -> None:
        self._inference, self._looks = inference or InferenceSettings(), looks
        self.engine = "none"
        self.missing = ""  # why there is no detector
        self.worked = self.left_out = 0
        self._paces = {
            "whole": Pace(FIRST_TIMES.whole_ms), "part": Pace(FIRST_TIMES.part_ms), "known": Pace(FIRST_TIMES.known_ms)
        }  # fmt: skip

    def prepare(self, case, camera, progress: Callable[[str], None] = lambda _: None) -> None:
        progress("detection: model")
        self.missing = ""
        try:
            self.detector = TwoStageDetector(camera, self._inference)
        except MissingError as error:
            # All but the detection works without networks; the screen says so.
            if self._inference.fallback == "refuse":
                raise
            self.missing = str(error)
            log.warning("detection rests: %s", error)
            return
        self.engine = self.detector.provider
        self._longest = max(camera.rows, camera.cols)
        self._identity = IdentityTracker(self._longest / 1024)
        self._attention = Attention(self.detector, self._longest)

    def process(self, frame: FrameRecord, budget: Budget) -> None:
        if self.missing:
            return
        self.engine = self.detector.provider
        left_ms = budget.left_ms()
        tracks = self._identity.expected()
        plan, why = self._plan(frame, left_ms, tracks)
        if plan is None:
            frame.detections = self._identity.update([], t_local=frame.t_local)
        else:
            frame.detections = self.look(frame, plan, tracks)
            self._paces[plan.kind].took(left_ms, left_ms - budget.left_ms())
        frame.look = Look("none" if plan is None else plan.kind, self._areas_px(plan), why)
        self.worked += not why
        self.left_out += why in ("time", "rest")

    def rest(self, frame: FrameRecord) -> None:
        """Carries on what was found before, for as long as that holds."""
        if not self.missing:
            frame.detections = self._identity.update([], t_local=frame.t_local)
            frame.look = Look("none", (), "rest")

    @property
    def takes_ms(self) -> float:
        return self._paces["part"].estimate_ms

    def look(self, frame: FrameRecord, plan: Plan, tracks: Sequence[Expected]) -> tuple[Detection, ...]:
        """Looks at a part of a frame; returns the tracks to show.

        Parameters
        ----------
        frame : FrameRecord
            With its pyramid and its field mask.
        plan : Plan
        tracks : sequence of Expected
        """
        scored = self._attention.look(frame, plan, tracks, SCORES.candidate)
        kept = self._kept(scored, SCORES.followed)
        shown = self._identity.update([scored[k] for k in kept], SCORES.new, frame.t_local)
        self._attention.remember({kept[k]: track for k, track in self._identity.tracks_of.items()})
        return shown

    def _plan(
        self, frame: FrameRecord, left_ms: float, tracks: Sequence[Expected]
    ) -> tuple[Plan | None, Literal["", "time", "rest", "searching", "no_field"]]:
        """What is looked at in the time that is left, and why it is not more."""
        if frame.full_field_mask is None:
            return None, "no_field"
        # A search uses both cores, and without its pose a detection has no place in the patient.
        if frame.last_status == "searching":
            for pace in self._paces.values():
                pace.skipped()
            return None, "searching"
        in_shares = self._looks == "shares" or (self._looks == "auto" and not self.detector.first.on_gpu)
        wanted = self._attention.wanted(frame, tracks) if in_shares else [Plan("whole")]
        why: Literal["", "time", "rest"] = ""
        for plan in wanted:
            pace = self._paces[plan.kind]
            if pace.fits(left_ms):
                return plan, why if plan.kind == "known" else ""
            why = "rest" if pace.resting else "time"
            pace.skipped()
        return None, why

    def _areas_px(self, plan: Plan | None) -> tuple[tuple[float, float, float, float], ...]:
        """The areas of a plan's tiles: left, top, right and bottom edge in pixels of the frame."""
        if plan is None:
            return ()
        px = self._longest / INPUT_PX
        corners = [(TILES[k].col * px, TILES[k].row * px) for k in plan.tiles]
        return tuple((x, y, x + TILE_PX * px, y + TILE_PX * px) for x, y in corners)

    def find(self, frame: FrameRecord, min_score: float = SCORES.new) -> list[Detection]:
        """Instruments in one frame, all of which is looked at, best first, without identities.

        Parameters
        ----------
        frame : FrameRecord
            With its pyramid and its field mask.
        min_score : float
            Minimum joint score, 0 to 1; by default that to start a track.
        """
        self._attention = Attention(self.detector, self._longest)
        scored = self._attention.look(frame, Plan("whole"), [], SCORES.candidate)
        return [scored[k] for k in self._kept(scored, min_score)]

    def _kept(self, scored: Sequence[Detection], min_score: float) -> list[int]:
        """Which of a frame's detections count, the best first."""
        kept: list[int] = []
        scale = self._longest / 1024
        for k in sorted((k for k, d in enumerate(scored) if d.score >= min_score), key=lambda k: -scored[k].score):
            # Both ends of a line may be candidates for its tip, and one tip may be a candidate twice.
            if not any(same_instrument(scored[k], scored[other], scale) for other in kept):
                kept.append(k)
        return kept

    @property
    def models(self) -> dict[str, str]:
        if self.missing:
            return {}
        tiles = self.detector.candidates.tile_model
        return {
            "instruments": self.detector.first.sha256,
            "instrument-tiles": tiles.sha256,
            "instrument-strips": self.detector.second.sha256,
        }

    @property
    def fault(self) -> str:
        if self.missing:
            return ""
        return self.detector.first.fault or self.detector.candidates.tile_model.fault or self.detector.second.fault

    def idle(self, frame: FrameRecord, budget: Budget) -> None: ...

    def close(self) -> None: ...
