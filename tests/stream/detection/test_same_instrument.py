"""Which finds are of one instrument."""

from dataclasses import replace

import numpy as np
from tests.stream.detection.finds import seen

from fluoronav.stream.detection.same_instrument import at_one_tip, on_one_line


def test_a_line_has_one_tip_and_crossing_and_neighbouring_lines_have_their_own():
    wire, again, reverse = seen(500, 500), seen(520, 503), seen(205, 500, np.pi)
    assert on_one_line(again, wire, 1.0) and on_one_line(reverse, wire, 1.0)
    for other in (
        seen(500, 530),
        seen(500, 500, 0.3),
        seen(900, 500),
        seen(350, 650, np.pi / 2),
    ):
        assert not on_one_line(other, wire, 1.0)


def test_two_finds_of_a_bent_wire_s_tip_are_one():
    """Regression: their tails lie apart, and so they were two instruments."""
    wire, again = seen(500, 500), seen(503, 501, 0.02)
    bent = replace(again, tail_px=again.tail_px + [0, 90])
    assert not on_one_line(bent, wire, 1.0) and at_one_tip(bent, wire, 1.0)
    assert not at_one_tip(seen(500, 520), wire, 1.0) and not at_one_tip(seen(500, 500, 0.3), wire, 1.0)
    assert not at_one_tip(seen(500, 500, np.pi), wire, 1.0)
