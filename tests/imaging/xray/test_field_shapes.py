"""Circles and lines as edges of the field of view."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluoronav.imaging.xray.field_shapes import Circle, Line

numbers = st.floats(-200, 200)


def edges():
    circles = st.builds(lambda x, y, r: Circle(np.array([x, y]), r), numbers, numbers, st.floats(5, 300))
    lines = st.builds(lambda a, d: Line(np.array([np.cos(a), np.sin(a)]), d), st.floats(0, 6.28), numbers)
    return st.one_of(circles, lines)


@given(edges())
def test_samples_lie_on_the_edge_and_their_normals_point_into_the_field(edge):
    points, inwards = edge.samples((128, 96))
    assert np.abs(edge.signed_distance(*points.T)).max() < 1e-9
    np.testing.assert_allclose(edge.signed_distance(*(points + 2 * inwards).T), 2, atol=1e-9)


@given(edges(), numbers, numbers)
def test_an_enlarged_edge_is_that_of_the_larger_image(edge, x, y):
    at = (np.array([x, y]) + 0.5) * 4 - 0.5
    assert edge.enlarged(4.0).signed_distance(*at) == pytest.approx(4 * edge.signed_distance(x, y), abs=1e-8)


@given(edges(), st.floats(0, 4))
def test_moved_inwards_the_field_is_smaller_by_as_much(edge, by_px):
    assert edge.moved_inwards(by_px).signed_distance(3.0, 5.0) == pytest.approx(
        edge.signed_distance(3.0, 5.0) - by_px, abs=1e-9
    )


@given(edges())
def test_an_edge_is_found_again_from_its_points(edge):
    points, _ = edge.samples((128, 96))
    again = edge.refitted(points)
    assert again.signed_distance(1.0, 2.0) == pytest.approx(edge.signed_distance(1.0, 2.0), abs=1e-6)


@given(edges(), st.floats(0, 6))
def test_the_mask_is_the_sign_of_the_distance(edge, margin_px):
    y, x = np.arange(96, dtype=np.float32)[:, None], np.arange(128, dtype=np.float32)[None]
    distance = np.broadcast_to(edge.signed_distance(x, y), (96, 128)) - margin_px
    clear = np.abs(distance) > 0.01
    if isinstance(edge, Line) or edge.radius_px > margin_px:
        np.testing.assert_array_equal(
            np.broadcast_to(edge.mask(x, y, margin_px), (96, 128))[clear], (distance > 0)[clear]
        )
