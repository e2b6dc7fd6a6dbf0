"""Every frame is counted once, whatever happens to it."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluoronav.geometry import Camera
from fluoronav.stream.pipeline.accounting import FrameAccount
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


class Stream:
    """A grabber: its own numbers and clock."""

    def __init__(self, seq=0, phase_ns=0, ahead_ns=0, period_ns=PERIOD, **header):
        self.seq, self.t, self.ahead_ns, self.period_ns, self.header = seq, T0 + phase_ns, ahead_ns, period_ns, header

    def next(self, **change):
        """The next frame's header, and when it arrives by our clock."""
        fields = {"rows": 4, "cols": 6, "dtype": "u2", "bits": 16} | self.header | change
        h = FrameHeader(v=1, source="carm0", seq=self.seq, t_acq=self.t + self.ahead_ns, **fields)
        at = self.t + 2_000_000
        self.seq += 1
        self.t += self.period_ns
        return h, at


def sent(a, stream, count, **change):
    """What is refused of so many frames, in words."""
    return [a.admit(*stream.next(**change)) for _ in range(count)]


class _Text:
    """Any reason that begins with seq."""

    def __eq__(self, other):
        return isinstance(other, str) and other.startswith("seq")

    __hash__ = None


def _refused_then_believed(refused, believed):
    return [_Text()] * refused + [None] * believed


def beside(a, real, intruder, rounds):
    """Frames of two grabbers in the order in which they arrive: what was said to each."""
    said = {id(real): [], id(intruder): []}
    for _ in range(2 * rounds):
        first = min((real, intruder), key=lambda s: s.t)
        said[id(first)].append(a.admit(*first.next()))
    return said[id(real)], said[id(intruder)]


@pytest.mark.parametrize("number", [5_000_000, 0, 2**63 - 5000])
def test_another_grabbers_frames_are_refused_and_the_one_that_was_followed_goes_on(number):
    a, real = account(), Stream(1000)
    assert sent(a, real, 20) == [None] * 20
    intruder = Stream(number, phase_ns=real.t - T0 + 11_000_000)
    of_real, of_intruder = beside(a, real, intruder, 40)
    assert of_real == [None] * len(of_real)
    assert all(text is not None and text.startswith("seq") for text in of_intruder)
    assert "another grabber sends on frame/carm0" in of_intruder[-1]
    assert "another grabber sends on frame/carm0" in a.conflict
    assert a.totals.network == 0 and set(a.totals.invalid_by_field) == {"seq"}


@pytest.mark.parametrize("offset", [0, 1, 5, -3])
@pytest.mark.parametrize("phase", [0.15, 0.4, 0.6, 0.85])
def test_a_grabber_that_counts_nearly_like_the_followed_one_takes_its_place_for_one_frame_at_most(offset, phase):
    a, real = account(), Stream(1000)
    sent(a, real, 20)
    intruder = Stream(real.seq + offset, phase_ns=real.t - T0 - round((1 - phase) * PERIOD))
    of_real, of_intruder = beside(a, real, intruder, 40)
    assert sum(text is not None for text in of_real) <= 1
    assert sum(text is None for text in of_intruder) <= 1
    assert a.conflict
    assert a.totals.network <= 5


def test_a_faster_intruder_is_no_restart():
    a, real = account(), Stream(1000)
    sent(a, real, 20)
    intruder = Stream(7_000_000, phase_ns=real.t - T0 + 1_000_000, period_ns=2_000_000)
    of_real, of_intruder = beside(a, real, intruder, 200)
    assert None not in of_intruder and of_real == [None] * len(of_real)
    assert a.conflict


def test_a_conflict_is_said_for_some_seconds_and_ends_with_the_intruder():
    a, real = account(), Stream(1000)
    sent(a, real, 20)
    beside(a, real, Stream(7_000_000, phase_ns=real.t - T0 + 1_000_000), 20)
    assert a.conflict
    sent(a, real, 30)
    assert a.conflict  # a second later still
    sent(a, real, 100)
    assert not a.conflict


def test_a_restart_is_no_conflict():
    a, real = account(), Stream(1000)
    sent(a, real, 20)
    again = Stream(0, phase_ns=real.t - T0)
    assert sent(a, again, 12) == _refused_then_believed(9, 3)
    assert not a.conflict and a.restarts == 1 and a.totals.network == 0


@pytest.mark.parametrize("bits", [16, 31, 32, 63])
def test_a_counter_that_begins_again_at_its_end_has_lost_nothing(bits):
    a, stream = account(), Stream(2**bits - 5)
    for _ in range(5):
        assert a.admit(*stream.next()) is None
    stream.seq = 0
    assert sent(a, stream, 5) == [None] * 5
    assert a.totals.network == 0 and a.restarts == 0
    lost = account()
    over = Stream(2**bits - 3)
    assert sent(lost, over, 1) == [None]
    lost.reject("payload", 2**bits - 1)
    over.seq, over.t = 2, over.t + 3 * PERIOD  # 2**bits - 2, 0 and 1 never came, 2**bits - 1 came damaged
    assert sent(lost, over, 1) == [None]
    assert lost.totals.network == 3


def test_numbers_that_leap_are_no_loss_and_no_counter_outgrows_a_message():
    a = account()
    for k in range(400):
        seq = 2**63 - 1 if k % 2 else 1
        a.admit(header(seq, t_acq=T0 + k * PERIOD), T0 + k * PERIOD)
    assert a.totals.network == 0
    assert all(0 <= n < 1000 for n in a.take_up().values())
    a.reject("seq", 2**64 - 1)
    assert a.admit(header(1, t_acq=T0 + 900 * PERIOD), T0 + 900 * PERIOD) is None
    assert a.totals.network == 0


def test_a_grabber_that_leaps_ahead_is_believed_after_ten_frames_without_a_loss():
    a, stream = account(), Stream(10)
    sent(a, stream, 8)
    stream.seq = 4_000_000_000
    said = sent(a, stream, 12)
    assert said == _refused_then_believed(9, 3)
    assert "more than can have been sent" in said[0]
    assert a.totals.network == 0


def test_frames_that_were_lost_in_a_pause_are_counted():
    a, stream = account(), Stream(10)
    sent(a, stream, 8)
    stream.seq, stream.t = stream.seq + 300, stream.t + 300 * PERIOD
    assert sent(a, stream, 1) == [None]
    assert a.totals.network == 300


@pytest.mark.parametrize("silence_s", [0, 3])
def test_a_grabber_that_starts_again_with_its_clock_an_hour_behind_is_believed_after_ten_frames(silence_s):
    a, stream = account(), Stream(5000)
    sent(a, stream, 8)
    again = Stream(0, phase_ns=stream.t - T0 + silence_s * 10**9, ahead_ns=-3600 * 10**9)
    said = sent(a, again, 12)
    assert said == _refused_then_believed(9, 3)
    assert "10 frames in a row" in said[0]
    assert not any("future" in text for text in said if text)


def test_a_clock_that_is_steadily_ahead_is_believed_and_said_and_believed_again_when_it_is_set():
    a, stream = account(), Stream(1, ahead_ns=7 * 10**9)
    said = sent(a, stream, 12)
    assert [text is None for text in said] == [False] * 9 + [True] * 3
    assert "7000 ms in the future" in said[0] or "6998 ms in the future" in said[0]
    assert a.ahead_ns == pytest.approx(7e9, abs=1e7)
    stray, at = stream.next()
    stray = msgspec.structs.replace(stray, t_acq=stray.t_acq + 5 * 10**9)
    assert a.admit(stray, at).startswith("t_acq")
    stream.ahead_ns = 0
    assert sent(a, stream, 12) == [None] * 12
    assert a.ahead_ns == 0
    stream.ahead_ns = 7 * 10**9
    assert sent(a, stream, 1)[0].startswith("t_acq")


def test_a_grabber_that_starts_again_with_its_clock_ahead_is_believed_after_ten_frames():
    a, stream = account(), Stream(5000)
    sent(a, stream, 8)
    again = Stream(0, phase_ns=stream.t - T0, ahead_ns=3600 * 10**9)
    assert [text is None for text in sent(a, again, 12)] == [False] * 9 + [True] * 3


def test_single_frames_from_the_future_are_never_believed():
    a, stream = account(), Stream(1)
    sent(a, stream, 5)
    for k in range(30):
        h, at = stream.next()
        ahead = msgspec.structs.replace(h, t_acq=h.t_acq + (k % 5 + 1) * 10**9)
        assert a.admit(ahead, at).startswith("t_acq")
    assert a.ahead_ns == 0
    assert sent(a, stream, 1) == [None]


CAMERA = Camera(
    4, 6, np.array([[3413.333, 0, 2.5], [0, 3413.333, 1.5], [0, 0, 1]]), calibration="arm", name="calibration/demo.yaml"
)
OPTICS = {"sdd_mm": 1000.0, "pixel_mm": [0.29297, 0.29297]}


@pytest.mark.parametrize(
    ("before", "now", "field"),
    [
        ({}, OPTICS | {"sdd_mm": 1100.0}, "sdd_mm"),
        (OPTICS, OPTICS | {"sdd_mm": 1100.0}, "sdd_mm"),
        (OPTICS, OPTICS | {"pixel_mm": [0.195, 0.195]}, "pixel_mm"),
        ({}, OPTICS | {"pixel_mm": [0.29297, 0.195]}, "pixel_mm"),
        ({}, {"pixel_mm": [0.29297, 0.195]}, "pixel_mm"),
        ({"sdd_mm": 1000.0}, {"sdd_mm": 1010.0}, "sdd_mm"),
        ({"pixel_mm": [0.3, 0.3]}, {"pixel_mm": [0.2, 0.2]}, "pixel_mm"),
        ({}, {"sdd_mm": 1000.0, "sid_mm": 1000.0}, "sid_mm"),
        ({}, {"camera": "magnified"}, "camera"),
    ],
)
def test_a_frame_that_was_taken_with_another_geometry_is_refused_by_its_field(before, now, field):
    a, stream = FrameAccount.of(CAMERA, 10**8), Stream(1)
    assert sent(a, stream, 5, **before) == [None] * 5
    for text in sent(a, stream, 30, **now):
        assert text.startswith(f"{field}:") and ("calibration/demo.yaml" in text or field == "sid_mm")
    assert a.totals.invalid_by_field == {field: 30}
    assert sent(a, stream, 1, **before) == [None]
    assert a.totals.network == 0


@pytest.mark.parametrize(
    "fits",
    [
        OPTICS,
        OPTICS | {"sdd_mm": 1003.0, "sid_mm": 620.0},
        {"sdd_mm": 800.0, "pixel_mm": [0.234375, 0.234375]},
        {"camera": "arm"},
        {"camera": "demo"},
        {"camera": "demo.yaml"},
        {"sid_mm": 600.0},
    ],
)
def test_a_frame_that_says_the_calibrations_own_geometry_is_taken(fits):
    assert sent(FrameAccount.of(CAMERA, 10**8), Stream(1), 5, **fits) == [None] * 5


def test_the_camera_files_own_distance_tells_another_from_the_first_frame_on():
    a = FrameAccount.of(replace(CAMERA, sdd_mm=1000.0), 10**8)
    assert sent(a, Stream(1), 1, sdd_mm=1100.0)[0].startswith(
        "sdd_mm: is 1100 mm, but 1000 mm for calibration/demo.yaml"
    )
    assert sent(a, Stream(1), 1, pixel_mm=[0.2, 0.2])[0].startswith("pixel_mm")


@pytest.mark.parametrize(
    ("change", "field"),
    [({"polarity": "inverse"}, "polarity"), ({"bits": 12}, "bits"), ({"dtype": "u1", "bits": 8}, "bits")],
)
def test_a_picture_that_says_it_is_of_another_kind_is_believed_when_ten_in_a_row_do(change, field):
    a, stream = account(), Stream(1)
    sent(a, stream, 5)
    assert sent(a, stream, 1, **change)[0].startswith(f"{field}: is ")
    assert sent(a, stream, 5) == [None] * 5
    said = sent(a, stream, 12, **change)
    assert [text is None for text in said] == [False] * 9 + [True] * 3
    assert a.totals.network == 0 and a.totals.invalid_by_field == {field: 10}
