"""Views of one patient, fused through what the C-arm's joints say."""

import numpy as np
import pytest

from fluoronav.geometry import ArmJoints, exp_so3, inverse, moved_about, transform_points
from fluoronav.imaging.registration.confidence import covariance_in_camera, error_bounds_mm
from fluoronav.stream.registration.view_memory import ViewMemory

CENTRE = np.array([12.0, -30.0, 140.0])
ARM_DEG, ARM_MM = 0.3, 1.0
# What one view says: a tenth of a millimetre across, and 1.75 mm of depth.
COVARIANCE = covariance_in_camera(np.diag([1e5] * 3 + [1e3] * 3), np.eye(4))


def room(orbital, angular=0.0):
    return ArmJoints(orbital, angular).T_camera_room(600.0)


@pytest.fixture
def T_room_ct(rng):
    T = np.eye(4)
    T[:3, :3] = exp_so3(rng.normal(0, 0.1, 3))
    T[:3, 3] = [10, -5, 20] - T[:3, :3] @ CENTRE
    return T


def measured(T_camera_ct, rng):
    """A pose with an error as COVARIANCE says."""
    off = np.linalg.cholesky(COVARIANCE) @ rng.standard_normal(6)
    T = np.array(T_camera_ct)
    T[:3, :3] = exp_so3(off[:3]) @ T[:3, :3]
    T[:3, 3] = transform_points(T_camera_ct, CENTRE) + off[3:] - T[:3, :3] @ CENTRE
    return T


def bent(T_camera_room, rng):
    """Where the camera truly is when the joints say this."""
    isocentre = T_camera_room[:3, 3]
    twist = np.concatenate([rng.normal(0, np.deg2rad(ARM_DEG), 3), rng.normal(0, ARM_MM, 3)]) / np.sqrt(2)
    return moved_about(isocentre, twist) @ T_camera_room


def test_depth_is_taken_from_the_other_view_and_the_bound_that_is_claimed_holds(rng, T_room_ct):
    before, after, held = [], [], []
    for _ in range(300):
        memory = ViewMemory(CENTRE, ARM_DEG, ARM_MM)
        views = [room(0.0), room(60.0, 5.0), room(-40.0)]
        truths = [bent(T, rng) @ T_room_ct for T in views]
        for T, truth in list(zip(views, truths, strict=True))[1:]:
            memory.remember(T, measured(truth, rng), COVARIANCE)
        alone = measured(truths[0], rng)
        fused = memory.fuse(views[0], alone, COVARIANCE)
        at = transform_points(truths[0], CENTRE)
        before.append(np.linalg.norm(transform_points(alone, CENTRE) - at))
        after.append(np.linalg.norm(transform_points(fused.T_camera_ct, CENTRE) - at))
        held.append(after[-1] < error_bounds_mm(fused.covariance, at)[0])
        assert fused.views in (1, 2)
    assert np.median(after) < 0.75 * np.median(before)
    assert 0.92 <= np.mean(held) <= 0.99


def test_nothing_is_added_without_another_view_or_from_one_that_is_too_near(rng, T_room_ct):
    memory = ViewMemory(CENTRE, ARM_DEG, ARM_MM)
    T = room(3.0) @ T_room_ct
    for remembered in (None, 3.0, 15.0, 183.0):  # from behind the same plane is seen
        if remembered is not None:
            memory.remember(room(remembered), room(remembered) @ T_room_ct, COVARIANCE)
        fused = memory.fuse(room(3.0), T, COVARIANCE)
        assert fused.views == 0 and fused.T_camera_ct is T and fused.covariance is COVARIANCE


@pytest.mark.parametrize("moved", [(0.0, 0.0, 8.0), (8.0, 0.0, 0.0)])
def test_a_view_that_the_patient_has_left_is_not_used(rng, T_room_ct, moved):
    memory = ViewMemory(CENTRE, ARM_DEG, ARM_MM)
    memory.remember(room(70.0), room(70.0) @ T_room_ct, COVARIANCE)
    shift = np.eye(4)
    shift[:3, 3] = moved
    fused = memory.fuse(room(0.0), room(0.0) @ shift @ T_room_ct, COVARIANCE)
    assert fused.views == 0


def test_what_moves_under_an_arm_at_rest_is_a_patient_who_moves(T_room_ct):
    memory = ViewMemory(CENTRE, ARM_DEG, ARM_MM)
    for angle in (70.0, 30.0, 0.0):
        memory.remember(room(angle), room(angle) @ T_room_ct, COVARIANCE)
    assert len(memory) == 3
    for _ in range(3):  # still
        memory.remember(room(0.0), room(0.0) @ T_room_ct, COVARIANCE)
    assert len(memory) == 3
    deeper = room(0.0) @ T_room_ct
    deeper[2, 3] += 4.0  # along the ray, where no other test would tell it from an error
    memory.remember(room(0.0), deeper, COVARIANCE)
    assert len(memory) == 1


def test_the_memory_is_bounded_and_knows_where_the_patient_lay(T_room_ct):
    memory = ViewMemory(CENTRE, ARM_DEG, ARM_MM)
    assert memory.T_room_ct() is None
    for angle in np.arange(-90, 90, 6.0):
        memory.remember(room(angle), room(angle) @ T_room_ct, COVARIANCE)
    assert len(memory) == 8
    np.testing.assert_allclose(memory.T_room_ct(), T_room_ct, atol=1e-9)
    memory.clear()
    assert memory.T_room_ct() is None and len(memory) == 0


def test_joints_turn_the_room_about_the_isocentre():
    T = room(25.0, 10.0)
    np.testing.assert_allclose(T[:3, 3], [0, 0, 600.0])
    assert ArmJoints(0, 0, 0, 650.0).T_camera_room(600.0)[2, 3] == 650.0
    np.testing.assert_allclose(inverse(T) @ T, np.eye(4), atol=1e-12)
