"""What is no instrument does not look like the end of one."""

from __future__ import annotations

import numpy as np
import pytest

from fluoronav.geometry import Camera
from fluoronav.lab.simulation.distractors import _implant, cable_px, distract, end_of_cable
from fluoronav.paths import shipped


@pytest.fixture(scope="module")
def camera() -> Camera:
    return Camera.load(shipped("calibration/demo-carm.yaml")).scaled(0.25)


@pytest.mark.parametrize("seed", range(25))
def test_a_cable_that_begins_in_the_field_ends_outside_it(camera, seed):
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 1, 2) * [camera.cols, camera.rows]
    points = cable_px(rng, start, camera)
    assert (points[0] == start).all()
    assert not ((points[-1] >= 0) & (points[-1] < [camera.cols, camera.rows])).all()


@pytest.mark.parametrize("seed", range(12))
def test_where_it_begins_there_is_more_than_the_cable(seed):
    rng = np.random.default_rng(seed)
    at, width, mm = np.array([128.0, 128.0]), 4.0, 0.3
    steel = np.zeros((256, 256), np.float32)
    end_of_cable(rng, steel, 1.0, at, np.array([1.0, 0.0]), width, mm)
    own = mm * width**2  # of as much of the cable as it is wide
    assert steel[96:161, 96:161].sum() > 1.5 * own


def test_metal_is_added_and_never_taken_away(camera):
    rng = np.random.default_rng(5)
    field_mask = np.ones((camera.rows, camera.cols), bool)
    nothing = np.zeros((camera.rows, camera.cols), np.float32)
    drawn = 0
    for _ in range(20):
        steel = distract(rng, camera, nothing, field_mask)
        assert (steel >= 0).all()
        drawn += bool((steel > 0).any())
    assert drawn > 12


def test_what_lies_about_goes_on_behind_an_instrument(camera):
    """Regression: a wire had a gap where an instrument had been in the first frame, with two bare ends to it."""
    field_mask = np.ones((camera.rows, camera.cols), bool)
    nothing = np.zeros((camera.rows, camera.cols), np.float32)
    behind = 0
    for seed in range(30):
        bare = distract(np.random.default_rng(seed), camera, nothing, field_mask)
        instruments = nothing.copy()
        at = np.unravel_index(bare.argmax(), bare.shape)
        instruments[at] = 0.29  # no retractor need be left out for its sake
        np.testing.assert_array_equal(distract(np.random.default_rng(seed), camera, instruments, field_mask), bare)
        behind += bool(bare[at] > 0)
    assert behind > 20


class OfKind:
    """A generator whose first choice among kinds is made."""

    def __init__(self, seed, kind):
        self._rng, self._kind = np.random.default_rng(seed), kind

    def __getattr__(self, name):
        return getattr(self._rng, name)

    def integers(self, *of):
        return self._kind if of == (3,) else self._rng.integers(*of)


@pytest.mark.parametrize("seed", range(40))
def test_of_a_screw_that_stays_the_head_is_in_view_or_nothing(seed):
    field_mask = np.hypot(*np.mgrid[-127.5:128, -127.5:128]) < 90
    steel = np.zeros((256, 256), np.float32)
    rng = OfKind(seed, 2)
    _implant(rng, steel, 0.25, field_mask, lambda: rng.uniform(20, 236, 2))
    assert not steel.any() or steel[field_mask].max() >= 5


@pytest.mark.parametrize("seed", range(40))
def test_a_rod_has_heads_at_its_ends_or_near_them(seed):
    steel = np.zeros((512, 512), np.float32)
    _implant(OfKind(seed, 0), steel, 0.5, np.ones_like(steel, bool), lambda: np.array([256.0, 256.0]))
    rows, cols = np.nonzero(steel)
    off = np.stack([cols, rows], 1) - 255.5
    _, axes = np.linalg.eigh(off.T @ off)
    along = off @ axes[:, 1]
    heads = along[steel[rows, cols] >= 4 - 1e-3]
    overhang = max(along.max() - heads.max(), heads.min() - along.min())
    assert heads.min() < 0 < heads.max() and overhang < 0.5 * (35 + 13) + 2
