"""Which part of a frame is looked at, and what is known from the frames before.

A look at the whole frame costs the most. Where the networks run on a CPU, a frame therefore looks at one or two tiles,
in turn (:mod:`.tiles`), and about the instruments that are known. Those need no first network: the line that it has
traced is moved to where the instrument is expected, measured anew at full resolution, and judged by the second
network. An instrument that is new, was not found in the last frame, or that the first network did not propose when it
last looked there is not believed on that alone: its tile is looked at in this frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.stream.detection.candidates import Proposal, measured
from fluoronav.stream.detection.identity import Expected
from fluoronav.stream.detection.joint_score import joint_scores, leaves_field
from fluoronav.stream.detection.network_input import MAP_PX
from fluoronav.stream.detection.tiles import TILES, TileSchedule, tiles_at
from fluoronav.stream.detection.two_stage import Candidate, TwoStageDetector
from fluoronav.stream.frame import Detection, FrameRecord

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class DoubtLimits:
    """When a tile is looked at again in the next frames, since it may show a new instrument; all chosen on scenes."""

    min_score: float = 0.05  # joint score of a candidate that is of no track
    looks: int = 5  # at the tile after the last such candidate


@dataclass(frozen=True)
class FollowingLimits:
    """How a line is followed without the first network; pixels are those of a 1024 image. All chosen."""

    step_px: float = 8.0  # between points of a line that grows: the pixels of the first network's maps
    max_growth_px: float = 96.0  # of a line in one frame, to the edge of the field
    end_px: float = 32.0  # of a line, which tell where it goes on
    trimmed_px: float = 4.0  # behind the tip: nearer points of the line give way to the tip itself


DOUBT, LIMITS = DoubtLimits(), FollowingLimits()


@dataclass(frozen=True)
class Plan:
    """What is looked at in a frame; about the known instruments always.

    Attributes
    ----------
    kind : {"whole", "part", "known"}
    tiles : tuple of int
        Those of a part.
    """

    kind: Literal["whole", "part", "known"]
    tiles: tuple[int, ...] = ()


@dataclass
class _Remembered:
    """A candidate of an earlier look, and the track that it belongs to."""

    candidate: Candidate
    leaves_field: bool
    score: float = 0.0
    track: str = ""


class Attention:
    """Looks at a part of each frame, and remembers what the others showed.

    Parameters
    ----------
    detector : TwoStageDetector
    longest : int
        Longer side of the frames, pixels.
    """

    def __init__(self, detector: TwoStageDetector, longest: int) -> None:
        self._detector, self._longest = detector, longest
        self._schedule = TileSchedule()
        self._remembered: list[_Remembered] = []
        self._looked: list[_Remembered] = []  # of this frame, in the order of its detections: fresh ones, known ones
        self._fresh_count = 0
        self._doubtful = dict.fromkeys(range(len(TILES)), 0)  # looks at each tile that are left
        self._field_mask: Bool | None = None

    def wanted(self, frame: FrameRecord, tracks: Sequence[Expected]) -> list[Plan]:
        """What this frame should look at, the best first: where that takes too long, the next.

        Parameters
        ----------
        frame : FrameRecord
            With its field mask.
        tracks : sequence of Expected
        """
        self._take_field(frame)
        self._schedule.begin(frame.t_local)
        needed = {tile for track in tracks if self._needs_a_look(track) for tile in self._tiles_of(track.there)}
        needed |= {tile for tile, looks in self._doubtful.items() if looks}
        tiles = self._schedule.due(needed)
        plans = [Plan("whole")] if tiles is None else [Plan("part", tuple(tiles))]
        if tiles is None:
            plans.append(Plan("part", tuple(self._schedule.oldest())))
        if any(self._memory_of(track) for track in tracks):
            plans.append(Plan("known"))
        return plans

    def look(
        self, frame: FrameRecord, plan: Plan, tracks: Sequence[Expected], min_candidate_score: float
    ) -> list[Detection]:
        """Candidates with their joint scores, without identities.

        Parameters
        ----------
        frame : FrameRecord
            With its pyramid and its field mask.
        plan : Plan
        tracks : sequence of Expected
        min_candidate_score : float
            Minimum score of the first network, 0 to 1.
        """
        assert frame.full_field_mask is not None
        fresh = self._fresh(frame, plan, min_candidate_score)
        followed = self._followed(frame, plan, tracks)
        candidates = self._detector.judge(frame, [*fresh, *(proposal for proposal, _ in followed)])
        looked_at = self._area_of(plan)
        kept = [r for r in self._remembered if not self._inside(r.candidate.second, looked_at)]
        self._looked = [
            _Remembered(c, leaves_field(c.first, frame.full_field_mask, frame.corrected.shape)) for c in candidates
        ]
        for now, (_, before) in zip(self._looked[len(fresh) :], followed, strict=True):
            now.leaves_field = before.leaves_field
        replaced = {id(before) for _, before in followed}
        # The other end of a line may lie in a tile that this frame does not look at.
        context = [r.candidate for r in kept if id(r) not in replaced]
        scores = joint_scores([*candidates, *context], frame.full_field_mask, frame.corrected.shape)
        for now, score in zip(self._looked, scores, strict=False):
            now.score = float(score)
        for tile in looked_at:
            self._doubtful[tile] = max(self._doubtful[tile] - 1, 0)
        self._schedule.looked(looked_at)
        self._remembered, self._fresh_count = kept, len(fresh)
        return [replace(c.second, score=float(s)) for c, s in zip(candidates, scores, strict=False)]

    def remember(self, tracks_of: Mapping[int, str]) -> None:
        """Takes which candidates of this frame's look belong to which tracks.

        Parameters
        ----------
        tracks_of : mapping of int to str
            Identity of a track, by the number of the detection that :meth:`look` gave.
        """
        for k, now in enumerate(self._looked):
            now.track = tracks_of.get(k, "")
            if now.track:  # nothing older is of that track
                self._remembered = [r for r in self._remembered if r.track != now.track]
            if now.track or k < self._fresh_count:
                self._remembered.append(now)
            if not now.track and now.score >= DOUBT.min_score:
                self._doubtful.update(dict.fromkeys(self._tiles_of(now.candidate.second), DOUBT.looks))
        self._looked = []

    def _fresh(self, frame: FrameRecord, plan: Plan, min_score: float) -> list[Proposal]:
        """Candidates of the first network in the part that is looked at."""
        if plan.kind == "known":
            return []
        tiles = None if plan.kind == "whole" else [TILES[k] for k in plan.tiles]
        return self._detector.propose(frame, min_score, tiles)

    def _followed(
        self, frame: FrameRecord, plan: Plan, tracks: Sequence[Expected]
    ) -> list[tuple[Proposal, _Remembered]]:
        """Candidates of known instruments that are not in the part that is looked at."""
        if plan.kind == "whole":
            return []
        assert self._field_mask is not None
        looked_at, out = self._area_of(plan), []
        for track in tracks:
            before = self._memory_of(track)
            if before is None or not track.sure or self._inside(track.there, looked_at):
                continue
            path = moved_path(before.candidate, track.there)
            path = within_field(path, self._field_mask, frame.corrected.shape, grows=before.leaves_field)
            first = before.candidate.first
            found = measured(frame, path, first.kind, first.score)
            if found is not None:
                out.append((Proposal(found, path), before))
        return out

    def _take_field(self, frame: FrameRecord) -> None:
        if self._field_mask is frame.full_field_mask:
            return
        assert frame.full_field_mask is not None
        self._field_mask = mask = frame.full_field_mask
        rows, cols = frame.corrected.shape
        square = np.zeros((MAP_PX, MAP_PX), bool)
        shape = max(round(MAP_PX * rows / self._longest), 1), max(round(MAP_PX * cols / self._longest), 1)
        small = cv2.resize(mask.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_AREA)
        square[: shape[0], : shape[1]] = small > 0
        self._schedule.set_field(square)
        self._detector.candidates.forget([TILES[k] for k in self._schedule.outside])

    def _needs_a_look(self, track: Expected) -> bool:
        return not track.sure or self._memory_of(track) is None

    def _memory_of(self, track: Expected) -> _Remembered | None:
        return next((r for r in self._remembered if r.track == track.id), None)

    def _tiles_of(self, d: Detection) -> list[int]:
        x, y = ((d.tip_px + 0.5) * (MAP_PX / self._longest) - 0.5).tolist()
        return tiles_at(x, y)[:1]

    def _area_of(self, plan: Plan) -> tuple[int, ...]:
        return tuple(range(len(TILES))) if plan.kind == "whole" else plan.tiles

    def _inside(self, d: Detection, tiles: Sequence[int]) -> bool:
        x, y = ((d.tip_px + 0.5) * (MAP_PX / self._longest) - 0.5).tolist()
        return len(tiles) == len(TILES) or any(TILES[k].shows(x, y) for k in tiles)


def moved_path(candidate: Candidate, there: Detection) -> Float:
    """A candidate's line, moved as a rigid body to where its instrument is expected, shape (n, 2), from the tip."""
    here = candidate.second
    behind = (candidate.path_px - here.tip_px) @ here.direction < -LIMITS.trimmed_px
    path = np.concatenate([here.tip_px[None], candidate.path_px[behind]])
    cos = float(here.direction @ there.direction)
    sin = float(here.direction[0] * there.direction[1] - here.direction[1] * there.direction[0])
    return (path - here.tip_px) @ np.array([[cos, sin], [-sin, cos]]) + there.tip_px


def within_field(path: Float, field_mask: Bool, frame_shape: tuple[int, ...], *, grows: bool) -> Float:
    """A line up to where it leaves the field.

    Parameters
    ----------
    path : ndarray, shape (n, 2)
        (column, row) from the tip, pixels of the frame.
    field_mask : ndarray of bool, any shape
        Field of view, over the whole frame.
    frame_shape : tuple of int
        (rows, cols) of the frame.
    grows : bool
        Its instrument leaves the field: where the line ends before that, it is continued straight.
    """
    scale = max(frame_shape) / 1024
    if grows and len(path) > 1:
        behind = path[max(len(path) - 1 - round(LIMITS.end_px / LIMITS.step_px), 0)]
        outwards = (path[-1] - behind) / max(float(np.hypot(*(path[-1] - behind))), 1e-9)
        steps = np.arange(1, round(LIMITS.max_growth_px / LIMITS.step_px) + 1)
        path = np.concatenate([path, path[-1] + LIMITS.step_px * scale * steps[:, None] * outwards])
    rows, cols = frame_shape[:2]
    inside = (path >= 0).all(1) & (path[:, 0] < cols) & (path[:, 1] < rows)
    to_mask = np.array(field_mask.shape[::-1]) / (cols, rows)
    x, y = (path[inside] * to_mask).astype(int).T
    inside[inside] = field_mask[y, x]
    out = np.flatnonzero(~inside[1:])  # the tip itself may lie at the edge
    return path[: out[0] + 1] if len(out) else path
