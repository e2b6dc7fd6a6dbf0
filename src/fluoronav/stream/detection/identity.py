"""Which instrument of this frame is which of the frame before."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fluoronav.stream.detection.same_instrument import on_one_line
from fluoronav.stream.frame import Detection

Float = NDArray[np.float64]

# From one frame to the next (pixels of a 1024 image, degrees): a drill that is moved fast, at 30 frames a second.
_NEAR_PX, _NEAR_DEG = 70.0, 14.0
# Its tip may be seen elsewhere along its line, since a tip is lost more easily than a shaft: the last choice.
_ALONG_ITS_LINE = 10.0
# How much of a tip's motion the next frame believes; of one with such an error (pixels of a 1024 image), half of that.
_VELOCITY_SHARE, _UNSURE_PX = 0.5, 5.0
# Seen so often before it is shown, carried on so long when it is not seen, and how its error grows meanwhile (pixels).
_HITS_TO_SHOW, _FRAMES_CARRIED, _GROWS_PX = 2, 8, 4.0
# Nor longer than this, ms, where frames come slowly.
_MOST_CARRIED_MS = 300.0
_KIND_MEMORY = 30
# How fast a bend follows what is measured; it is said from here on (pixels of a 1024 image) and until half of it.
_BEND_SHARE, _BEND_SAID_PX = 0.3, 2.0


@dataclass
class _Track:
    id: str
    last: Detection
    velocity: Float
    hits: int = 1
    missed: int = 0
    seen_at: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    sagitta_px: float = 0.0
    bent: bool = False


class IdentityTracker:
    """Follows instruments from frame to frame by where their tips and axes are.

    Parameters
    ----------
    scale : float
        Pixels of the frame for one of a 1024 image.
    """

    def __init__(self, scale: float) -> None:
        self._scale = scale
        self._near_px, self._grows_px = _NEAR_PX * scale, _GROWS_PX * scale
        self._bend_said_px = _BEND_SAID_PX * scale
        self._tracks: list[_Track] = []
        self._made = 0
        self._now = 0

    def update(self, found: list[Detection], least_new: float = 0.0, t_local: int = 0) -> tuple[Detection, ...]:
        """Takes what was found in a frame; returns what to show, with identities.

        Parameters
        ----------
        found : list of Detection
        least_new : float
            Score from which on one that goes on from nothing is the beginning of something.
        t_local : int
            When the frame was exposed, ns, by this computer's clock.

        Notes
        -----
        An instrument that is not found is carried on along its motion for a quarter of a second, with its age and a
        growing error, and then is gone.
        """
        self._now = t_local
        expected = [self._carried(track, track.missed + 1) for track in self._tracks]
        pairs = sorted(
            (cost, t, k)
            for t, there in enumerate(expected)
            for k, detection in enumerate(found)
            if (cost := self._cost(there, detection)) is not None
        )
        taken_tracks: set[int] = set()
        taken: set[int] = set()
        for _, t, k in pairs:
            if t in taken_tracks or k in taken:
                continue
            taken_tracks.add(t)
            taken.add(k)
            track, now = self._tracks[t], found[k]
            moved = (now.tip_px - track.last.tip_px) / (track.missed + 1)
            # What jumps to and fro along a shaft that hides it does not move.
            unsure_px2 = (_UNSURE_PX * self._scale) ** 2
            believed = unsure_px2 / (unsure_px2 + now.sigma_px**2 + track.last.sigma_px**2)
            track.velocity = track.velocity + _VELOCITY_SHARE * believed * (moved - track.velocity)
            track.hits, track.missed, track.seen_at = track.hits + 1, 0, t_local
            self._vote(track, now)
        for t, track in enumerate(self._tracks):
            if t not in taken_tracks:
                track.missed += 1
        for k, detection in enumerate(found):
            if k not in taken and detection.score >= least_new:
                self._made += 1
                track = _Track(
                    f"image-{self._made}", detection, np.zeros(2), seen_at=t_local, sagitta_px=detection.sagitta_px
                )
                self._vote(track, detection)
                self._tracks.append(track)
        # One that was never shown is dropped at once: a false alarm seldom comes twice.
        self._tracks = [t for t in self._tracks if self._kept(t)]
        return tuple(self._shown(t) for t in self._tracks if t.hits >= _HITS_TO_SHOW)

    def _kept(self, track: _Track) -> bool:
        if track.missed and self._now - track.seen_at > _MOST_CARRIED_MS * 1e6:
            return False
        return track.missed <= (_FRAMES_CARRIED if track.hits >= _HITS_TO_SHOW else 0)

    def _vote(self, track: _Track, now: Detection) -> None:
        if sum(track.kinds.values()) > _KIND_MEMORY:
            track.kinds = Counter({k: n // 2 for k, n in track.kinds.items()})
        track.kinds[now.kind] += 1
        track.sagitta_px += _BEND_SHARE * (now.sagitta_px - track.sagitta_px)
        track.bent = abs(track.sagitta_px) > self._bend_said_px * (0.5 if track.bent else 1.0)
        sagitta_px = track.sagitta_px if track.bent else 0.0
        track.last = replace(now, id=track.id, kind=track.kinds.most_common(1)[0][0], sagitta_px=sagitta_px)

    def _cost(self, expected: Detection, now: Detection) -> float | None:
        """How far a find is from where a track is expected; None where it cannot be that one."""
        off = float(np.linalg.norm(expected.tip_px - now.tip_px)) / self._near_px
        turn_cos = float(expected.direction @ now.direction)
        turn = float(np.rad2deg(np.arccos(np.clip(turn_cos, -1, 1)))) / _NEAR_DEG
        if off <= 1 + 0.3 * (expected.age - 1) and turn <= 1:
            return off + turn
        return _ALONG_ITS_LINE + off if turn_cos > 0 and on_one_line(expected, now, self._scale) else None

    def _shown(self, track: _Track) -> Detection:
        return self._carried(track, track.missed) if track.missed else track.last

    def _carried(self, track: _Track, frames: int) -> Detection:
        """A track so many frames after it was seen last."""
        shift = track.velocity * frames
        return replace(
            track.last,
            tip_px=track.last.tip_px + shift,
            tail_px=track.last.tail_px + shift,
            sigma_px=float(np.hypot(track.last.sigma_px, self._grows_px * frames)),
            age=frames,
            age_ms=max(self._now - track.seen_at, 0) / 1e6,
        )
