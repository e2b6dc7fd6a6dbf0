"""The pieces that the network of the spine is trained on (engines/training/spine_scans.py)."""

import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

torch = pytest.importorskip("torch", reason="pieces are tensors: pip install 'fluoronav[train]'")
sys.path.insert(0, str(Path(__file__).parents[3] / "engines/training"))
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
    torch.manual_seed(seed)
    return [scans.piece(source, rng) for _ in range(count)]


def test_pieces_follow_from_the_seed(vertebra):
    for (hu, classes), (again, also) in zip(pieces(vertebra, 2), pieces(vertebra, 2), strict=True):
        torch.testing.assert_close(hu, again, equal_nan=True)
        assert torch.equal(classes, also)


def test_what_lies_outside_the_scan_is_not_asked_and_everything_else_has_a_value(vertebra):
    for hu, classes in pieces(vertebra, 4):
        assert hu.shape == (1, 1, scans.SIDE, scans.SIDE, scans.SIDE)
        assert torch.equal(hu[0, 0].isnan(), classes[0] == scans.NOT_ASKED)
        assert set(np.unique(classes)) <= {0, 1, 2, scans.NOT_ASKED}


def test_a_vertebra_has_the_volume_of_its_label_whatever_it_is_moved_by(vertebra):
    """Sizes are drawn around 1, and some pieces hold a part of it alone."""
    true_mm3 = np.pi * (20**2 - 8**2) * 23
    found = [scans.SPACING_MM**3 * int((classes == 1).sum()) for _, classes in pieces(vertebra, 12)]
    assert 0.6 < np.median(found) / true_mm3 < 1.4


def test_the_canal_is_no_bone(vertebra):
    codes = vertebra.codes[0, 0].numpy()
    middle = np.array(codes.shape) // 2
    assert codes[tuple(middle)] == scans.CANAL
