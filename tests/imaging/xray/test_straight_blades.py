"""Blades are found however bright it is behind them; straight borders of anatomy and rods are none."""

import cv2
import numpy as np
import pytest

from fluoronav.imaging.xray.field_of_view import find_field_of_view
from fluoronav.imaging.xray.straight_blades import find_straight_blades

SIDE = 128


def distances_px(shape, blades):
    """How far each pixel lies inside blades, each an angle of its outward normal and a distance from the middle."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    x, y = x - (shape[1] - 1) / 2, y - (shape[0] - 1) / 2
    return [out - np.cos(np.deg2rad(a)) * x - np.sin(np.deg2rad(a)) * y for a, out in blades]


def counts(rng, blades, primary, scatter, shape=(SIDE, SIDE), photons=4000.0):
    """Counts behind blades with a soft edge of a pixel; scatter arrives everywhere."""
    through = np.ones(shape)
    for inside in distances_px(shape, blades):
        through *= np.clip(inside + 0.5, 0, 1)
    return (rng.poisson(photons * (through * primary + scatter)) + 150.0).astype(np.float32)


def spine(shape=(SIDE, SIDE), width=0.14, depth=2.5):
    """The share of the beam behind lungs and a thick spine from top to bottom."""
    y, x = np.mgrid[: shape[0], : shape[1]] / max(shape)
    return np.exp(-0.3 - depth * np.exp(-(((x - 0.5 - 0.05 * np.sin(6 * y)) / width) ** 2)))


@pytest.mark.parametrize("shape", [(128, 128), (96, 128), (128, 100)])
@pytest.mark.parametrize("turn_deg", [-5.5, -1.0, 0.0, 3.0, 6.0])
def test_four_blades_are_found_to_two_pixels_and_two_degrees(rng, shape, turn_deg):
    rows, cols = np.array(shape) / 2
    wanted = [
        (turn_deg, 0.8 * cols),
        (90 + turn_deg, 0.85 * rows),
        (180 + turn_deg, 0.75 * cols),
        (270 + turn_deg, 0.9 * rows),
    ]
    found = find_straight_blades(counts(rng, wanted, spine(shape), 0.05, shape), 40.0)
    assert len(found) == 4
    for line, (angle_deg, out_px) in zip(found, wanted, strict=True):
        normal = -np.array([np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))])
        middle = np.array([shape[1] - 1, shape[0] - 1]) / 2
        assert line.normal @ normal > np.cos(np.deg2rad(2))
        assert abs((line.normal @ middle - line.offset_px) - out_px) < 2


@pytest.mark.parametrize("scatter", [0.02, 0.1, 0.3])
def test_a_blade_is_found_where_scatter_behind_it_is_as_bright_as_the_spine_before_it(rng, scatter):
    """Regression: of a skull no blade was found, of a chest one in ten was missed: the signal dropped too little."""
    blades = [(0, 50), (90, 52), (180, 50), (270, 55)]
    field = find_field_of_view(counts(rng, blades, spine(), scatter))
    inside = np.min(distances_px((SIDE, SIDE), blades), 0)
    assert not field.field_mask[inside < 0].any()
    assert field.field_mask[inside > 4].all()


def test_the_border_of_the_mediastinum_is_no_blade(rng):
    """Regression: half of a chest was left out, since its border is straight and drops to a quarter."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    primary = np.where(x - 0.1 * y < 0.5, 0.9, 0.9 - 0.75 * np.clip((x - 0.1 * y - 0.5) / 0.06, 0, 1))
    primary = primary + 0.5 * (x > 0.93)
    blades = [(1, 56), (91, 58), (180, 57), (271, 57)]
    field = find_field_of_view(counts(rng, blades, primary, 0.03))
    inside = np.min(distances_px((SIDE, SIDE), blades), 0)
    assert field.field_mask[inside > 4].mean() > 0.99


@pytest.mark.parametrize("width_px", [2, 4, 8])
def test_a_rod_along_a_side_is_no_blade(rng, width_px):
    primary = spine()
    primary[:, 96 : 96 + width_px] *= 0.1
    assert find_straight_blades(counts(rng, [], cv2.GaussianBlur(primary, (0, 0), 0.7), 0.05), 40.0) == []


def test_without_blades_none_is_found(rng):
    for picture in (spine(), np.full((SIDE, SIDE), 0.5), spine(width=0.4), spine().T):
        assert find_straight_blades(counts(rng, [], picture, 0.05), 40.0) == []
    assert find_straight_blades(np.zeros((SIDE, SIDE), np.float32), 1e-3) == []
    assert find_straight_blades(rng.integers(0, 65536, (SIDE, SIDE)).astype(np.float32), 600.0) == []
