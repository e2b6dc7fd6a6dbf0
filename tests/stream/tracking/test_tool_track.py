"""Tool poses from a tracker: interpolated, aged, and never alive when they are not."""

import numpy as np
import pytest

from fluoronav.geometry import exp_se3
from fluoronav.stream.frame import Budget, FrameRecord, RegistrationResult, ToolSample
from fluoronav.stream.tracking.stage import InstrumentStage
from fluoronav.stream.tracking.tool_track import ToolTrack

MS = 1_000_000


def sample(t_ms, x=0.0, visible=True, tool="kwire"):
    return ToolSample(tool, t_ms * MS, exp_se3([0, 0, 0, x, 0, 0]) if visible else None, 0.2)


def test_a_pose_is_interpolated_between_samples_and_goes_on_after_the_last_with_a_growing_error():
    track = ToolTrack()
    track.add(sample(0, 0))
    track.add(sample(20, 10))
    between = track.pose_at(5 * MS)
    assert between.T_tracker_tool[0, 3] == pytest.approx(2.5) and between.age_ns == 0
    ahead = [track.pose_at(t * MS) for t in (30, 50, 90)]
    # 0.5 mm a millisecond; predicted for 50 ms and held then.
    assert [p.T_tracker_tool[0, 3] for p in ahead] == pytest.approx([15, 25, 35])
    assert [p.age_ns for p in ahead] == [10 * MS, 30 * MS, 70 * MS]
    errors = [between.error_mm, *(p.error_mm for p in ahead)]
    assert errors == sorted(errors) and errors[0] == 0.2 and errors[-1] > 3
    assert track.pose_at(125 * MS) is None


def test_a_tool_that_is_held_still_is_not_moved_by_its_noise(rng):
    track = ToolTrack()
    for k in range(20):
        track.add(sample(16 * k, float(rng.normal(0, 0.1))))
    held = track.pose_at((16 * 19 + 40) * MS)
    assert abs(held.T_tracker_tool[0, 3]) < 0.4


def test_a_stale_a_hidden_and_a_future_pose_are_none():
    track = ToolTrack()
    assert track.pose_at(0) is None
    track.add(sample(100))
    assert track.pose_at(50 * MS) is None
    assert track.pose_at(250 * MS) is None
    track.add(sample(110, visible=False))
    assert track.pose_at(115 * MS) is None


def test_a_jump_is_kept_aside_until_others_agree_with_it():
    track = ToolTrack()
    assert track.add(sample(0, 0)) and track.add(sample(16, 0.1))
    assert not track.add(sample(32, 400))
    assert "jumps" in track.fault
    assert track.add(sample(48, 0.2)) and track.fault == ""
    assert track.pose_at(48 * MS).T_tracker_tool[0, 3] == pytest.approx(0.2)
    # A stand that was pushed: the third sample in a row is believed, and nothing is interpolated across the jump.
    assert [track.add(sample(64 + 16 * k, 400 + 0.1 * k)) for k in range(4)] == [False, False, True, True]
    assert track.pose_at(112 * MS).T_tracker_tool[0, 3] == pytest.approx(400.3, abs=0.5)
    assert track.rejected == {"jumped": 3}


def test_a_sender_that_hangs_and_repeats_a_pose_under_new_times_is_found_out():
    track = ToolTrack()
    taken = [track.add(sample(16 * k, 7.0)) for k in range(60)]
    assert taken.index(False) == 15 and not any(taken[15:])
    assert "repeats" in track.fault and track.rejected["frozen"] == 45
    assert track.pose_at(16 * 60 * MS) is None  # no frozen tip that looks alive
    assert track.add(sample(16 * 60, 7.1)) and track.fault == ""


def test_a_sample_that_goes_back_in_time_or_repeats_is_refused():
    track = ToolTrack()
    assert track.add(sample(10))
    assert not track.add(sample(10))
    assert not track.add(sample(5))
    assert track.rejected == {"out_of_order": 2} and "go back" in track.fault


def test_the_tip_is_where_the_tracker_says_however_patient_and_tracker_move(case, camera, rng):
    stage = InstrumentStage()
    stage.prepare(case, camera)
    T_ct_reference = np.array(case.file.tracker.T_ct_reference)
    T_ct_tool = exp_se3([0.3, 0.1, 0, 5, 80, -150])
    for k in range(1, 5):
        T_tracker_ct = exp_se3(rng.normal(0, [0.01, 0.01, 0.01, 5, 5, 5]))
        for tool, T in (("patient_reference", T_tracker_ct @ T_ct_reference), ("kwire", T_tracker_ct @ T_ct_tool)):
            stage.observe(ToolSample(tool, k * 30 * MS, T, 0.1))
        frame = FrameRecord.of_counts(np.zeros((2, 2), np.uint16), seq=k, t_acq=k * 30 * MS)
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
    frame = FrameRecord.of_counts(np.zeros((2, 2), np.uint16))
    stage.process(frame, Budget(30))
    assert frame.instruments == ()


@pytest.mark.parametrize("x, error", [(1e5, 0.2), (1e200, 0.2), (np.inf, 0.2), (np.nan, 0.2), (0.0, 1e300)])
def test_a_pose_out_of_all_bounds_is_not_believed_however_often_it_comes(x, error):
    track = ToolTrack()
    track.add(sample(0))
    for k in range(1, 10):
        T = np.eye(4)
        T[0, 3] = x
        assert not track.add(ToolSample("kwire", 16 * k * MS, T, error))
    assert track.rejected["implausible"] == 9 and "units" in track.fault
    assert track.pose_at(50 * MS).T_tracker_tool[0, 3] == 0
