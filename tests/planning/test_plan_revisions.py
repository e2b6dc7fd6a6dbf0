"""Revisions of a plan: immutable, chained by hash, and never lost to another editor."""

import hashlib
import threading

import pytest

from fluoronav.planning.plan.file import PlanError, read_plan, write_plan
from fluoronav.planning.plan.revisions import PlanConflict, PlanRevisions
from fluoronav.planning.plan.schema import Plan

PLAN = Plan(case="A", revision=1, ct_hash="a" * 64, made="2026-01-01T12:00:00+00:00")


def test_each_revision_names_the_hash_of_the_one_before(tmp_path):
    plans = PlanRevisions(tmp_path)
    first = plans.add(PLAN, parent=0)
    second = plans.add(PLAN.model_copy(update={"note": "again"}), parent=1)
    assert (first.revision, first.parent, second.revision) == (1, None, 2)
    assert second.parent == hashlib.sha256(plans.path(1).read_bytes()).hexdigest()
    assert plans.newest() == second == read_plan(tmp_path / "plan.yaml") and plans.read(1) == first


def test_of_two_who_edit_the_same_revision_the_second_is_told(tmp_path):
    plans = PlanRevisions(tmp_path)
    plans.add(PLAN, parent=0)
    caught = []

    def add():
        try:
            plans.add(PLAN, parent=1)
        except PlanConflict as error:
            caught.append(error.newest)

    threads = [threading.Thread(target=add) for _ in range(5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert plans.numbers() == [1, 2] and caught == [2] * 4


def test_a_plan_that_another_program_wrote_becomes_a_revision_as_a_draft(tmp_path):
    plans = PlanRevisions(tmp_path)
    plans.add(PLAN, parent=0)
    write_plan(PLAN.model_copy(update={"state": "approved", "approved_by": "a file", "note": "x"}), plans.file)
    adopted = plans.newest()
    assert (adopted.revision, adopted.state, adopted.approved_by, adopted.note) == (2, "draft", "", "x")
    assert read_plan(plans.file) == adopted and plans.newest() == adopted


@pytest.mark.parametrize("left", ["old", "none"])
def test_a_crash_between_the_revision_and_its_copy_is_mended(tmp_path, left):
    plans = PlanRevisions(tmp_path)
    plans.add(PLAN, parent=0)
    old = plans.file.read_bytes()
    second = plans.add(PLAN.model_copy(update={"note": "again"}), parent=1)
    plans.file.write_bytes(old) if left == "old" else plans.file.unlink()
    assert plans.newest() == second == read_plan(plans.file) and plans.numbers() == [1, 2]


def test_a_damaged_plan_is_named(tmp_path):
    plans = PlanRevisions(tmp_path)
    plans.file.write_text("state: final")
    with pytest.raises(PlanError, match=r"plan\.yaml"):
        plans.newest()
    assert PlanRevisions(tmp_path / "none").newest() is None
