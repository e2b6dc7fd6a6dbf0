"""Refusals are logged, at most one line a second."""

import logging
from collections import Counter

from fluoronav.openigtlink.tally import Tally


def test_a_reason_is_logged_at_once_with_its_newest_example_and_then_less_and_less_often(caplog):
    counts, now = Counter(), [0.0]
    tally = Tally(counts, {"checksum": "messages with a wrong checksum", "closed": "connections ended"}, lambda: now[0])
    at = []
    with caplog.at_level(logging.WARNING, "fluoronav"):
        for k in range(600):
            now[0] = k / 10
            counts["checksum"] += 1
            counts["hidden"] += 1
            tally.note("checksum", f"case {k}")
            before = len(caplog.records)
            tally.say()
            if len(caplog.records) > before:
                at.append(now[0])
    assert at[0] == 0 and at[1] >= 1 and len(at) < 10
    assert caplog.records[0].message == "OpenIGTLink: 1 messages with a wrong checksum (case 0)"
    counts["closed"] += 1
    now[0] += 1.0
    with caplog.at_level(logging.WARNING, "fluoronav"):
        tally.say()
    assert "1 connections ended" in caplog.records[-1].message, "a new reason does not wait for the old one's pause"
