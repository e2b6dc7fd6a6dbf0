"""The registration as a stage: a pose for every frame, or the truth that there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import ArmJoints, inverse, rotation_distance_deg, transform_points
from fluoronav.imaging.inference import InferenceSettings
from fluoronav.imaging.projector import Projector
from fluoronav.imaging.registration.confidence import (
    LOST_AGREEMENT,
    LOST_SCORE,
    MIN_PATCHES,
    TRACKING_AGREEMENT,
    TRACKING_SCORE,
    covariance_in_camera,
)
from fluoronav.imaging.registration.gauss_newton import PoseEstimate, refine
from fluoronav.imaging.registration.graph_backend import TRACKING_PATCHES, GraphBackend
from fluoronav.imaging.registration.model import RegistrationModel
from fluoronav.imaging.registration.patches import PatchLevel
from fluoronav.imaging.registration.search import COARSE_SIDE, FINE_SIDE, Hypothesis, InitialSearch
from fluoronav.stream.frame import RESERVE_MS, Budget, FrameRecord, RegistrationResult, Status
from fluoronav.stream.registration.finder import Finder, Snapshot
from fluoronav.stream.registration.objects import Measured, ObjectPoses
from fluoronav.stream.registration.picture_change import SIDE, PictureSimilarity
from fluoronav.stream.registration.result import as_result
from fluoronav.stream.registration.view_memory import ViewMemory

Float = NDArray[np.float64]

# Patches are placed anew when the pose has moved by this much since.
_RECHOOSE_DEG, _RECHOOSE_MM = 1.5, 3.0
# How much the pose may change from one frame to the next (1 sigma, camera axes): a deep breath is 10 mm/s.
_MOTION_DEG, _MOTION_IN_PLANE_MM, _MOTION_DEPTH_MM = 0.4, 1.0, 1.0
# Beyond this the patient, or the arm, was moved.
_JUMP_DEG, _JUMP_MM = 0.8, 1.0
# Iterations at each resolution end when a step is smaller than this: a still patient costs one each, a jump several.
_STILL_MM, _MOST_COARSE, _MOST_FINE = 0.3, 4, 3
_LOST_AFTER_FRAMES = 2
# How often the pose is held against the whole field, beside the frame path.
_CHECK_EVERY_S = 1.0
# One slow iteration teaches at most so many times what was expected: a computer that stood still is no slower since.
_MOST_LEARNED, _LEARNED, _FORGETS = 3.0, 0.1, 0.9


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
    """

    held_frames: int = 2
    overdue_ms: float = 100.0
    tracking_ms: float = 200.0
    lost_ms: float = 2000.0
    agreed_ms: float = 5000.0


# A deep breath, 1 sigma a second (`_MOTION_*` at ten frames a second): what a pose that is not measured loses.
_BREATH_DEG_S, _BREATH_MM_S = 4.0, 10.0
# A registration that is found again so near to an accepted one is that one: the next vertebra is 20 mm away.
_SAME_DEG, _SAME_MM = 3.0, 5.0

_NO_TIME = "the pose is old: there was no time to measure it"
_UNCHANGED = "the picture does not change: it is not live"
_SETTLING = "the pose is still settling"
_POOR = "no pose near the last one fits the picture"
_FAINT = "the picture fits the CT poorly"
_DISAGREES = "the whole field does not agree with the CT"
_UNCOMPARED = "the pose has not been compared with the whole field"
_MIRRORED = "the picture fits the CT only as its mirror image: is the C-arm's picture flipped?"


@dataclass
class _Patches:
    """Patches for one pose; two sets exist, so that one can be placed while the other is in use."""

    coarse: PatchLevel
    fine: PatchLevel
    T_camera_ct: Float


class RegistrationStage:
    """Finds the patient in the background, then follows it in every frame.

    The search and the placing of patches run on a thread of their own, in kernels that release the interpreter; a
    frame never waits for them.
    """

    name = "registration"
    reads = frozenset({"pyramid", "field_mask"})
    writes = frozenset({"status", "status_reason", "registration", "objects"})
    on_failure: Mapping[str, Any] = {"status": "lost", "registration": None}

    def __init__(self, inference: InferenceSettings | None = None, limits: AgeLimits | None = None) -> None:
        self._inference = inference or InferenceSettings()
        self._limits = limits or AgeLimits()
        self.engine = "cpu (numba)"
        self._background = ThreadPoolExecutor(1, thread_name_prefix="registration")
        self._T_camera_ct: Float | None = None
        self._last: RegistrationResult | None = None
        self._poor_frames = 0
        self._status: Status = "searching"
        self._search: Future[Hypothesis | None] | None = None
        self._check: Future[Hypothesis | None] | None = None
        self._checked_at = 0.0
        self._agreement = 0.0
        self._placing: Future[None] | None = None
        self._measuring: Future[Measured] | None = None
        self._measuring_of = 0  # the frame in which an object is being measured, ns
        self._settle = 0
        self._T_camera_room: Float | None = None  # now, and when `_T_camera_ct` was measured
        self._T_camera_room_then: Float | None = None
        self._iteration_ms = 6.0
        self._prepared = False
        self._covariance = np.eye(6)  # of the pose that was measured last, camera axes
        self._measured_at, self._settled_at = 0, 0  # ns, this computer's clock
        self._agreed_at: int | None = None
        self._check_of = 0  # the frame that is being compared with the whole field, ns
        self._held = 0
        self._doubt = ""
        self._similar = PictureSimilarity()
        self._change_said = ""
        self._before: Float | None = None  # the pose that was lost last, where a search looks first
        self._accepted = False
        self._accepted_T: Float | None = None

    def prepare(self, case, camera, progress: Callable[[str], None] = lambda _: None) -> None:
        progress("registration: model")
        model = RegistrationModel.of_case(case)
        self._model, self._bones = model.tissue, model.bones
        self._steps: Projector | GraphBackend = self._model
        self._centre_ct = case.target_ct
        (coarse_count, coarse_size), (fine_count, fine_size) = TRACKING_PATCHES
        coarse, fine = (coarse_size, coarse_count), (fine_size, fine_count)
        self._sets = [
            _Patches(PatchLevel(camera, COARSE_SIDE, *coarse), PatchLevel(camera, FINE_SIDE, *fine), np.eye(4))
            for _ in range(2)
        ]
        self._searcher = InitialSearch(model, camera, case.prior.T_camera_ct(), case.prior.spread, case.target_ct)
        self._source_to_isocentre_mm = case.prior.source_to_isocentre_mm
        T_room_ct = np.eye(4)
        T_room_ct[:3, 3] = -np.asarray(case.prior.isocentre_ct)
        self._finder = Finder(
            self._searcher, T_room_ct, lambda T, field_mask: self._place(self._sets[1], T, field_mask)
        )
        self._views = ViewMemory(case.target_ct, camera.arm_deg, camera.arm_mm)
        self._objects = ObjectPoses(model.tissue, model.objects, camera)
        self._prepared = True
        progress("registration: kernels (compiled once for this processor, then cached)")
        T = case.prior.T_camera_ct()
        self._place(self._sets[0], T, np.ones((COARSE_SIDE, COARSE_SIDE), bool))
        # What it is shown is what it expects: in a picture of nothing no patch has a say, and half of it is not run.
        levels = [
            (level, self._model.render(T, level.camera), 1) for level in (self._sets[0].coarse, self._sets[0].fine)
        ]
        estimate = refine(self._model, levels, T, self._centre_ct)
        if self._inference.registration == "graph":
            self._steps = GraphBackend(self._model, self._inference)
            # For each axis: the C-arm may turn past a diagonal in mid-stream, and nothing is loaded there.
            for (level, _, _), axis in product(levels, range(3)):
                self._steps.prepare(level, axis)
            self.engine = self._steps.engine
            estimate = refine(self._steps, levels, T, self._centre_ct)
        covariance_in_camera(estimate.information, T)

    def process(self, frame: FrameRecord, budget: Budget) -> None:
        if isinstance(self._steps, GraphBackend):
            self.engine = self._steps.engine
        # In the order of their submission: after a stall several may be done, and a pose was lost in between.
        self._take_placed_patches()
        self._take_check()
        self._take_search_result()
        if self._measuring is not None and self._measuring.done():
            measured, self._measuring = self._measuring.result(), None
            if self._T_camera_ct is not None:
                self._objects.take(measured, self._measuring_of)
        self._T_camera_room = self._room(frame.joints)
        changed = frame.unchanged_ms == 0
        change = (
            self._similar.change(frame.pyramid[SIDE], frame.field_mask)
            if changed and frame.field_mask is not None
            else ""
        )
        if change:
            # Nothing that was said of the picture before holds for this one.
            self._agreement, self._checked_at, self._agreed_at = 0.0, 0.0, None
            self._change_said = change
            if self._search is not None:
                self._finder.begin_anew()
        if (self._search is not None or self._check is not None) and frame.field_mask is not None:
            self._finder.newest = Snapshot.of(frame, self._T_camera_room)  # what the background job catches up with
        if self._T_camera_ct is None:
            if changed:
                self._start_search(frame)
            frame.status = self._status
            frame.status_reason = _UNCHANGED if not changed else _MIRRORED if self._finder.mirrored else ""
            if self._status == "lost" and not frame.status_reason:
                frame.status_reason = self._change_said
            return
        if self._last is not None and not changed:
            self._hold(frame, _UNCHANGED)
            return
        if self._last is not None and not self._has_time(budget) and not self._overdue(frame):
            # Learned only where an iteration is done: without forgetting, one slow iteration would be the last.
            self._iteration_ms *= _FORGETS
            self._hold(frame, _NO_TIME)
            return
        T_start = self._expected(self._T_camera_ct)
        estimate = self._track(frame, budget, T_start)
        moved, turned = self._change(self._T_camera_ct, T_start)
        if np.linalg.norm(moved) > _RECHOOSE_MM or turned > _RECHOOSE_DEG:
            # A wrong word of the joints must not cost the pose: the picture says whether the arm has turned.
            unmoved = self._track(frame, budget, self._T_camera_ct)
            if unmoved.score > estimate.score:
                estimate, T_start = unmoved, self._T_camera_ct
        self._judge(frame, estimate, T_start)

    @property
    def models(self) -> dict[str, str]:
        return {}

    @property
    def fault(self) -> str:
        return self._steps.fault if isinstance(self._steps, GraphBackend) else ""

    @property
    def handles(self) -> dict[str, Callable[..., object]]:
        return {
            "registration.start": self.restart,
            "registration.reject": self.restart,
            "registration.accept": self.accept,
        }

    def idle(self, frame: FrameRecord, budget: Budget) -> None:
        patches = self._sets[0]
        busy = any(job is not None for job in (self._placing, self._search, self._check, self._measuring))
        if self._T_camera_ct is None or busy or frame.field_mask is None:
            return
        moved, turned = self._change(patches.T_camera_ct, self._T_camera_ct)
        # The check comes first when it is due: a pose that drifts would otherwise have its patches placed for ever.
        if time.monotonic() - self._checked_at > _CHECK_EVERY_S and self._last is not None and self._last.age == 0:
            self._checked_at = time.monotonic()
            pose = PoseEstimate(self._T_camera_ct, self._last.score, np.eye(6), self._centre_ct, 0, 0)
            self._finder.newest = snapshot = Snapshot.of(frame, self._T_camera_room)
            self._check_of = frame.t_local
            self._check = self._background.submit(self._finder.doubt, pose, snapshot)
        elif np.linalg.norm(moved) > _RECHOOSE_MM or turned > _RECHOOSE_DEG:
            self._placing = self._background.submit(
                self._place, self._sets[1], self._T_camera_ct, frame.field_mask.copy()
            )
        elif len(self._objects) and self._status == "tracking" and self._last is not None and self._last.age == 0:
            image = frame.pyramid[FINE_SIDE].copy()
            self._measuring_of = frame.t_local
            self._measuring = self._background.submit(
                self._objects.measure, image, frame.field_mask.copy(), self._T_camera_ct
            )

    def close(self) -> None:
        if self._prepared:
            self._finder.close()
        self._background.shutdown(wait=True, cancel_futures=True)
        if self._prepared:
            self._searcher.close()

    @property
    def latest(self) -> RegistrationResult | None:
        """What the last frame was given; None while there is none."""
        return self._last

    @property
    def status(self) -> Status:
        """What the last frame's registration was called."""
        return self._status

    @property
    def accepted(self) -> bool:
        """Whether a person has accepted the registration that is followed."""
        return self._accepted

    def accept(self) -> bool:
        """A person accepts the registration as the last frame showed it; False where it is not `tracking`."""
        if self._status != "tracking" or self._T_camera_ct is None:
            return False
        self._accepted, self._accepted_T = True, None
        return True

    def restore_acceptance(self, T_camera_ct: Float) -> None:
        """A registration that was accepted before a restart: one that is found at the same place is accepted, too.

        Parameters
        ----------
        T_camera_ct : ndarray, shape (4, 4)
            As it was accepted.
        """
        self._accepted_T = np.asarray(T_camera_ct, np.float64)

    def restart(self, status: Status = "searching") -> None:
        """Forgets the pose, that it was accepted, and all that other views have said of it, and searches anew."""
        self._views.clear()
        self._lose(status)
        self._before = self._accepted_T = None

    def _lose(self, status: Status) -> None:
        self._objects.clear()
        if self._T_camera_ct is not None:
            self._before = self._T_camera_ct
            self._accepted_T = self._T_camera_ct if self._accepted else self._accepted_T
        self._accepted = False
        self._T_camera_ct, self._last, self._poor_frames, self._status = None, None, 0, status
        self._held = 0

    def _has_time(self, budget: Budget) -> bool:
        return budget.left_ms() > self._iteration_ms + RESERVE_MS

    def _overdue(self, frame: FrameRecord) -> bool:
        """Whether the pose must be measured now, late if need be."""
        limits = self._limits
        age_ms = (frame.t_local - self._settled_at) / 1e6
        return self._held >= limits.held_frames or age_ms > limits.overdue_ms

    def _hold(self, frame: FrameRecord, why: str) -> None:
        """Hands the last pose on, with its age and with what a patient who breathes may have moved since."""
        assert self._last is not None and self._T_camera_ct is not None
        self._held += 1
        age_ms = max((frame.t_local - self._measured_at) / 1e6, self._last.age_ms)
        if age_ms > self._limits.lost_ms:
            self._lose("lost")
            frame.status, frame.status_reason = "lost", why
            return
        turn, shift = np.deg2rad(_BREATH_DEG_S) * age_ms / 1e3, _BREATH_MM_S * age_ms / 1e3
        grown = self._covariance + np.diag([turn**2] * 3 + [shift**2] * 3)
        last = self._last
        aged = as_result(last.T_camera_ct, last.score, grown, self._centre_ct)
        self._last = replace(aged, age=last.age + 1, age_ms=age_ms, accepted=self._accepted)
        if age_ms > self._limits.tracking_ms:
            self._status, self._doubt = "degraded", why
        frame.registration, frame.status, frame.status_reason = self._last, self._status, self._doubt
        if len(self._objects):
            frame.objects = self._objects.poses(last.T_camera_ct, frame.t_local)

    def adopt(self, T_camera_ct: Float, frame: FrameRecord) -> None:
        """Goes on from a pose that was found elsewhere; it is held against the whole field at once.

        Parameters
        ----------
        T_camera_ct : ndarray, shape (4, 4)
        frame : FrameRecord
            With its pyramid; the patches are placed inside its aperture.
        """
        assert frame.field_mask is not None
        self.wait_for_background()
        self._search = self._check = self._placing = None
        self._place(self._sets[0], T_camera_ct, frame.field_mask)
        self._T_camera_ct, self._last, self._settle, self._poor_frames = T_camera_ct, None, 3, 0
        self._T_camera_room_then = self._room(frame.joints)
        self._agreement, self._checked_at, self._agreed_at, self._held = 0.0, 0.0, None, 0
        self._measured_at = self._settled_at = frame.t_local

    def wait_for_background(self) -> None:
        """Returns when the background has nothing to do; for benches and tests, never on the frame path."""
        for job in (self._search, self._check, self._placing, self._measuring):
            if job is not None:
                job.exception()

    def _track(self, frame: FrameRecord, budget: Budget, T_camera_ct: Float) -> PoseEstimate:
        patches = self._sets[0]
        settling = self._settle > 0
        self._settle = max(self._settle - 1, 0)
        levels = [
            (patches.coarse, frame.pyramid[COARSE_SIDE], _MOST_COARSE),
            (patches.fine, frame.pyramid[FINE_SIDE], _MOST_FINE),
        ]
        overdue = self._overdue(frame)
        start = time.perf_counter()

        def refined(T_start: Float, information: Float | None) -> PoseEstimate:
            return refine(
                self._steps,
                levels,
                T_start,
                self._centre_ct,
                information,
                lambda: overdue or self._has_time(budget),
                _STILL_MM,
            )

        estimate = refined(T_camera_ct, None if settling else self._motion_prior(T_camera_ct))
        moved, turned = self._change(T_camera_ct, estimate.T_camera_ct)
        if not settling and (np.linalg.norm(moved[:2]) > _JUMP_MM or turned > _JUMP_DEG):
            # More than a patient moves by breathing: what was expected of the motion only holds the pose back.
            again = refined(estimate.T_camera_ct, None)
            estimate = replace(again, iterations=again.iterations + estimate.iterations)
        spent = (time.perf_counter() - start) * 1000 / max(estimate.iterations, 1)
        self._iteration_ms += _LEARNED * (min(spent, _MOST_LEARNED * self._iteration_ms) - self._iteration_ms)
        return estimate

    def _judge(self, frame: FrameRecord, estimate: PoseEstimate, T_start: Float) -> None:
        """Decides what the pose may be called, and whether it is still believed."""
        plausible = (
            np.isfinite(estimate.T_camera_ct).all()
            and estimate.patches >= MIN_PATCHES
            and estimate.score >= LOST_SCORE
            and self._moved_plausibly(T_start, estimate.T_camera_ct)
        )
        self._poor_frames = 0 if plausible else self._poor_frames + 1
        if self._poor_frames >= _LOST_AFTER_FRAMES:
            self._lose("lost")
            self._start_search(frame)
            frame.status = "lost"
            return
        if not plausible:
            self._status, self._doubt = "degraded", self._change_said or _POOR
            if self._last is None:
                frame.status, frame.status_reason = "degraded", self._doubt
            else:
                self._hold(frame, self._doubt)
            return
        self._T_camera_ct, self._T_camera_room_then = estimate.T_camera_ct, self._T_camera_room
        self._doubt = self._doubts(frame, estimate)
        sure = not self._doubt
        T_camera_ct, self._covariance = self._with_other_views(estimate, sure)
        self._status = "tracking" if sure else "degraded"
        self._held, self._measured_at = 0, frame.t_local
        if estimate.settled:
            self._settled_at = frame.t_local
        self._carry_acceptance(sure)
        result = as_result(T_camera_ct, estimate.score, self._covariance, self._centre_ct)
        self._last = replace(result, accepted=self._accepted)
        frame.registration, frame.status, frame.status_reason = self._last, self._status, self._doubt
        if len(self._objects):
            frame.objects = self._objects.poses(T_camera_ct, frame.t_local)

    def _doubts(self, frame: FrameRecord, estimate: PoseEstimate) -> str:
        """Why a pose that was measured in this frame is not called tracking; empty where nothing speaks against it."""
        if self._agreed_at is None:
            self._agreed_at = frame.t_local
        if self._agreement >= TRACKING_AGREEMENT:
            self._change_said = ""
        elif self._change_said:
            return self._change_said
        if not estimate.settled:
            return _SETTLING
        if estimate.score < TRACKING_SCORE:
            return _FAINT
        if self._agreement < TRACKING_AGREEMENT:
            return _DISAGREES
        if frame.t_local - self._agreed_at > self._limits.agreed_ms * 1e6:
            return _UNCOMPARED
        return ""

    def _carry_acceptance(self, sure: bool) -> None:
        """A pose that was accepted, lost, and is found where it was, is accepted still."""
        if not sure or self._accepted_T is None or self._T_camera_ct is None:
            return
        moved, turned = self._change(self._accepted_T, self._T_camera_ct)
        self._accepted = bool(np.linalg.norm(moved) < _SAME_MM and turned < _SAME_DEG)
        self._accepted_T = None

    def _with_other_views(self, estimate: PoseEstimate, sure: bool) -> tuple[Float, Float]:
        """The pose and its covariance (camera axes), with what is remembered of other views where the arm says them."""
        T, T_camera_room = estimate.T_camera_ct, self._T_camera_room
        alone = covariance_in_camera(estimate.information, T)
        if T_camera_room is None:
            return T, alone
        fused = self._views.fuse(T_camera_room, T, alone)
        if sure:
            self._views.remember(T_camera_room, T, alone)
        return fused.T_camera_ct, fused.covariance

    def _room(self, joints: ArmJoints | None) -> Float | None:
        return None if joints is None else joints.T_camera_room(self._source_to_isocentre_mm)

    def _expected(self, T_camera_ct: Float) -> Float:
        """The last pose, carried along with the C-arm where its joints are known."""
        then, now = self._T_camera_room_then, self._T_camera_room
        if then is None or now is None or np.array_equal(then, now):
            return T_camera_ct
        return now @ inverse(then) @ T_camera_ct

    def _moved_plausibly(self, T_start: Float, T_camera_ct: Float) -> bool:
        if self._settle > 0:
            return True
        moved, turned = self._change(T_start, T_camera_ct)
        return bool(np.linalg.norm(moved) < 25 and turned < 10)

    def _change(self, T_before: Float, T_now: Float) -> tuple[Float, float]:
        """From one pose to another: how the centre has moved in the camera's frame (mm), and the turn (degrees)."""
        moved = transform_points(T_now, self._centre_ct) - transform_points(T_before, self._centre_ct)
        return moved, rotation_distance_deg(T_before, T_now)

    def _motion_prior(self, T_camera_ct: Float) -> Float:
        R, frames = T_camera_ct[:3, :3], 1 + self._held
        information = np.zeros((6, 6))
        information[:3, :3] = np.eye(3) / np.deg2rad(frames * _MOTION_DEG) ** 2
        shift = 1 / (frames * np.array([_MOTION_IN_PLANE_MM, _MOTION_IN_PLANE_MM, _MOTION_DEPTH_MM])) ** 2
        information[3:, 3:] = R.T @ np.diag(shift) @ R
        return information

    # The background: the search, and the placing of patches.

    def _place(self, patches: _Patches, T_camera_ct: Float, field_mask: NDArray[np.bool_]) -> None:
        patches.coarse.choose(self._bones, T_camera_ct, field_mask)
        patches.fine.choose(self._bones, T_camera_ct, field_mask)
        patches.T_camera_ct = T_camera_ct

    def _start_search(self, frame: FrameRecord) -> None:
        if self._search is None and frame.field_mask is not None:
            self._finder.newest = snapshot = Snapshot.of(frame, self._T_camera_room)
            self._search = self._background.submit(self._finder.find, snapshot, self._views.T_room_ct(), self._before)

    def _take_search_result(self) -> None:
        if self._search is None or not self._search.done():
            return
        found = self._search.result()
        self._search = None
        if found is not None and self._T_camera_ct is None:
            self._follow(found)

    def _follow(self, found: Hypothesis) -> None:
        """Goes on from a pose whose patches have just been placed."""
        self._sets.reverse()
        self._T_camera_ct, self._settle, self._poor_frames = found.estimate.T_camera_ct, 3, 0
        self._T_camera_room_then = self._finder.found_from
        self._agreement, self._agreed_at, self._before = found.agreement, None, None

    def _take_check(self) -> None:
        if self._check is None or not self._check.done():
            return
        found = self._check.result()
        self._check = None
        if found is None or self._T_camera_ct is None:
            return
        self._agreement, self._agreed_at = found.agreement, self._check_of
        if found.estimate.patches:  # a neighbour was better, and what was remembered was wrong
            self._views.clear()
            self._accepted = False
            self._follow(found)
        elif found.agreement < LOST_AGREEMENT:
            self.restart("lost")

    def _take_placed_patches(self) -> None:
        if self._placing is not None and self._placing.done():
            self._placing.result()
            self._placing = None
            if self._T_camera_ct is not None:
                self._sets.reverse()
