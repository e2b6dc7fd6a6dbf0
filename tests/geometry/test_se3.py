"""SE(3): properties that hold for every motion."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluoronav.geometry import (
    adjoint,
    exp_se3,
    exp_so3,
    inverse,
    is_rigid,
    log_se3,
    log_so3,
    moved_about,
    rotation_distance_deg,
    transform_points,
)

component = st.floats(-1.7, 1.7)
twists = st.tuples(*[component] * 3, *[st.floats(-500, 500)] * 3).map(np.array)


@given(twists)
def test_log_undoes_exp(twist):
    np.testing.assert_allclose(log_se3(exp_se3(twist)), twist, atol=1e-7)


@given(twists)
def test_exp_is_rigid_and_inverse_undoes_it(twist):
    T = exp_se3(twist)
    assert is_rigid(T)
    np.testing.assert_allclose(inverse(T) @ T, np.eye(4), atol=1e-9)


@given(twists, st.tuples(*[st.floats(-0.2, 0.2)] * 6).map(np.array))
def test_the_adjoint_carries_a_twist_to_another_frame(a, b):
    T = exp_se3(a)
    np.testing.assert_allclose(exp_se3(adjoint(T) @ b), T @ exp_se3(b) @ inverse(T), atol=1e-6)


@given(st.tuples(*[st.floats(-1, 1)] * 3).map(np.array), st.floats(3.1405, np.pi))
def test_the_logarithm_holds_near_a_half_turn(axis, angle):
    n = np.linalg.norm(axis)
    if n < 0.1:
        return
    R = exp_so3(angle * axis / n)
    np.testing.assert_allclose(exp_so3(log_so3(R)), R, atol=1e-6)


@given(twists)
def test_a_motion_about_a_point_leaves_it_but_for_the_translation(twist):
    centre = np.array([10.0, -20, 30])
    only_turn = np.concatenate([twist[:3], np.zeros(3)])
    np.testing.assert_allclose(transform_points(moved_about(centre, only_turn), centre), centre, atol=1e-9)


def test_rotation_distance_is_the_angle_between_poses():
    a = exp_se3([0.1, 0.2, -0.3, 5, 6, 7])
    b = a @ exp_se3([0, np.deg2rad(12), 0, 1, 2, 3])
    assert rotation_distance_deg(a, b) == pytest.approx(12)


def test_a_reflection_a_scaling_and_nan_are_not_rigid():
    assert not is_rigid(np.diag([1.0, 1, -1, 1]))
    assert not is_rigid(np.diag([2.0, 2, 2, 1]))
    assert not is_rigid(np.full((4, 4), np.nan))
    assert not is_rigid(np.eye(3))
