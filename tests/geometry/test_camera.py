"""The C-arm camera: projection, scaling, joints and refusals."""

import os

import cv2
import numpy as np
import pytest
import yaml
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


def K_of(fx=3400.0, fy=3410.0, x=511.5, y=500.0, skew=0.0):
    return [[fx, skew, x], [0, fy, y], [0, 0, 1]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"K": K_of(fx=1e-300)}, r"carm.yaml: K\[0\]\[0\] is 1e-300, .* times the image's longer side"),
        ({"K": K_of(fy=1e9)}, r"K\[1\]\[1\] is 1e\+09"),
        ({"K": K_of(fx=float("nan"))}, r"K\.0\.0: .*finite.*nan"),
        ({"K": K_of(x=float("inf"))}, r"K\.0\.2"),
        ({"K": K_of(x=-800.0)}, r"K\[0\]\[2\] is -800, .* off the middle \(cols is 1024\)"),
        ({"K": K_of(y=1e12)}, r"K\[1\]\[2\] is 1e\+12"),
        ({"K": K_of(fx=7000.0, fy=2000.0)}, "no detector's pixels are 3.5 times as long as wide"),
        ({"K": K_of(skew=900.0)}, r"K\[0\]\[1\] is 900"),
        ({"rows": 4096, "cols": 4096}, "rows, cols and K must be of the same image"),
        ({"rows": 2048, "cols": 2048}, "rows, cols and K must be of the same image"),
        ({"rows": 64, "cols": 64}, "rows, cols and K must be of the same image"),
        ({"rows": 8000, "cols": 8000, "K": K_of(26000.0, 26000.0, 4000.0, 4000.0)}, "more than 33554432 pixels"),
        ({"rows": 16384}, "rows: .* less than or equal to 8192 .*16384"),
        ({"distortion": [float("nan"), 0, 0, 0]}, "distortion.0"),
        ({"distortion": [500.0, 0, 0, 0]}, "distortion moves the image's border"),
        ({"distortion": [-1e200, 0, 0, 0]}, "distortion"),
        ({"T_camera_world": [[1, 0, 0, 1e6], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, "moves by 1e\\+06 mm"),
        ({"T_camera_world": [[1, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, "not a rigid"),
        ({"T_camera_world": [[1, 0, 0, float("nan")], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, "T_camera_world.0.3"),
        ({"sdd_mm": 1.0}, "sdd_mm"),
    ],
)
def test_a_camera_that_no_c_arm_has_is_refused_by_field_and_value(change, said):
    with pytest.raises(CameraError, match=said):
        Camera.from_dict(GOOD | change, name="carm.yaml")


@pytest.mark.parametrize(
    "change",
    [
        {"K": K_of(fx=6800.0)},  # binned along the rows
        {"K": K_of(fx=34000.0, fy=34000.0)},  # zoomed ten times
        {"K": K_of(x=300.0, y=700.0)},
        {"distortion": [-0.5, 0.1, 0.002, -0.001, 0.0]},
    ],
)
def test_unusual_cameras_are_taken(change):
    assert Camera.from_dict(GOOD | change).rows == 1024


@pytest.mark.filterwarnings("error")
def test_a_camera_file_that_is_a_pipe_a_folder_or_huge_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(CameraError, match=r"pipe\.yaml: is a named pipe"):
        Camera.load(tmp_path / "pipe.yaml")
    with pytest.raises(CameraError, match="is a folder"):
        Camera.load(tmp_path)
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(2**32)
    with pytest.raises(CameraError, match="has 4294967296 bytes"):
        Camera.load(tmp_path / "huge.yaml")
    (tmp_path / "deep.yaml").write_text("[" * 10_000)
    with pytest.raises(CameraError, match=r"deep\.yaml"):
        Camera.load(tmp_path / "deep.yaml")


def test_a_detector_calibration_that_is_no_file_is_refused_with_the_camera_file(tmp_path):
    os.mkfifo(tmp_path / "panel.npz")
    (tmp_path / "carm.yaml").write_text(yaml.safe_dump(GOOD | {"detector": "panel.npz"}))
    with pytest.raises(CameraError, match=r"carm\.yaml: detector: .*panel\.npz: is a named pipe"):
        Camera.load(tmp_path / "carm.yaml")


def test_a_camera_is_called_by_its_own_name_and_by_its_files(tmp_path):
    (tmp_path / "carm.yaml").write_text(yaml.safe_dump(GOOD | {"name": "theatre 3", "sdd_mm": 1000}))
    camera = Camera.load(tmp_path / "carm.yaml")
    assert camera.names == ("theatre 3", "carm", "carm.yaml") and camera.sdd_mm == 1000


@pytest.mark.parametrize("larger", [1.5, 2.0])
def test_a_camera_that_is_larger_than_its_k_is_refused(larger):
    """Regression: the matrix of a 1024 image with the size of another started as ready."""
    side = round(1024 * larger)
    content = {"rows": side, "cols": side, "K": [[3413.0, 0, 511.5], [0, 3413.0, 511.5], [0, 0, 1]]}
    with pytest.raises(CameraError, match="same image"):
        Camera.from_dict(content, name="camera.yaml")


@pytest.mark.parametrize("distortion", [[0.9, -8.0, 0.002, -0.001], [-0.5, 0.1, 0.002, -0.001, 0, 0.1, 0.2, 0.1]])
def test_distortion_is_that_of_opencv_and_undone_to_a_billionth_of_a_pixel(rng, distortion):
    camera = Camera.from_dict(GOOD | {"distortion": distortion})
    pixels = rng.uniform(0, 1023, (30, 40, 2))
    points = 700 * camera.rays(pixels)
    projected = cv2.projectPoints(points.reshape(-1, 1, 3), np.zeros(3), np.zeros(3), np.array(K), camera.distortion)[0]
    np.testing.assert_allclose(projected.reshape(30, 40, 2), pixels, atol=1e-9)
    np.testing.assert_allclose(camera.project(points), pixels, atol=1e-9)
    assert camera.rays(np.empty((0, 2))).shape == (0, 3)
