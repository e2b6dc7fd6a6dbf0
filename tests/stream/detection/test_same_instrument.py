"""Which detections are of the same instrument."""

from dataclasses import replace

import numpy as np
from tests.stream.detection.detections import detection

from fluoronav.stream.detection.same_instrument import same_line, same_tip


def test_a_line_has_one_tip_and_crossing_and_neighbouring_lines_have_their_own():
    wire, again, reverse = detection(500, 500), detection(520, 503), detection(205, 500, np.pi)
    assert same_line(again, wire, 1.0) and same_line(reverse, wire, 1.0)
    for other in (
        detection(500, 530),
        detection(500, 500, 0.3),
        detection(900, 500),
        detection(350, 650, np.pi / 2),
    ):
        assert not same_line(other, wire, 1.0)


def test_two_detections_of_a_bent_wire_s_tip_are_one():
    """Regression: their tails lie apart, and so they were two instruments."""
    wire, again = detection(500, 500), detection(503, 501, 0.02)
    bent = replace(again, tail_px=again.tail_px + [0, 90])
    assert not same_line(bent, wire, 1.0) and same_tip(bent, wire, 1.0)
    assert not same_tip(detection(500, 520), wire, 1.0) and not same_tip(detection(500, 500, 0.3), wire, 1.0)
    assert not same_tip(detection(500, 500, np.pi), wire, 1.0)
