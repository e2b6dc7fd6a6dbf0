"""The trail of requests: what it keeps, and that a changed one is told from an unchanged one."""

import json
import threading
from itertools import pairwise

import pytest

from fluoronav.audit import AuditError, AuditTrail, verify_trail
from fluoronav.cli import main


@pytest.fixture
def trail(tmp_path):
    t = AuditTrail(tmp_path / "audit", "test")
    for k in range(5):
        t.add({"event": "asked", "op": "registration.accept", "user": f"Dr. {k} Müller"})
    return t


def test_events_are_kept_in_order_with_their_time(trail):
    entries = [json.loads(line) for line in trail.path.read_text().splitlines()]
    assert [e["n"] for e in entries] == list(range(5)) and entries[3]["user"] == "Dr. 3 Müller"
    assert all(a["t"] < b["t"] for a, b in pairwise(entries))
    assert verify_trail(trail.path) == 5


@pytest.mark.parametrize("change", ["edit", "drop", "swap", "insert", "garble", "cut"])
def test_whatever_is_changed_is_found(trail, change):
    lines = trail.path.read_bytes().splitlines(keepends=True)
    if change == "edit":
        lines[2] = lines[2].replace(b"Dr. 2", b"Dr. 7")
    elif change == "drop":
        del lines[1]
    elif change == "swap":
        lines[1], lines[2] = lines[2], lines[1]
    elif change == "insert":
        lines.insert(3, lines[3])
    elif change == "garble":
        lines[4] = b"\xff\x00\n"
    elif change == "cut":
        lines[4] = lines[4][:20]
    trail.path.write_bytes(b"".join(lines))
    with pytest.raises(AuditError, match=r"jsonl: line \d"):
        verify_trail(trail.path)


def test_threads_do_not_tear_the_chain(tmp_path):
    trail = AuditTrail(tmp_path, "test")
    threads = [threading.Thread(target=lambda: [trail.add({"event": "x"}) for _ in range(20)]) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert verify_trail(trail.path) == 80


def test_what_cannot_be_written_says_where(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AuditError, match="file.*cannot be written"):
        AuditTrail(tmp_path / "file" / "audit", "test").add({})


def test_audit_verify_says_how_many_events_and_fails_on_a_changed_trail(trail, capsys):
    main(["audit", "verify", str(trail.path.parent)])
    assert "5 events, unchanged" in capsys.readouterr().out
    trail.path.write_text(trail.path.read_text().replace("Dr. 1", "Dr. 9"))
    assert main(["audit", "verify", str(trail.path)]) == 1
    assert "line 3" in capsys.readouterr().err
