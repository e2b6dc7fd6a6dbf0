"""Lesions of known size: volume, diameters, distances, margins."""

import numpy as np
import pytest

from fluoronav.lab.simulation.bones import label_map, turned
from fluoronav.planning.measurements.errors import Refused
from fluoronav.planning.measurements.mask import masks_of
from fluoronav.planning.measurements.measure import Wanted, measure
from fluoronav.planning.measurements.volumes import diameters, gap, grown, margin_of, margin_to_cuts, volume_cm3
from fluoronav.planning.plan.schema import Cut, Resection

LOW, HIGH = np.full(3, -40.0), np.full(3, 40.0)


def ball(middle, radius):
    return lambda p: np.linalg.norm(p - np.asarray(middle, float), axis=-1) < radius


def masks(solids, spacing=(0.8, 0.8, 1.5), direction=None):
    image = label_map(dict(enumerate(solids, 1)), LOW, HIGH, spacing, direction)
    return [masks_of(image, [(k, f"s{k}")])[f"s{k}"] for k in range(1, len(solids) + 1)]


def test_the_volume_of_a_ball_is_within_two_deviations():
    (found,) = masks([ball((1.3, 0.4, 2.2), 10)])
    value, sigma = volume_cm3(found)
    assert abs(value - 4 / 3 * np.pi) < max(2 * sigma, 0.02)


@pytest.mark.parametrize("turn", [0, 25, 70])
@pytest.mark.parametrize("grid", [np.eye(3), turned(2, 30)])
def test_the_diameters_of_an_ellipsoid_are_its_axes_in_the_slice(turn, grid):
    axes = np.array([17.0, 9.0, 7.0])
    lesion = lambda p: (((p - [2, 1, 0.3]) @ turned(2, turn) / axes) ** 2).sum(-1) < 1  # noqa: E731
    (found,) = masks([lesion], direction=grid)
    d = diameters(found)
    assert d.long_mm == pytest.approx(34, abs=0.8)
    assert d.short_mm == pytest.approx(18, abs=0.8)
    along = np.linalg.norm(d.long_ct[1] - d.long_ct[0])
    assert along == pytest.approx(d.long_mm)
    assert abs((d.long_ct[1] - d.long_ct[0]) @ (d.short_ct[1] - d.short_ct[0])) / along / d.short_mm < 1e-6


def test_a_lesion_of_a_few_voxels_has_no_diameter():
    (speck,) = masks([ball((0, 0, 0), 1.0)])
    with pytest.raises(Refused, match="voxels"):
        diameters(speck)


def test_the_distance_of_two_balls_is_that_of_their_surfaces_and_zero_where_they_touch():
    a, b, c = masks([ball((-15, 0, 0), 8), ball((12, 0, 0), 9), ball((-15, 12, 0), 7)])
    assert gap(a, b).distance_mm == pytest.approx(10, abs=0.9)
    assert gap(a, c).distance_mm == 0


def test_the_margin_is_least_where_the_lesion_lies_off_the_middle():
    whole = label_map({1: ball((0, 0, 0), 16)}, LOW, HIGH, (0.8, 0.8, 0.8))
    lesion = label_map({1: ball((5, 0, 0), 8)}, LOW, HIGH, (0.8, 0.8, 0.8))
    outer, inner = masks_of(whole, [(1, "r")])["r"], masks_of(lesion, [(1, "l")])["l"]
    found = margin_of(inner, outer)
    assert found.least_mm == pytest.approx(3, abs=0.7)
    assert found.low_mm > found.least_mm
    assert found.points_ct[0][0] == pytest.approx(13, abs=1)


def test_a_resection_that_cuts_into_the_lesion_has_a_negative_margin():
    whole = label_map({1: ball((-6, 0, 0), 10)}, LOW, HIGH, (0.8, 0.8, 0.8))
    lesion = label_map({1: ball((5, 0, 0), 8)}, LOW, HIGH, (0.8, 0.8, 0.8))
    found = margin_of(masks_of(lesion, [(1, "l")])["l"], masks_of(whole, [(1, "r")])["r"])
    assert found.least_mm < -5


def test_a_planned_margin_is_found_again_and_a_cut_gives_its_own():
    (lesion,) = masks([ball((0, 0, 0), 8)], (0.8, 0.8, 0.8))
    assert margin_of(lesion, grown(lesion, 10)).least_mm == pytest.approx(10, abs=0.8)
    cut = Cut(id="c", origin="drawn", structure="femur_left", point_ct=(14, 0, 0), normal_ct=(-1, 0, 0), kerf_mm=1.0)
    found = margin_to_cuts(lesion, (cut,))
    assert found.least_mm == pytest.approx(14 - 8 - 0.5, abs=0.6)
    through = cut.model_copy(update={"point_ct": (5.0, 0.0, 0.0)})
    assert margin_to_cuts(lesion, (through,)).least_mm < -2


def test_a_lesion_is_measured_against_every_structure_and_every_planned_resection():
    image = label_map({5: ball((-12, 0, 0), 10), 200: ball((14, 0, 0), 6)}, LOW, HIGH, (1, 1, 1))
    planned = [Resection(id="wide", origin="drawn", lesion="metastasis_1", margin_mm=5)]
    results = measure(image, {5: "liver", 200: "metastasis_1"}, wanted=Wanted(planned=planned))
    found = {m.name: m.value for m in results.items if m.structure == "metastasis_1"}
    assert found["distance_liver"] == pytest.approx(10, abs=1.01)
    assert found["margin_least_wide"] == pytest.approx(5, abs=1.01)
    assert found["recist_long"] == pytest.approx(12, abs=0.7)
    assert found["volume"] == pytest.approx(0.905, abs=0.05)


def test_a_lesion_at_the_edge_has_no_volume_and_no_diameters():
    image = label_map({200: ball((36, 0, 0), 9)}, LOW, HIGH, (1, 1, 1))
    results = measure(image, {200: "lesion_1"})
    assert {r.name for r in results.refused} >= {"volume", "recist"}
    assert "left" in results.refused[0].reason
