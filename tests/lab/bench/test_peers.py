"""`bench peers` where its extra is not installed, and what it counts as a sample."""

import sys

import numpy as np
import pytest

from fluoronav.geometry import Camera
from fluoronav.imaging.projector import AttenuationGrid, padded_rays
from fluoronav.lab.bench.peers import PeersMissing, _centred, _samples, bench_peers


def test_without_the_extra_it_says_what_to_install(case, monkeypatch):
    for name in ("itk", "diffdrr"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(PeersMissing, match=r"pip install 'fluoronav\[peers\]'"):
        bench_peers(case, 1)


def test_a_sample_is_one_slice_for_one_ray():
    """A narrow beam along z through 40 slices of 1 mm: every ray takes 39 or 40 samples, the whole block alike."""
    grid = _centred(AttenuationGrid(np.ones((30, 40, 30), np.float32), np.zeros(3), 1.0))
    assert grid.voxels.shape == (40, 30, 30)
    T = np.eye(4)
    T[2, 3] = 600
    camera = Camera(8, 16, np.array([[2000.0, 0, 7.5], [0, 2000, 3.5], [0, 0, 1]]))
    directions, count = padded_rays(camera.rays(camera.pixel_grid()))
    assert count == 128
    assert _samples(grid, T, directions) == pytest.approx(128 * 40, rel=0.05)
