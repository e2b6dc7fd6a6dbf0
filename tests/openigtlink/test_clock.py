"""A device's times by our clock."""

import numpy as np
import pytest

from fluoronav.openigtlink.clock import SenderClock

NS = 1_000_000_000
START = 1_700_000_000 * NS


def stream(clock, seconds, offset_s, start=START, hz=60, latency=lambda k: 0.004, seed=1):
    """Errors of the converted times, s, sample by sample; None where there is none."""
    rng = np.random.default_rng(seed)
    errors = []
    for k in range(round(seconds * hz)):
        true = start + round(k / hz * NS)
        now = true + round((latency(k) + rng.exponential(0.002)) * NS)
        t = clock.ours(true - round(offset_s * NS), now)
        assert t is None or t <= now
        errors.append(None if t is None else (t - true) / NS)
    return errors


def test_a_synchronised_clock_is_taken_as_it_is():
    clock = SenderClock()
    assert stream(clock, 5, 0.0) == [0.0] * 300 and clock.offset_ns == 0


@pytest.mark.parametrize("offset", [-3600.0, -0.3, -0.06, 0.06, 0.3, 3600.0, 1.7e9 - 50])
def test_a_clock_that_is_off_by_a_constant_loses_nothing(offset):
    errors = stream(SenderClock(), 5, offset)
    assert max(abs(e) for e in errors) < 0.025
    # The jitter of the network is gone once the least delay is known.
    assert np.std(errors[120:]) < 0.002 and abs(np.mean(errors[120:])) < 0.01


@pytest.mark.parametrize("step", [-2.0, -0.5, 0.5, 2.0, 3600.0])
def test_a_sender_clock_that_is_set_is_learned_again_within_a_second(step):
    clock = SenderClock()
    stream(clock, 4, 0.0)
    errors = stream(clock, 4, -step, START + 4 * NS)
    assert max(abs(e) for e in errors[60:]) < 0.03 and clock.steps >= 1


@pytest.mark.parametrize("step", [-2.0, 2.0])
def test_our_own_clock_that_is_set_is_learned_again_within_a_second(step):
    clock = SenderClock()
    stream(clock, 4, 0.0)
    # The sender's times go on; ours make a step.
    errors = stream(clock, 4, step, START + round((4 + step) * NS))
    assert max(abs(e) for e in errors[60:]) < 0.03


def test_one_message_from_the_future_or_a_late_one_does_not_move_the_offset():
    clock = SenderClock()
    stream(clock, 4, 0.3)
    before = clock.offset_ns
    now = START + 4 * NS
    assert clock.ours(now - round(0.2 * NS), now) == now
    assert clock.ours(now + 10**7 - round(0.3 * NS), now + round(0.4 * NS)) is not None
    errors = stream(clock, 1, 0.3, now + NS // 2)
    assert abs(clock.offset_ns - before) < 0.01 * NS and max(abs(e) for e in errors) < 0.02


def test_a_message_that_was_held_up_keeps_its_time():
    clock = SenderClock()
    stream(clock, 4, 0.0)
    true = START + 4 * NS
    assert clock.ours(true, true + round(0.3 * NS)) == true


def test_missing_or_constant_times_are_not_used():
    clock = SenderClock()
    assert clock.ours(0, START) is None
    assert [clock.ours(12 * NS, START + k * NS) for k in range(1, 4)] == [START + NS, None, None]
    # A clock of whole seconds: one time, many poses.
    clock = SenderClock()
    given = [clock.ours((START + k * NS // 50) // NS * NS, START + k * NS // 50) for k in range(200)]
    assert given[60:].count(None) == 140
