"""Keyframes: exact where they were rendered, close to it nearby, and rendered anew beyond their reach."""

import numpy as np
import pytest

from fluoronav.geometry import inverse, moved_about
from fluoronav.imaging.registration.gauss_newton import kernel_equations, refine
from fluoronav.imaging.registration.keyframes import KeyframeLimits, KeyframeModel
from fluoronav.imaging.registration.model import RegistrationModel
from fluoronav.imaging.registration.patches import PatchLevel
from fluoronav.imaging.registration.similarity import normalise_patches
from fluoronav.lab.bench.subjects import errors_mm

SIDE = 256


@pytest.fixture(scope="module")
def scene(case, camera):
    """The model, a level with patches at a true pose, and the model's own image there."""
    model, T = RegistrationModel.of_case(case), case.prior.T_camera_ct()
    level = PatchLevel(camera, SIDE, 9, 160)
    level.choose(model.bones, T, np.ones((SIDE, SIDE), bool))
    image = model.tissue.render(T, level.camera)
    normalise_patches(
        image, level.first_row, level.first_col, level.size, level.frame_hat, level.contrast[: level.count]
    )
    return model.tissue, level, T, image


def moved(case, T, turn_deg, shift_mm, seed):
    """The pose after a turn and a shift in random directions."""
    rng = np.random.default_rng(seed)
    axis, direction = rng.normal(size=3), rng.normal(size=3)
    twist = np.concatenate([
        np.deg2rad(turn_deg) * axis / np.linalg.norm(axis), shift_mm * direction / np.linalg.norm(direction)
    ])  # fmt: skip
    return inverse(moved_about(case.target_ct, twist) @ inverse(T))


def test_at_the_keyframe_the_equations_are_those_of_a_render(case, scene):
    tissue, level, T, _ = scene
    at = moved(case, T, 0.3, 0.3, 1)
    exact = kernel_equations(tissue, level, at, case.target_ct)
    linear = KeyframeModel(tissue, case.target_ct, [level]).equations(level, at, case.target_ct)
    np.testing.assert_allclose(linear.information, exact.information, rtol=1e-5)
    np.testing.assert_allclose(linear.gradient, exact.gradient, rtol=1e-4, atol=1e-3)
    assert linear.score == pytest.approx(exact.score, abs=1e-6) and linear.patches == exact.patches


@pytest.mark.parametrize("seed", range(4))
def test_within_the_reach_a_pose_is_refined_without_a_render_as_well_as_with_one(case, scene, seed):
    tissue, level, T, image = scene
    model = KeyframeModel(tissue, case.target_ct, [level])
    start = moved(case, T, 0.4, 0.4, seed)
    model.render_first([level], start)
    found = refine(model, [(level, image, 6)], start, case.target_ct)
    exact = refine(tissue, [(level, image, 6)], start, case.target_ct)
    across = errors_mm(found.T_camera_ct, T, case.target_ct[None])[1]
    assert model.rendered_in_frames == 0
    assert across < errors_mm(exact.T_camera_ct, T, case.target_ct[None])[1] + model.limits.error_mm


def test_beyond_the_reach_a_keyframe_is_rendered(case, scene):
    tissue, level, T, image = scene
    model = KeyframeModel(tissue, case.target_ct, [level])
    start = moved(case, T, 1.5, 2.0, 5)
    model.render_first([level], start)
    found = refine(model, [(level, image, 8)], start, case.target_ct)
    assert model.rendered_in_frames > 0
    assert errors_mm(found.T_camera_ct, T, case.target_ct[None])[1] < 0.1


def test_the_error_of_the_linear_model_is_measured_and_shortens_the_reach(case, scene):
    """The same keyframe, left nearer and farther: the error grows, and where it is too large the reach shrinks."""
    tissue, level, T, _ = scene
    errors = []
    for shift in (0.3, 0.6, 2.5):
        model = KeyframeModel(tissue, case.target_ct, [level], KeyframeLimits(error_mm=1.0))
        model.render_first([level], T)
        model.render_next(level, moved(case, T, shift, shift, 3))
        errors.append(model.error_mm)
        assert model.reach == 1  # so much is allowed
    assert errors[0] < errors[1] < errors[2]
    strict = KeyframeModel(tissue, case.target_ct, [level], KeyframeLimits(error_mm=errors[0] / 2))
    strict.render_first([level], T)
    for _ in range(3):
        strict.render_next(level, moved(case, T, 0.3, 0.3, 3))
    assert strict.limits.least_reach < strict.reach < 0.9


def test_the_next_keyframe_is_taken_only_where_it_is_nearer(case, scene):
    tissue, level, T, _ = scene
    model = KeyframeModel(tissue, case.target_ct, [level])
    near, far = moved(case, T, 0.1, 0.1, 2), moved(case, T, 0.5, 0.5, 2)
    for ahead, nearer in ((far, False), (near, True)):
        model.render_first([level], moved(case, T, 0.3, 0.3, 2))
        before = model.distance(level, T)
        model.render_next(level, ahead)
        model.take_next(level, T)
        assert (model.distance(level, T) < before) is nearer


def test_patches_that_are_placed_anew_have_no_keyframe(case, scene):
    tissue, level, T, _ = scene
    model = KeyframeModel(tissue, case.target_ct, [level])
    model.render_first([level], T)
    assert model.distance(level, T) == 0
    model.forget([level])
    assert model.distance(level, T) == np.inf
    model.take_next(level, T)
    assert model.distance(level, T) == np.inf


def test_other_levels_do_not_share_a_keyframe(case, camera, scene):
    tissue, level, T, _ = scene
    other = PatchLevel(camera, 128, 9, 40)
    model = KeyframeModel(tissue, case.target_ct, [level, other])
    model.render_first([level, other], T)  # the other has no patches
    assert model.distance(level, T) == 0 and model.distance(other, T) == np.inf
