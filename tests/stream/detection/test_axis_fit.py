"""Lines and parabolas through the middles of a shadow."""

import numpy as np
import pytest

from fluoronav.stream.detection.axis_fit import bow_of, line_through, parabola_through, straight_part, tangent_at


def test_the_parabola_through_points_is_numpys():
    rng = np.random.default_rng(3)
    x = rng.uniform(50, 400, 30)
    y = 3e-4 * x**2 - 0.2 * x + 7 + rng.normal(0, 0.5, 30)
    middle, *coefficients, _ = parabola_through(x, y)
    expected, covariance = np.polyfit(x - middle, y, 2, cov=True)
    np.testing.assert_allclose(coefficients, expected, rtol=1e-9)
    np.testing.assert_allclose(bow_of(x, y), (expected[0], np.sqrt(covariance[0, 0])), rtol=1e-9)


def test_a_tangent_touches_the_parabola():
    x = np.linspace(-50, 80, 40)
    y = 2e-3 * x**2 + 0.1 * x - 4
    slope, level = tangent_at(x, y, 60.0)
    assert slope == pytest.approx(4e-3 * 60 + 0.1)
    assert level + 60 * slope == pytest.approx(2e-3 * 3600 + 6 - 4)


def test_the_straight_part_leaves_out_what_another_shadow_shows():
    rng = np.random.default_rng(4)
    u = np.linspace(-150, 150, 76)
    v = 0.02 * u + 1.5 + rng.normal(0, 0.1, len(u))
    v[20:32] += 9.0
    strong = np.ones(len(u), bool)
    strong[70:] = False
    kept = strong.copy()
    slope, base, sigma = straight_part(u, v, strong, kept)
    assert slope == pytest.approx(0.02, abs=1e-3) and base == pytest.approx(1.5, abs=0.1) and sigma < 0.3
    assert not kept[20:32].any() and not kept[70:].any() and kept[:20].mean() > 0.9
    assert line_through(u, v)[1] > base + 0.5
