"""Attenuation in the cells of a rotated grid, and saturation along a line."""

import numpy as np
import pytest

from fluoronav.stream.detection.profiles import attenuation_in_cells, saturation_along

ALONG, ACROSS = np.array([2.5, 0.0]), np.array([0.0, 2.0])


def cells(counts, corner, along, across, shape=(24, 64), inverse=False) -> np.ndarray:
    out = np.empty(shape, np.float32)
    attenuation_in_cells(counts, np.array(corner, float), along, across, 0.0, inverse, out)
    return np.exp(-out)


def turned(degrees: float) -> tuple[np.ndarray, np.ndarray]:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    R = np.array([[c, -s], [s, c]])
    return R @ ALONG, R @ ACROSS


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("degrees", [0.0, 33.0, 160.0, 271.0])
def test_a_slope_is_what_it_is_in_the_middle_of_each_cell(dtype, degrees):
    y, x = np.mgrid[:256, :256]
    counts = (20 + 0.4 * x + 0.3 * y).astype(dtype)
    along, across = turned(degrees)
    corner = np.array([128.0, 128.0]) - 15 * along - 10 * across
    seen = cells(counts, corner, along, across, (20, 30))
    at = corner + np.arange(30)[None, :, None] * along + np.arange(20)[:, None, None] * across
    expected = 20 + at @ [0.4, 0.3] - 0.5  # whole counts are half a count less, on average
    assert np.abs(seen - expected).max() < 0.6
    assert abs(float((seen - expected).mean())) < 0.15  # a third of a pixel


@pytest.mark.parametrize("degrees", [0.0, 20.0, 45.0, 70.0])
def test_nearly_all_photons_of_a_cell_count(degrees):
    mean, block, efficiency = 400, 8, []
    for seed in range(20):
        counts = np.random.default_rng(seed).poisson(mean, (512, 512)).astype(np.uint16)
        along, across = turned(degrees)
        seen = cells(counts, np.array([256.0, 256.0]) - 32 * along - 12 * across, along, across)
        of_blocks = seen.reshape(24 // block, block, 64 // block, block).mean((1, 3))
        efficiency.append(mean / np.mean((of_blocks - mean) ** 2) / (5 * block**2))
    # One place interpolated in each cell has 0.45.
    assert np.mean(efficiency) > 0.8


def test_the_border_is_replicated():
    counts = np.full((64, 64), 1000, np.uint16)
    counts[:, -1] = 4000
    seen = cells(counts, [50, -40], ALONG, ACROSS, (30, 30))
    assert seen[:, :4].max() == pytest.approx(1000)
    assert seen[:, 10:] == pytest.approx(np.full((30, 20), 4000), rel=1e-4)


def test_what_is_darker_than_dark_and_inverse_pictures():
    counts = np.full((64, 64), 65535 - 300, np.uint16)
    assert cells(counts, [10, 10], ALONG, ACROSS, (5, 5), inverse=True) == pytest.approx(np.full((5, 5), 300), rel=1e-4)
    assert np.isfinite(np.log(cells(np.zeros((64, 64), np.uint16), [10, 10], ALONG, ACROSS, (5, 5)))).all()


def test_a_frame_may_be_a_view_of_another():
    counts = np.random.default_rng(0).integers(100, 60000, (80, 96)).astype(np.uint16)
    plain, view = counts.T.copy(), counts.T
    np.testing.assert_array_equal(
        cells(view, [20, 30], ALONG, ACROSS, (8, 8)), cells(plain, [20, 30], ALONG, ACROSS, (8, 8))
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("inverse", [False, True])
def test_a_stretch_of_a_line_glows_where_the_detector_is_saturated(dtype, inverse):
    full = np.iinfo(dtype).max
    counts = np.full((256, 256), full // 2, dtype)
    counts[:, 128:] = full
    if inverse:
        counts = full - counts
    tip, right = np.array([128.0, 60.0]), np.array([1.0, 0.0])

    def saturation(first, last, direction=right, at=tip):
        return saturation_along(counts, at, direction, first, last, 0.25, float(full), inverse)

    assert saturation(8, 100) == pytest.approx(1) and saturation(-100, -8) < 0.01
    assert saturation(8, 100, -right) < 0.01
    assert 0.4 < saturation(-100, 100) < 0.6
    assert saturation(4, 30, right, np.array([300.0, 60.0])) == 0  # out of the picture
