"""What a measured pose may be called, and why it is not called tracking."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fluoronav.imaging.registration.confidence import (
    LOST_SCORE,
    MIN_PATCHES,
    TRACKING_AGREEMENT,
    TRACKING_SCORE,
    turn_bound_deg,
)
from fluoronav.imaging.registration.gauss_newton import PoseEstimate
from fluoronav.imaging.registration.search import Hypothesis
from fluoronav.stream import reasons
from fluoronav.stream.doubts import Doubts
from fluoronav.stream.registration.settings import SETTINGS as TRACKING
from fluoronav.stream.registration.target import SETTINGS as TARGET


@dataclass(frozen=True, slots=True)
class AgeLimits:
    """How long what was measured may be handed on.

    Attributes
    ----------
    held_frames : int
        So many frames in a row may be without a measurement for want of time; the next is measured, late if need be.
    overdue_ms : float
        A pose that is older is measured with as many iterations as it takes, late if need be.
    tracking_ms : float
        A pose that is older is `degraded`: a deep breath moves the patient by 2 mm in that time.
    lost_ms : float
        A pose that is older is `lost`: the patient may be anywhere.
    agreed_ms : float
        A comparison with the whole field that is older says nothing of this frame.
    breath_ms : float
        A pose that was confirmed so long ago, and followed since, may agree less (`breathed_agreement`): the chest
        breathes in. The longest breath.
    """

    held_frames: int = 2
    overdue_ms: float = 100.0
    tracking_ms: float = 200.0
    lost_ms: float = 2000.0
    agreed_ms: float = 5000.0
    breath_ms: float = 8000.0


@dataclass(frozen=True, slots=True)
class BreathLimits:
    """What a chest that breathes does to the pose of all tissue.

    Attributes
    ----------
    breathed_agreement : float
        Agreement that is asked of a pose that was confirmed within the last breath. In the stream of
        :mod:`fluoronav.lab.bench.cohort.stream` with ten screws right poses have 0.64 and more.
    window_s : float
        The agreement's range is that of so long. The longest breath.
    swing : float
        Range from which on the chest is known to move: each comparison then looks at the target bone, since a look
        every 3 s of a breath of 4 s misses the deep ones. A patient who is still has 0.02. Chosen.
    doubt : float
        Part of the rotation's covariance by the target bone's own patches that is added then. Fitted to that stream of
        a chest and of a lumbar spine: there the bound of the rotation holds in 94 and 92 %.
    looks : float
        Weight of the newest look at the target bone in what is unexplained. Fitted with it.
    """

    breathed_agreement: float = 0.60
    window_s: float = 8.0
    swing: float = 0.1
    doubt: float = 0.3
    looks: float = 0.25


BREATH = BreathLimits()


_MOST_TURN_DEG = 4.0  # 95 % bound by what the model leaves unexplained; chosen: five mislead a pedicle trajectory


def fits(estimate: PoseEstimate) -> bool:
    """Whether a measurement is of the patient at all."""
    finite = bool(np.isfinite(estimate.T_camera_ct).all())
    return finite and estimate.patches >= MIN_PATCHES and estimate.score >= LOST_SCORE


class FieldComparison:
    """The last comparison of the pose with the whole field, and a picture that did not go on from the one before.

    Parameters
    ----------
    clock : callable
        Seconds, never backwards.

    Attributes
    ----------
    agreement : float
        0 to 1; 0 before the first.
    checked_at : float
        When a comparison was begun last, by the clock, s.
    change : str
        How the picture has changed since, in words; empty when it goes on from the one before.
    doubt : str
        What the last picture itself says against the pose, in words; empty where it says nothing.
    unexplained : ndarray, shape (6, 6)
        Covariance of what the model may have wrong of this patient, camera axes: what a view says little of turns with
        the C-arm. Zero before somebody has looked.
    turn_deg : float
        95 % bound of the turn in it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.agreement = self.checked_at = self._looked_at = 0.0
        self.change = self.doubt = ""
        self._agreed_at: int | None = None  # ns, this computer's clock
        self._forget()

    def _forget(self) -> None:
        """Nothing is known of what the model has wrong."""
        self.unexplained, self.turn_deg = np.zeros((6, 6)), 0.0
        self._looks = self._bone = np.zeros((6, 6))
        self._confirmed_at: int | None = None  # ns, this computer's clock
        self._agreements: list[tuple[float, float]] = []  # s, and what was found, over a breath

    def invalidate(self, change: str = "") -> None:
        """No comparison holds any more, and the next is due now."""
        self.agreement, self.checked_at, self._agreed_at = 0.0, 0.0, None
        self._looked_at = 0.0
        self._forget()
        self.change = change or self.change

    def doubted(self, doubts: Doubts | None) -> None:
        """Takes what the witness says of the last frame; with a new doubt a comparison is due now."""
        doubt = "" if doubts is None else doubts.pose
        if doubt and not self.doubt:
            self.checked_at = 0.0
        self.doubt = doubt

    def is_due(self) -> None:
        """A comparison is due now, and a look at the target bone with it."""
        self.checked_at = self._looked_at = 0.0

    def due(self) -> bool:
        """Whether it is time to compare."""
        return self._clock() - self.checked_at > TRACKING.check_every_s

    def begins(self) -> bool:
        """A comparison begins; returns whether it is time to look at the target bone, too."""
        self.checked_at = self._clock()
        look = self._swing() >= 1 or self.checked_at - self._looked_at > TARGET.look_every_s
        self._looked_at = self.checked_at if look else self._looked_at
        return look

    def found(self, compared: Hypothesis, of: int | None) -> None:
        """The pose was compared; `of` is the frame's time, ns, or None where it is that of the frame at hand."""
        self.agreement, self._agreed_at = compared.agreement, of
        is_new = compared.estimate.patches > 0
        if is_new:
            self._agreements = []
            self._looks = self._bone = np.zeros((6, 6))
        if self.agreement >= TRACKING_AGREEMENT:
            self._confirmed_at = of
        now_s = self._clock()
        self._agreements = [(t, a) for t, a in self._agreements if now_s - t < BREATH.window_s]
        self._agreements.append((now_s, self.agreement))
        if compared.unexplained is not None:
            R = np.kron(np.eye(2), compared.estimate.T_camera_ct[:3, :3])
            newest = R @ compared.unexplained @ R.T
            self._looks = self._looks + BREATH.looks * (newest - self._looks) if self._looks.any() else newest
            self._bone = np.zeros((6, 6))
            if compared.bone is not None:  # across the ray the pose of all tissue is held by all patches
                self._bone[:3, :3] = (R @ compared.bone @ R.T)[:3, :3]
        self.unexplained = self._looks + BREATH.doubt * self._swing() * self._bone
        self.turn_deg = turn_bound_deg(self.unexplained)

    def _swing(self) -> float:
        """The range of the agreement over a breath, as a part of that from which on the chest is known to move."""
        of_a_breath = [agreement for _, agreement in self._agreements]
        return min((max(of_a_breath) - min(of_a_breath)) / BREATH.swing, 1.0) if of_a_breath else 0.0

    def _agrees(self, t_local: int, limits: AgeLimits) -> bool:
        """Whether the last comparison confirms the pose, or one within a breath has and the last does not refute it."""
        if self.agreement >= TRACKING_AGREEMENT:
            return True
        within = self._confirmed_at is not None and t_local - self._confirmed_at <= limits.breath_ms * 1e6
        return within and self.agreement >= BREATH.breathed_agreement

    def against(self, t_local: int, limits: AgeLimits) -> str:
        """What speaks against a pose that is handed on; empty where nothing does."""
        return self._said() or self._found_wrong(t_local, limits)

    def _said(self) -> str:
        """That the picture has changed since the last comparison, or what the picture itself says."""
        if self.agreement >= TRACKING_AGREEMENT:
            self.change = ""
        return self.change or self.doubt

    def _found_wrong(self, t_local: int, limits: AgeLimits) -> str:
        """What the last comparison has found against the pose."""
        if not self._agrees(t_local, limits):
            return reasons.DISAGREES if self.agreement else reasons.UNCOMPARED
        return reasons.UNSURE if self.turn_deg > _MOST_TURN_DEG else ""

    def reason(self, t_local: int, estimate: PoseEstimate, limits: AgeLimits) -> str:
        """Why a pose that was measured in a frame is not called tracking; empty where nothing speaks against it."""
        if self._agreed_at is None:
            self._agreed_at = t_local
            self._confirmed_at = t_local if self.agreement >= TRACKING_AGREEMENT else self._confirmed_at
        said = self._said()
        if said:
            return said
        if not estimate.settled:
            return reasons.SETTLING
        if estimate.score < TRACKING_SCORE:
            return reasons.FAINT
        found = self._found_wrong(t_local, limits)
        if found:
            return found
        return reasons.UNCOMPARED if t_local - self._agreed_at > limits.agreed_ms * 1e6 else ""
