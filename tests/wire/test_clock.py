"""A sender's clock: learned from the shortest delays, robustly, and again within a few messages."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluoronav.wire.clock import ClockLimits, ClockOffset

TRANSPORT_MS = 16.0


def fed(delays, every_s=0.033, clock=None):
    clock = clock or ClockOffset(TRANSPORT_MS)
    return clock, [clock.add(every_s * k, d) for k, d in enumerate(delays)]


def test_a_few_milliseconds_are_transport_and_no_clock():
    clock, left = fed([3.0, 2.0, 5.0, 40.0, 2.5] * 10)
    assert clock.ms == 0 and left[3] == 40.0


def test_one_frame_ahead_of_its_time_costs_no_other_its_budget():
    """Regression: the least of 128 delays decided, and one extreme one ruled four seconds."""
    clock, left = fed([3.0] * 30 + [-92.0] + [3.0] * 60)
    assert clock.ms == 0
    assert left[30] < 0 and all(d == pytest.approx(3.0) for d in left[31:])


def test_one_late_frame_is_late_and_no_step():
    clock, left = fed([3.0] * 30 + [700.0] + [3.0] * 30)
    assert left[30] == 700.0 and clock.ms == 0


@pytest.mark.parametrize("step_ms", [2000.0, -95.0, 3_600_000.0, -3_600_000.0])
def test_a_step_of_the_clock_is_learned_within_five_messages(step_ms):
    clock, left = fed([3.0] * 60 + [3.0 + step_ms] * 20)
    assert clock.ms == pytest.approx(3.0 + step_ms)
    assert all(abs(d) < 1 for d in left[64:])
    # And back.
    _, left = fed([3.0] * 10, clock=clock)
    assert clock.ms == 0 and left[-1] == 3.0


def test_it_is_counted_in_seconds_and_not_in_frames():
    """At one frame a second the delays of two minutes ago say nothing."""
    clock, _ = fed([3.0] * 3 + [30.0 + k for k in range(20)], every_s=1.0)
    assert clock.ms > 40


@given(st.lists(st.floats(0.5, 12.0), min_size=8, max_size=60), st.floats(-1e6, 1e6), st.integers(0, 1000))
def test_one_extreme_delay_never_decides(delays, extreme, where):
    k = where % (len(delays) + 1)
    clock, _ = fed([*delays[:k], extreme, *delays[k:]])
    assert clock.ms == 0


def test_a_message_from_the_future_is_early_and_a_clock_that_is_ahead_is_not():
    rng = np.random.default_rng(0)
    clock, _ = fed([-300.0 + d for d in rng.uniform(2, 9, 40)])
    assert not clock.is_early(-297.0, 100)
    assert clock.is_early(-400.0, 100)


def test_the_first_message_of_a_sender_is_not_believed_an_hour_ahead():
    clock, _ = fed([-3.6e6])
    assert clock.is_early(-3.6e6, 100)
    clock.add(0.1, 2.0)
    assert not clock.is_early(2.0, 100) and clock.ms == 0


def test_a_burst_after_a_stall_is_merged_and_is_no_step():
    clock = ClockOffset(TRANSPORT_MS, ClockLimits(merge_s=0.01))
    fed([3.0] * 60, clock=clock)
    left = [clock.add(2.2 + 0.001 * k, 200.0 - k) for k in range(9)]
    assert clock.ms == 0 and clock.steps == 0 and left[0] == 200.0


def test_an_offset_that_was_applied_falls_back_only_below_the_resynchronised_delay():
    clock = ClockOffset(TRANSPORT_MS, ClockLimits(resynchronised_ms=8.0))
    fed([18.0] * 20, clock=clock)
    assert clock.ms == 18.0
    for k in range(200):
        clock.add(1.0 + 0.033 * k, 12.0)
    assert clock.ms == 12.0
    for k in range(200):
        clock.add(8.0 + 0.033 * k, 5.0)
    assert clock.ms == 0


def test_a_clock_that_is_known_to_be_set_is_learned_from_the_next_message():
    clock, _ = fed([300.0] * 20)
    clock.forget()
    assert clock.ms == 300.0 and clock.steps == 1
    assert clock.add(2.0, -700.0) == 0.0 and clock.ms == -700.0
