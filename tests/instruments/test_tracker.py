"""Tool poses from a tracker: interpolated, aged, and never alive when they are not."""

import numpy as np
import pytest

from fluoronav.geometry import exp_se3
from fluoronav.instruments import InstrumentStage, ToolTrack
from fluoronav.records import Budget, FrameRecord, RegistrationResult, ToolSample

MS = 1_000_000


def sample(t_ms, x=0.0, visible=True, tool="kwire"):
    return ToolSample(tool, t_ms * MS, exp_se3([0, 0, 0, x, 0, 0]) if visible else None, 0.2)


def test_a_pose_is_interpolated_between_samples_and_held_after_the_last():
    track = ToolTrack()
    track.add(sample(0, 0))
    track.add(sample(20, 10))
    T, _, age = track.pose_at(5 * MS)
    assert T[0, 3] == pytest.approx(2.5) and age == 0
    T, _, age = track.pose_at(50 * MS)
    assert T[0, 3] == pytest.approx(10) and age == 30 * MS


def test_a_stale_a_hidden_and_a_future_pose_are_none():
    track = ToolTrack()
    assert track.pose_at(0) is None
    track.add(sample(100))
    assert track.pose_at(50 * MS) is None
    assert track.pose_at(250 * MS) is None
    track.add(sample(110, visible=False))
    assert track.pose_at(115 * MS) is None


def test_a_sample_that_goes_back_in_time_or_repeats_is_refused():
    track = ToolTrack()
    assert track.add(sample(10))
    assert not track.add(sample(10))
    assert not track.add(sample(5))


def test_the_tip_is_where_the_tracker_says_however_patient_and_tracker_move(case, camera, rng):
    stage = InstrumentStage()
    stage.prepare(case, camera)
    T_ct_reference = np.array(case.file.tracker.T_ct_reference)
    T_ct_tool = exp_se3([0.3, 0.1, 0, 5, 80, -150])
    for k in range(1, 5):
        T_tracker_ct = exp_se3(rng.normal(0, [0.5, 0.5, 0.5, 300, 300, 300]))
        for tool, T in (("patient_reference", T_tracker_ct @ T_ct_reference), ("kwire", T_tracker_ct @ T_ct_tool)):
            stage.observe(ToolSample(tool, k * 30 * MS, T, 0.1))
        frame = FrameRecord(k, k * 30 * MS, 0, np.zeros((2, 2), np.uint16), 16, False, None)
        T_camera_ct = case.prior.T_camera_ct()
        frame.registration = RegistrationResult(T_camera_ct, 1, np.ones(6), 1, 1, 0)
        stage.process(frame, Budget(30))
        (tool,) = frame.instruments
        np.testing.assert_allclose(tool.tip_ct, T_ct_tool[:3, 3], atol=1e-6)
        expected = camera.project((T_camera_ct @ T_ct_tool)[:3, 3])
        np.testing.assert_allclose(tool.tip_px, expected, atol=1e-6)
        assert tool.origin == "tracker" and tool.sigma_mm == pytest.approx(np.hypot(0.1, 0.1))


def test_without_the_reference_marker_there_is_no_instrument(case, camera):
    stage = InstrumentStage()
    stage.prepare(case, camera)
    stage.observe(ToolSample("kwire", 0, np.eye(4), 0.1))
    frame = FrameRecord(0, 0, 0, np.zeros((2, 2), np.uint16), 16, False, None)
    stage.process(frame, Budget(30))
    assert frame.instruments == ()
