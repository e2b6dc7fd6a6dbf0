"""The pieces that the network of the spine is trained on (engines/training/spine_scans.py)."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

TRAINING = Path(__file__).parents[3] / "engines/training"
sys.path.insert(0, str(TRAINING))
import spine_scans as scans  # noqa: E402


@pytest.fixture(scope="module")
def vertebra(tmp_path_factory):
    """A ring, as a vertebra is with its canal."""
    z, y, x = np.mgrid[:60, :60, :60]
    away = np.hypot(y - 30, x - 30)
    image = sitk.GetImageFromArray(((away < 20) & (away > 8) & (abs(z - 30) < 12)).astype(np.uint8))
    path = tmp_path_factory.mktemp("mask") / "mask.nii.gz"
    sitk.WriteImage(image, str(path))
    return scans.mask_alone(path)


def pieces(source, count, seed=1):
    rng = np.random.default_rng(seed)
    return [scans.piece(source, rng) for _ in range(count)]


def test_pieces_follow_from_the_seed(vertebra):
    for (hu, classes), (again, also) in zip(pieces(vertebra, 2), pieces(vertebra, 2), strict=True):
        np.testing.assert_array_equal(hu, again)
        np.testing.assert_array_equal(classes, also)


def test_what_lies_outside_the_scan_is_not_asked_and_everything_else_has_a_value(vertebra):
    for hu, classes in pieces(vertebra, 4):
        assert hu.shape == classes.shape == (scans.SIDE,) * 3
        assert (hu.dtype, classes.dtype) == (np.float32, np.uint8)
        np.testing.assert_array_equal(np.isnan(hu), classes == scans.NOT_ASKED)
        assert set(np.unique(classes)) <= {0, 1, 2, scans.NOT_ASKED}


def test_a_vertebra_has_the_volume_of_its_label_whatever_it_is_moved_by(vertebra):
    """Sizes are drawn around 1, and some pieces hold a part of it alone."""
    true_mm3 = np.pi * (20**2 - 8**2) * 23
    found = [scans.SPACING_MM**3 * int((classes == 1).sum()) for _, classes in pieces(vertebra, 12)]
    assert 0.6 < np.median(found) / true_mm3 < 1.4


def test_the_canal_is_no_bone(vertebra):
    middle = np.array(vertebra.codes.shape) // 2
    assert vertebra.codes[tuple(middle)] == scans.CANAL


def test_a_ramp_stays_a_ramp_when_it_is_resized():
    ramp = np.broadcast_to(np.arange(5, dtype=np.float32), (5, 5, 5))
    np.testing.assert_allclose(scans._enlarged(ramp)[3, 7], np.linspace(0, 4, scans.SIDE), atol=1e-5)
    cells = scans._resized(ramp, [scans._linear(5, 10, ends_meet=False)] * 3)[0, 0]
    np.testing.assert_allclose(cells, np.clip(np.arange(10) / 2 - 0.25, 0, 4), atol=1e-6)
    np.testing.assert_allclose(3 * scans._means(5, 2), [[1, 1, 1, 0, 0], [0, 0, 1, 1, 1]], atol=1e-6)


def test_the_pieces_need_no_pytorch():
    """Regression: these tests were left out wherever PyTorch was not installed."""
    code = "import sys; sys.modules['torch'] = None; import spine_scans"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=TRAINING)
