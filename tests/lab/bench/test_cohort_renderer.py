"""The cohort's X-ray renderer against closed forms."""

import numpy as np
import pytest

from fluoronav.geometry import Camera, CArmPose
from fluoronav.lab.bench.cohort.panel import Blade, Panel, as_video, counts_of, field_px
from fluoronav.lab.bench.cohort.physics import (
    DENSITY_G_CM3,
    MATERIALS,
    SOFT,
    Beam,
    Tube,
    coded,
    densities_g_cm3,
    mass_attenuation_cm2_g,
)
from fluoronav.lab.bench.cohort.rays import add_voxels, cylinder_mm, pixel_rays
from fluoronav.paths import shipped

WATER = densities_g_cm3()[coded(np.array([0]))[0]]  # partial densities of a voxel of 0 HU


def rays_through(points, source):
    d = np.asarray(points, float) - source
    return (d / np.linalg.norm(d, axis=1, keepdims=True)).astype(np.float32)


def path_mm(hu, spacing, origin, source, directions):
    """Length in water, mm, of a volume that holds air and water."""
    paths = np.zeros((len(MATERIALS), len(directions)), np.float32)
    add_voxels(coded(hu), densities_g_cm3(), origin, spacing, np.asarray(source, float), directions, paths)
    assert not paths[1:].any()
    return 10 * paths[0] / WATER[0]


def test_a_slab_is_as_long_as_the_ray_is_slanted():
    hu = np.full((20, 30, 40), -1024)
    hu[:, 5:25, :] = 0
    source = np.array([30.0, -500.0, 15.0])
    points = np.array([[x, 22.0, z] for x in (20.0, 29.7, 38.0) for z in (12.0, 17.3)])
    directions = rays_through(points, source)
    found = path_mm(hu, 1.5, (0, 0, 0), source, directions)
    assert found == pytest.approx(20 * 1.5 / directions[:, 1], rel=1e-5)


def test_a_ray_along_a_row_of_voxels_crosses_all_of_it():
    hu = np.zeros((5, 5, 8), int)
    found = path_mm(hu, 2.0, (0, 0, 0), [-100.0, 4.0, 4.0], np.array([[1.0, 0, 0]], np.float32))
    assert found == pytest.approx(16, rel=1e-6)


def test_a_ray_beside_the_volume_crosses_nothing():
    hu = np.zeros((5, 5, 8), int)
    assert path_mm(hu, 2.0, (0, 0, 0), [-100.0, 40.0, 4.0], np.array([[1.0, 0, 0]], np.float32)) == 0


def test_a_ball_of_voxels_has_the_chords_of_a_ball():
    n, radius = 81, 35.0
    z, y, x = np.mgrid[:n, :n, :n] - n // 2
    hu = np.where(x**2 + y**2 + z**2 <= radius**2, 0, -1024)
    source = np.array([0.0, 0.0, -600.0])
    aside = np.array([0.0, 10, 20, 30])
    directions = rays_through([[a, 0.3 * a, 0] for a in aside], source)
    found = path_mm(hu, 1.0, (-(n // 2),) * 3, source, directions)
    nearest = np.linalg.norm(np.cross(directions, source), axis=1)
    assert found == pytest.approx(2 * np.sqrt(radius**2 - nearest**2), abs=1.2)


@pytest.mark.parametrize("begin, end", [((0, 0, -20), (0, 0, 20)), ((-15, 3, 2), (18, -4, 9))])
def test_a_cylinder_has_its_volume(begin, end):
    """Parallel rays on a grid: the sum of the lengths times a grid cell's area is the volume."""
    step, radius = 0.25, 4.0
    at = np.mgrid[-30:30:step, -30:30:step].reshape(2, -1)
    # So far away that rays are parallel.
    source = np.array([0.0, 0.0, -2e4])
    directions = rays_through(np.stack([at[0], at[1], 0 * at[0]], 1), source).astype(np.float64)
    found = cylinder_mm(begin, end, radius, source, directions)
    volume = np.pi * radius**2 * np.linalg.norm(np.subtract(end, begin))
    assert found.sum() * step**2 == pytest.approx(volume, rel=0.015)


def test_a_cylinder_is_as_thick_as_it_is_and_as_long():
    source = np.array([0.0, 0.0, -500.0])
    across = cylinder_mm((-30, 0, 0), (30, 0, 0), 3, source, np.array([[0, 0, 1.0]]))
    along = cylinder_mm((0, 0, -30), (0, 0, 30), 3, source, np.array([[0, 0, 1.0]]))
    assert across == pytest.approx(6) and along == pytest.approx(60)


def test_rays_go_through_the_middles_of_blocks_of_pixels():
    camera = Camera.load(shipped("calibration/demo-carm.yaml"))
    T = CArmPose((3, 90, -150), 620, 20, -7, 4).T_camera_ct()
    source, directions = pixel_rays(np.asarray(camera.K), camera.rows, camera.cols, T, 2.0)
    points = source + 700 * directions[[0, 100, 511], [0, 300, 511]].astype(float)
    px = camera.project(points @ T[:3, :3].T + T[:3, 3])
    assert px == pytest.approx(np.array([[0.5, 0.5], [600.5, 200.5], [1022.5, 1022.5]]), abs=1e-3)


def test_one_energy_is_attenuated_by_the_law_of_lambert_and_beer():
    beam = Beam.of_one_energy(60.0)
    paths = np.zeros((len(MATERIALS), 3), np.float32)
    paths[SOFT] = [0, 5, 20]
    assert beam.transmitted(paths) == pytest.approx(np.exp(-0.2048 * paths[SOFT]), rel=1e-5)
    assert beam.noise_gain == pytest.approx(1)


def test_a_spectrum_hardens_behind_water():
    beam = Beam.of(Tube())
    assert beam.signal.sum() == pytest.approx(1) and 1 < beam.noise_gain < 1.2
    paths = np.zeros((len(MATERIALS), 2), np.float32)
    paths[SOFT] = [1, 30]
    effective = -np.log(beam.transmitted(paths)) / paths[SOFT]
    assert 0.17 < effective[1] < effective[0] < 0.27
    mean_kev = float((beam.kev * beam.signal).sum())
    assert 45 < mean_kev < 60  # of a beam of 80 kV behind 3 mm Al and 0.1 mm Cu, by absorbed energy


@pytest.mark.parametrize(
    ("material", "kev", "value"), [("iodine", 33.0, 6.63), ("iodine", 33.3, 35.5), ("bone", 60, 0.3148)]
)
def test_mass_attenuation_is_that_of_nist(material, kev, value):
    assert float(mass_attenuation_cm2_g(material, kev)) == pytest.approx(value, rel=0.02)


def test_materials_attenuate_a_cts_beam_as_its_numbers_say():
    densities = densities_g_cm3()
    mu = mass_attenuation_cm2_g("water", 70.0)
    parts = np.array([mass_attenuation_cm2_g(m, 70.0) for m in ("soft", "bone", "iodine")])
    for hu in (-1000, -700, -90, 0, 60, 300, 1000, 2500):
        for code in {int(coded(np.array([hu]))[0]), int(coded(np.array([hu]), np.array([hu > 100]))[0])}:
            assert densities[code] @ parts == pytest.approx(mu * (1 + hu / 1000), abs=2e-5)
    assert DENSITY_G_CM3["bone"] == 1.92


def test_counts_have_the_level_the_dark_and_the_noise_of_the_panel():
    panel = Panel(scatter=0, light_px=0.01, glare=0, heel=0, gain_pattern=0, dark_pattern=0, electronic_photons=0)
    counts = counts_of(np.full((256, 256), 0.2, np.float32), (), panel, 1.1, np.random.default_rng(0)).astype(float)
    per_photon = panel.level * (2**panel.bits - 1) / panel.photons
    assert counts.mean() == pytest.approx(panel.dark + panel.photons * per_photon, rel=0.01)
    assert counts.var() == pytest.approx(1.1 * panel.photons * per_photon**2, rel=0.05)


def test_scatter_reaches_behind_the_blades_and_their_leak_adds_to_it():
    blade = (Blade(0.0, 0.0),)
    image = np.full((256, 256), 0.1, np.float32)
    tight, leaking = (
        counts_of(image, blade, Panel(blade_leak=leak), 1.0, np.random.default_rng(1))[:, 200:].mean()
        for leak in (0.0, 0.02)
    )
    assert Panel().dark + 20 < tight < leaking
    beam = field_px(blade, 256, 256, Panel())
    assert beam[:, 100].min() == pytest.approx(1) and beam[:, 160].max() == pytest.approx(Panel().blade_leak)


def test_a_video_signal_has_8_bits_from_dark_to_bright():
    counts = np.linspace(180, 9000, 10_000).astype(np.uint16).reshape(100, 100)
    video = as_video(counts, 180.0)
    assert video.dtype == np.uint8 and video.min() == 0 and video.max() == 255
