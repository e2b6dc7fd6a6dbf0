"""Pivot and spin calibration: tip and shaft of a tool in its marker's frame."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluoronav.calibration.pivot import PivotError, pivot_calibration, spin_axis
from fluoronav.geometry import exp_se3, exp_so3

TIP = np.array([12.0, -5.0, 160.0])
PIVOT = np.array([100.0, -40.0, 1500.0])


def pivoting(rng, count=200, tilt_deg=35.0, noise_mm=0.1, tip=TIP, pivot=PIVOT):
    """Poses of a tool that is tilted to all sides about its tip."""
    out = []
    for _ in range(count):
        around, tilt = rng.uniform(0, 2 * np.pi), np.deg2rad(tilt_deg) * np.sqrt(rng.random())
        R = exp_so3(tilt * np.array([np.cos(around), np.sin(around), 0])) @ exp_so3([0, 0, rng.uniform(-0.5, 0.5)])
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = R, pivot - R @ tip + rng.normal(0, noise_mm, 3)
        out.append(T)
    return np.array(out)


@given(st.integers(0, 2**32), st.floats(0.05, 0.4))
def test_the_tip_is_found_to_within_what_is_claimed(seed, noise_mm):
    found = pivot_calibration(pivoting(np.random.default_rng(seed), noise_mm=noise_mm))
    assert np.abs(found.tip_mm - TIP).max() < 6 * found.sigma_mm.max()
    assert found.rms_mm == pytest.approx(noise_mm * np.sqrt(3), rel=0.3)
    np.testing.assert_allclose(found.pivot_tracker, PIVOT, atol=1)
    assert found.sigma_mm.max() < noise_mm and found.spread_deg > 12


def test_poses_in_which_the_tip_slipped_are_left_out(rng):
    poses = pivoting(rng)
    poses[::20, :3, 3] += 15.0
    found = pivot_calibration(poses)
    assert found.outliers == 10 and np.abs(found.tip_mm - TIP).max() < 0.2


def test_a_tool_that_was_hardly_tilted_or_seen_is_refused_with_what_to_do(rng):
    with pytest.raises(PivotError, match="tilt it by 20 or more to all"):
        pivot_calibration(pivoting(rng, tilt_deg=4.0))
    with pytest.raises(PivotError, match="too few"):
        pivot_calibration(pivoting(rng, 10))
    hinge = np.array([exp_se3([a, 0, 0, 0, 0, 0]) for a in np.linspace(-0.6, 0.6, 50)])
    with pytest.raises(PivotError, match="in one of its directions"):
        pivot_calibration(hinge)


def test_a_tracker_in_metres_is_refused_and_not_called_a_tip_within_nothing(rng):
    with pytest.raises(PivotError, match=r"1.5 mm from the tracker's origin and 0.16 mm from its marker: .*metres"):
        pivot_calibration(pivoting(rng, noise_mm=1e-4, tip=TIP / 1000, pivot=PIVOT / 1000))
    with pytest.raises(PivotError, match="tip_mm is 0.16 mm from the marker: is it in metres"):
        pivot_calibration(pivoting(rng, noise_mm=1e-4, tip=TIP / 1000))


def test_spinning_the_tool_tells_its_axis(rng):
    axis = np.array([0.1, 0.0, 1.0]) / np.linalg.norm([0.1, 0.0, 1.0])
    spun = np.array([exp_se3([*(a * axis + rng.normal(0, 0.003, 3)), 0, 0, 0]) for a in np.linspace(-1.2, 1.2, 80)])
    found = spin_axis(spun, TIP)
    assert np.rad2deg(np.arccos(found @ axis)) < 0.3
    assert (spin_axis(spun, -TIP) @ axis) < 0
    with pytest.raises(PivotError, match="not spun far enough"):
        spin_axis(np.array([np.eye(4)] * 30), TIP)
