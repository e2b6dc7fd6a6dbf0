"""Both networks on a frame: the first sees the whole of it, the second each find at full resolution."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera
from fluoronav.imaging.inference import InferenceSettings, Model, engine
from fluoronav.stream.detection.candidates import Proposer
from fluoronav.stream.detection.network_input import KINDS
from fluoronav.stream.detection.profiles import glow_along
from fluoronav.stream.detection.straightened import ACROSS_SCALE_PX, MOST, SHIFT_SCALE_PX, TURN_SCALE_DEG, strip
from fluoronav.stream.frame import Detection, FrameRecord, blank_counts

_LEAST_SIGMA_PX = 0.3
# Looked at again where tip and axis turned out to be, if they are farther off than this (pixels of a 1024 image) and if
# it may be one at all: the second answer is the better one.
_MOVED_PX, _LEAST_AGAIN = 3.0, 0.02
# An axis that was measured no better than this is as the strip as a whole shows it; and one that was measured along
# something else, where the strip shows it turned, or beside it, by so much: a short stretch at the field's edge, say.
_ROUGH_DEG, _ASTRAY_DEG, _ASTRAY_PX = 0.4, 2.0, 2.0
_ASTRAY_COS = float(np.cos(np.deg2rad(_ASTRAY_DEG)))
# Where a shadow fades: ahead of a tip, and on the last stretch of the shaft, from the tip (pixels of a 1024 image).
_AHEAD_PX, _BEHIND_PX = (4.0, 30.0), (-30.0, -4.0)


@dataclass(frozen=True)
class Looked:
    """A find, right or wrong, as both networks see it.

    Attributes
    ----------
    first, second : Detection
        The scores are theirs, 0 to 1: of the first, that an instrument's tip is there; of the second, that an
        instrument ends there, with its tip or its tail.
    second_at_first : float
        The second look's score where the first had put tip and axis; it may have looked again where it put them itself.
    tip_rather : float
        What the second says, 0 to 1, that the end is the tip and not the tail.
    fade : float
        0 to 1; high where the detector is saturated ahead of the tip and nearly so on the shaft: a wire that goes on
        there would seem to end here, too.
    """

    first: Detection
    second: Detection
    second_at_first: float
    tip_rather: float
    fade: float = 0.0


class Looks:
    """Both networks for frames of one camera.

    Parameters
    ----------
    camera : Camera
    inference : InferenceSettings, optional
        The CPU by default.
    """

    def __init__(self, camera: Camera, inference: InferenceSettings | None = None) -> None:
        self.proposer = Proposer(camera.rows, camera.cols, inference)
        self.first = self.proposer.model
        self.second = Model(engine("instrument-strips.onnx"), inference)
        self._longest = max(camera.rows, camera.cols)
        for some in blank_counts(4, 4):
            _fade(some, np.zeros(2), np.ones(2), 1.0, 1.0, False)  # compiles
        for _ in range(3):
            self.second.run()

    @property
    def provider(self) -> str:
        """What both truly run on; each by its own where they differ."""
        first, second = self.first.provider, self.second.provider
        return first if first == second else f"{first}; second look: {second}"

    def find(self, frame: FrameRecord, least_proposed: float) -> list[Looked]:
        """Finds in a frame, best of the first look first; at most eight.

        Parameters
        ----------
        frame : FrameRecord
            With its pyramid.
        least_proposed : float
            What the first look must say of one, 0 to 1.
        """
        scale, full = self._longest / 1024, float(frame.full_scale)
        first = self.proposer.find(frame, least_proposed)[:MOST]
        at_first = self._looked_at(frame, first)
        last = list(at_first)
        far = _MOVED_PX * scale
        again = [
            k for k, (before, (now, _)) in enumerate(zip(first, at_first, strict=True))
            if now.score > _LEAST_AGAIN
            and (
                float(np.linalg.norm(now.tip_px - before.tip_px)) > far
                or float(now.direction @ before.direction) < _ASTRAY_COS
            )
        ]  # fmt: skip
        for k, said in zip(again, self._looked_at(frame, [at_first[k][0] for k in again]), strict=True):
            last[k] = said
        return [
            Looked(
                before, now, once.score, tip_rather,
                _fade(frame.corrected, now.tip_px, now.direction, scale, full, frame.inverse),
            )
            for before, (once, _), (now, tip_rather) in zip(first, at_first, last, strict=True)
        ]  # fmt: skip

    def _looked_at(self, frame: FrameRecord, finds: list[Detection]) -> list[tuple[Detection, float]]:
        """The finds as the second network sees them, and how far it takes what it sees for the tip."""
        assert frame.full_field_mask is not None
        strips, out = self.second.input, []
        for first in range(0, len(finds), len(strips)):
            some = finds[first : first + len(strips)]
            strips[len(some) :] = 0
            for k, d in enumerate(some):
                strip(
                    frame.corrected, frame.full_field_mask, d.tip_px, d.direction, frame.dark, frame.inverse, strips[k]
                )
            self.second.run()
            out += [(self._judged(d, said), share(said[9])) for d, said in zip(some, self.second.output, strict=False)]
        return out

    def _judged(self, d: Detection, said: NDArray[np.float32]) -> Detection:
        """A find with what the second look says of it: whether one ends there, of which kind, and where."""
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
            score=share(said[0]),
            tip_px=tip,
            direction=direction,
            sigma_deg=sigma_deg,
            # Of a Laplace error: root two times its scale.
            sigma_px=float(np.hypot(_LEAST_SIGMA_PX * scale, np.sqrt(2) * sigma)),
        )


def _fade(
    counts: NDArray, tip_px: NDArray[np.float64], direction: NDArray[np.float64], scale: float, full: float,
    inverse: bool,
) -> float:  # fmt: skip
    ahead, behind = (
        glow_along(counts, tip_px, direction, *stretch, scale, full, inverse) for stretch in (_AHEAD_PX, _BEHIND_PX)
    )
    return ahead * behind


def share(log_odds: float) -> float:
    """Probability, 0 to 1, that some log-odds are."""
    return 1 / (1 + math.exp(-min(max(log_odds, -30.0), 30.0)))
