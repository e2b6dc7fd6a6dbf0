"""Breathing, told apart from a slip, from the poses that the stream measures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import transform_points
from fluoronav.stream.breathing import Breathing, BreathingState
from fluoronav.stream.registration.motion_series import SETTINGS as SERIES
from fluoronav.stream.registration.motion_series import MotionSeries, PeriodicFit

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BreathingLimits:
    """What is called breathing, and what a slip; chosen where not said.

    Attributes
    ----------
    every_slots : int
        So often it is estimated anew.
    still_mm : float
        Motion of a patient who is still: poses of a patient who rests scatter by 0.1 mm across the ray.
    least_mm : float
        Of a breath, peak to peak.
    explained : float
        Part of the motion's power that is periodic. Of a steady breath it is 0.9 and more.
    recent : float
        What the last samples may be off the breath, root mean square, as a part of its amplitude.
    held_s : float
        Without motion for so long, the breath is held.
    held : float
        Range of a held breath, as a part of the motion before.
    slip_mm : float
        A step that is a slip: as the step after which other views are discarded (:mod:`.view_memory`).
    rests_s, rests_mm : float
        A patient who was still, and is still elsewhere for so long, has slipped: no breath rests there so long. The
        range of either is below this.
    rests_after_s : float
        Only with so much seen before: a slow breath.
    whole_periods : tuple of float
        Of a patient who breathes, a slip is said after so many breaths: a sigh is none.
    per_deg_mm : float
        Allowed for each degree that the beam has turned meanwhile: a depth that is 3.5 mm wrong, and the arm's
        0.1 mm a degree (:class:`fluoronav.geometry.Camera` allows 0.3 degrees and 1 mm between any two views).
    back : float
        A slip is over when the patient is back within this part of it.
    """

    every_slots: int = 2
    still_mm: float = 0.4
    least_mm: float = 0.5
    explained: float = 0.75
    recent: float = 0.25
    held_s: float = 3.0
    held: float = 0.2
    slip_mm: float = 1.5
    rests_s: float = 2.5
    rests_mm: float = 0.8
    rests_after_s: float = 8.0
    whole_periods: tuple[float, float] = (1.25, 1.8)
    per_deg_mm: float = 0.16
    back: float = 0.5


LIMITS = BreathingLimits()
_LONGEST_S = 8.0  # a breath of unknown length
_HEAD = np.array([0.0, 0.0, 1.0])  # LPS
_CHEST_BEAM = np.array([0.0, 0.0, 1.0])  # the chest's motion is known in all directions
_LEAST_ALONG = 0.3  # of the patient's axis that lies across the ray; chosen


class BreathingWatch:
    """Keeps where the target was across the ray, and says what its motion is.

    `add` and `seen` are called with each frame; `estimate`, which takes a third of a millisecond, beside them.

    Parameters
    ----------
    centre_ct : ndarray, shape (3,)
        The target, LPS mm.

    Attributes
    ----------
    counts : dict of str to int
        Frames by what was said of them, and slips, since the start.
    """

    def __init__(self, centre_ct: Float) -> None:
        self._centre_ct = np.asarray(centre_ct, np.float64)
        self.counts = {"breathing": 0, "still": 0, "irregular": 0, "slips": 0}
        self._target, self._chest = MotionSeries(), MotionSeries()
        self.forget()

    def forget(self) -> None:
        """Begins anew: the pose is not the one that was followed."""
        self._target.clear()
        self._chest.clear()
        self._start: tuple[Float, Float, bool] | None = None  # target and the patient's axis in the room; joints known
        self._estimated_of: int | None = None
        self._said: Breathing | None = None
        self._fit_at = 0  # ns, of the newest sample when it was fitted
        self._newest_at = 0
        self._period_s = _LONGEST_S
        self.settle()

    def settle(self) -> None:
        """A person has accepted where the patient lies: what was a slip is none from here on."""
        self._slip = np.zeros(2)
        self._said = None if self._said is None else _without_slip(self._said)

    def add(self, t_ns: int, T_camera_ct: Float, T_camera_room: Float | None) -> None:
        """Takes a measured pose.

        Parameters
        ----------
        t_ns : int
            Exposure, by this computer's clock.
        T_camera_ct : ndarray, shape (4, 4)
            Of this frame alone, mm.
        T_camera_room : ndarray, shape (4, 4), or None
            Where the C-arm stands; where that is not known it is taken to rest.
        """
        at_camera = transform_points(T_camera_ct, self._centre_ct)
        ray = at_camera / np.sqrt(at_camera @ at_camera)
        R, at, axis = np.eye(3), at_camera, T_camera_ct[:3, :3] @ _HEAD
        if T_camera_room is not None:
            R = T_camera_room[:3, :3].T
            at, ray, axis = R @ (at_camera - T_camera_room[:3, 3]), R @ ray, R @ axis
        joints = T_camera_room is not None
        if self._start is not None and self._start[2] != joints:
            self.forget()
        if self._start is None:
            self._start = at, axis, joints
        start, axis, _ = self._start
        along = axis - (axis @ ray) * ray
        length = np.sqrt(along @ along)
        if length < _LEAST_ALONG:  # along the body: any fixed direction across the ray
            along = R[:, 1] - (R[:, 1] @ ray) * ray
            length = np.sqrt(along @ along)
        along /= length
        x, y, z = ray
        aside = np.array([y * along[2] - z * along[1], z * along[0] - x * along[2], x * along[1] - y * along[0]])
        off = at - start
        self._target.add(t_ns, float(along @ off), float(aside @ off), ray)
        self._newest_at = t_ns

    def add_chest(self, t_ns: int, T_ct_rest: Float) -> None:
        """Takes where the rest of the patient lies against the target bone, shape (4, 4), mm."""
        off = transform_points(T_ct_rest, self._centre_ct) - self._centre_ct
        self._chest.add(t_ns, float(off[2]), float(off[1]), _CHEST_BEAM)

    def seen(self, t_ns: int) -> Breathing | None:
        """What is said with a frame; None while too little has been seen. Counts it."""
        said = self._said
        if said is None:
            return None
        self.counts[said.state] += 1
        if said.phase is None or said.period_s is None:
            return said
        phase = (said.phase + (t_ns - self._fit_at) / 1e9 / said.period_s) % 1.0
        return Breathing(said.state, said.of, said.amplitude_mm, said.period_s, phase, said.slip_mm)

    def estimate(self) -> bool:
        """Estimates anew where it is due, beside the frame path; returns whether the patient has just slipped."""
        newest, before = self._target.newest, self._estimated_of
        if newest is None or (before is not None and newest - before < LIMITS.every_slots):
            return False
        self._estimated_of = newest
        fit = self._target.periodic()
        if fit is None:
            return False
        state = _state(self._target, fit)
        lately = self._target.periodic(SERIES.fitted_s[1]) if state == "irregular" else None
        if lately is not None and _is_breath(lately):
            fit, state = lately, "breathing"
        if state == "breathing":
            self._period_s = fit.period_s
        slipped = self._looked_for_slip()
        said = Breathing(state)
        if state == "breathing":
            said = Breathing(state, "target", fit.amplitude_mm, fit.period_s, fit.phase)
        elif state == "still" and (chest := self._chest.periodic()) is not None and _is_breath(chest):
            said = Breathing("breathing", "chest", chest.amplitude_mm, chest.period_s, None)
        self._fit_at = self._newest_at
        slip_mm = _length(self._slip)
        self._said = Breathing(said.state, said.of, said.amplitude_mm, said.period_s, said.phase, slip_mm)
        return slipped

    def _looked_for_slip(self) -> bool:
        """Whether there is a new one. It is taken out of the series, so that the breath goes on."""
        series = self._target
        most_mm = LIMITS.slip_mm + LIMITS.per_deg_mm * series.turned_deg()
        windows_s = [part * self._period_s for part in LIMITS.whole_periods]
        steps = [series.step(s, windows_s[0]) for s in windows_s]
        steps.append(series.step(LIMITS.rests_s, LIMITS.rests_after_s, LIMITS.rests_mm))
        step = max(steps, key=_length)
        if _length(step) < most_mm:
            return False
        series.take_out(step, 2 * windows_s[1], self._period_s)
        self._slip = self._slip + step
        if _length(self._slip) < LIMITS.back * LIMITS.slip_mm:
            self._slip = np.zeros(2)  # the patient is back
            return False
        self.counts["slips"] += 1
        return True


def _state(series: MotionSeries, fit: PeriodicFit) -> BreathingState:
    if fit.spread_mm < LIMITS.still_mm:
        return "still"
    if _is_breath(fit):
        return "breathing"
    held = series.range_mm(LIMITS.held_s)
    return "still" if held is not None and held < max(LIMITS.held * fit.spread_mm, LIMITS.still_mm) else "irregular"


def _is_breath(fit: PeriodicFit) -> bool:
    steady = fit.explained >= LIMITS.explained and fit.recent_mm <= LIMITS.recent * fit.amplitude_mm
    return steady and fit.amplitude_mm >= LIMITS.least_mm


def _length(step_mm: Float) -> float:
    return float(np.hypot(step_mm[0], step_mm[1]))


def _without_slip(said: Breathing) -> Breathing:
    return Breathing(said.state, said.of, said.amplitude_mm, said.period_s, said.phase)
