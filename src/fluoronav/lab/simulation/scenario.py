"""Motion of the simulated C-arm, the patient and the wire."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.case import Case
from fluoronav.geometry import ArmJoints, exp_so3, moved_about

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Scenario:
    """A sequence that is played forth and back, so that it can run without end.

    The anatomy goes through `anatomy_frames` poses (arm sweep, one breath, a drift) and back. Meanwhile the wire is
    driven from outside the skin to beyond the target, a few degrees off the planned direction.

    Attributes
    ----------
    anatomy_frames : int
        Distinct poses of the anatomy; the sequence has twice as many frames.
    sweep_deg, tilt_deg : float
        Travel of the C-arm: orbital from one end to the other, angular forth and back.
    breath_mm : float
        Cranio-caudal amplitude of one breath, peak to peak.
    start_deg, start_mm : float
        Offset of the true pose from the case's prior at the start.
    trajectory : int
        Index of the planned trajectory that is driven.
    wire_error_deg : float
        Medial deviation of the wire from that trajectory.
    overshoot_mm : float
        Depth of the wire beyond the target at the end.
    seed : int
        Of the start pose and the tremor.
    """

    anatomy_frames: int = 150
    sweep_deg: float = 8.0
    tilt_deg: float = 1.5
    breath_mm: float = 5.0
    start_deg: float = 7.0
    start_mm: float = 18.0
    trajectory: int = 0
    wire_error_deg: float = 4.0
    overshoot_mm: float = 4.0
    seed: int = 7

    @property
    def frames(self) -> int:
        return 2 * self.anatomy_frames

    def anatomy_index(self, frame: int) -> int:
        """Index of the anatomy's pose in a frame of the sequence: forth, then back."""
        return min(frame, self.frames - 1 - frame)

    def sequence_index(self, n: int) -> int:
        """Index in the sequence of the n-th streamed frame: forth, then back, and so on."""
        n %= 2 * self.frames
        return min(n, 2 * self.frames - 1 - n)

    def joints(self, case: Case) -> list[ArmJoints]:
        """Joints of the C-arm at each of the anatomy's poses."""
        prior = case.prior
        return [
            ArmJoints(
                prior.orbital_deg + self.sweep_deg * (s - 0.5),
                prior.angular_deg + self.tilt_deg * b,
                prior.swivel_deg,
                prior.source_to_isocentre_mm,
            )
            for s, b in zip(*self._phases(), strict=True)
        ]

    def poses(self, case: Case) -> Float:
        """``T_camera_ct`` of each of the anatomy's poses, shape (anatomy_frames, 4, 4), mm."""
        rng = np.random.default_rng(self.seed)
        centre = np.asarray(case.prior.isocentre_ct)
        axis = rng.standard_normal(3)
        turn = np.deg2rad(self.start_deg) * axis / np.linalg.norm(axis)
        shift = rng.standard_normal(3)
        shift *= self.start_mm / np.linalg.norm(shift)
        # The patient is off the prior, breathes and drifts.
        T_prior_ct = moved_about(centre, np.concatenate([turn, shift]))
        T_room_prior = np.eye(4)
        T_room_prior[:3, 3] = -centre
        poses = []
        for arm, s, b in zip(self.joints(case), *self._phases(), strict=True):
            patient = moved_about(
                centre,
                [np.deg2rad(0.6) * b, 0, np.deg2rad(0.2) * b, 0.5 * s, -0.3 * self.breath_mm * b, -self.breath_mm * b],
            )
            T_camera_room = arm.T_camera_room(case.prior.source_to_isocentre_mm)
            poses.append(T_camera_room @ T_room_prior @ T_prior_ct @ patient)
        return np.array(poses)

    def _phases(self) -> tuple[Float, Float]:
        """Phases of sweep and breath, 0 to 1, each of shape (anatomy_frames,); at rest where the motion turns back."""
        phase = np.linspace(0, 1, self.anatomy_frames)
        return phase * phase * (3 - 2 * phase), (1 - np.cos(2 * np.pi * phase)) / 2

    def wire(self, case: Case) -> Float | None:
        """``T_ct_tool`` of each frame of the sequence, shape (frames, 4, 4), mm; None if the case has no plan or tool.

        The tool's frame has its origin at the tip and its z axis along the shaft, towards the tip.
        """
        if not case.plan or not case.tools:
            return None
        plan = case.plan[self.trajectory % len(case.plan)]
        entry, target = np.array(plan.entry_ct), np.array(plan.target_ct)
        length = float(np.linalg.norm(target - entry))
        axis = (target - entry) / length
        medial = -np.sign(entry[0] - case.prior.isocentre_ct[0]) * np.array([1.0, 0, 0])
        axis = exp_so3(np.deg2rad(self.wire_error_deg) * _unit(np.cross(axis, medial))) @ axis
        side = _unit(np.cross(axis, [0, 0, 1.0]))
        R = np.column_stack([side, np.cross(axis, side), axis])
        rng = np.random.default_rng(self.seed + 1)
        phase = np.linspace(0, 1, self.frames)
        depth = -20 + (length + self.overshoot_mm + 20) * phase * phase * (3 - 2 * phase)
        # Tremor of the hand: a few slow waves, damped once the tip is in bone.
        waves = sum(
            rng.normal(0, 0.25, 2)[:, None] * np.sin(2 * np.pi * f * phase + rng.uniform(0, 6)) for f in (3, 5, 8)
        )
        waves = waves * np.clip(1 - depth / 10, 0.1, 1)
        T = np.tile(np.eye(4), (self.frames, 1, 1))
        T[:, :3, :3] = R
        T[:, :3, 3] = entry + depth[:, None] * axis + waves.T @ R[:, :2].T
        return T


def _unit(v: NDArray) -> Float:
    return v / np.linalg.norm(v)
