"""The trail of a case: several processes append to it, and every change is found."""

import json
import multiprocessing

import pytest

from fluoronav.site.audit import AuditError, TornTrail, verify_trail
from fluoronav.site.case_trail import CaseTrail


def lines(folder):
    return [json.loads(x) for x in (folder / "provenance.jsonl").read_text().splitlines()]


def add_many(folder, user):
    for k in range(20):
        CaseTrail(folder).add("edit", user=user, k=k)


def test_processes_that_append_at_once_make_one_chain(tmp_path):
    workers = [multiprocessing.Process(target=add_many, args=(tmp_path, u)) for u in "abc"]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert verify_trail(tmp_path / "provenance.jsonl") == 60
    assert CaseTrail(tmp_path).last(3) == lines(tmp_path)[-3:]
    assert len(list(CaseTrail(tmp_path).events())) == 60


def test_a_line_that_a_crash_cut_off_is_taken_back_before_the_next(tmp_path):
    trail = CaseTrail(tmp_path)
    assert [trail.add("edit", k=k) for k in range(3)] == [0, 1, 2]
    whole = trail.path.read_bytes()
    trail.path.write_bytes(whole + b'{"n":3,"t":')
    with pytest.raises(TornTrail):
        verify_trail(trail.path)
    assert trail.add("edit", k=3) == 3 and verify_trail(trail.path) == 4


def test_lines_without_hashes_are_kept_beside_and_the_chain_says_their_hash(tmp_path):
    old = b'{"time": "2026-01-01T00:00:00+00:00", "event": "arrived"}\n'
    (tmp_path / "provenance.jsonl").write_bytes(old)
    CaseTrail(tmp_path).add("edit", user="ada")
    assert [e["event"] for e in lines(tmp_path)] == ["continues", "edit"]
    assert (tmp_path / "provenance.before").read_bytes() == old
    assert verify_trail(tmp_path / "provenance.jsonl") == 2


def test_a_trail_that_was_changed_is_not_continued_unnoticed(tmp_path):
    trail = CaseTrail(tmp_path)
    for k in range(3):
        trail.add("edit", k=k)
    trail.path.write_bytes(trail.path.read_bytes().replace(b'"k":1', b'"k":7'))
    trail.add("edit", k=3)
    with pytest.raises(AuditError, match="line 3"):
        verify_trail(trail.path)
    trail.path.write_bytes(b"no event\n")
    with pytest.raises(AuditError, match="not an event"):
        trail.add("edit", k=4)
