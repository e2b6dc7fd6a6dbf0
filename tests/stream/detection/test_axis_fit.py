"""Line and parabola fits to the centres of a shadow."""

import numpy as np
import pytest

from fluoronav.stream.detection.axis_fit import (
    fit_line,
    fit_line_robust,
    fit_parabola,
    parabola_tangent,
    quadratic_coefficient,
)


def test_the_parabola_through_points_is_numpys():
    rng = np.random.default_rng(3)
    x = rng.uniform(50, 400, 30)
    y = 3e-4 * x**2 - 0.2 * x + 7 + rng.normal(0, 0.5, 30)
    middle, *coefficients, _ = fit_parabola(x, y)
    expected, covariance = np.polyfit(x - middle, y, 2, cov=True)
    np.testing.assert_allclose(coefficients, expected, rtol=1e-9)
    np.testing.assert_allclose(quadratic_coefficient(x, y), (expected[0], np.sqrt(covariance[0, 0])), rtol=1e-9)


def test_a_tangent_touches_the_parabola():
    x = np.linspace(-50, 80, 40)
    y = 2e-3 * x**2 + 0.1 * x - 4
    slope, level = parabola_tangent(x, y, 60.0)
    assert slope == pytest.approx(4e-3 * 60 + 0.1)
    assert level + 60 * slope == pytest.approx(2e-3 * 3600 + 6 - 4)


def test_the_robust_line_leaves_out_the_points_of_another_shadow():
    rng = np.random.default_rng(4)
    u = np.linspace(-150, 150, 76)
    v = 0.02 * u + 1.5 + rng.normal(0, 0.1, len(u))
    v[20:32] += 9.0
    valid = np.ones(len(u), bool)
    valid[70:] = False
    inliers = valid.copy()
    slope, intercept, sigma = fit_line_robust(u, v, valid, inliers)
    assert slope == pytest.approx(0.02, abs=1e-3) and intercept == pytest.approx(1.5, abs=0.1) and sigma < 0.3
    assert not inliers[20:32].any() and not inliers[70:].any() and inliers[:20].mean() > 0.9
    assert fit_line(u, v)[1] > intercept + 0.5
