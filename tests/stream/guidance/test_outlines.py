"""Where a structure's surface is, which its silhouette is made of."""

import numpy as np
import pytest

from fluoronav.case.no_go import Box, Capsule, NoGo, Sphere
from fluoronav.case.surfaces import surface_points
from fluoronav.stream.guidance.outlines import OutlineModel

SHAPES = {
    "sphere": {"sphere": Sphere(centre_ct=(10, -20, 30), radius_mm=14.3)},
    "small": {"sphere": Sphere(centre_ct=(0, 0, 0), radius_mm=1.2)},
    "capsule": {"capsule": Capsule(from_ct=(0, 0, 0), to_ct=(31, 12, 55), radius_mm=4.0)},
    "box": {"box": Box(low_ct=(-6, -20, 3), high_ct=(26.5, 20, 8))},
    "large": {"box": Box(low_ct=(0, 0, 0), high_ct=(300, 200, 100))},
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_surface_has_every_point_that_looking_at_the_whole_grid_finds(name):
    region = NoGo(name=name, caution_mm=5, danger_mm=2, **SHAPES[name])
    low, high = region.bounds_ct()
    step = max(1.0, float((high - low).max()) / 120)
    grid = [np.arange(a, b + step, step) for a, b in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1).reshape(-1, 3)
    out = np.empty((len(points), 4))
    region.distances(points, out)
    near = np.abs(out[:, 0]) < 0.9 * step
    expected = points[near] - out[near, :1] * out[near, 1:]

    found = surface_points(region)

    assert 0 < len(found) == min(len(expected), 60000)
    if len(expected) <= 60000:
        np.testing.assert_allclose(found, expected, atol=1e-9)
    region.distances(found, out := np.empty((len(found), 4)))
    assert np.abs(out[:, 0]).max() < 0.6 * step  # moved onto it; farther at an edge


def test_a_structure_that_reaches_beyond_the_picture_has_a_silhouette(camera):
    region = NoGo(name="large", caution_mm=5, danger_mm=2, **SHAPES["large"])
    model = OutlineModel([region], camera)
    for offset_mm in range(-400, 401, 40):
        T_camera_ct = np.eye(4)
        T_camera_ct[:3, 3] = offset_mm, -offset_mm / 2, 700
        (silhouette,) = model.silhouettes(T_camera_ct)
        if abs(offset_mm) < 200:
            assert model.outlines([silhouette], T_camera_ct, {})
