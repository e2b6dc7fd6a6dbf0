"""All levels move together: voxels stay, names change, plans follow, and it can be taken back."""

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from tests.planning.planned_case import LEFT, planned_case

from fluoronav.case.file import read_case_file
from fluoronav.cli import main
from fluoronav.planning.anatomy import by_name, level_of
from fluoronav.planning.levels import LevelError, move_back, move_levels, shifted, steps_between
from fluoronav.planning.plan.revisions import PlanRevisions
from fluoronav.planning.plan.schema import Flag
from fluoronav.planning.questions import read_questions, write_questions
from fluoronav.planning.revisions import Conflict, Revisions
from fluoronav.planning.segmentation.engine import SegmentedStructure

QUESTION = {
    "key": "level", "text": "Which level is it? It is drafted as T8.", "choices": ["T8", "T7", "T9"],
    "evidence": "ribs: T12 unclear", "points_ct": [[0.0, 91.0, -158.0]],
}  # fmt: skip


def structure(name, **change):
    known = by_name().get(name)
    return replace(SegmentedStructure(name, known.label if known else 210, "atlas", 0.8, 9, 0.1, "approved"), **change)


def names(structures):
    return {s.name for s in structures}


def labels_of(case, number):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(Revisions(case).labels_path(number))))


def test_vertebrae_and_ribs_get_the_next_names_as_drafts_and_all_else_stays_as_it_was_judged():
    before = [structure(n) for n in ("vertebrae_T12", "vertebrae_L1", "rib_left_11", "spinal_cord", "sacrum")]
    shift = shifted(before, 1)
    assert names(shift.structures) == {"vertebrae_L1", "vertebrae_L2", "rib_left_12", "spinal_cord", "sacrum"}
    assert shift.labels[by_name()["vertebrae_T12"].label] == by_name()["vertebrae_L1"].label
    states = {s.name: s.state for s in shift.structures}
    assert states["vertebrae_L1"] == "draft" and states["spinal_cord"] == "approved"
    assert all(s.confidence == 0.8 and s.engine == "atlas" for s in shift.structures)


def test_a_drafted_rib_without_a_vertebra_is_left_out_and_one_that_a_person_drew_is_not():
    spine = [structure("vertebrae_T12"), structure("rib_left_12", state="draft")]
    assert shifted(spine, 1).left_out == ("rib_left_12",)
    with pytest.raises(LevelError, match="rib_left_12, which a person"):
        shifted([spine[0], structure("rib_left_12", engine="person", state="draft")], 1)


@pytest.mark.parametrize(
    ("there", "by", "said"),
    [
        (["vertebrae_C1"], -1, "C1 cannot be moved"),
        (["vertebrae_T12", "vertebrae_T13"], 1, "T13 cannot be moved"),
        (["vertebrae_L6"], 1, "L6 cannot be moved"),
        (["spinal_cord"], 1, "no vertebra"),
        (["vertebrae_T8"], 0, "not by 0"),
    ],
)
def test_what_has_no_place_in_the_spine_is_refused(there, by, said):
    with pytest.raises(LevelError, match=said):
        shifted([structure(n) for n in there], by)


def test_labels_with_numbers_of_their_own_keep_them():
    shift = shifted([structure("vertebrae_T8", label=7)], 1)
    assert shift.labels == {7: 7} and shift.structures[0].name == "vertebrae_T9" and shift.structures[0].label == 7


def test_an_answer_says_how_far():
    assert steps_between("T12", "L1") == 1 and steps_between("T12", "T11") == -1 and steps_between("T8", "T8") == 0
    for drafted, true in (("T8", "T13"), ("T8", "L1"), ("X1", "T8")):
        with pytest.raises(LevelError):
            steps_between(drafted, true)


def test_a_cases_levels_and_its_plans_move_together_and_come_back_exactly(tmp_path):
    flag = Flag(id="flag-count", origin="proposed", what="count", text="T8 has a rib", acknowledged_by="ada")
    case = planned_case(tmp_path, LEFT, flag)
    before, voxels = Revisions(case).newest(), labels_of(case, 1)
    moved = move_levels(case, 1, author="ada", parent=1)
    assert {level_of(n) for n in names(moved.revision.structures)} - {None} == {"T7", "T8", "T9", "T10", "T11"}
    assert (
        (labels_of(case, 2) == by_name()["vertebrae_T9"].label) == (voxels == by_name()["vertebrae_T8"].label)
    ).all()
    assert [(s.id, s.level) for s in moved.plan.items] == [("T9_left", "T9")], "a flag that names a level is left out"
    assert moved.plan.state == "draft" and moved.plan.labels_hash == moved.revision.labels_hash
    assert "measure again" in moved.notes[-1]
    back = move_back(case, author="ada", parent=2)
    assert back.revision.labels_hash == before.labels_hash and back.revision.structures == before.structures
    assert np.array_equal(labels_of(case, 3), voxels)
    assert back.plan.items == (LEFT, flag) and back.plan.labels_hash == before.labels_hash
    assert back.plan.state == "draft", "a person approves it again"


def test_only_a_move_that_nobody_has_built_on_is_taken_back(tmp_path):
    case = planned_case(tmp_path)
    with pytest.raises(LevelError, match="no move of levels"):
        move_back(case, author="ada", parent=1)
    with pytest.raises(Conflict):
        move_levels(case, 1, author="ada", parent=7)


def test_the_command_answers_the_question_with_an_audit_line_and_takes_it_back(tmp_path, capsys):
    case = planned_case(tmp_path)
    write_questions(case, {"revision": 1, "questions": [QUESTION], "warnings": []})
    assert main(["plan", "level", str(case)]) == 0
    assert "Which level is it?" in capsys.readouterr().out
    assert main(["plan", "level", str(case), "--level-of", "T8=T9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["questions"] == []
    assert "vertebrae_T11" in {s.name for s in read_case_file(case / "case.yaml").structures}
    assert PlanRevisions(case).newest().items[0].level == "T9"
    line = json.loads((case / "provenance.jsonl").read_text().splitlines()[-1])
    assert (line["event"], line["said"], line["revision"]) == ("levels", "T8 is T9", 2) and line["user"]
    answered = read_questions(case)["answered"]
    assert answered[0]["answer"] == "T8 is T9" and answered[0]["answered_by"] == line["user"]
    assert main(["plan", "level", str(case), "--back"]) == 0
    assert read_questions(case)["questions"] == [QUESTION]
    assert "vertebrae_T11" not in {s.name for s in read_case_file(case / "case.yaml").structures}


def test_the_answer_that_the_draft_is_right_changes_no_label(tmp_path, capsys):
    case = planned_case(tmp_path)
    write_questions(case, {"revision": 1, "questions": [QUESTION], "warnings": []})
    assert main(["plan", "level", str(case), "--level-of", "T8=T8"]) == 0
    assert Revisions(case).numbers() == [1] and read_questions(case)["questions"] == []
