"""The ray march: against closed forms, finite differences and an independent trilinear march."""

import cv2
import numpy as np
import pytest

from fluoronav.geometry import Camera, CArmPose, inverse, moved_about
from fluoronav.imaging.projector import AttenuationGrid, Projector, attenuation_of_hu, padded_rays
from fluoronav.imaging.projector.attenuation import AXES, PADDING
from fluoronav.lab.simulation.xray import Scan

CAMERA = Camera(64, 64, np.array([[500.0, 0, 31.5], [0, 500, 31.5], [0, 0, 1]]))
VIEWS = [(3, 2, 0), (80, 5, 20), (20, -70, 0), (200, 10, 90), (30, 0, 10)]


def blob(n=180, sigma=18.0, centre=(92, 88, 90), spacing=0.7):
    """A smooth asymmetric lump that is exactly zero at the border."""
    z, y, x = np.meshgrid(*[np.arange(n, dtype=np.float32)] * 3, indexing="ij")
    r2 = ((x - centre[0]) / 1.4) ** 2 + (y - centre[1]) ** 2 + ((z - centre[2]) / 1.2) ** 2
    mu = 0.03 * np.exp(-r2 / 2 / sigma**2) * (1 + 0.3 * np.tanh((x - centre[0] + y - centre[1]) / 30))
    mu[mu < 1e-6] = 0
    return AttenuationGrid(mu.astype(np.float32), np.array([-60.0, -50, -70]), spacing)


@pytest.fixture(scope="module")
def grid():
    return blob()


@pytest.mark.parametrize("view", VIEWS)
def test_derivatives_agree_with_central_differences(grid, view):
    projector = Projector(grid)
    T = CArmPose(tuple(grid.centre_ct), 600, *view).T_camera_ct()
    centre = grid.centre_ct + [5, -3, 2]
    directions, _ = padded_rays(CAMERA.rays(CAMERA.pixel_grid()))
    out = np.empty((7, directions.shape[1]), np.float32)
    projector.line_integrals_and_derivatives(T, directions, centre, out)
    for i in range(6):
        # The steps span a voxel, over which the piecewise linear volume has the slope of the smooth one.
        twist = np.zeros(6)
        twist[i] = 0.01 if i < 3 else 0.5
        ahead, behind = (
            projector.render(inverse(moved_about(centre, s * twist) @ inverse(T)), CAMERA).ravel().astype(float)
            for s in (1, -1)
        )
        numeric = (ahead - behind) / (2 * twist[i])
        error = np.abs(numeric - out[1 + i])
        scale = np.abs(numeric).max()
        assert np.median(error[np.abs(numeric) > 0.05 * scale]) < 2e-3 * scale
        # A few rays meet the grid in step with it, where a piecewise linear volume is worst at slopes.
        assert np.sqrt((error**2).mean()) < 1e-2 * scale


def test_plain_and_differentiated_marches_give_the_same_image(grid):
    projector = Projector(grid)
    T = CArmPose(tuple(grid.centre_ct), 600, 30, 10).T_camera_ct()
    directions, count = padded_rays(CAMERA.rays(CAMERA.pixel_grid()))
    out = np.empty((7, directions.shape[1]), np.float32)
    projector.line_integrals_and_derivatives(T, directions, grid.centre_ct, out)
    np.testing.assert_allclose(out[0, :count].reshape(64, 64), projector.render(T, CAMERA), atol=1e-5)


def test_a_box_of_water_has_the_thickness_of_the_box():
    mu = np.full((60, 50, 40), 0.02, np.float32)
    grid = AttenuationGrid(mu, np.zeros(3), 1.0)
    T = CArmPose(tuple(grid.centre_ct), 600).T_camera_ct()
    drr = Projector(grid).render(T, CAMERA)
    # 50 samples of 1 mm along y at the middle; voxels hold their value from centre to centre.
    assert drr[31, 31] == pytest.approx(0.02 * 50, rel=1e-3)
    assert drr[0, 0] == 0 or drr.min() >= 0


@pytest.mark.parametrize("view", VIEWS)
def test_two_threads_and_one_give_the_same_image(grid, view):
    T = CArmPose(tuple(grid.centre_ct), 600, *view).T_camera_ct()
    np.testing.assert_array_equal(Projector(grid, threads=2).render(T, CAMERA), Projector(grid).render(T, CAMERA))


@pytest.mark.parametrize("view", [(0, 0, 0), (90, 0, 0), (30, 20, 0)])
def test_the_image_agrees_with_an_independent_trilinear_march(rng, view):
    """Joseph's method against the simulator's half-millimetre trilinear steps, through the same soft tissue."""
    hu = cv2.blur(rng.uniform(-1000, 1200, (70 * 60, 50)).astype(np.float32), (5, 5)).reshape(70, 60, 50)
    hu = np.clip(hu, -1000, 100).astype(np.int16)
    grid = AttenuationGrid(attenuation_of_hu(hu), np.array([1.0, 2, 3]), 1.0)
    T = CArmPose(tuple(grid.centre_ct), 600, *view).T_camera_ct()
    drr = Projector(grid).render(T, CAMERA)
    scan = Scan(hu, grid.origin_ct, np.ones(3), 0.5)
    directions, count = padded_rays(CAMERA.rays(CAMERA.pixel_grid()))
    paths = np.zeros((2, directions.shape[1]), np.float32)
    scan.add_paths(T, directions, paths, np.array([[-100.0] * 3, [200.0] * 3]), 8.0, True)
    trilinear = 0.206 * paths[0, :count].reshape(64, 64)
    whole = drr > 0.6 * drr.max()
    assert np.sqrt(((drr - trilinear)[whole] ** 2).mean()) < 0.01 * drr.max()


def test_rays_that_miss_the_volume_are_zero(grid):
    T = CArmPose(tuple(grid.centre_ct + np.array([900.0, 0, 0])), 600).T_camera_ct()
    assert Projector(grid).render(T, CAMERA).max() == 0


def test_handedness_a_lump_on_the_patients_left_appears_on_the_right_of_the_image():
    mu = np.zeros((40, 40, 40), np.float32)
    mu[25:30, 18:22, 30:36] = 0.02  # high x: left; high z: towards the head
    grid = AttenuationGrid(mu, np.zeros(3), 1.0)
    drr = Projector(grid).render(CArmPose(tuple(grid.centre_ct), 600).T_camera_ct(), CAMERA)
    row, col = np.unravel_index(drr.argmax(), drr.shape)
    assert col > 36 and row < 28


@pytest.mark.parametrize(
    ("voxels", "said"),
    [
        (np.zeros((4, 4, 4), np.float32), "empty"),
        (np.full((4, 4, 4), np.nan, np.float32), "finite"),
        (np.ones((1, 4, 4), np.float32), "at least 2"),
    ],
)
def test_a_volume_that_cannot_be_projected_is_refused(voxels, said):
    with pytest.raises(ValueError, match=said):
        AttenuationGrid(voxels, np.zeros(3), 1.0)


def test_attenuation_rises_with_density_and_is_never_negative():
    mu = attenuation_of_hu(np.array([-2000.0, -1000, 0, 100, 1000, 3000]))
    assert (np.diff(mu) >= 0).all() and mu[0] == mu[1] == 0
    assert mu[2] == pytest.approx(0.0206)
    assert mu[4] > 2 * mu[2]


@pytest.mark.parametrize("dominant", [0, 1, 2])
def test_a_packed_word_holds_a_voxel_and_its_neighbour_along_u(rng, dominant):
    voxels = rng.uniform(-0.01, 0.05, (7, 9, 11)).astype(np.float32)
    grid = AttenuationGrid(voxels, np.zeros(3), 1.0)
    steps = np.rint(np.clip(voxels, 0, None) / np.float32(grid.scale)).astype(np.int32)
    u, v, k = AXES[dominant]
    padded = np.pad(steps.transpose(2, 1, 0).transpose(v, u, k), PADDING)

    words = grid.packed(dominant)

    np.testing.assert_array_equal(words & 0xFFFF, padded)
    np.testing.assert_array_equal(words[:, :-1] >> 16, padded[:, 1:])
    assert not (words[:, -1] >> 16).any()
