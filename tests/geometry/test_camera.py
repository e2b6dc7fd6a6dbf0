"""The C-arm camera: projection, scaling, joints and refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluoronav.geometry import Camera, CameraError, CArmPose, is_rigid, transform_points

K = [[3400.0, 0, 511.5], [0, 3410.0, 500.0], [0, 0, 1]]
GOOD = {"rows": 1024, "cols": 1024, "K": K}
pixels = st.tuples(st.floats(-100, 1200), st.floats(-100, 1200)).map(np.array)


@given(pixels, st.floats(100, 2000))
def test_a_point_on_a_pixels_ray_projects_to_the_pixel(pixel, depth):
    camera = Camera.from_dict(GOOD)
    np.testing.assert_allclose(camera.project(depth * camera.rays(pixel)), pixel, atol=1e-8)


@given(pixels)
def test_distortion_is_undone_by_the_rays(pixel):
    camera = Camera.from_dict(GOOD | {"distortion": [-0.5, 0.1, 0.002, -0.001, 0.0]})
    np.testing.assert_allclose(camera.project(700 * camera.rays(pixel)), pixel, atol=1e-6)


@given(pixels)
def test_scaling_keeps_pixel_centres_at_integers(pixel):
    camera = Camera.from_dict(GOOD)
    small = camera.scaled(0.25)
    point = 700 * camera.rays(pixel)
    np.testing.assert_allclose(small.project(point), (pixel + 0.5) / 4 - 0.5, atol=1e-9)


def test_a_point_behind_the_source_has_no_image():
    assert np.isnan(Camera.from_dict(GOOD).project([0, 0, -5])).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"K": [[-1.2, 0, 500], [0, 3400, 500], [0, 0, 1]]}, r"K\[0\]\[0\] is -1.2; the horizontal focal length"),
        ({"K": [[0, 0, 0]] * 3}, r"K\[0\]\[0\] is 0"),
        ({"K": [[3400, 0], [0, 3400]]}, "K"),
        ({"rows": 0}, "rows"),
        ({"colour": "red"}, "colour"),
        ({"T_camera_world": np.diag([1.0, 1, -1, 1]).tolist()}, "T_camera_world"),
        ({"distortion": [0.1]}, "distortion"),
    ],
)
def test_a_wrong_camera_file_is_refused_by_field(change, said):
    with pytest.raises(CameraError, match=said):
        Camera.from_dict(GOOD | change, name="carm.yaml")


def test_a_missing_camera_file_is_named(tmp_path):
    with pytest.raises(CameraError, match="nothing.yaml"):
        Camera.load(tmp_path / "nothing.yaml")


def test_at_zero_angles_the_patients_left_is_right_in_the_image_and_the_head_is_up():
    camera = Camera.from_dict(GOOD)
    T = CArmPose((10, 20, 30), 600).T_camera_ct()
    middle, left, head = camera.project(transform_points(T, [[10, 20, 30], [15, 20, 30], [10, 20, 35]]))
    np.testing.assert_allclose(middle, [511.5, 500], atol=1e-9)
    assert left[0] > middle[0] + 10 and abs(left[1] - middle[1]) < 1e-9
    assert head[1] < middle[1] - 10 and abs(head[0] - middle[0]) < 1e-9


@given(st.floats(-90, 90), st.floats(-40, 40), st.floats(-180, 180))
def test_the_arm_turns_about_the_isocentre(orbital, angular, swivel):
    T = CArmPose((10, 20, 30), 600, orbital, angular, swivel).T_camera_ct()
    assert is_rigid(T)
    np.testing.assert_allclose(transform_points(T, [10, 20, 30]), [0, 0, 600], atol=1e-9)


def test_a_positive_orbital_angle_moves_the_detector_to_the_patients_left():
    T = CArmPose((0, 0, 0), 600, orbital_deg=30).T_camera_ct()
    to_detector_ct = T[:3, :3].T @ [0, 0, 1]
    assert to_detector_ct[0] > 0.4
    T = CArmPose((0, 0, 0), 600, angular_deg=30).T_camera_ct()
    assert (T[:3, :3].T @ [0, 0, 1])[2] > 0.4
