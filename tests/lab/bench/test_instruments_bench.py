"""The bench's own arithmetic: what it calls found, and what false."""

import dataclasses

import numpy as np

from fluoronav.lab.bench.instruments.figures import compared, interval_95
from fluoronav.lab.bench.instruments.figures import figures as figures_of
from fluoronav.lab.bench.instruments_in_space import drift
from fluoronav.lab.simulation.instrument_scenes import Placed
from fluoronav.lab.simulation.metal import k_wire
from fluoronav.stream.frame import Detection


def placed(tip, angle):
    axis = np.array(tip, float) - np.arange(400)[:, None] * np.array([np.cos(angle), np.sin(angle)])
    return Placed(k_wire(2, 200), np.full((2, 3), 500.0), axis)


def detection(tip, angle):
    direction = np.array([np.cos(angle), np.sin(angle)])
    return Detection("", "drill", 0.8, np.array(tip, float), np.zeros(2), direction, 7.0, 0.7, 0.1, 0.0, 0)


def test_each_instrument_takes_the_nearest_detection_that_points_its_way_and_the_rest_are_false():
    scene = (placed((500, 500), 0.3), placed((520, 500), 2.0), placed((100, 900), 1.0))
    found = [detection((523, 504), 2.0), detection((501, 500), 0.31), detection((100, 900), 1.0 + np.pi)]
    rows, false = compared(found, scene, 1000.0)
    assert [r["found"] for r in rows] == [True, True, False]
    assert rows[0]["tip_px"] == 1.0 and rows[1]["tip_px"] == 5.0
    assert rows[1]["tip_mm"] == 2.5  # at half the focal length from the source
    assert 0.5 < rows[0]["direction_deg"] < 0.6 and rows[0]["called"] == "drill"
    assert false == [found[2]]  # pointing the other way is another instrument


def test_a_detection_counts_once():
    rows, false = compared([detection((500, 500), 0.3)], (placed((500, 500), 0.3), placed((505, 500), 0.3)), 1000.0)
    assert sorted(r["found"] for r in rows) == [False, True] and not false


def test_a_share_is_said_with_what_so_small_a_sample_leaves_open():
    low, high = interval_95(9, 10)
    np.testing.assert_allclose((low, high), (0.5958, 0.9821), atol=1e-4)  # as prop.test of R without its correction
    assert interval_95(0, 200)[0] == 0 and 0.015 < interval_95(0, 200)[1] < 0.02
    assert interval_95(200, 200)[1] == 1 and interval_95(0, 0) == (0, 1)
    # Of 1,200 shares of samples of 60, as many as it says hold what they are samples of.
    drawn = np.random.default_rng(3).binomial(60, 0.94, 1200)
    held = [low <= 0.94 <= high for low, high in (interval_95(int(k), 60) for k in drawn)]
    assert 0.92 < np.mean(held) < 0.99


def test_what_was_bent_counts_by_how_much_of_it_is_in_view():
    metal = k_wire(2, 200, bend_mm=10)
    t = np.linspace(0, 1, 401)[:, None]
    axis = np.array([500.0, 500.0]) - 400 * t * [1.0, 0.0] + 4 * t * (1 - t) * [0.0, 12.0]
    bent = Placed(metal, np.full((2, 3), 500.0), axis)
    angle = float(np.arctan2(*(axis[0] - axis[40])[::-1]))
    found = [dataclasses.replace(detection((500, 500), angle), sagitta_px=11.0)]
    rows, false = compared(found, (bent,), 1000.0)
    assert rows[0]["visible_bend_px"] == 12.0 and rows[0]["bend_px"] == 11.0 and not false
    figures = figures_of(rows, [detection((100, 100), 0.0)], 4, 80.0)
    assert figures["bent"]["count"] == figures["bent"]["called_bent"] == 1 and figures["bent"]["px_off"] == 1.0
    # False ones by what they were called.
    assert figures["false_per_frame"] == figures["kinds"]["drill"]["false_per_frame"] == 0.25
    assert figures["kinds"]["k-wire"]["false_per_frame"] == 0


def test_a_drift_of_2_mm_is_noticed_and_taken_out_in_every_run():
    found = drift(4, 1)
    assert found["unnoticed"] == 0 and found["noticed_frames"]["max"] <= 30
    assert found["corrected_mm"]["p95"] < 0.7
