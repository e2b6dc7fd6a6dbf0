"""What `health` says: `running` of what is delivered alone, with the reason in words."""

from types import SimpleNamespace

import pytest

from fluoronav.stream.pipeline.judge import frozen_for_s, shortfalls
from fluoronav.stream.pipeline.standing import RecentFrames, Standing
from fluoronav.wire.clock import ClockOffset

NOW = 1000.0


def loop(
    frames=90,
    late=0,
    lost=0,
    refused=0,
    status="tracking",
    since=NOW - 60,
    status_reason="",
    heard=NOW - 0.02,
    offset_ms=0.0,
):
    recent = RecentFrames()
    for k in range(frames):
        recent.taken(NOW - 2.9 + 0.03 * k, k < late, lost if k == 0 else 0)
    for k in range(refused):
        recent.refused(NOW - 0.03 * k)
    standing = Standing()
    standing.status, standing.since, standing.status_reason = status, since, status_reason
    clock, tracker = ClockOffset(16.0), ClockOffset(50.0)
    for k in range(20):
        tracker.add(k * 0.02, 5.0 + offset_ms)
    return SimpleNamespace(
        recent=recent, standing=standing, clock=clock, first_frame_at=NOW - 60, last_frame_at=NOW,
        tools=SimpleNamespace(clocks={b"tool/ndi": tracker}, last_at=heard),
        repeats=SimpleNamespace(changed_at=NOW, period_s=0.033),
        invalid_text="rows: frame is 8 x 8",
    )  # fmt: skip


def said(loop, registers=True, tracker="tcp://127.0.0.1:5553"):
    return list(shortfalls(loop, NOW, registers=registers, tracker=tracker))


def test_nothing_is_said_of_what_is_delivered():
    assert said(loop()) == []
    assert said(loop(late=8)) == []
    assert said(loop(status="searching", since=NOW - 1.0)) == []


@pytest.mark.parametrize(
    "change, words",
    [
        ({"late": 37}, "41 % of the last 90 overlays were late"),
        ({"frames": 8, "late": 8}, "100 % of the last 8 overlays were late"),
        ({"frames": 8, "lost": 25}, "25 of the last 33 frames were skipped or lost on the way"),
        ({"refused": 20}, "20 of the last 110 frames were refused (rows: frame is 8 x 8)"),
        ({"status": "lost", "since": NOW - 7}, "the registration has been lost for 7 s"),
        (
            {"status": "degraded", "since": NOW - 480, "status_reason": "the whole field does not agree with the CT"},
            "the registration has been degraded for 480 s (the whole field does not agree with the CT)",
        ),
        ({"heard": 0.0}, "nothing was ever heard of the tracker at tcp://127.0.0.1:5553"),
        ({"heard": NOW - 5}, "nothing has been heard of the tracker at tcp://127.0.0.1:5553 for 5 s"),
        (
            {"offset_ms": 60.0},
            "ndi's poses come 65 ms late, or its clock is behind by that: are the clocks synchronised?",
        ),
    ],
)
def test_what_is_promised_and_not_delivered_is_said_in_words(change, words):
    """Regression: `running` of a registration that was lost, of 41 % late overlays, and of a tracker that never was."""
    assert said(loop(**change)) == [words]


def test_what_is_not_promised_is_not_missed():
    bare = loop(status="no_model", since=NOW - 60, heard=0.0)
    assert said(bare, registers=False, tracker=None) == []


@pytest.mark.parametrize("period_s, unchanged_s, frozen", [(0.033, 0.9, False), (0.033, 1.1, True), (1.0, 1.5, False)])
def test_a_picture_that_repeats_is_frozen_unless_the_arm_pulses_slowly(period_s, unchanged_s, frozen):
    stream = loop()
    stream.repeats.changed_at, stream.repeats.period_s = NOW - unchanged_s, period_s
    assert bool(frozen_for_s(stream, NOW)) is frozen
