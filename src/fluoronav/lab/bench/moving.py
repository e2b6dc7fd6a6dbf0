"""Moving instruments: the detection stage on sequences, with its tracks."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from fluoronav.geometry import Camera
from fluoronav.imaging.inference import InferenceSettings
from fluoronav.lab.bench.matching import SAME_PX, nearest
from fluoronav.lab.simulation.instrument_scenes import Background, Placed, SceneMaker, unseen_shape, visible_axis_px
from fluoronav.stream.detection.stage import DetectionStage
from fluoronav.stream.frame import Budget, Detection, FrameRecord
from fluoronav.stream.preprocessing.stage import AttenuationStage

LOOKS = ("shares", "whole")  # as on a CPU, and as on a GPU
_FRAME_NS = 33_333_333  # between two frames: 30 a second
_PIECE = 5  # sequences made from one seed, so that results do not depend on the number of processes


@dataclass(frozen=True)
class CountingLimits:
    """Which instruments count; all chosen."""

    first_frame: int = 2  # an instrument is shown once it is confirmed in a second frame
    least_px: int = 60  # visible length below which an instrument need not be found
    edge_px: int = 40  # distance from the image's edge within which a tip need not be found


LIMITS = CountingLimits()


@dataclass
class Shown:
    """Counts over the frames of one sequence.

    Attributes
    ----------
    due : int
        Instruments in view, summed over frames.
    in_sight, in_sight_shown : int
        Of these, those whose tip is not hidden, and those of them that were shown.
    switches : int
        Changes of an instrument's identity.
    off_px : list of float
        Errors of the tips that were shown.
    false : int
        Detections without an instrument, summed over frames.
    called : set of str
        Identities of the false detections.
    frames : int
        Frames that count.
    """

    due: int = 0
    in_sight: int = 0
    in_sight_shown: int = 0
    switches: int = 0
    off_px: list[float] = field(default_factory=list)
    false: int = 0
    called: set[str] = field(default_factory=set)
    frames: int = 0
    _ids: dict[int, str] = field(default_factory=dict)

    @property
    def shown(self) -> int:
        """Number of instruments shown, summed over frames."""
        return len(self.off_px)

    def add(self, detections: tuple[Detection, ...], placed: tuple[Placed, ...], camera: Camera) -> None:
        """Counts a frame: its detections, and its instruments in the same order in every frame."""
        left, excluded = list(detections), []
        for n, p in enumerate(placed):
            if len(p.axis_px) < LIMITS.least_px or not _inside(p, camera):
                excluded.append(p)
                continue
            self.due += 1
            self.in_sight += not p.tip_hidden
            match = nearest(left, p.axis_px[0], p.tip_direction)
            if match is None:
                continue
            best = left.pop(match[0])
            self.off_px.append(match[1])
            self.in_sight_shown += not p.tip_hidden
            self.switches += n in self._ids and self._ids[n] != best.id
            self._ids[n] = best.id
        none = [d for d in left if not any(_on(d, p, camera) for p in excluded)]
        self.false += len(none)
        self.called |= {d.id for d in none}
        self.frames += 1


def moving(
    camera: Camera, backgrounds: list[Background], sequences: int, frames: int, photons: float, seed: int
) -> dict[str, Any]:
    """Runs the detection stage on instruments of unseen shapes, moved by a hand; on all cores.

    Parameters
    ----------
    camera : Camera
    backgrounds : list of Background
    sequences, frames : int
        Number of sequences, and frames of each.
    photons : float
        Mean detected photons per pixel.
    seed : int

    Returns
    -------
    dict
        ``shown`` (fraction of the instruments in view that are shown, after the first two frames);
        ``shown_tip_in_sight`` (the same of those whose tip is not hidden), both with ``..._95``; ``tip_px`` (error of
        the tips shown, ``median`` and ``p95``); ``switches`` (changes of identity); ``false_per_frame``;
        ``false_per_1000_frames`` (each identity counted once); ``photons``, ``sequences``, ``frames``. These are of
        looks in shares, as on a CPU; ``whole`` has the same of looks at the whole of each of these frames.
    """
    pieces = [(min(_PIECE, sequences - first), frames, photons, seed + first) for first in range(0, sequences, _PIECE)]
    of_each: list[dict[str, Shown]] = []
    # Sessions of a network do not survive a fork.
    pool = ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), _begin, (camera, backgrounds))
    bar = tqdm(total=sequences, desc=f"moving instruments at {photons:g} photons", unit="sequence")
    with pool, bar:
        for some in pool.map(_piece, pieces):
            of_each += some
            bar.update(len(some))
    in_shares, whole = (figures([shown[looks] for shown in of_each]) for looks in LOOKS)
    return in_shares | {"photons": photons, "whole": whole}


def figures(of_each: list[Shown]) -> dict[str, Any]:
    """Figures from the counts of all sequences; see :func:`moving`."""

    def total(name: str) -> int:
        return sum(getattr(s, name) for s in of_each)

    off = [px for s in of_each for px in s.off_px]
    frames = max(total("frames"), 1)
    return {
        "shown": total("shown") / max(total("due"), 1),
        "shown_95": _interval_95([s.shown for s in of_each], [s.due for s in of_each]),
        "shown_tip_in_sight": total("in_sight_shown") / max(total("in_sight"), 1),
        "shown_tip_in_sight_95": _interval_95([s.in_sight_shown for s in of_each], [s.in_sight for s in of_each]),
        "tip_px": {
            "median": float(np.median(off)) if off else None,
            "p95": float(np.percentile(off, 95)) if off else None,
        },
        "switches": total("switches"),
        "false_per_frame": total("false") / frames,
        "false_per_1000_frames": 1000 * sum(len(s.called) for s in of_each) / frames,
        "sequences": len(of_each),
        "frames": total("frames"),
    }


def _interval_95(shown: list[int], due: list[int]) -> tuple[float, float]:
    """95 % interval of a proportion in clusters: frames of one sequence are alike.

    Ratio of sums over clusters (Cochran, Sampling Techniques, 3rd ed., 1977, eq. 6.13).
    """
    n, s, d = len(due), np.array(shown, float), np.array(due, float)
    if n < 2 or not d.sum():
        return 0.0, 1.0
    proportion = s.sum() / d.sum()
    half = 1.96 * np.sqrt(n / (n - 1) * ((s - proportion * d) ** 2).sum()) / d.sum()
    return max(float(proportion - half), 0.0), min(float(proportion + half), 1.0)


_maker: SceneMaker
_attenuation: AttenuationStage
_detection: dict[str, DetectionStage]


def _begin(camera: Camera, backgrounds: list[Background]) -> None:
    global _maker, _attenuation, _detection
    cv2.setNumThreads(1)  # the other processes have the other cores
    _maker = SceneMaker(camera, backgrounds, unseen_shape)
    _attenuation = AttenuationStage()
    _detection = {looks: DetectionStage(InferenceSettings(threads=1), looks) for looks in LOOKS}


def _piece(work: tuple[int, int, float, int]) -> list[dict[str, Shown]]:
    sequences, frames, photons, seed = work
    # No dose has the scenes of another.
    rng = np.random.default_rng([seed, round(photons)])
    done = []
    for _ in range(sequences):
        for stage in (_attenuation, *_detection.values()):
            stage.prepare(None, _maker.camera)
        done.append({looks: Shown() for looks in LOOKS})
        for k, (counts, placed) in enumerate(_maker.sequence(rng, frames, photons)):
            frame = FrameRecord.of_counts(counts, seq=k, t_acq=(k + 1) * _FRAME_NS)
            _attenuation.process(frame, Budget(1e6))
            for looks, stage in _detection.items():
                stage.process(frame, Budget(1e6))
                if k >= LIMITS.first_frame:
                    done[-1][looks].add(frame.detections, placed, _maker.camera)
            _attenuation.idle(frame, Budget(1e6))
    return done


def _inside(p: Placed, camera: Camera) -> bool:
    """Whether the tip is in the image, and not at its edge."""
    size = np.array([camera.cols, camera.rows])
    return bool((p.axis_px[0] > LIMITS.edge_px).all() and (p.axis_px[0] < size - LIMITS.edge_px).all())


def _on(d: Detection, p: Placed, camera: Camera) -> bool:
    """Whether a detection's tip lies on an instrument, behind a blade or not."""
    axis = visible_axis_px(p.points_camera, camera, np.ones((camera.rows, camera.cols), bool))
    return len(axis) > 0 and bool(np.linalg.norm(axis - d.tip_px, axis=1).min() < SAME_PX)
