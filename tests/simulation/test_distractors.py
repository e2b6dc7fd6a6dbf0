"""What is no instrument does not look like the end of one."""

from __future__ import annotations

import numpy as np
import pytest

from fluoronav.geometry import Camera
from fluoronav.paths import shipped
from fluoronav.simulation.distractors import cable_px, distract, end_of_cable


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
    seen = np.ones((camera.rows, camera.cols), bool)
    before = np.full((camera.rows, camera.cols), 0.2, np.float32)
    drawn = 0
    for _ in range(20):
        steel = before.copy()
        distract(rng, camera, steel, seen)
        assert (steel >= before).all()
        drawn += bool((steel > before).any())
    assert drawn > 12
