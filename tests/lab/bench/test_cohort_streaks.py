"""A CT with steel in it: the simulated scanner against closed forms."""

import numpy as np
import pytest
import SimpleITK as sitk

from fluoronav.lab.bench.cohort.hardware import Cylinder
from fluoronav.lab.bench.cohort.physics import IRON, Beam, Tube
from fluoronav.lab.bench.cohort.streaks import metal_share, reconstructed, sinogram, slice_streaks_hu


def disc(shape, middle, radius):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return ((x - middle[0]) ** 2 + (y - middle[1]) ** 2 < radius**2).astype(np.float32)


def test_a_disc_is_reconstructed_where_it_was_with_its_density():
    image = 0.2 * disc((91, 120), (70, 40), 25)
    found = reconstructed(sinogram(image, 2.0)[..., 0], 2.0, image.shape)
    assert found[20:60, 52:88][disc((91, 120), (70, 40), 18)[20:60, 52:88] > 0] == pytest.approx(0.2, abs=0.01)
    assert abs(found[disc((91, 120), (70, 40), 29) == 0]).max() < 0.02


def test_a_sinogram_holds_chords_in_cm():
    chords = sinogram(disc((101, 101), (50, 50), 40), 1.0)[..., 0]
    assert chords.max(1) == pytest.approx(8.0, abs=0.2)


def test_steel_leaves_dark_bands_between_two_rods_and_nothing_without_it():
    body = np.where(disc((160, 160), (80, 80), 70) > 0, 40, -1000).astype(np.float32)
    rods = disc((160, 160), (55, 80), 4) + disc((160, 160), (105, 80), 4)
    beam = Beam.of(Tube(kvp=120.0))
    streaks = slice_streaks_hu(body, rods, 2.0, beam, np.random.default_rng(0))
    assert streaks[80, 70:90].mean() < -100 < 0 < streaks[60, 45:65].mean()
    none = slice_streaks_hu(body, np.zeros_like(rods), 2.0, beam, np.random.default_rng(0))
    assert abs(none).max() < 1e-3


def test_a_cylinder_fills_its_volume_in_a_turned_image():
    image = sitk.Image([60, 50, 40], sitk.sitkInt16)
    image.SetSpacing([1.0, 1.0, 2.0])
    image.SetOrigin([30.0, 20.0, -10.0])
    image.SetDirection([-1, 0, 0, 0, 1, 0, 0, 0, 1])
    share = metal_share(image, [Cylinder((5.0, 30.0, 10.0), (-15.0, 55.0, 40.0), 4.0, IRON)])
    length = np.linalg.norm([20, 25, 30])
    assert 2 * share.sum() == pytest.approx(np.pi * 16 * length, rel=0.05)
    at = np.argwhere(share > 0.5)[:, ::-1].mean(0)
    assert image.TransformContinuousIndexToPhysicalPoint(at.tolist()) == pytest.approx((-5, 42.5, 25), abs=1)
