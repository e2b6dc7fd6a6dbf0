"""Tracker and picture together: one estimate for each instrument, and what the tracker has drifted."""

import dataclasses

import numpy as np
import pytest

from fluoronav.geometry import CArmPose, exp_se3, transform_points
from fluoronav.stream.frame import Budget, Detection, FrameRecord, RegistrationResult, ToolSample
from fluoronav.stream.guidance import GuidanceStage
from fluoronav.stream.tracking.stage import InstrumentStage

MS = 1_000_000


class Theatre:
    """A tool before the camera, a tracker that is `drift_mm` off (CT axes), and a detector that errs by `sigma_px`, or,
    with `bias_px`, always by so much along the shaft and by nothing else."""

    def __init__(self, case, camera, rng, drift_mm=(0, 0, 0), sigma_px=0.7, bias_px=0.0, sagitta_px=0.0):
        self.case, self.camera, self.rng = case, camera, rng
        self.drift, self.sigma_px, self.bias_px = np.array(drift_mm, float), sigma_px, bias_px
        self.sagitta_px = sagitta_px
        self.instruments, self.guidance = InstrumentStage(), GuidanceStage()
        self.instruments.prepare(case, camera)
        self.guidance.prepare(case, camera)
        self.T_ct_tool = exp_se3([0.9, 0.1, 0, *(np.array(case.target_ct) + [20, 0, 5])])
        self.T_camera_ct = case.prior.T_camera_ct()
        self.pose_error_mm = np.zeros(3)  # of the registration, camera axes
        self.k = 0

    def frame(self, visible=True, tracked=True, registered=True):
        self.k += 1
        t = self.k * 33 * MS
        T_tracker_ct = exp_se3([0.3, 0.2, 0.1, 100, -200, 1500])
        T_reference = np.array(self.case.file.tracker.T_ct_reference)
        off = np.eye(4)
        off[:3, 3] = self.drift
        if tracked:
            tool = T_tracker_ct @ off @ self.T_ct_tool
            marker = T_tracker_ct @ T_reference
            for T in (tool, marker):
                T[:3, 3] += self.rng.normal(0, 0.07, 3)
            for name, T in (("patient_reference", marker), ("kwire", tool)):
                self.instruments.observe(ToolSample(name, t, T, 0.2))
        frame = FrameRecord.of_counts(np.zeros((2, 2), np.uint16), seq=self.k, t_acq=t)
        if registered:
            frame.status = "tracking"
            T_camera_ct = exp_se3([0, 0, 0, *self.pose_error_mm]) @ self.T_camera_ct
            frame.registration = RegistrationResult(T_camera_ct, 0.9, np.full(6, 0.1), 1.5, 0.4, 0)
        tip, tail = self.truth()
        if visible:
            direction = (tip - tail) / np.linalg.norm(tip - tail)
            noise = self.bias_px * direction if self.bias_px else self.rng.normal(0, self.sigma_px, 2)
            depth = (self.T_camera_ct @ self.T_ct_tool)[2, 3]
            width = np.sqrt(0.75) * self.case.tools[0].diameter_mm * self.camera.focal_px / depth
            d = Detection(
                "image-1", "k-wire", 0.9, tip + noise, tail, direction, width, self.sigma_px, 0.1, self.sagitta_px, 0
            )
            frame.detections = (d,)
        self.instruments.process(frame, Budget(30))
        self.guidance.process(frame, Budget(30))
        self.guidance._background.submit(lambda: None).result()
        return frame

    def truth(self):
        ends = transform_points(self.T_ct_tool, [[0, 0, 0], [0, 0, -150.0]])
        return self.camera.project(transform_points(self.T_camera_ct, ends))

    def across_mm(self, instrument):
        off = instrument.tip_ct - self.T_ct_tool[:3, 3]
        return np.linalg.norm((self.T_camera_ct[:3, :3] @ off)[:2])


@pytest.fixture
def theatre(case, camera, rng):
    made = []

    def make(**settings):
        made.append(Theatre(case, camera, rng, **settings))
        return made[-1]

    yield make
    for t in made:
        t.guidance.close()


def test_what_both_see_is_one_instrument_and_its_tip_is_where_the_picture_shows_it(theatre):
    t = theatre()
    for _ in range(5):
        frame = t.frame()
    (tool,) = frame.instruments
    assert tool.id == "kwire" and tool.origin == "fused" and tool.age == 0
    assert t.across_mm(tool) < 0.5
    uv = t.camera.project(transform_points(t.T_camera_ct, tool.tip_ct))
    assert np.linalg.norm(uv - tool.tip_px) < 3


def test_a_tracked_wire_that_the_picture_shows_bent_may_be_nearer_than_its_tracker_says(theatre):
    straight, bent = (theatre(sagitta_px=b).frame() for b in (0.0, -12.0))
    (one,), (other,) = straight.instruments, bent.instruments
    assert one.curvature is None and one.shaft_px() is None
    assert other.origin == "fused" and other.curvature is not None and 2 < other.curvature.sagitta_mm < 8
    # As it is drawn: from tip to tail, and its middle to that side by so much.
    shaft = other.shaft_px()
    np.testing.assert_allclose(shaft[[0, -1]], [other.tip_px, other.tail_px], atol=1e-9)
    chord = other.tip_px - other.tail_px
    off = (shaft[4] - other.tail_px) @ np.array([-chord[1], chord[0]]) / np.linalg.norm(chord)
    assert off == pytest.approx(-12.0)
    # Its tip is seen; the farther from it, the less its shaft is where a straight one would be.
    beside = other.curvature.lateral_offset_mm(np.array([0.0, 20.0, 60.0, 1e3]))
    assert (
        beside[0] == 0 and (np.diff(beside) > 0).all() and beside[-1] == pytest.approx(4 * other.curvature.sagitta_mm)
    )
    margins = [{d.structure: d.distance_mm - d.lower_mm for d in f.distances} for f in (straight, bent)]
    assert all(margins[1][s] >= margins[0][s] - 0.05 for s in margins[0])
    assert max(margins[1][s] - margins[0][s] for s in margins[0]) > 0.3


def test_a_tip_that_is_always_seen_too_far_along_its_shaft_is_no_drift_and_moves_nothing(theatre):
    """Regression: what a detector gets wrong in one view it gets wrong in every frame of it, and that became drift."""
    t = theatre(sigma_px=4.0, bias_px=4.0)
    for _ in range(120):
        frame = t.frame()
    (tool,) = frame.instruments
    mm = 4.0 * (t.T_camera_ct @ t.T_ct_tool)[2, 3] / t.camera.focal_px
    assert mm > 0.7 and tool.origin == "fused"
    assert t.across_mm(tool) < 0.25 and frame.drift.size_mm < 0.3
    frame = t.frame(visible=False)
    assert t.across_mm(frame.instruments[0]) < 0.25


def test_a_registration_that_errs_within_its_bound_while_the_arm_turns_is_no_drift(theatre, case):
    """Regression: the demo's tracker was said to have drifted by 1.0 mm. The turning arm made up what lies along the
    ray from the registration's errors, and what lay across was the registration's own."""
    t, frames, errors, sizes = theatre(), 200, [], []
    for k in range(frames):
        t.T_camera_ct = turned(case, 8.0 * k / frames)
        # As in the demo: up to 0.35 mm, where 95 % within 0.4 mm are claimed, and slower than any filter.
        t.pose_error_mm = 0.35 * np.sin([3.0 * k / frames, 6.0 * k / frames, 0])
        frame = t.frame()
        errors.append(t.across_mm(frame.instruments[0]))
        sizes.append(frame.drift.size_mm if frame.drift else 0.0)
        assert not any(a.kind == "tracker_drift" for a in frame.alerts)
    assert max(sizes) < 0.5
    assert np.median(errors) < 0.25  # the tracker alone errs by 0.12


def test_a_drift_of_2_mm_is_said_within_30_frames_and_corrected_when_the_picture_is_gone_too(theatre):
    t = theatre()
    for _ in range(20):
        t.frame()
    t.drift = np.array([1.6, 0.0, -1.2])
    said = None
    for k in range(60):
        frame = t.frame()
        for alert in frame.alerts:
            if alert.kind == "tracker_drift" and said is None:
                said = k, alert
    assert said is not None and said[0] <= 30
    assert said[1].priority == "low" and "corrected" in said[1].text
    hidden = t.frame(visible=False)
    (tool,) = hidden.instruments
    assert tool.origin == "tracker" and t.across_mm(tool) < 0.7
    t.drift = np.zeros(3)
    ended = [a for _ in range(80) for a in t.frame().alerts if a.kind == "tracker_drift"]
    assert [a.state for a in ended] == ["cleared"]


def test_a_tracker_that_is_6_mm_off_is_not_believed_and_that_is_said_loudly(theatre):
    t = theatre(drift_mm=(4.5, 0, 4.0))
    alerts = [a for _ in range(40) for a in t.frame().alerts if a.kind == "tracker_drift"]
    assert alerts[-1].priority == "high" and "not believed" in alerts[-1].text
    (tool,) = t.frame().instruments
    assert t.across_mm(tool) < 1.0
    assert tool.sigma_mm > 4  # along the ray nothing else is known


def test_an_instrument_that_one_picture_shows_has_a_ray_and_a_rough_depth_and_no_distances(theatre):
    t = theatre()
    frame = t.frame(tracked=False)
    (seen,) = frame.instruments
    assert seen.origin == "image" and seen.id == "image-1" and seen.method == "width"
    # The shadow's width says the depth to centimetres, and the error says so; across the ray it is exact.
    off = t.T_camera_ct[:3, :3] @ (seen.tip_ct - t.T_ct_tool[:3, 3])
    assert seen.sigma_mm > 20 and abs(off[2]) < 2.5 * seen.sigma_mm
    uv = t.camera.project(transform_points(t.T_camera_ct, seen.tip_ct))
    assert np.linalg.norm(uv - seen.tip_px) < 0.1
    assert frame.distances == ()
    gone = [t.frame(tracked=False, visible=False) for _ in range(30)]
    assert not any(a.kind == "instrument_lost" for f in gone for a in f.alerts)


def test_without_a_registration_the_picture_moves_no_tool(theatre):
    t = theatre(drift_mm=(2, 0, 0))
    for _ in range(20):
        frame = t.frame(registered=False)
    by_id = {i.id: i for i in frame.instruments}
    assert by_id["kwire"].origin == "tracker" and by_id["image-1"].origin == "image"
    assert frame.drift is None
    off = by_id["kwire"].tip_ct - t.T_ct_tool[:3, 3]
    assert np.linalg.norm(off - [2, 0, 0]) < 0.6


def test_an_instrument_that_is_seen_from_two_sides_gets_a_place_in_space(theatre, case):
    t = theatre()
    for _ in range(10):
        assert t.frame(tracked=False).instruments[0].method == "width"
    t.T_camera_ct = turned(case, 40.0)
    for _ in range(4):
        (seen,) = t.frame(tracked=False).instruments
    assert seen.origin == "image" and seen.tip_ct is not None
    off = np.linalg.norm(seen.tip_ct - t.T_ct_tool[:3, 3])
    assert off < 1.0 and off < 3 * seen.sigma_mm
    assert seen.axis_ct @ t.T_ct_tool[:3, 2] > np.cos(np.deg2rad(3))
    assert t.frame(tracked=False).distances  # it is watched now


def test_one_that_moved_between_the_views_gets_none(theatre, case):
    t = theatre()
    for _ in range(10):
        t.frame(tracked=False)
    t.T_camera_ct = turned(case, 40.0)
    t.T_ct_tool[:3, 3] += [0, 0, 5.0]  # across both beams
    for _ in range(4):
        (seen,) = t.frame(tracked=False).instruments
        assert seen.method == "width"


def test_without_a_marker_on_the_patient_the_pictures_tell_where_it_is(case, camera, rng):
    """The tool is moved about before the C-arm; then the tracker alone places it, with the error that is claimed."""
    known = np.array(case.file.tracker.T_ct_reference)
    tracker = case.file.tracker.model_copy(update={"T_ct_reference": None})
    mine = dataclasses.replace(case, file=case.file.model_copy(update={"tracker": tracker}))
    t = Theatre(mine, camera, rng)
    t.case = case  # the theatre knows
    stage = t.instruments
    placed = []
    for k in range(60):
        axis = np.array([0.0, -1.0, 0.2]) + rng.normal(0, 0.4, 3)
        axis /= np.linalg.norm(axis)
        x = np.cross([0.0, 0, 1], axis)
        x /= np.linalg.norm(x)
        T = np.eye(4)
        T[:3, :3] = np.stack([x, np.cross(axis, x), axis], axis=1)
        T[:3, 3] = np.array(case.target_ct) + rng.normal(0, 25, 3)
        t.T_ct_tool = T
        for _ in range(2):
            frame = t.frame()
        placed += [i.origin for i in frame.instruments]
        stage.idle(frame, Budget(1e6))
        if stage._marker._solving is not None:
            stage._marker._solving.result()
        if k == 3:
            assert placed == ["image"] * 4
    found = stage._marker.found
    assert found is not None and np.linalg.norm(found.T_ct_reference[:3, 3] - known[:3, 3]) < 3
    hidden = t.frame(visible=False)
    (tool,) = hidden.instruments
    off = np.linalg.norm(tool.tip_ct - t.T_ct_tool[:3, 3])
    assert tool.origin == "tracker" and off < 3 * tool.sigma_mm and tool.sigma_mm < 1.5
    t.guidance.close()
    stage.close()


def turned(case, orbital):
    p = case.prior
    return CArmPose(p.isocentre_ct, p.source_to_isocentre_mm, orbital, 5.0).T_camera_ct()


def test_rejected_samples_of_all_tools_are_added_up_by_reason(theatre):
    t = theatre()
    t.frame()
    before = t.instruments.rejected
    for name in ("kwire", "patient_reference"):
        t.instruments.observe(ToolSample(name, MS, np.eye(4), 0.2))  # of a time before those that came
    assert t.instruments.rejected == {"out_of_order": 2}
    assert before == {}, "what was handed out does not change"
