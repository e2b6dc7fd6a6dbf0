"""Every frame is counted once, whatever happens to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluoronav.pipeline import FrameAccount
from fluoronav.wire import FrameHeader

T0 = 1_800_000_000_000_000_000
PERIOD = 33_000_000


def header(seq, t_acq=None, rows=4, cols=6):
    return FrameHeader(
        v=1, source="carm0", seq=seq, t_acq=T0 + seq * PERIOD if t_acq is None else t_acq, rows=rows, cols=cols,
        dtype="u2", bits=16,
    )  # fmt: skip


def account():
    return FrameAccount(4, 6, max_future_ns=100_000_000)


def admit(a, seq, **change):
    h = header(seq, **change)
    return a.admit(h, T0 + seq * PERIOD + 1_000_000)


fates = st.lists(st.sampled_from(["good", "skipped", "lost", "spoiled", "spoiled without number"]), max_size=60)


@given(fates, st.integers(0, 2**36))
def test_sent_is_overlays_plus_dropped_and_no_frame_is_counted_twice(fates, first):
    a = account()
    overlays = network = overload = invalid = 0
    for k, fate in enumerate([*fates, "good"]):
        seq = first + k
        if fate == "good":
            assert admit(a, seq) is None
            dropped = a.take_up()
            overlays += 1
            network, overload, invalid = (
                network + dropped["network"], overload + dropped["overload"], invalid + dropped["invalid"]
            )  # fmt: skip
        elif fate == "skipped":
            assert admit(a, seq) is None
            a.skip()
        elif fate.startswith("spoiled"):
            a.reject("payload", seq if fate == "spoiled" else None)
    sent = [*fates, "good"]
    # What was lost before the first frame that arrived cannot be known.
    begun = next(i for i, f in enumerate(sent) if f in ("good", "skipped"))
    known = sent[begun:]
    assert overload == sent.count("skipped")
    assert invalid == sum(f.startswith("spoiled") for f in sent)
    assert network == known.count("lost") + known.count("spoiled without number")
    assert overlays + overload + network + known.count("spoiled") == len(known)
    assert (a.totals.network, a.totals.overload, a.totals.invalid) == (network, overload, invalid)


def test_an_invalid_copy_of_a_frame_that_also_came_whole_is_not_a_loss():
    a = account()
    admit(a, 1)
    a.reject("payload", 1)
    assert admit(a, 2) is None
    assert a.take_up() == {"network": 0, "overload": 0, "invalid": 1}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"rows": 8}, "rows"),
        ({"cols": 8}, "cols"),
        ({"t_acq": T0 + 3600 * 10**9}, "t_acq"),
        ({"seq": 3}, "seq"),
        ({"seq": 5}, "seq"),
    ],
)
def test_a_frame_that_cannot_be_taken_up_is_counted_by_its_field(change, field):
    a = account()
    admit(a, 5)
    refused = admit(a, change.pop("seq", 6), **change)
    assert refused is not None and refused.startswith(field)
    assert a.totals.invalid_by_field == {field: 1}
    assert admit(a, 7) is None


def test_a_grabber_that_was_restarted_is_believed_after_a_silence():
    a = account()
    assert a.admit(header(5000), T0 + 5000 * PERIOD) is None
    later = T0 + 5100 * PERIOD
    assert a.admit(header(0, t_acq=later), later + 1_000_000) is None
    assert a.take_up()["network"] == 0


def test_a_grabber_that_was_restarted_at_once_is_believed_after_ten_frames():
    a = account()
    assert a.admit(header(5000), T0 + 5000 * PERIOD) is None
    outcomes = []
    for k in range(12):
        t = T0 + (5001 + k) * PERIOD
        outcomes.append(a.admit(header(k, t_acq=t), t) is None)
    assert outcomes == [False] * 9 + [True] * 3
    assert a.totals.invalid == 9


def test_an_old_frame_that_is_sent_again_and_again_is_never_believed():
    a = account()
    admit(a, 5)
    assert all(admit(a, 4) is not None for _ in range(50))
