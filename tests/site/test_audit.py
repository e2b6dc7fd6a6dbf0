"""The audit trail: what it keeps, and that changes are found."""

import json
import os
import threading
import time
from itertools import pairwise

import pytest

from fluoronav.cli import main
from fluoronav.site import audit
from fluoronav.site.audit import AuditError, AuditLimits, AuditTrail, TornTrail, verify_trail


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
def test_every_change_of_a_trail_is_found(trail, change):
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


def test_a_trail_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AuditError, match="file.*cannot be written"):
        AuditTrail(tmp_path / "file" / "audit", "test").add({})


def test_audit_verify_says_how_many_events_and_fails_on_a_changed_trail(trail, capsys):
    main(["audit", "verify", str(trail.path.parent)])
    assert "5 events, unchanged" in capsys.readouterr().out
    trail.path.write_text(trail.path.read_text().replace("Dr. 1", "Dr. 9"))
    assert main(["audit", "verify", str(trail.path)]) == 1
    assert "line 3" in capsys.readouterr().err


def entries(trail):
    return [json.loads(line) for line in trail.path.read_text().splitlines()]


def test_a_line_cut_by_a_crash_is_distinguished_from_a_changed_one(trail, capsys):
    trail.path.write_bytes(trail.path.read_bytes()[:-20])
    with pytest.raises(TornTrail, match="line 5 was not finished") as caught:
        verify_trail(trail.path)
    assert caught.value.events == 4
    assert main(["audit", "verify", str(trail.path)]) == 0
    assert "4 events, unchanged; the line after them was not finished" in capsys.readouterr().out


@pytest.fixture
def full_disk(monkeypatch):
    """A disk with room for a few more bytes."""
    room, write = [0], os.write

    def limited(file, data):
        if room[0] <= 0:
            raise OSError(28, "No space left on device")
        done = write(file, bytes(data)[: room[0]])
        room[0] -= done
        return done

    monkeypatch.setattr(audit.os, "write", limited)
    return room


def test_half_a_line_is_removed_and_held_events_are_written_in_order_when_there_is_room(tmp_path, full_disk):
    trail = AuditTrail(tmp_path, "test", AuditLimits(held_events=3))
    full_disk[0] = 300
    trail.add({"event": "asked", "k": 0})
    with pytest.raises(AuditError, match="No space left"):
        for _ in range(5):
            trail.add({"event": "asked", "k": "before"})
    whole = verify_trail(trail.path)
    before = time.time_ns()
    for k in range(5):
        assert not trail.keep({"event": "asked", "k": k})
    assert trail.held == 3 and "No space left" in trail.fault
    assert not trail.flush()
    full_disk[0] = 10**6
    assert trail.close() and trail.held == 0 and not trail.fault
    kept = entries(trail)[whole:]
    assert [e["k"] for e in kept[:3]] == [0, 1, 2] and all(before <= e["t"] for e in kept)
    assert kept[3]["of"] == {"asked": 2}
    assert verify_trail(trail.path) == whole + 4


def test_room_on_the_disk_is_noticed_without_another_event(tmp_path, full_disk):
    trail = AuditTrail(tmp_path, "test")
    with pytest.raises(AuditError):
        trail.add({"event": "asked"})
    assert not trail.flush() and trail.fault
    full_disk[0] = 10**6
    assert trail.flush() and not trail.fault and verify_trail(trail.path) == 1


@pytest.mark.parametrize("name", ["refused", "forbidden"])
def test_refusals_beyond_a_few_are_counted_in_one_line(tmp_path, name):
    trail = AuditTrail(tmp_path, "test", AuditLimits(refusals=4, window_s=0.2))
    for _ in range(1000):
        trail.add({"event": name, "args": {"a": ["x" * 5000] * 10}})
    assert [e["event"] for e in entries(trail)] == [name] * 4
    assert trail.path.stat().st_size < 4 * 2048
    time.sleep(0.25)
    trail.add({"event": "asked"})
    assert [(e["event"], e.get("of")) for e in entries(trail)[4:]] == [("more", {name: 996}), ("asked", None)]


@pytest.mark.parametrize(
    "value",
    [b"\xff" * 10, [[[[[[[[1]]]]]]]], float("nan"), float("inf"), {1: 2}, {b"x": object()}, 2**80, "\ud800",
     {"a": {1, 2}}, "x" * 10**6, ["y" * 100] * 10**4, {str(k): k for k in range(10**4)}],
)  # fmt: skip
def test_any_event_becomes_one_bounded_line_of_json(tmp_path, value):
    trail = AuditTrail(tmp_path, "test")
    trail.add({"event": "asked", "args": value, "user": "somebody"})
    (line,) = trail.path.read_text().splitlines()
    assert len(line) < 10_000 and "NaN" not in line and json.loads(line)["user"] == "somebody"
    assert verify_trail(trail.path) == 1


def test_a_full_file_is_continued_in_another_which_holds_its_hash(tmp_path):
    trail = AuditTrail(tmp_path, "test", AuditLimits(file_bytes=2000))
    first = trail.path
    for k in range(40):
        trail.add({"event": "asked", "k": k})
    files = sorted(tmp_path.glob("*.jsonl"))
    assert len(files) > 2 and sum(verify_trail(f) for f in files) == 40 + len(files) - 1
    assert all(f.stat().st_size < 2500 for f in files)
    second = json.loads(first.with_name(first.stem + "-1.jsonl").read_text().splitlines()[0])
    assert second["event"] == "continues" and second["file"] == first.name


def test_two_trails_of_the_same_second_and_process_id_have_two_files(tmp_path):
    first, second = AuditTrail(tmp_path, "test"), AuditTrail(tmp_path, "test")
    first.add({"event": "asked"})
    second.add({"event": "asked"})
    assert first.path != second.path and verify_trail(first.path) == verify_trail(second.path) == 1


def test_only_its_user_can_read_a_trail(trail):
    assert trail.path.stat().st_mode & 0o077 == 0 and trail.path.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["../x", "a/b", ""])
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="cannot be named"):
        AuditTrail(tmp_path, name)
