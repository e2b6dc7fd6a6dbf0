"""The bench's own arithmetic: what it calls a start's error, a success and a capture range."""

import numpy as np
import pytest

from fluoronav.geometry import rotation_distance_deg, transform_points
from fluoronav.lab.bench.registration.bench import _with_error
from fluoronav.lab.bench.registration.report import capture_range_mm
from fluoronav.lab.bench.subjects import errors_mm, starts, targets_ct


@pytest.mark.parametrize("wanted", [1.0, 12.5, 59.0])
def test_a_start_has_the_error_that_was_asked_for(case, wanted):
    truth, points = case.prior.T_camera_ct(), targets_ct(case)
    T = _with_error(truth, points, points.mean(0), wanted, 3)
    assert errors_mm(T, truth, points)[0] == pytest.approx(wanted, abs=0.01)
    assert rotation_distance_deg(T, truth) == pytest.approx(min(25, wanted / 2), abs=0.01)


def test_errors_are_split_along_and_across_the_ray(case):
    truth, points = case.prior.T_camera_ct(), targets_ct(case)
    moved = np.array(truth)
    moved[:3, 3] += [3, 0, 4]
    space, across, along = errors_mm(moved, truth, points)
    assert space == pytest.approx(5)
    assert across == pytest.approx(3, abs=0.6) and along == pytest.approx(4, abs=0.6)


def test_starts_are_spread_about_the_camera_axes(case):
    truth, centre = case.prior.T_camera_ct(), case.target_ct
    many = [T for T, _ in zip(starts(truth, centre, 10, 20, 5, 1), range(400), strict=False)]
    off = np.array([transform_points(T, centre) - transform_points(truth, centre) for T in many])
    assert np.abs(off).max(0) == pytest.approx([20, 20, 5], rel=0.3)
    assert max(rotation_distance_deg(T, truth) for T in many) < 10 * np.sqrt(3) + 0.1


def test_the_capture_range_ends_where_more_than_5_percent_have_failed():
    rows = [{"start_mm": k, "across_mm": 0.1 if k not in (30, 31, 32) else 9.0} for k in range(50)]
    assert capture_range_mm(rows) == 30  # 30 of 31 is 97 %, 30 of 32 is 94 %
    assert capture_range_mm([{"start_mm": 5.0, "across_mm": 9.0}]) == 0
