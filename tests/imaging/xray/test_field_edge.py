"""The edge of the field of view is found to a pixel, whatever crosses it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fluoronav.imaging.xray.field_edge import EdgeFit, find_full_field_mask
from fluoronav.imaging.xray.field_of_view import find_field_of_view

# Of a 1024 image: the field ends where half of the beam arrives, and this far inside it is exposed, for certain.
LEAST_PX, MOST_PX = 1.5, 8.0


def found(beam: np.ndarray) -> np.ndarray:
    """The exposed mask of counts (1024 pixels on the longer side), as the chain makes it."""
    rows, cols = beam.shape
    small, fine = (
        cv2.resize(beam.astype(np.float32), (cols // k, rows // k), interpolation=cv2.INTER_AREA) for k in (8, 2)
    )
    mask = find_full_field_mask(find_field_of_view(np.asarray(small, np.float32)), np.asarray(fine, np.float32))
    assert mask.shape == (rows // 2, cols // 2)
    return cv2.resize(mask.astype(np.uint8), (cols, rows), interpolation=cv2.INTER_NEAREST) > 0


def field_px(rows: int, cols: int, radius: float, half_width: float, turn_deg: float, shift: float) -> np.ndarray:
    """How far each pixel lies inside a round aperture with two blades."""
    y, x = np.mgrid[:rows, :cols].astype(np.float64)
    x, y = x - (cols - 1) / 2 - shift, y - (rows - 1) / 2
    across = np.cos(np.deg2rad(turn_deg)) * x + np.sin(np.deg2rad(turn_deg)) * y
    return np.minimum(radius - np.hypot(x, y), half_width - np.abs(across))


def exposure(rng: np.random.Generator, inside_px: np.ndarray, photons: float) -> np.ndarray:
    """Counts of a field with a dark spine across it and lead that lets 2 % through, 6 pixels of penumbra."""
    rows, cols = inside_px.shape
    y, x = np.mgrid[:rows, :cols] / 1024
    spine = np.exp(-(((x - 0.5 - 0.1 * np.sin(5 * y)) / 0.12) ** 2))
    beam = np.exp(-1.6 * spine) * (0.02 + 0.98 * np.clip(inside_px / 6 + 0.5, 0, 1)) + 0.05
    return 200.0 * rng.poisson(photons * beam) + 900


@pytest.mark.parametrize("shape", [(1024, 1024), (768, 1024)])
@pytest.mark.parametrize("photons", [20.0, 80.0])
@pytest.mark.parametrize("turn_deg, shift", [(0, 0), (25, 37), (90, -20), (140, 0)])
def test_the_field_is_exposed_to_a_few_pixels_of_its_edge_and_never_beyond(rng, shape, photons, turn_deg, shift):
    inside = field_px(*shape, radius=0.46 * shape[0], half_width=0.34 * shape[0], turn_deg=turn_deg, shift=shift)
    exposed = found(exposure(rng, inside, photons))
    # In the corners of a sector nothing lies inside both sides by so much, and the image's own border is no edge.
    assert not exposed[inside < LEAST_PX].any()
    assert exposed[inside > MOST_PX].mean() > 0.9995


def test_without_an_edge_all_is_exposed(rng):
    inside = np.full((1024, 1024), 99.0)
    assert found(exposure(rng, inside, 20.0)).all()


def test_instruments_that_cross_the_edge_do_not_bend_it(rng):
    inside = field_px(1024, 1024, radius=480.0, half_width=1e6, turn_deg=0, shift=0)
    counts = exposure(rng, inside, 80.0)
    y, x = np.mgrid[:1024, :1024]
    for angle in (10, 80, 200, 260):
        c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        u, v = c * (x - 512) + s * (y - 512), c * (y - 512) - s * (x - 512)
        steel = (u > 300) & (np.abs(v) < 18)
        counts[steel] = 900 + 0.1 * (counts[steel] - 900)
    exposed = found(counts)
    assert not exposed[inside < LEAST_PX].any()
    assert exposed[inside > MOST_PX].all()


def test_a_side_that_is_hardly_seen_keeps_its_distance(rng, monkeypatch):
    """Where too little of a side tells, the coarse estimate stands, and what is exposed ends farther inside."""
    inside = field_px(1024, 1024, radius=480.0, half_width=1e6, turn_deg=0, shift=0)
    counts = exposure(rng, inside, 80.0)
    near = found(counts)
    monkeypatch.setattr("fluoronav.imaging.xray.field_edge.FIT", EdgeFit(least_points=10**6))
    assert near.sum() > found(counts).sum() > 0.9 * near.sum()


@pytest.mark.parametrize("radius, half_width", [(200, 1e6), (300, 180), (480, 230), (480, 80)])
@pytest.mark.parametrize("turn_deg", [0, 35, 90])
def test_a_field_of_less_than_half_the_image_is_found(rng, radius, half_width, turn_deg):
    """Regression: all was taken for seen there, since the image's median was of what lies behind the blades."""
    inside = field_px(1024, 1024, radius, half_width, turn_deg, shift=40)
    exposed = found(exposure(rng, inside, 40.0))
    assert exposed[inside < LEAST_PX].mean() < 0.001
    assert exposed[inside > MOST_PX].mean() > 0.98


def test_a_leg_that_leaves_a_strip_of_open_air_is_no_blade(rng):
    """What is bright is bounded by one straight edge then, and by the image."""
    _, x = np.mgrid[:1024, :1024]
    counts = 200.0 * rng.poisson(np.where(x < 300, 300.0, 12.0 + 4 * np.cos(x / 40.0))) + 900
    assert found(counts).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(1024, 1024), (512, 1024), (1024, 640)])
def test_whatever_comes_there_is_a_mask_of_it_and_no_warning(rng, shape):
    y, x = np.mgrid[: shape[0], : shape[1]]
    one = np.zeros(shape)
    one[300:340, 200:240] = 60000
    pictures = {
        "black": np.zeros(shape),
        "white": np.full(shape, 65535.0),
        "noise": rng.integers(0, 65536, shape),
        "dark noise with a spot": one + rng.poisson(3, shape),
        "steps": 65535.0 * ((x // 64 + y // 64) % 2),
        "a line of light": np.where(np.abs(x - y) < 6, 60000.0, 300.0),
        "half": np.where(x < shape[1] / 2, 60000.0, 500.0) + rng.poisson(30, shape),
        "a corner": np.where(np.hypot(x, y) < 200, 50000.0, 0.0),
        "crossed bars": np.where((x % 100 < 30) | (y % 100 < 30), 400.0, 30000.0),
    }
    for name, picture in pictures.items():
        assert found(picture).shape == shape, name
    # Where nothing is brighter than the darkest there is no beam.
    assert not found(pictures["white"]).any() and not found(pictures["black"]).any()
