"""Identities of instruments from frame to frame."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fluoronav.stream.detection.same_instrument import same_line
from fluoronav.stream.frame import Detection

Float = NDArray[np.float64]


@dataclass(frozen=True)
class IdentityLimits:
    """When a detection continues a track, and how long a track lives; pixels are those of a 1024 image.

    All chosen on simulated sequences of moving instruments (`bench instruments`).
    """

    near_px: float = 70.0  # from the expected tip: a drill that is moved fast, at 30 frames a second
    near_deg: float = 14.0  # from the expected axis
    near_per_missed: float = 0.3  # fraction by which `near_px` grows for each frame without a detection
    same_line_cost: float = 10.0  # of a tip elsewhere on the track's line, where tips are lost: the last choice
    velocity_gain: float = 0.5  # fraction of the tip's motion taken from one frame
    velocity_sigma_px: float = 5.0  # tips with this error count half
    hits_to_show: int = 2  # a false positive seldom comes twice
    max_carried_frames: int = 8  # without a detection
    max_carried_ms: float = 300.0  # the same where frames come slowly
    growth_px: float = 4.0  # of the tip's sigma for each carried frame
    kind_votes: int = 30  # older votes of the kind are halved
    sagitta_gain: float = 0.3  # fraction of the measured sagitta taken from one frame
    min_sagitta_px: float = 2.0  # reported from here on, and until half of it


LIMITS = IdentityLimits()


@dataclass(frozen=True)
class Expected:
    """A track, and where its instrument is expected in the next frame.

    Attributes
    ----------
    id : str
    there : Detection
    sure : bool
        It is shown, and was found in the last frame.
    """

    id: str
    there: Detection
    sure: bool


@dataclass
class _Track:
    id: str
    last: Detection
    velocity: Float
    hits: int = 1
    missed: int = 0
    detected_at: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    sagitta_px: float = 0.0
    curved: bool = False


class IdentityTracker:
    """Follows instruments from frame to frame by their tips and axes.

    Parameters
    ----------
    scale : float
        Frame pixels in one pixel of a 1024 image.

    Attributes
    ----------
    tracks_of : dict of int to str
        Identities by the number of the detection that continued or started a track in the last :meth:`update`.
    """

    def __init__(self, scale: float) -> None:
        self._scale = scale
        self._near_px, self._growth_px = LIMITS.near_px * scale, LIMITS.growth_px * scale
        self._min_sagitta_px = LIMITS.min_sagitta_px * scale
        self._tracks: list[_Track] = []
        self._made = 0
        self._now = 0
        self.tracks_of: dict[int, str] = {}

    def expected(self) -> list[Expected]:
        """The tracks, and where they are expected in the next frame."""
        return [
            Expected(t.id, self._carried(t, t.missed + 1), t.hits >= LIMITS.hits_to_show and not t.missed)
            for t in self._tracks
        ]

    def update(
        self, detections: list[Detection], min_new_score: float = 0.0, t_local: int = 0
    ) -> tuple[Detection, ...]:
        """Takes the detections of a frame; returns the tracks to show, with identities.

        Parameters
        ----------
        detections : list of Detection
        min_new_score : float
            Minimum score to start a track.
        t_local : int
            When the frame was exposed, ns, by this computer's clock.

        Notes
        -----
        A track without a detection is carried on along its motion for a quarter of a second, with its age and a growing
        error, and then ends.
        """
        self._now = t_local
        pairs = self._assigned(detections)
        for t, k in pairs:
            self._continue(self._tracks[t], detections[k])
        continued, taken = {t for t, _ in pairs}, {k for _, k in pairs}
        self.tracks_of = {k: self._tracks[t].id for t, k in pairs}
        for t, track in enumerate(self._tracks):
            if t not in continued:
                track.missed += 1
        for k, detection in enumerate(detections):
            if k not in taken and detection.score >= min_new_score:
                self._start(detection)
                self.tracks_of[k] = self._tracks[-1].id
        self._tracks = [t for t in self._tracks if self._lives(t)]
        return tuple(self._shown(t) for t in self._tracks if t.hits >= LIMITS.hits_to_show)

    def _assigned(self, detections: list[Detection]) -> list[tuple[int, int]]:
        """Indices of tracks and of the detections that continue them, the cheapest pair first."""
        expected = [self._carried(track, track.missed + 1) for track in self._tracks]
        costs = sorted(
            (cost, t, k)
            for t, there in enumerate(expected)
            for k, detection in enumerate(detections)
            if (cost := self._cost(there, detection)) is not None
        )
        tracks: set[int] = set()
        taken: set[int] = set()
        pairs = []
        for _, t, k in costs:
            if t not in tracks and k not in taken:
                tracks.add(t)
                taken.add(k)
                pairs.append((t, k))
        return pairs

    def _continue(self, track: _Track, now: Detection) -> None:
        motion = (now.tip_px - track.last.tip_px) / (track.missed + 1)
        # A tip that jumps along a shaft that hides it has a large error, and does not move.
        variance = (LIMITS.velocity_sigma_px * self._scale) ** 2
        weight = variance / (variance + now.sigma_px**2 + track.last.sigma_px**2)
        track.velocity = track.velocity + LIMITS.velocity_gain * weight * (motion - track.velocity)
        track.hits, track.missed, track.detected_at = track.hits + 1, 0, self._now
        self._take(track, now)

    def _start(self, detection: Detection) -> None:
        self._made += 1
        track = _Track(
            f"image-{self._made}", detection, np.zeros(2), detected_at=self._now, sagitta_px=detection.sagitta_px
        )
        self._take(track, detection)
        self._tracks.append(track)

    def _lives(self, track: _Track) -> bool:
        if track.missed and self._now - track.detected_at > LIMITS.max_carried_ms * 1e6:
            return False
        return track.missed <= (LIMITS.max_carried_frames if track.hits >= LIMITS.hits_to_show else 0)

    def _take(self, track: _Track, now: Detection) -> None:
        """The track's last detection, with the kind of most votes and the filtered sagitta."""
        if sum(track.kinds.values()) > LIMITS.kind_votes:
            track.kinds = Counter({k: n // 2 for k, n in track.kinds.items()})
        track.kinds[now.kind] += 1
        track.sagitta_px += LIMITS.sagitta_gain * (now.sagitta_px - track.sagitta_px)
        track.curved = abs(track.sagitta_px) > self._min_sagitta_px * (0.5 if track.curved else 1.0)
        sagitta_px = track.sagitta_px if track.curved else 0.0
        track.last = replace(now, id=track.id, kind=track.kinds.most_common(1)[0][0], sagitta_px=sagitta_px)

    def _cost(self, expected: Detection, now: Detection) -> float | None:
        """Distance of a detection from where a track is expected; None where it cannot be that one."""
        offset = float(np.linalg.norm(expected.tip_px - now.tip_px)) / self._near_px
        turn_cos = float(expected.direction @ now.direction)
        turn = float(np.rad2deg(np.arccos(np.clip(turn_cos, -1, 1)))) / LIMITS.near_deg
        if offset <= 1 + LIMITS.near_per_missed * (expected.age - 1) and turn <= 1:
            return offset + turn
        if turn_cos > 0 and same_line(expected, now, self._scale):
            return LIMITS.same_line_cost + offset
        return None

    def _shown(self, track: _Track) -> Detection:
        return self._carried(track, track.missed) if track.missed else track.last

    def _carried(self, track: _Track, frames: int) -> Detection:
        """A track so many frames after its last detection."""
        shift = track.velocity * frames
        return replace(
            track.last,
            tip_px=track.last.tip_px + shift,
            tail_px=track.last.tail_px + shift,
            sigma_px=float(np.hypot(track.last.sigma_px, self._growth_px * frames)),
            age=frames,
            age_ms=max(self._now - track.detected_at, 0) / 1e6,
        )
