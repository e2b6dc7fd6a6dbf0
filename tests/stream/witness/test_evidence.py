"""From verdicts of single frames to a doubt, and back."""

import pytest

from fluoronav.stream.witness.evidence import LIMITS, Evidence, Verdict

AGREES, BESIDE, MUTE = Verdict("agrees", "a", -1.0), Verdict("disagrees", "b", 1.0, 3.0), Verdict("cannot_say", "c")


def taken(verdicts, limit=3.0):
    evidence = Evidence(limit)
    for verdict in verdicts:
        evidence.take(verdict)
    return evidence


def test_three_frames_that_disagree_make_a_doubt_that_says_how_far():
    evidence = Evidence(3.0)
    assert [evidence.take(BESIDE) for _ in range(4)] == [False, False, True, False]
    assert evidence.doubted and evidence.offset_mm == 3.0


@pytest.mark.parametrize("run", [[BESIDE, BESIDE], [BESIDE, AGREES] * 20, [BESIDE, BESIDE, AGREES, BESIDE, AGREES]])
def test_single_frames_that_disagree_make_none(run):
    assert not taken(run).doubted


def test_frames_that_are_less_sure_count_less():
    faint = Verdict("disagrees", "b", 0.3, 2.0)
    assert not taken([faint] * 3, 1.0).doubted and taken([faint] * 4, 1.0).doubted


def test_a_frame_that_cannot_say_changes_nothing():
    assert taken([BESIDE, MUTE, BESIDE, MUTE, MUTE, BESIDE]).doubted
    assert taken([BESIDE] * 3 + [MUTE] * 100).doubted


def test_frames_without_contrast_between_two_that_disagree_keep_them_from_making_a_doubt():
    """Regression: of a right pose two frames that disagreed, three unclear ones apart, made a doubt."""
    unclear, beside = Verdict("cannot_say", "no_contrast"), Verdict("disagrees", "b", 0.5, 2.2)

    def doubted(*verdicts):
        evidence = Evidence(LIMITS.against_pose, LIMITS.unclear_leaves)
        for verdict in verdicts:
            evidence.take(verdict)
        return evidence.doubted

    assert doubted(beside, beside) and doubted(beside, unclear, beside)
    assert not doubted(beside, unclear, unclear, unclear, beside)


def test_a_doubt_ends_with_a_row_of_frames_that_agree_and_not_before():
    assert taken([BESIDE] * 3 + [AGREES] * (LIMITS.agreed - 1) + [BESIDE] + [AGREES] * (LIMITS.agreed - 1)).doubted
    assert not taken([BESIDE] * 3 + [AGREES] * LIMITS.agreed).doubted


def test_a_doubt_is_forgotten_with_the_pose_that_it_is_of():
    evidence = taken([BESIDE] * 3)
    assert evidence.forget() and not evidence.doubted
    assert not evidence.forget()
