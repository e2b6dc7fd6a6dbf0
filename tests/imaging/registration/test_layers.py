"""The patient in layers: they add up to the rigid model, and each is found where it is."""

import numpy as np
import pytest

from fluoronav.geometry import inverse, moved_about, rotation_distance_deg, transform_points
from fluoronav.imaging.projector import Projector
from fluoronav.imaging.registration.confidence import turn_bound_deg
from fluoronav.imaging.registration.layered_fit import LayeredFit
from fluoronav.imaging.registration.model import SETTINGS, tissue_grid
from fluoronav.imaging.registration.target_bone import LayeredModel, Layers, _Scratch
from fluoronav.lab.bench.subjects import view_poses

BEND_RAD_MM = np.deg2rad([3.0, -2.0, 1.0]) / 100
SHIFT_MM = np.array([0.5, 1.0, -7.0])  # of heart and ribs, by a breath


@pytest.fixture(scope="module")
def tissue(case):
    return Projector(tissue_grid(case.ct, case.target_ct, SETTINGS.reach_mm, 2.0, SETTINGS.fade_mm, case.surroundings))


@pytest.fixture(scope="module")
def layers(case, tissue):
    return Layers.of_case(case, tissue)


def render(model, T_camera_ct, camera, side):
    from fluoronav.imaging.projector import padded_rays

    small = camera.scaled(side / camera.cols)
    directions, count = padded_rays(small.rays(small.pixel_grid()))
    out = np.zeros(directions.shape[1], np.float32)
    model.line_integrals(T_camera_ct, directions, out)
    return out[:count].reshape(small.rows, small.cols)


def test_the_target_bone_is_the_one_that_the_plan_is_in_and_its_neighbours_are_along_the_spine(layers):
    assert layers.target.name == "vertebrae_T8"
    along = {bone.name[-2:]: bone.along_mm for bone in layers.bones}
    assert along["T6"] > along["T7"] > 0 > along["T9"] > along["10"]


def test_without_any_motion_the_layers_add_up_to_the_rigid_model(case, camera, tissue, layers):
    T = view_poses(case, 1, 4)[0]
    whole, layered = (render(m, T, camera, 64) for m in (tissue, LayeredModel(layers)))
    np.testing.assert_allclose(layered, whole, atol=0.01 * whole.max())


def test_a_bone_turns_by_the_bend_times_its_way_and_the_target_bone_stays(layers):
    model = LayeredModel(layers, BEND_RAD_MM)
    np.testing.assert_allclose(model.T_ct_bone(layers.target), np.eye(4), atol=1e-12)
    for bone in layers.bones[1:]:
        turn = rotation_distance_deg(np.eye(4), model.T_ct_bone(bone))
        assert turn == pytest.approx(np.rad2deg(np.linalg.norm(BEND_RAD_MM)) * abs(bone.along_mm), rel=0.01)


def test_bone_bend_and_breath_are_found_in_a_picture_of_them(case, camera, layers):
    truth = view_poses(case, 1, 5)[0]
    T_ct_rest = np.eye(4)
    T_ct_rest[:3, 3] = SHIFT_MM
    patient = LayeredModel(layers, BEND_RAD_MM, T_ct_rest)
    pyramid = {side: render(patient, truth, camera, side) for side in (256, 128)}
    centre = layers.target.centre_ct
    start = inverse(moved_about(centre, [0.04, 0.03, -0.02, 1.0, 2.0, 1.0]) @ inverse(truth))
    found = LayeredFit(layers, camera).fit(pyramid, np.ones((64, 64), bool), start)
    off = transform_points(found.T_camera_ct, centre) - transform_points(truth, centre)
    assert np.hypot(off[0], off[1]) < 0.1
    assert rotation_distance_deg(found.T_camera_ct, truth) < 0.3
    np.testing.assert_allclose(np.rad2deg(found.bend_rad_mm) * 100, np.rad2deg(BEND_RAD_MM) * 100, atol=1.0)
    assert found.T_ct_rest[2, 3] == pytest.approx(SHIFT_MM[2], abs=2.0)
    bone = layers.bones[1]
    T_ct_bone, covariance = found.bone(layers, bone)
    assert rotation_distance_deg(T_ct_bone, patient.T_ct_bone(bone)) < 0.5
    assert (np.linalg.eigvalsh(covariance) > 0).all()


def test_a_case_without_bones_at_its_target_has_no_layers(case, tissue):
    from dataclasses import replace

    without = replace(case, file=case.file.model_copy(update={"rigid": None}))
    assert Layers.of_case(without, tissue) is None


def test_the_bound_of_the_turn_holds_in_95_of_100(rng):
    spread = np.deg2rad([2.0, 0.5, 1.0])
    covariance = np.diag([*spread**2, 1, 1, 1])
    turns = np.rad2deg(np.linalg.norm(rng.normal(size=(20_000, 3)) * spread, axis=1))
    assert np.mean(turns < turn_bound_deg(covariance)) == pytest.approx(0.95, abs=0.01)


def test_the_scratch_of_fewer_rays_is_contiguous_so_that_no_kernel_is_compiled_anew():
    scratch = _Scratch()
    scratch.of(1024)
    assert scratch.of(256).flags.c_contiguous and scratch.of(256).shape == (7, 256)
