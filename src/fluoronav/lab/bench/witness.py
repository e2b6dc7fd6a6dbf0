"""The witness in the picture: what it finds of poses and tools put wrong on purpose, what it says of right ones."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta
from tqdm import tqdm

from fluoronav.case import load_case
from fluoronav.geometry import Camera
from fluoronav.lab import machine
from fluoronav.lab.simulation.sequence import Sequence, load_or_render
from fluoronav.paths import shipped
from fluoronav.stream.frame import Budget, FrameRecord, Instrument, RegistrationResult
from fluoronav.stream.preprocessing.stage import AttenuationStage
from fluoronav.stream.witness.stage import WitnessStage

Float = NDArray[np.float64]


@dataclass(frozen=True)
class WitnessTrials:
    """How poses and tools are put wrong; all chosen, errors as `bench tracking` and optical trackers have them."""

    wrong_mm: tuple[float, ...] = (2.0, 3.0, 5.0)
    right_runs: int = 8  # in which all is right, for each in which something is put wrong
    right_frames: int = 5  # before something is put wrong
    within_frames: int = 5  # in which it has to be found
    pose_bias_mm: float = 0.2  # of a right pose, 1 sigma across the ray in each direction, the same in all of a run
    pose_noise_mm: float = 0.1  # and from frame to frame
    tool_bias_mm: float = 0.3
    tool_noise_mm: float = 0.1
    warm_frames: int = 20  # for the detector's field of view, before the first run


TRIALS = WitnessTrials()
_RUN = TRIALS.right_frames + TRIALS.within_frames


@dataclass
class _Counts:
    """Of one kind of trial."""

    trials: int = 0
    found: int = 0
    could_say: int = 0
    found_where_it_could_say: int = 0
    frames_to: list[int] = field(default_factory=list)

    def add(self, at: int | None, spoke: bool) -> None:
        self.trials += 1
        self.could_say += spoke
        self.found += at is not None
        self.found_where_it_could_say += spoke and at is not None
        if at is not None:
            self.frames_to.append(at)

    def summary(self) -> dict[str, Any]:
        return {
            "trials": self.trials,
            "found": self.found / max(self.trials, 1),
            "could_say": self.could_say / max(self.trials, 1),
            "found_where_it_could_say": self.found_where_it_could_say / max(self.could_say, 1),
            "frames_to_doubt": {str(n): c for n, c in sorted(Counter(self.frames_to).items())},
        }


class _Bench:
    """The demo's sequence, its truth, and the two stages."""

    def __init__(self, seed: int) -> None:
        self.case, self.camera = load_case("embedded"), Camera.load(shipped("calibration/demo-carm.yaml"))
        self.sequence: Sequence = load_or_render(self.case, self.camera)
        self.attenuation, self.witness = AttenuationStage(), WitnessStage()
        for stage in (self.attenuation, self.witness):
            stage.prepare(self.case, self.camera)
        self.rng = np.random.default_rng(seed)
        self.ms: list[float] = []
        for k in range(TRIALS.warm_frames):
            self._seen(k)

    def _seen(self, k: int) -> FrameRecord:
        """Frame `k` with its attenuation; its arrays are copies."""
        frame = FrameRecord.of_counts(np.array(self.sequence.frames[k % len(self.sequence.frames)]), seq=k)
        self.attenuation.process(frame, Budget(1e4))
        self.attenuation.idle(frame, Budget(1e4))
        frame.pyramid = {side: picture.copy() for side, picture in frame.pyramid.items() if side >= 128}
        return frame

    def block(self, first: int) -> list[FrameRecord]:
        """The frames of a run."""
        return [self._seen(first + k) for k in range(_RUN)]

    def run(self, frames: list[FrameRecord], pose_mm: Float, tool_mm: Float, tool_across: bool) -> list[FrameRecord]:
        """Shows the frames to the witness: first right, then wrong.

        Parameters
        ----------
        frames : list of FrameRecord
        pose_mm, tool_mm : ndarray, shape (2,)
            Put wrong by so much from `TRIALS.right_frames` on: of the pose along the camera's x and y, of the tool
            along and across its shaft in the picture, or along x and y.
        tool_across : bool
        """
        self.witness.start_again()
        pose_bias, tool_bias = self.rng.normal(0, 1, (2, 2)) * [[TRIALS.pose_bias_mm], [TRIALS.tool_bias_mm]]
        shown = []
        for n, seen in enumerate(frames):
            wrong = n >= TRIALS.right_frames
            pose = pose_bias + self.rng.normal(0, TRIALS.pose_noise_mm, 2) + wrong * pose_mm
            tool = tool_bias + self.rng.normal(0, TRIALS.tool_noise_mm, 2)
            shown.append(self._show(seen, pose, tool, tool_mm if wrong else np.zeros(2), tool_across))
        return shown

    def _show(self, seen: FrameRecord, pose_mm: Float, error_mm: Float, wrong_mm: Float, across: bool) -> FrameRecord:
        k = seen.seq % len(self.sequence.frames)
        T_true = self.sequence.T_camera_ct[k]
        T_camera_ct = np.eye(4)
        T_camera_ct[:2, 3] = pose_mm
        T_camera_ct = T_camera_ct @ T_true
        assert self.sequence.T_ct_tool is not None
        tool = self.case.tools[0]
        T_ct_tip = self.sequence.T_ct_tool[k] @ tool.T_tool_tip()
        axis_ct = T_ct_tip[:3, 2].copy()
        if across:
            along = (T_true[:3, :3] @ axis_ct)[:2]
            along /= max(float(np.hypot(*along)), 1e-9)
            wrong_mm = np.array([along, [-along[1], along[0]]]).T @ wrong_mm
        tip_ct = T_ct_tip[:3, 3] + T_true[:2, :3].T @ (wrong_mm + error_mm)
        frame = FrameRecord.of_counts(seen.counts, seq=seen.seq)
        frame.pyramid, frame.full_field_mask = seen.pyramid, seen.full_field_mask
        frame.registration = RegistrationResult(T_camera_ct, 1.0, np.zeros(6), 0.0, 0.0, 0)
        frame.instruments = (Instrument(tool.id, tool.kind, None, None, tip_ct, axis_ct, 0.3, "tracker", 0),)
        began = time.thread_time()
        self.witness.process(frame, Budget(1e4))
        self.ms.append(1000 * (time.thread_time() - began))
        return frame


def bench_witness(blocks: int, runs: int, seed: int = 11) -> dict[str, Any]:
    """Puts poses and tools wrong on the demo's frames, and leaves others right.

    Parameters
    ----------
    blocks : int
        Places in the sequence, spread over it.
    runs : int
        Runs of ten frames at each place: so many of each kind of error, and eight times as many left right.
    seed : int

    Returns
    -------
    dict
        The bench's JSON.
    """
    bench = _Bench(seed)
    counts: dict[str, _Counts] = {}
    false, right_frames, verdicts = Counter[str](), 0, Counter[str]()
    for first in tqdm(np.linspace(0, len(bench.sequence.frames) - _RUN, blocks).astype(int), "places", unit="place"):
        frames = bench.block(int(first))
        before = Counter(bench.witness.verdicts)
        for _ in range(runs * TRIALS.right_runs):
            begun = _doubts_begun(bench.run(frames, np.zeros(2), np.zeros(2), False))
            false["pose"] += begun[0]
            false["tool"] += begun[1]
            right_frames += len(frames)
        verdicts += Counter(bench.witness.verdicts) - before
        for _ in range(runs):
            for mm in TRIALS.wrong_mm:
                turn = bench.rng.uniform(0, 2 * np.pi)
                any_way = mm * np.array([np.cos(turn), np.sin(turn)])
                across = np.array([0.0, mm * bench.rng.choice([-1, 1])])
                for kind, pose_mm, tool_mm, is_across in (
                    ("pose", any_way, np.zeros(2), False),
                    ("tool_across_its_shaft", np.zeros(2), across, True),
                    ("tool_any_way", np.zeros(2), any_way, False),
                ):
                    before = dict(bench.witness.verdicts)
                    at = _found_at(bench.run(frames, pose_mm, tool_mm, is_across), of_pose=kind == "pose")
                    spoke = _spoke(before, bench.witness.verdicts, "pose" if kind == "pose" else "tool")
                    counts.setdefault(f"{kind}_{mm:g}_mm", _Counts()).add(at, spoke)
    ms = np.array(bench.ms)
    return {
        "pictures": int(min(blocks * _RUN, len(bench.sequence.frames))),
        "wrong": {name: c.summary() for name, c in counts.items()},
        "right": {
            "frames": right_frames,
            "false_alarms": {"pose": false["pose"], "tool": false["tool"]},
            "share": false.total() / max(right_frames, 1),
            "share_at_most": float(beta.ppf(0.95, false.total() + 1, max(right_frames - false.total(), 1))),
            "verdicts": dict(verdicts),
        },
        "ms": {"median": float(np.median(ms)), "p99": float(np.percentile(ms, 99)), "max": float(ms.max())},
        "machine": machine.description(),
    }


def _spoke(before: dict[str, int], after: Any, of: str) -> bool:
    """Whether more than half of a run's frames agreed or disagreed."""
    said = sum(after[name] - before[name] for name in after if name in _SPEAKING and name.startswith(of))
    return said > _RUN // 2


_SPEAKING = ("pose_agrees", "pose_edges_beside", "tool_agrees", "tool_shadow_beside", "tool_shadow_ends_elsewhere")


def _doubts(frame: FrameRecord) -> tuple[bool, bool]:
    return (False, False) if frame.doubts is None else (bool(frame.doubts.pose), bool(frame.doubts.tools))


def _doubts_begun(frames: list[FrameRecord]) -> list[int]:
    """How many doubts of the pose, and of a tool, begin in a run in which nothing is wrong."""
    said = np.array([(False, False), *map(_doubts, frames)])
    return np.count_nonzero(said[1:] & ~said[:-1], axis=0).tolist()


def _found_at(frames: list[FrameRecord], *, of_pose: bool) -> int | None:
    """In which frame after the first wrong one a doubt is said, from 1; None where it is not."""
    said = [_doubts(frame)[0 if of_pose else 1] for frame in frames[TRIALS.right_frames :]]
    return said.index(True) + 1 if True in said else None


def table(result: dict[str, Any]) -> str:
    """The result in lines."""
    right, ms = result["right"], result["ms"]

    def found(w: dict[str, Any]) -> str:
        where = f"{100 * w['found_where_it_could_say']:.1f} % of {100 * w['could_say']:.0f} %"
        return f"{100 * w['found']:6.1f} % of {w['trials']}  ({where})"

    lines = [
        f"put wrong, found within {TRIALS.within_frames} frames (of those where most frames could say):",
        *(f"  {name.replace('_', ' '):34}{found(w)}" for name, w in result["wrong"].items()),
        f"false alarms: {sum(right['false_alarms'].values())} in {right['frames']} right frames "
        f"({result['pictures']} pictures); at most {right['share_at_most']:.1e} a frame (95 %)",
        "what right frames said: " + ", ".join(f"{name} {n}" for name, n in sorted(right["verdicts"].items())),
        f"CPU ms a frame: {ms['median']:.2f} median, {ms['p99']:.2f} in 99 of 100, {ms['max']:.2f} at most",
    ]
    return "\n".join(lines)
