"""Gertzbein and Robbins by the voxels of the mask, against a vertebra of known shape."""

import numpy as np
import pytest

from fluoronav.planning.screws.grading import grade_of, graded
from fluoronav.planning.screws.vertebra import read_vertebra


@pytest.fixture(scope="module")
def vertebra(phantom):
    return read_vertebra(phantom.image((0.4, 0.4, 0.8)), 20, "L1")


def straight(phantom, x, z=4.0, back=9.0, front=-28.0):
    """A screw from behind to the front at a place beside the middle."""
    return np.array(phantom.centre_ct) + [x, back, z], np.array(phantom.centre_ct) + [x, front, z]


@pytest.mark.parametrize(
    ("breach", "grade"),
    [(0, "A"), (0.005, "A"), (0.5, "B"), (1.99, "B"), (2, "C"), (4, "D"), (5.9, "D"), (6, "E"), (20, "E")],
)
def test_the_grades_have_the_bounds_of_the_paper(breach, grade):
    assert grade_of(breach) == grade


def test_a_screw_in_the_middle_of_its_pedicle_has_half_the_rest_as_clearance(phantom, vertebra):
    # 8 mm wide from x = 10 to 18.
    found = graded(*straight(phantom, 14.0), 5.0, "left", vertebra)
    assert found.grade == "A"
    assert found.breach_mm == 0
    assert found.clearance_mm == pytest.approx(1.5, abs=0.3)


@pytest.mark.parametrize(
    ("x", "breach", "grade"), [(12.0, 0.5, "B"), (10.0, 2.5, "C"), (8.0, 4.5, "D"), (18.5, 3.0, "C")]
)
def test_a_breach_is_as_deep_as_the_surface_lies_outside(phantom, vertebra, x, breach, grade):
    found = graded(*straight(phantom, x), 5.0, "left", vertebra)
    assert found.breach_mm == pytest.approx(breach, abs=0.35)
    assert found.clearance_mm == pytest.approx(-found.breach_mm)
    assert found.grade == grade
    assert (found.in_canal_mm > 0) == (x < 15)


def test_a_tip_that_passes_the_front_of_the_body_is_a_breach(phantom, vertebra):
    # The body's front at x = 14 is at y = -37.3.
    found = graded(*straight(phantom, 14.0, front=-42.0), 5.0, "left", vertebra)
    assert found.breach_mm == pytest.approx(4.2, abs=0.7)
    assert found.grade == "D"


def test_crossing_the_cortex_behind_the_pedicle_is_no_breach(phantom, vertebra):
    entry, tip = straight(phantom, 14.0, back=25.0)
    assert graded(entry, tip, 5.0, "left", vertebra).grade == "A"


def test_a_screw_beside_its_pedicle_is_grade_e_even_where_it_touches_nothing(phantom, vertebra):
    for ends in (straight(phantom, 60.0), straight(phantom, 14.0, back=60.0, front=40.0), straight(phantom, -12.5)):
        found = graded(*ends, 3.5, "left", vertebra)
        assert found.grade == "E"
        assert not found.through_pedicle
        assert found.breach_mm > 6


def test_a_screw_through_the_canal_is_found_behind_the_pedicle_too(phantom, vertebra):
    entry = np.array(phantom.centre_ct) + [-6.0, 9.0, 4.0]
    tip = np.array(phantom.centre_ct) + [14.0, -28.0, 4.0]
    found = graded(entry, tip, 4.0, "left", vertebra)
    assert found.in_canal_mm > 4
    assert found.grade in ("D", "E")


def test_a_screw_without_length_is_refused(vertebra):
    with pytest.raises(ValueError, match="L1 left: entry and tip are the same point"):
        graded((0, 0, 0), (0, 0, 0), 4.0, "left", vertebra)
