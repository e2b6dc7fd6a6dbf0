"""What is known of a find, and the score that is made of it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tests.stream.detection.finds import seen

from fluoronav.paths import shipped
from fluoronav.stream.detection.joint_score import WEIGHTS, features, leaves_field, scores
from fluoronav.stream.detection.networks import Looked, _fade, share
from fluoronav.stream.detection.stage import _LEAST_SCORE

SHAPE, EVERYTHING = (1024, 1024), np.ones((256, 256), bool)
FIRST, SECOND, AT_FIRST, TIP, LEAVES, OTHER_FIRST, OTHER_SECOND, OTHER_TIP, SAME_KIND, FADE, LENGTH = range(11)


def described(*looked):
    return features(list(looked), EVERYTHING, SHAPE)


def test_a_line_leaves_the_field_at_the_picture_s_rim_and_at_the_aperture_s():
    field = np.hypot(*np.mgrid[-127.5:128, -127.5:128]) < 100
    assert not leaves_field(seen(600, 512), field, SHAPE)
    assert leaves_field(seen(420, 512), field, SHAPE)
    assert leaves_field(seen(310, 512), EVERYTHING, SHAPE) and not leaves_field(seen(340, 512), EVERYTHING, SHAPE)
    assert leaves_field(seen(155, 256, length=150), EVERYTHING, (512, 512))
    assert not leaves_field(seen(170, 256, length=150), EVERYTHING, (512, 512))


def test_finds_are_described_by_both_looks_and_by_their_other_end():
    alone, other_end = seen(500, 500, score=0.8), seen(205, 500, np.pi, score=0.5)
    rows = described(
        Looked(alone, seen(503, 504, kind="needle", score=0.6), 0.3, 0.7),
        Looked(other_end, seen(205, 500, np.pi, score=0.2), 0.2, 0.4),
        Looked(seen(500, 800), seen(500, 800), 0.9, 0.5),
    )
    assert share(rows[0, FIRST]) == pytest.approx(0.8) and share(rows[0, SECOND]) == pytest.approx(0.6)
    assert share(rows[0, AT_FIRST]) == pytest.approx(0.3) and share(rows[0, TIP]) == pytest.approx(0.7)
    assert share(rows[0, OTHER_FIRST]) == pytest.approx(0.5) and share(rows[0, OTHER_SECOND]) == pytest.approx(0.2)
    assert share(rows[1, OTHER_FIRST]) == pytest.approx(0.8) and share(rows[1, OTHER_TIP]) == pytest.approx(0.7)
    assert rows[2, OTHER_FIRST] < rows[0, OTHER_FIRST] and rows[2, OTHER_SECOND] < rows[0, OTHER_SECOND]
    assert share(rows[2, OTHER_TIP]) == 0.5
    assert rows[:, SAME_KIND].tolist() == [0, 1, 1]
    np.testing.assert_allclose(np.exp(rows[1:, LENGTH]), 300, rtol=1e-5)


def test_a_second_find_of_one_tip_is_not_its_other_end():
    """Regression: where a tip was proposed twice, each find was taken for the other one's tail."""
    here, again = (Looked(seen(x, 500, score=0.8), seen(x, 500, score=0.6), 0.6, 0.7) for x in (500, 506))
    alone, row = described(here)[0], described(here, again)[0]
    np.testing.assert_array_equal(row, alone)


def test_a_certain_score_is_a_number_too():
    sure = described(Looked(seen(500, 500, score=1.0), seen(500, 500, score=1.0), 0.0, 1.0))
    assert np.isfinite(sure).all()


def score_of(*looked):
    return scores(list(looked), EVERYTHING, SHAPE)


def test_the_weights_are_those_that_were_fitted():
    kept = json.loads(shipped("engines/instrument-joint.json").read_text())
    assert list(kept["weights"]) == list(WEIGHTS)
    np.testing.assert_allclose(list(WEIGHTS.values()), list(kept["weights"].values()), atol=0.005)
    assert kept["held_lost"] < kept["looks_alone"]["held_lost"]


def one_end(first, second, tip_rather=0.9, x=310):
    return Looked(seen(x, 500, score=first), seen(x, 500, score=second), second, tip_rather)


def test_the_score_rises_with_what_either_look_says():
    shares = np.linspace(0, 1, 11)
    sure = np.array([[score_of(one_end(a, b))[0] for b in shares] for a in shares])
    assert (sure > 0).all() and (sure < 1).all()
    assert (np.diff(sure[:, 1:-1], axis=0) > 0).all() and (np.diff(sure[1:-1], axis=1) > 0).all()
    # An edge of bone that fooled one of them: in real frames nearly all false finds were faint in the first look.
    assert score_of(one_end(0.35, 0.95)) < score_of(one_end(0.8, 0.8))


def test_nothing_found_has_no_scores():
    assert scores([], EVERYTHING, SHAPE).shape == (0,)


def test_one_that_both_looks_are_sure_of_is_believed_and_what_fooled_one_of_them_is_not():
    sure, fooled, faint, none = score_of(
        one_end(0.92, 0.999), one_end(0.35, 0.9), one_end(0.6, 0.5), one_end(0.3, 0.001)
    )
    assert sure > 0.95 and sure > faint > none and fooled < _LEAST_SCORE and none < 0.05


def test_of_two_ends_of_a_line_that_is_whole_in_view_the_second_look_s_is_believed():
    tip, tail = (
        Looked(d, d_again, d_again.score, tip_rather)
        for d, d_again, tip_rather in (
            (seen(500, 500, score=0.8), seen(500, 500, score=0.99), 0.95),
            (seen(200, 500, np.pi, score=0.8), seen(200, 500, np.pi, score=0.99), 0.05),
        )
    )
    of_tip, of_tail = score_of(tip, tail)
    assert of_tip > _LEAST_SCORE and of_tail < 0.3


def test_a_blunt_end_is_a_tip_where_its_wire_leaves_the_field():
    """Regression: a K-wire whose point is short was taken for the tail of one, however clearly it was seen."""
    leaves, ends = one_end(0.75, 0.99, tip_rather=0.1), one_end(0.75, 0.99, tip_rather=0.1, x=700)
    assert leaves_field(leaves.first, EVERYTHING, SHAPE) and not leaves_field(ends.first, EVERYTHING, SHAPE)
    assert score_of(leaves) > _LEAST_SCORE > score_of(ends)


def test_a_wire_that_fades_where_the_detector_saturates_does_not_end_there():
    """Regression: rails and wires that cross into a part of the picture that is saturated seemed to end in a point."""
    full, tip, right = 65535.0, np.array([512.0, 512.0]), np.array([1.0, 0.0])

    def exposed(beam, share):
        """A wire from the left that lets a share through, in a beam by column (of full scale); to the tip or beyond."""
        counts = np.tile(np.minimum(beam, 1), (1024, 1))
        to = 512 if share < 0.6 else 1024
        counts[508:517, :to] = np.minimum(share * beam[:to], 1)
        return (full * counts).astype(np.uint16)

    rising = np.linspace(0.2, 2.3, 1024)  # what lets 0.8 of it through is saturated from the middle on
    fade = [_fade(exposed(*one), tip, right, 1.0, full, False) for one in ((rising, 0.8), (np.full(1024, 2.0), 0.2))]
    assert fade[0] > 0.3 and fade[1] < 0.01
    believed = replace(one_end(0.8, 0.99), fade=fade[1])
    assert score_of(believed) > _LEAST_SCORE > 0.1 > score_of(replace(believed, fade=fade[0]))
