"""A request is granted once, and only while it is of now."""

import time

import msgspec
import pytest

from fluoronav.stream.pipeline.freshness import MOST_APART_NS, Freshness
from fluoronav.wire import Request, make_request


def request(**change):
    content = make_request("registration.reject", user="tester") | change
    return msgspec.convert({k: v for k, v in content.items() if v is not ...}, Request)


def code(fault):
    return None if fault is None else fault[0]


def test_a_changing_request_is_fresh_once_and_a_reading_one_always():
    freshness, asked = Freshness(False), request()
    assert [code(freshness.fault(asked, False)) for _ in range(2)] == [None, None]
    assert [code(freshness.fault(asked, True)) for _ in range(3)] == [None, "repeated", "repeated"]
    assert freshness.fault(request(t=asked.t), True) is None  # another one of the same moment
    assert freshness.fault(request(id=asked.id), True) is None


def test_the_number_1_is_not_the_text_1():
    freshness = Freshness(False)
    assert [code(freshness.fault(request(id=i, t=...), True)) for i in (1, "1", 1)] == [None, None, "repeated"]


@pytest.mark.parametrize("changes", [True, False])
@pytest.mark.parametrize("apart", [-2 * MOST_APART_NS, 2 * MOST_APART_NS])
def test_another_time_is_stale(apart, changes):
    assert code(Freshness(False).fault(request(t=time.time_ns() + apart), changes)) == "stale"


def test_where_others_may_ask_the_time_is_required():
    assert code(Freshness(True).fault(request(t=...), False)) == "invalid"
    assert Freshness(True).fault(request(), True) is None


def test_what_is_remembered_is_bounded_and_what_was_forgotten_is_not_granted_again():
    freshness, now = Freshness(False, remembered=100), time.time_ns()
    asked = [request(t=now + k) for k in range(1000)]
    assert [freshness.fault(a, True) for a in asked] == [None] * 1000
    assert {code(freshness.fault(a, True)) for a in asked} == {"repeated"}
    assert len(freshness._by_time) == len(freshness._timed) == 100
    for k in range(1000):
        freshness.fault(request(id=k, t=...), True)
    assert len(freshness._untimed) == 100


def test_the_same_untimed_request_is_the_same_bytes_again_for_ten_seconds(monkeypatch):
    """A client of the first hour numbers every request 1, and may ask the same later on."""
    clock = [100.0]
    monkeypatch.setattr("fluoronav.stream.pipeline.freshness.time.monotonic", lambda: clock[0])
    freshness, asked = Freshness(False), request(id=1, t=...)
    assert [code(freshness.fault(asked, True)) for _ in range(2)] == [None, "repeated"]
    assert freshness.fault(request(id=1, t=..., op="registration.start"), True) is None
    clock[0] += 11
    assert freshness.fault(asked, True) is None
