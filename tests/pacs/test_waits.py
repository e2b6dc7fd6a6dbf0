"""Loops wake by what happens; a case is made while its series settles, and kept only if it is of all its files."""

import subprocess
import sys
import threading
import time

import pytest
from tests.pacs.conftest import ct_series, send, until

from fluoronav.case import load_case
from fluoronav.pacs.ahead import Ahead
from fluoronav.pacs.bell import Bell, ring
from fluoronav.pacs.jobs import Job, Made


def test_a_bell_is_heard_from_another_process_and_what_rang_before_counts(tmp_path):
    path = tmp_path / "bell"
    ring(path)  # nobody listens yet
    bell = Bell(path)
    ring(path)
    begun = time.monotonic()
    bell.wait(30)
    code = f"from pathlib import Path; from fluoronav.pacs.bell import ring; ring(Path({str(path)!r}))"
    other = threading.Thread(target=subprocess.run, args=([sys.executable, "-c", code],))
    other.start()
    bell.wait(30)
    other.join()
    assert time.monotonic() - begun < 25
    bell.wait(0.01)  # nothing is left of it
    bell.close()
    path.unlink()
    path.write_text("a file")
    ring(path)
    assert path.read_text() == "a file"


def job(folder, *names):
    return Job(tuple(folder / n for n in names), None, folder / "into", "P", "P", folder / "key", "released")


def test_what_was_made_ahead_is_taken_if_it_is_of_exactly_these_files_and_made_once(tmp_path):
    asked = []

    def take_in(job):
        asked.append(job)
        return Made(None, refused=str(len(asked)))

    ahead, one, two = Ahead(take_in), job(tmp_path, "a"), job(tmp_path, "a", "b")
    ahead.make("s", one)
    ahead.make("s", one)
    assert len(asked) == 1 and ahead.taken("s", one).refused == "1" and len(asked) == 1
    ahead.make("s", one)
    assert ahead.taken("s", two).refused == "3"


def test_a_fault_ahead_is_no_fault_and_leaves_nothing(tmp_path):
    faults = [OSError(28, "full"), None]

    def take_in(job):
        job.into.mkdir()
        if (fault := faults.pop(0)) is not None:
            raise fault
        return Made(None)

    ahead, one = Ahead(take_in), job(tmp_path, "a")
    ahead.make("s", one)
    assert not one.into.exists()
    assert ahead.taken("s", one) == Made(None)
    ahead.make("t", one)
    ahead.forget("t")
    assert not one.into.exists()


@pytest.fixture
def slow(make_node):
    """A node whose series settle for so long that a case is made ahead."""

    def change(content):
        content["series"] = {"settle_s": 12.0, "quiet_s": 90.0}

    return make_node(change)


def test_a_case_that_was_made_ahead_of_a_part_of_its_series_has_all_slices(slow):
    series = ct_series()
    send(slow.port, series[:13])
    until(lambda: list(slow.site.cases.glob(".incoming-*/case.yaml")), what=f"a case ahead; {slow.log.read_text()}")
    assert not slow.status["cases"] and not list(slow.site.cases.glob("P*"))
    send(slow.port, series[13:])
    assert load_case(slow.case()).ct.image.GetSize() == (52, 48, 26)
    assert len(slow.status["cases"]) == 1 and not list(slow.site.cases.glob(".incoming-*"))


def test_a_node_that_is_killed_after_a_case_was_made_ahead_makes_it_once(slow):
    series = ct_series()
    send(slow.port, series)
    until(lambda: list(slow.site.cases.glob(".incoming-*/case.yaml")), what="a case ahead")
    slow.kill()
    slow.start()
    assert not list(slow.site.cases.glob("P*"))
    send(slow.port, series)
    assert load_case(slow.case()).ct.image.GetSize() == (52, 48, 26)
    until(lambda: not list(slow.site.cases.glob(".incoming-*")), what="an empty store")
    assert len(slow.status["cases"]) == 1 and slow.status["aside"] == []


def test_the_process_that_makes_cases_does_not_load_the_compiler():
    unwanted = {"numba", "scipy", "highdicom", "pydicom.sr"}
    code = f"import sys, fluoronav.pacs.intake; sys.exit(str({unwanted} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "set()"
