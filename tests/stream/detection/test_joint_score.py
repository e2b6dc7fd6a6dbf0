"""Features of a candidate, and the score that is made of them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tests.stream.detection.detections import detection

from fluoronav.paths import shipped
from fluoronav.stream.detection.joint_score import WEIGHTS, candidate_features, joint_scores, leaves_field
from fluoronav.stream.detection.stage import SCORES
from fluoronav.stream.detection.two_stage import Candidate, _saturation, probability

SHAPE, EVERYTHING = (1024, 1024), np.ones((256, 256), bool)
FIRST, SECOND, AT_FIRST, TIP, LEAVES, OTHER_FIRST, OTHER_SECOND, OTHER_TIP, SAME_KIND, SATURATION, LENGTH = range(11)


def described(*candidates):
    return candidate_features(list(candidates), EVERYTHING, SHAPE)


def test_a_line_leaves_the_field_at_the_image_s_edge_and_at_the_aperture_s():
    field = np.hypot(*np.mgrid[-127.5:128, -127.5:128]) < 100
    assert not leaves_field(detection(600, 512), field, SHAPE)
    assert leaves_field(detection(420, 512), field, SHAPE)
    assert leaves_field(detection(310, 512), EVERYTHING, SHAPE) and not leaves_field(
        detection(340, 512), EVERYTHING, SHAPE
    )
    assert leaves_field(detection(155, 256, length=150), EVERYTHING, (512, 512))
    assert not leaves_field(detection(170, 256, length=150), EVERYTHING, (512, 512))


def test_a_candidate_s_features_are_of_both_networks_and_of_its_other_end():
    alone, other_end = detection(500, 500, score=0.8), detection(205, 500, np.pi, score=0.5)
    rows = described(
        Candidate(alone, detection(503, 504, kind="needle", score=0.6), 0.3, 0.7),
        Candidate(other_end, detection(205, 500, np.pi, score=0.2), 0.2, 0.4),
        Candidate(detection(500, 800), detection(500, 800), 0.9, 0.5),
    )
    assert probability(rows[0, FIRST]) == pytest.approx(0.8) and probability(rows[0, SECOND]) == pytest.approx(0.6)
    assert probability(rows[0, AT_FIRST]) == pytest.approx(0.3) and probability(rows[0, TIP]) == pytest.approx(0.7)
    assert probability(rows[0, OTHER_FIRST]) == pytest.approx(0.5)
    assert probability(rows[0, OTHER_SECOND]) == pytest.approx(0.2)
    assert probability(rows[1, OTHER_FIRST]) == pytest.approx(0.8)
    assert probability(rows[1, OTHER_TIP]) == pytest.approx(0.7)
    assert rows[2, OTHER_FIRST] < rows[0, OTHER_FIRST] and rows[2, OTHER_SECOND] < rows[0, OTHER_SECOND]
    assert probability(rows[2, OTHER_TIP]) == 0.5
    assert rows[:, SAME_KIND].tolist() == [0, 1, 1]
    np.testing.assert_allclose(np.exp(rows[1:, LENGTH]), 300, rtol=1e-5)


def test_a_second_candidate_of_one_tip_is_not_its_other_end():
    """Regression: of two candidates of one tip, each was taken for the other one's tail."""
    here, again = (Candidate(detection(x, 500, score=0.8), detection(x, 500, score=0.6), 0.6, 0.7) for x in (500, 506))
    alone, row = described(here)[0], described(here, again)[0]
    np.testing.assert_array_equal(row, alone)


def test_a_certain_score_is_a_number_too():
    sure = described(Candidate(detection(500, 500, score=1.0), detection(500, 500, score=1.0), 0.0, 1.0))
    assert np.isfinite(sure).all()


def score_of(*candidates):
    return joint_scores(list(candidates), EVERYTHING, SHAPE)


def test_the_weights_are_those_that_were_fitted():
    kept = json.loads(shipped("engines/instrument-joint.json").read_text())
    assert list(kept["weights"]) == list(WEIGHTS)
    np.testing.assert_allclose(list(WEIGHTS.values()), list(kept["weights"].values()), atol=0.005)
    assert kept["held_lost"] < kept["networks_alone"]["held_lost"]


def one_end(first, second, tip_probability=0.9, x=310):
    return Candidate(detection(x, 500, score=first), detection(x, 500, score=second), second, tip_probability)


def test_the_score_rises_with_the_score_of_either_network():
    shares = np.linspace(0, 1, 11)
    sure = np.array([[score_of(one_end(a, b))[0] for b in shares] for a in shares])
    assert (sure > 0).all() and (sure < 1).all()
    assert (np.diff(sure[:, 1:-1], axis=0) > 0).all() and (np.diff(sure[1:-1], axis=1) > 0).all()
    # In real frames the first network's score of nearly all false positives is low.
    assert score_of(one_end(0.35, 0.95)) < score_of(one_end(0.8, 0.8))


def test_nothing_found_has_no_scores():
    assert joint_scores([], EVERYTHING, SHAPE).shape == (0,)


def test_a_candidate_with_high_scores_of_both_networks_is_accepted_and_one_that_fooled_a_network_is_not():
    sure, fooled, faint, none = score_of(
        one_end(0.92, 0.999), one_end(0.35, 0.9), one_end(0.6, 0.5), one_end(0.3, 0.001)
    )
    assert sure > 0.95 and sure > faint > none and fooled < SCORES.new and none < 0.05


def test_of_two_ends_of_a_line_that_is_whole_in_view_the_second_network_s_tip_is_accepted():
    tip, tail = (
        Candidate(d, d_again, d_again.score, tip_probability)
        for d, d_again, tip_probability in (
            (detection(500, 500, score=0.8), detection(500, 500, score=0.99), 0.95),
            (detection(200, 500, np.pi, score=0.8), detection(200, 500, np.pi, score=0.99), 0.05),
        )
    )
    of_tip, of_tail = score_of(tip, tail)
    assert of_tip > SCORES.new and of_tail < 0.3


def test_a_blunt_end_is_a_tip_where_its_wire_leaves_the_field():
    """Regression: a K-wire whose point is short was taken for the tail of one, however clearly it was seen."""
    leaves, ends = one_end(0.75, 0.99, tip_probability=0.1), one_end(0.75, 0.99, tip_probability=0.1, x=700)
    assert leaves_field(leaves.first, EVERYTHING, SHAPE) and not leaves_field(ends.first, EVERYTHING, SHAPE)
    assert score_of(leaves) > SCORES.new > score_of(ends)


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
    saturation = [
        _saturation(exposed(*one), tip, right, 1.0, full, False) for one in ((rising, 0.8), (np.full(1024, 2.0), 0.2))
    ]
    assert saturation[0] > 0.3 and saturation[1] < 0.01
    believed = replace(one_end(0.8, 0.99), saturation=saturation[1])
    assert score_of(believed) > SCORES.new > 0.1 > score_of(replace(believed, saturation=saturation[0]))
