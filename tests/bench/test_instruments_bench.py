"""The bench's own arithmetic: what it calls found, and what false."""

import numpy as np

from fluoronav.bench.instruments import compared
from fluoronav.bench.instruments_in_space import drift
from fluoronav.records import Detection
from fluoronav.simulation.instrument_scenes import Placed
from fluoronav.simulation.metal import k_wire


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
    assert false == 1  # pointing the other way is another instrument


def test_a_detection_counts_once():
    rows, false = compared([detection((500, 500), 0.3)], (placed((500, 500), 0.3), placed((505, 500), 0.3)), 1000.0)
    assert sorted(r["found"] for r in rows) == [False, True] and false == 0


def test_a_drift_of_2_mm_is_noticed_and_taken_out_in_every_run():
    found = drift(4, 1)
    assert found["unnoticed"] == 0 and found["noticed_frames"]["max"] <= 30
    assert found["corrected_mm"]["p95"] < 0.7
