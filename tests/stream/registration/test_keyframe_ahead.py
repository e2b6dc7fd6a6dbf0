"""The next keyframe beside the frame path: where it is rendered, and what happens when it is late."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.stream.registration.rig import arriving, errors, exposed

from fluoronav.geometry import inverse, moved_about, rotation_distance_deg
from fluoronav.stream.reasons import LATE_KEYFRAME
from fluoronav.stream.registration.keyframe_ahead import extrapolated

SMALL = st.floats(-0.02, 0.02)


@given(st.lists(SMALL, min_size=6, max_size=6), st.floats(0, 3))
def test_a_steady_motion_is_extrapolated(twist, frames):
    """After whole frames exactly; between them to first order, and always rigidly."""
    motion = moved_about(np.zeros(3), np.array(twist))
    T_now = motion @ moved_about(np.zeros(3), np.array([0.3, -0.1, 0.2, 5, 6, 700.0]))
    T = extrapolated(inverse(motion) @ T_now, T_now, frames)
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-9)
    whole = T_now
    for _ in range(int(frames)):
        whole = motion @ whole
    nearest = whole if frames - int(frames) < 0.5 else motion @ whole
    step = rotation_distance_deg(T_now, motion @ T_now)
    assert rotation_distance_deg(T, nearest) <= 0.5 * step + 1e-3


@pytest.fixture(scope="module")
def still(case, camera):
    """Exposures of a still patient, of one that has moved by 5 mm and 3 degrees, and of both in a breath's motion."""
    from fluoronav.lab.simulation.scenario import Scenario
    from fluoronav.lab.simulation.sequence import Anatomy

    anatomy, T = Anatomy(case, camera.scaled(0.5)), Scenario().poses(case)[0]
    beams = []
    for turn_deg, shift_mm in ((0, 0), (0.1, 0.3), (0.2, 0.6), (3, 5)):
        twist = np.concatenate([np.deg2rad([0, 0, turn_deg]), [shift_mm, 0, 0]])
        pose = inverse(moved_about(case.target_ct, twist) @ inverse(T))
        beams.append((arriving(anatomy, camera, pose), pose))
    return exposed(beams, camera)


def followed(rig, counts, frames=8):
    for _ in range(frames):
        frame = rig.show(counts)
        rig.registration.wait_for_background()
    assert frame.status == "tracking"
    return frame


def test_a_patient_who_breathes_is_followed_without_a_render_in_any_frame(rig, case, still):
    followed(rig, still[0][0])
    keyframes = rig.registration.patch_sets.keyframes
    before, beside = keyframes.rendered_in_frames, keyframes.rendered_beside
    for counts, truth in (still[1], still[2], still[1], still[0]) * 2:
        frame = rig.show(counts)
        rig.registration.wait_for_background()
        assert frame.status == "tracking" and frame.registration.age == 0
        assert errors(case, frame.registration.T_camera_ct, truth)[0] < 0.6
    assert keyframes.rendered_in_frames == before
    assert keyframes.rendered_beside > beside


def test_a_jump_in_mid_keyframe_is_followed_and_never_called_tracking_where_it_is_wrong(rig, case, still):
    followed(rig, still[0][0])
    counts, truth = still[3]
    for _ in range(6):
        frame = rig.show(counts)
        rig.registration.wait_for_background()
        wrong = errors(case, frame.registration.T_camera_ct, truth)[0] > 1.5
        assert not (wrong and frame.status == "tracking" and frame.registration.age == 0)
    assert frame.status == "tracking"
    assert errors(case, frame.registration.T_camera_ct, truth)[0] < 0.6


def test_a_keyframe_that_is_late_ages_the_pose_which_says_so_and_is_measured_when_it_is_overdue(
    rig, case, still, monkeypatch
):
    """The render beside hangs, and no frame has time for one: the pose is held with its age, then measured late."""
    followed(rig, still[0][0])
    registration = rig.registration
    sets, released = registration.patch_sets, threading.Event()
    render_next = sets.render_next

    def hung(patches, T):
        released.wait(60)
        render_next(patches, T)

    monkeypatch.setattr(sets, "render_next", hung)
    monkeypatch.setattr(sets.keyframes, "reach", 0.05)  # every pose is beyond the keyframe
    measurement = registration._measurement
    reasons, ages = [], []
    try:
        for _ in range(3):
            measurement.render_ms = 100.0  # as measured on a computer that is busy
            frame = rig.show(still[2][0], milliseconds=20, wait=False)
            reasons.append(frame.status_reason)
            ages.append(frame.registration.age)
    finally:
        released.set()
    assert ages == [1, 2, 0]  # the third is overdue
    assert errors(case, frame.registration.T_camera_ct, still[2][1])[0] < 0.6
    registration._hold(frame, LATE_KEYFRAME)
    assert frame.registration.age == 1
