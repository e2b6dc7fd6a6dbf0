"""The registration as a stage: a pose for every frame, or the truth that there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.imaging.inference import InferenceSettings
from fluoronav.imaging.registration.confidence import LOST_AGREEMENT, covariance_in_camera
from fluoronav.imaging.registration.gauss_newton import PoseEstimate
from fluoronav.imaging.registration.handedness import MirrorImage
from fluoronav.imaging.registration.model import RegistrationModel
from fluoronav.imaging.registration.search import COARSE_SIDE, Hypothesis, InitialSearch
from fluoronav.imaging.registration.target_bone import Layers
from fluoronav.stream import reasons
from fluoronav.stream.frame import Budget, FrameRecord, RegistrationResult, Status
from fluoronav.stream.registration import judging
from fluoronav.stream.registration.acceptance import Acceptance
from fluoronav.stream.registration.arm_motion import ArmMotion
from fluoronav.stream.registration.breathing import BreathingWatch
from fluoronav.stream.registration.finder import Finder, Snapshot
from fluoronav.stream.registration.jobs import BackgroundJobs
from fluoronav.stream.registration.measuring import PoseMeasurement
from fluoronav.stream.registration.motion import is_elsewhere, is_plausible
from fluoronav.stream.registration.objects import ObjectPoses
from fluoronav.stream.registration.patch_sets import PatchSets
from fluoronav.stream.registration.picture_change import SIDE, PictureSimilarity
from fluoronav.stream.registration.result import aged, as_result
from fluoronav.stream.registration.settings import SETTINGS
from fluoronav.stream.registration.states import Event, State, StateMachine
from fluoronav.stream.registration.target import TargetBone
from fluoronav.stream.registration.view_memory import ViewMemory

Float = NDArray[np.float64]


class RegistrationStage:
    """Finds the patient on a thread of its own, and follows it in every frame, which never waits for that."""

    name = "registration"
    reads = frozenset({"pyramid", "field_mask", "anatomy_mask"})
    writes = frozenset({"status", "status_reason", "registration", "objects", "breathing"})
    on_failure: Mapping[str, Any] = {"status": "lost", "registration": None}
    models: Mapping[str, str] = {}

    def __init__(
        self, inference: InferenceSettings | None = None, limits: judging.AgeLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._inference = inference or InferenceSettings()
        self._limits = limits or judging.AgeLimits()
        self._measurement: PoseMeasurement | None = None
        self.jobs = BackgroundJobs()
        self._T_camera_ct: Float | None = None
        self._last: RegistrationResult | None = None
        self._machine = StateMachine()
        self._comparison = judging.FieldComparison(clock)
        self._covariance = np.eye(6)  # of the pose that was measured last, camera axes
        # Frames' times, ns, this computer's clock; the last is of that which is being compared with the whole field.
        self._measured_at = self._settled_at = self._check_of = 0
        self._held, self._poor_frames, self._reason = 0, 0, ""
        self._similar = PictureSimilarity()
        self._before: Float | None = None  # the pose that was lost last, where a search looks first
        self._acceptance = Acceptance()

    def prepare(self, case, camera, progress: Callable[[str], None] = lambda _: None) -> None:
        progress("registration: model")
        model = RegistrationModel.of_case(case)
        self._centre_ct = case.target_ct
        # A graph renders by itself, and knows no layers.
        layers = Layers.of_case(case, model.tissue) if self._inference.registration != "graph" else None
        T = case.prior.T_camera_ct()
        target = None if layers is None else TargetBone(layers, model.bones, camera, T, case.target_ct)
        self.patch_sets = PatchSets(camera, model.bones, model.tissue, case.target_ct, layers)
        self._searcher = InitialSearch(model, camera, T, case.prior.spread, case.target_ct)
        mirror = MirrorImage(model.tissue, model.bones, camera, case.target_ct, T)
        self._finder = Finder(self._searcher, mirror, case.prior.isocentre_ct, self.patch_sets.place_other, target)
        self._views = ViewMemory(case.target_ct, camera.arm_deg, camera.arm_mm)
        self._arm = ArmMotion(self._views, case.prior.source_to_isocentre_mm, case.target_ct)
        self._objects = ObjectPoses(model.tissue, model.objects, camera, layers, case.file.objects)
        self._motion = BreathingWatch(case.target_ct)
        progress("registration: kernels")
        self.patch_sets.place(self.patch_sets.in_use, T, np.ones((COARSE_SIDE, COARSE_SIDE), bool))
        self._measurement = PoseMeasurement(model.tissue, self._inference, self.patch_sets, T, self._centre_ct)

    def process(self, frame: FrameRecord, budget: Budget) -> None:
        assert self._measurement is not None
        self._take_results()
        self._arm.take(frame.joints)
        changed = frame.unchanged_ms == 0
        if changed:
            self._compare_with_last_picture(frame)
        if (self.jobs.search is not None or self.jobs.check is not None) and frame.anatomy_mask is not None:
            self._finder.newest = Snapshot.of(frame, self._arm.T_camera_room)  # what the background job catches up with
        if self._T_camera_ct is None:
            self._report_without_pose(frame, changed)
        elif self._last is not None and not changed:
            self._hold(frame, reasons.UNCHANGED)
        elif self._last is not None and not self._measurement.has_time(budget) and not self._overdue(frame):
            self._measurement.skip()
            self._hold(frame, reasons.NO_TIME)
        else:
            self._measure(frame, budget, self._T_camera_ct)

    def _take_results(self) -> None:
        """Takes what the background has done, in the order of submission: after a stall several jobs may have ended."""
        if self.jobs.placed() and self._T_camera_ct is not None:
            self.patch_sets.swap()
        self._take_check()
        self._take_search_result()
        self._objects.collect(wanted=self._T_camera_ct is not None)

    def _compare_with_last_picture(self, frame: FrameRecord) -> None:
        """Where a picture does not go on from the last one, no comparison of before holds."""
        if frame.field_mask is None:
            return
        change = self._similar.change(frame.pyramid[SIDE], frame.field_mask)
        if change:
            self._comparison.invalidate(change)
            if self.jobs.search is not None:
                self._finder.begin_anew()
            elif self._T_camera_ct is None:
                self._finder.doubt = ""
            self.jobs.picture_changed()

    def _report_without_pose(self, frame: FrameRecord, changed: bool) -> None:
        if changed or self._finder.owes_a_search:
            self._start_search(frame)
        frame.status, frame.status_reason = self.status, self._finder.doubt if changed else reasons.UNCHANGED
        if self._machine.state is State.LOST and not frame.status_reason:
            frame.status_reason = self._comparison.change or reasons.POOR

    def _measure(self, frame: FrameRecord, budget: Budget, T_camera_ct: Float) -> None:
        T_start = self._arm.expected(T_camera_ct, frame.t_local)
        estimate = self._track(frame, budget, T_start)
        if estimate is not None and is_elsewhere(T_camera_ct, T_start, self._centre_ct):
            # Wrong joints must not cost the pose: the image says whether the C-arm has turned.
            unmoved = self._track(frame, budget, T_camera_ct)
            if unmoved is not None and unmoved.score > estimate.score:
                estimate, T_start = unmoved, T_camera_ct
        if estimate is None:
            self._hold(frame, reasons.LATE_KEYFRAME)
        else:
            self._judge(frame, estimate, T_start)

    @property
    def fault(self) -> str:
        return self._measurement.fault if self._measurement is not None else ""

    @property
    def engine(self) -> str:
        return self._measurement.engine if self._measurement is not None else "cpu (numba)"

    @property
    def handles(self) -> dict[str, Callable[..., object]]:
        anew = self.restart
        return {"registration.start": anew, "registration.reject": anew, "registration.accept": self.accept}

    def idle(self, frame: FrameRecord, budget: Budget) -> None:
        self._comparison.doubted(frame.doubts)
        if self._motion.estimate():
            self._comparison.is_due()
            self._views.clear()
        patches = self.patch_sets.in_use
        busy = self.jobs.busy or self._objects.job is not None
        if self._T_camera_ct is None or busy or frame.anatomy_mask is None:
            return
        # The check comes first when it is due: a pose that drifts would otherwise have its patches placed for ever.
        measured = self._last is not None and self._last.age == 0
        if self._comparison.due() and measured:
            assert self._last is not None
            look = self._comparison.begins()
            pose = PoseEstimate(self._T_camera_ct, self._last.score, np.eye(6), self._centre_ct, 0, 0)
            self._finder.newest = snapshot = Snapshot.of(frame, self._arm.T_camera_room)
            self._check_of = frame.t_local
            what = pose, snapshot, patches.layered, look, bool(self._comparison.change)
            self.jobs.check = self.jobs.thread.submit(self._finder.compare, *what)
        elif is_elsewhere(patches.T_camera_ct, self._T_camera_ct, self._centre_ct):
            where = self._T_camera_ct, frame.anatomy_mask.copy(), patches.layered
            self.jobs.placing = self.jobs.thread.submit(self.patch_sets.place_other, *where)
        elif len(self._objects) and self._machine.state is State.TRACKING and measured:
            self._objects.begin(self.jobs.thread, frame, self._T_camera_ct, patches.layered)

    def close(self) -> None:
        if self._measurement is not None:
            self._finder.close()
        self.jobs.close()
        if self._measurement is not None:
            self._measurement.close()
            self._searcher.close()

    @property
    def latest(self) -> RegistrationResult | None:
        """What the last frame was given; None while there is none."""
        return self._last

    @property
    def status(self) -> Status:
        """What the last frame's registration was called."""
        return self._machine.status

    @property
    def keyframes(self) -> dict[str, int]:
        return self.patch_sets.keyframes.counts

    @property
    def breaths(self) -> dict[str, int]:
        return self._motion.counts

    @property
    def accepted(self) -> bool:
        """Whether a person has accepted the registration that is followed."""
        return self._acceptance.given

    def accept(self) -> bool:
        """A person accepts the registration as the last frame showed it; False where it is not `tracking`."""
        if self._machine.state is not State.TRACKING or self._T_camera_ct is None:
            return False
        self._acceptance.give()
        self._motion.settle()
        return True

    def restore_acceptance(self, T_camera_ct: Float) -> None:
        """A pose, shape (4, 4), was accepted before a restart: one that is found at the same place is accepted, too."""
        self._acceptance.restore(T_camera_ct)

    def restart(self, status: Status = "searching") -> None:
        """Forgets the pose, that it was accepted, and what other views have said of it, and searches anew.

        `status` is "searching" where a person asks, "lost" where a comparison has failed.
        """
        self._views.clear()
        self._lose(Event.RESTARTED if status == "searching" else Event.GIVEN_UP)
        self._before = None
        self._acceptance.forget()

    def _lose(self, event: Event) -> None:
        self._objects.clear()
        self._before = self._before if self._T_camera_ct is None else self._T_camera_ct
        self._acceptance.lose(self._T_camera_ct)
        self._machine.happens(event)
        self._T_camera_ct, self._last, self._poor_frames, self._held = None, None, 0, 0

    def _overdue(self, frame: FrameRecord) -> bool:
        """Whether the pose must be measured now, late if need be."""
        age_ms = (frame.t_local - self._settled_at) / 1e6
        return self._held >= self._limits.held_frames or age_ms > self._limits.overdue_ms

    def _hold(self, frame: FrameRecord, why: str) -> None:
        """Hands the last pose on, with its age and with what a patient who breathes may have moved since."""
        assert self._last is not None and self._T_camera_ct is not None
        self._held += 1
        age_ms = max((frame.t_local - self._measured_at) / 1e6, self._last.age_ms)
        if age_ms > self._limits.lost_ms:
            self._lose(Event.TOO_OLD)
            frame.status, frame.status_reason = self.status, why
            return
        self._last = replace(aged(self._last, self._covariance, self._centre_ct, age_ms), accepted=self.accepted)
        against = self._comparison.against(frame.t_local, self._limits)
        elsewhere = why != reasons.UNCHANGED and self._arm.has_turned
        if against or elsewhere or age_ms > self._limits.tracking_ms:
            self._machine.happens(Event.DOUBTFUL if against else Event.AGED)
            self._reason = against or why
        self._report(frame, self._last)

    def adopt(self, T_camera_ct: Float, frame: FrameRecord) -> None:
        """Goes on from a pose, shape (4, 4), that was found elsewhere; it is held against the whole field at once.

        The patches are placed inside the frame's field of view.
        """
        assert frame.anatomy_mask is not None and self._measurement is not None
        self.wait_for_background()
        self.jobs.forget()
        self._finder.go_on()
        self.patch_sets.place(self.patch_sets.in_use, T_camera_ct, frame.anatomy_mask)
        self._machine.happens(Event.FOUND)
        self._T_camera_ct, self._last, self._poor_frames = T_camera_ct, None, 0
        self._measurement.begin()
        self._motion.forget()
        self._arm.take(frame.joints)
        self._arm.found(self._arm.T_camera_room, frame.t_local)
        self._comparison.invalidate()
        self._held, self._measured_at, self._settled_at = 0, frame.t_local, frame.t_local

    def wait_for_background(self) -> None:
        """Returns when the background has nothing to do; for benches and tests, never on the frame path."""
        for job in filter(None, (*self.jobs.under_way, self._objects.job)):
            job.exception()
        if self._measurement is not None:
            self._measurement.wait()

    def _track(self, frame: FrameRecord, budget: Budget, T_camera_ct: Float) -> PoseEstimate | None:
        assert self._measurement is not None
        overdue = self._last is None or self._overdue(frame)
        return self._measurement.measure(frame, T_camera_ct, budget, frames=1 + self._held, overdue=overdue)

    def _judge(self, frame: FrameRecord, estimate: PoseEstimate, T_start: Float) -> None:
        """Decides what the pose may be called, and whether it is still believed."""
        assert self._measurement is not None and self._T_camera_ct is not None
        # The order matters: only a pose that fits is finite.
        settling = self._measurement.settling > 0
        if not judging.fits(estimate) or not (settling or is_plausible(T_start, estimate.T_camera_ct, self._centre_ct)):
            self._take_implausible(frame)
            return
        self._arm.measured(self._T_camera_ct, estimate.T_camera_ct, frame.t_local)
        self._T_camera_ct = estimate.T_camera_ct
        still = reasons.UNCHANGED if frame.unchanged_ms > self._limits.tracking_ms else ""
        self._reason = self._comparison.reason(frame.t_local, estimate, self._limits) or still
        sure = not self._reason
        alone = covariance_in_camera(estimate.information, self._T_camera_ct) + self._comparison.unexplained
        T_camera_ct, self._covariance = self._arm.fused(self._T_camera_ct, alone, sure)
        unsure = Event.UNSETTLED if self._reason == reasons.SETTLING else Event.DOUBTFUL
        self._machine.happens(Event.MEASURED if sure else unsure)
        self._measurement.render_ahead(self._T_camera_ct)
        # A picture that stands still is as old as it has stood.
        self._held, self._poor_frames, self._measured_at = 0, 0, frame.t_local - round(frame.unchanged_ms * 1e6)
        if estimate.settled:
            self._settled_at = frame.t_local
            self._motion.add(frame.t_local, self._T_camera_ct, self._arm.T_camera_room)
        if sure:
            self._acceptance.found(self._T_camera_ct, self._centre_ct)
        result = as_result(T_camera_ct, estimate.score, self._covariance, self._centre_ct)
        bone = self.patch_sets.in_use.bone
        self._last = replace(result, accepted=self.accepted, bone=bone, age_ms=frame.unchanged_ms)
        self._report(frame, self._last)

    def _report(self, frame: FrameRecord, result: RegistrationResult) -> None:
        frame.registration, frame.status, frame.status_reason = result, self.status, self._reason
        frame.breathing = self._motion.seen(frame.t_local)
        if len(self._objects):
            frame.objects = self._objects.poses(result.T_camera_ct, frame.t_local)

    def _take_implausible(self, frame: FrameRecord) -> None:
        self._poor_frames += 1
        if self._poor_frames >= SETTINGS.lost_after_frames:
            self._lose(Event.GIVEN_UP)
            self._start_search(frame)
            frame.status, frame.status_reason = self.status, self._comparison.change or reasons.POOR
            return
        self._machine.happens(Event.IMPLAUSIBLE)
        self._reason = self._comparison.change or reasons.POOR
        if self._last is None:
            frame.status, frame.status_reason = self.status, self._reason
        else:
            self._hold(frame, self._reason)

    def _start_search(self, frame: FrameRecord) -> None:
        if self.jobs.search is None and frame.anatomy_mask is not None:
            snapshot = Snapshot.of(frame, self._arm.T_camera_room)
            self.jobs.search = self._finder.begin(self.jobs.thread, snapshot, self._views.T_room_ct(), self._before)

    def _take_search_result(self) -> None:
        if (found := self.jobs.taken("search")) is None or self._T_camera_ct is not None:
            return
        if (found.layered is None) != (self.patch_sets.in_use.layered is None):
            self._views.clear()  # what they have seen is all tissue, and not the target bone, or the other way round
        self._follow(found)

    def _follow(self, found: Hypothesis) -> None:
        """Goes on from a pose whose patches have just been placed."""
        assert self._measurement is not None
        self.patch_sets.swap()
        self._machine.happens(Event.FOUND)
        # Without a last result the next frame measures the pose, late if need be: none is handed on that was refuted.
        self._T_camera_ct, self._last, self._poor_frames, self._held = found.estimate.T_camera_ct, None, 0, 0
        self._measurement.begin()
        self._motion.forget()
        self._arm.found(self._finder.found_from)
        self._comparison.found(found, None)
        self._before = None

    def _take_check(self) -> None:
        if (found := self.jobs.taken("check")) is None or self._T_camera_ct is None:
            return
        self._comparison.found(found, self._check_of)
        if found.estimate.patches and found.layered is not None:
            self._take_layers(found, self._check_of)
        elif found.estimate.patches:  # a neighbour was better, and what was remembered was wrong
            self._views.clear()
            self._objects.clear()
            self._acceptance.withdraw()
            self._follow(found)
        elif found.agreement < LOST_AGREEMENT:
            self.restart("lost")

    def _take_layers(self, found: Hypothesis, t_local: int) -> None:
        """Goes on with the target bone, which lies otherwise in the patient than in the CT."""
        if self.patch_sets.in_use.layered is not None and found.layered is not None:
            self.patch_sets.swap()  # the same bone, with the layers as they lie now
            self._motion.add_chest(t_local, found.layered.T_ct_rest)
            return
        self._views.clear()
        self._objects.clear()
        self._acceptance.lose(self._T_camera_ct)  # given again where the bone lies near
        self._follow(found)
