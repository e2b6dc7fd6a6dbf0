"""Tips in the patient: the claims about the error are held against the error."""

import numpy as np
import pytest

from fluoronav.geometry import ArmJoints, transform_points
from fluoronav.stream.tracking.triangulation import ImageObservation, tip_from_width, triangulate


def observation(camera, orbital, tip, axis, rng, sigma_px=1.0, sigma_deg=0.3, angular=0.0):
    T = ArmJoints(orbital, angular).T_camera_room(620.0)
    uv = camera.project(transform_points(T, np.stack([tip, tip - 1.0 * axis])))
    angle = np.arctan2(*(uv[0] - uv[1])[::-1]) + np.deg2rad(sigma_deg) * rng.standard_normal()
    direction = np.array([np.cos(angle), np.sin(angle)])
    return ImageObservation(T, uv[0] + sigma_px * rng.standard_normal(2), direction, sigma_px, sigma_deg)


def scene(rng):
    axis = rng.standard_normal(3)
    return rng.uniform(-40, 40, 3), axis / np.linalg.norm(axis)


def test_two_views_30_degrees_apart_give_the_tip_to_07_mm_and_say_how_well(camera, rng):
    errors, distances, turns, claimed = [], [], [], []
    for _ in range(300):
        tip, axis = scene(rng)
        found = triangulate(
            camera, [observation(camera, 0, tip, axis, rng), observation(camera, 35, tip, axis, rng, angular=8)]
        )
        off = found.tip_ct - tip
        errors.append(np.linalg.norm(off))
        distances.append(off @ np.linalg.solve(found.covariance, off))
        if found.axis_ct is not None:
            turns.append(np.rad2deg(np.arccos(np.clip(found.axis_ct @ axis, -1, 1))))
            claimed.append(found.sigma_axis_deg)
    assert np.median(errors) < 0.7
    assert 0.90 <= np.mean(np.array(distances) < 7.81) <= 0.99  # chi squared, three degrees of freedom, 95 %
    assert np.median(turns) < 2.0
    assert 0.85 <= np.mean(np.array(turns) < 2.45 * np.array(claimed)) <= 1


def test_an_instrument_that_moved_between_the_views_shows_in_the_residual(camera, rng):
    still, moved = [], []
    for _ in range(60):
        tip, axis = scene(rng)
        first = observation(camera, 0, tip, axis, rng)
        still.append(triangulate(camera, [first, observation(camera, 60, tip, axis, rng)]).residual)
        away = tip + np.array([0, 0, 4.0])  # across both rays
        moved.append(triangulate(camera, [first, observation(camera, 60, away, axis, rng)]).residual)
    assert np.median(still) < 1.2 and np.median(moved) > 3


def test_views_that_are_one_view_say_nothing_of_depth(camera, rng):
    tip, axis = scene(rng)
    views = [observation(camera, a, tip, axis, rng) for a in (0.0, 4.0)]
    assert triangulate(camera, views) is None
    assert triangulate(camera, views[:1]) is None


def test_an_axis_in_the_plane_of_both_rays_is_not_made_up(camera, rng):
    tip = np.array([5.0, 5.0, 0.0])
    axis = np.array([1.0, 0, 0])  # the arm turns in that plane
    found = triangulate(camera, [observation(camera, a, tip, axis, rng, 0.1, 0.05) for a in (0.0, 40.0)])
    assert np.linalg.norm(found.tip_ct - tip) < 0.7
    assert found.axis_ct is None or found.sigma_axis_deg > 0.3


@pytest.mark.parametrize("diameter", [2.0, 6.0])
def test_one_view_says_where_and_admits_that_its_depth_is_poor(camera, rng, diameter):
    inside = []
    for _ in range(200):
        tip, axis = scene(rng)
        s = observation(camera, 0, tip, axis, rng)
        depth = (s.T_camera_ct @ np.append(tip, 1))[2]
        width = camera.focal_px * np.sqrt(0.75) * diameter / depth + 0.3 * rng.standard_normal()
        found = tip_from_width(camera, s, width, diameter, 0.3)
        off = found.tip_ct - tip
        inside.append(off @ np.linalg.solve(found.covariance, off) < 7.81)
        assert found.axis_ct is None and found.views == 1
    assert 0.9 <= np.mean(inside) <= 1
    assert found.sigma_mm > 5
