"""Which angles the arm can reach at the table."""

import numpy as np
import pytest

from fluoronav.geometry import CArmPose, inverse
from fluoronav.planning.views.arm import SPACE, ArmSpace, angles, obstacle


def test_at_zero_the_source_is_under_the_table_and_nothing_collides():
    source_ct = inverse(CArmPose((0, 0, 0), 620.0).T_camera_ct())[:3, 3]
    # Prone: the table is in front of the patient, at negative y.
    assert source_ct[1] < -SPACE.table_below_mm - SPACE.table_thick_mm - SPACE.tube_radius_mm
    assert obstacle(0, 0, 620.0) == ""


@pytest.mark.parametrize("angle", [(0, 0), (30, 0), (-30, 0), (0, 20), (90, 0), (-90, 0)])
def test_a_surgeons_usual_views_are_within_reach(angle):
    assert obstacle(*angle, 620.0) == ""


def test_what_the_arm_cannot_do_is_said():
    assert obstacle(120, 0, 620.0) == "beyond the arm's limits"
    assert obstacle(0, -50, 620.0) == "beyond the arm's limits"
    # From above through the patient, the detector would be in the table.
    assert obstacle(180, 0, 620.0, ArmSpace(orbital_deg=(-180, 180), source_to_detector_mm=800.0)) in (
        "detector and table", "detector and patient",
    )  # fmt: skip
    assert obstacle(0, 0, 300.0) == "tube and table"
    assert obstacle(0, 0, 620.0, ArmSpace(source_to_detector_mm=700.0)) == "detector and patient"
    assert obstacle(90, 0, 330.0) == "tube and table"


def test_the_grid_covers_the_limits_with_zero_in_it():
    grid = np.array(angles(20.0))
    assert (0.0, 0.0) in angles(20.0)
    assert np.abs(grid[:, 0]).max() == 80
    assert np.abs(grid[:, 1]).max() == 40
    assert len(grid) == 9 * 5
