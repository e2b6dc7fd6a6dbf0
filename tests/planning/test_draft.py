"""A draft case: it loads, it grows by revisions, and what people have drawn stays."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import yaml
from tests.case.scans import BONE, label_map, patient, placed

from fluoronav.case import load_case
from fluoronav.case.volume import read_volume
from fluoronav.cli import main
from fluoronav.planning.anatomy import by_name
from fluoronav.planning.draft import write_draft
from fluoronav.planning.plan.hashes import volume_hash
from fluoronav.planning.revisions import Revisions
from fluoronav.planning.segmentation.engine import Question, Segmentation, SegmentationError, SegmentedStructure
from fluoronav.site.case_trail import CaseTrail

T8, CORD = by_name()["vertebrae_T8"].label, by_name()["spinal_cord"].label


@pytest.fixture
def ct(tmp_path):
    sitk.WriteImage(patient(), str(tmp_path / "ct.nii.gz"))
    return read_volume(tmp_path / "ct.nii.gz")


def segmentation(masks, engine="atlas", state="draft"):
    """What an engine would return: {name: (label, mask)}."""
    voxels = np.zeros(sitk.GetArrayFromImage(label_map()).shape, np.uint8)
    for label, mask in masks.values():
        voxels[mask] = label
    structures = tuple(
        SegmentedStructure(name, label, engine, 0.8, int(mask.sum()), mask.sum() * 2 / 1000, state)
        for name, (label, mask) in masks.items()
    )
    question = Question("level", "Which?", ("T8", "T7"), "ribs")
    return Segmentation(placed(voxels), structures, f"{engine} 1", 1.0, (question,), ("look",))


def bone():
    return sitk.GetArrayFromImage(label_map()) == 1


def cord():
    return sitk.GetArrayFromImage(label_map()) == 2


BOTH = {"vertebrae_T8": (T8, bone()), "spinal_cord": (CORD, cord())}


def test_a_draft_is_a_case_that_loads_without_any_alert(ct, tmp_path):
    write_draft(segmentation(BOTH), ct, tmp_path / "case")
    case = load_case(tmp_path / "case", cache=tmp_path)
    assert [(s.name, s.label) for s in case.structures] == [("vertebrae_T8", T8), ("spinal_cord", CORD)]
    assert case.watched == () and case.rigid_labels == (T8,)
    middle = np.array(case.prior.isocentre_ct)
    centre = ct.image.TransformContinuousIndexToPhysicalPoint([(s.start + s.stop - 1) / 2 for s in BONE[::-1]])
    np.testing.assert_allclose(middle, centre, atol=0.1)


def test_the_first_revision_holds_the_labels_the_hashes_and_the_structures(ct, tmp_path):
    found = segmentation(BOTH)
    revision = write_draft(found, ct, tmp_path / "case")
    newest = Revisions(tmp_path / "case").newest()
    assert newest == revision and (newest.number, newest.parent) == (1, 0)
    assert newest.ct_hash == volume_hash(ct.image)
    assert newest.labels_hash == volume_hash(sitk.ReadImage(str(tmp_path / "case/labels.nii.gz")))
    assert newest.structures == found.structures
    questions = json.loads((tmp_path / "case/questions.json").read_text())
    assert (
        questions["revision"] == 1 and questions["questions"][0]["key"] == "level" and questions["warnings"] == ["look"]
    )


def test_a_second_run_adds_a_revision_and_the_first_stays(ct, tmp_path):
    write_draft(segmentation(BOTH), ct, tmp_path / "case")
    before = (tmp_path / "case/segmentation/0001/labels.nii.gz").read_bytes()
    again = write_draft(segmentation({"vertebrae_T8": BOTH["vertebrae_T8"]}), ct, tmp_path / "case")
    assert again.number == 2 and [s.name for s in again.structures] == ["vertebrae_T8"]
    assert (tmp_path / "case/segmentation/0001/labels.nii.gz").read_bytes() == before


def test_another_engine_adds_to_what_is_there(ct, tmp_path):
    write_draft(segmentation(BOTH), ct, tmp_path / "case")
    lesion = np.zeros_like(bone())
    lesion[14:18, 30:36, 30:36] = True
    added = write_draft(segmentation({"lesion": (203, lesion)}, "threshold"), ct, tmp_path / "case")
    assert {s.name for s in added.structures} == {"vertebrae_T8", "spinal_cord", "lesion"}
    assert [s.name for s in load_case(tmp_path / "case", cache=tmp_path).structures][-1] == "lesion"


def test_a_label_value_that_is_taken_is_changed_for_the_new_structure(ct, tmp_path):
    first, second = np.zeros_like(bone()), np.zeros_like(bone())
    first[14:18, 30:36, 30:36] = second[14:18, 36:40, 30:36] = True
    write_draft(segmentation({"lesion": (203, first)}, "threshold"), ct, tmp_path / "case")
    revision = write_draft(segmentation({"clip": (203, second)}, "threshold"), ct, tmp_path / "case")
    assert {s.name: s.label for s in revision.structures} == {"lesion": 203, "clip": 204}
    voxels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "case/labels.nii.gz")))
    np.testing.assert_array_equal(voxels == 204, second)
    np.testing.assert_array_equal(voxels == 203, first)


@pytest.mark.parametrize(("engine", "state"), [("person", "draft"), ("atlas", "approved")])
def test_what_a_person_has_drawn_or_approved_is_not_replaced(ct, tmp_path, engine, state):
    write_draft(segmentation({"vertebrae_T8": (T8, bone())}, engine, state), ct, tmp_path / "case")
    smaller = bone()
    smaller[:8] = False
    revision = write_draft(segmentation({"vertebrae_T8": (T8, smaller)}), ct, tmp_path / "case")
    assert [(s.name, s.engine, s.state) for s in revision.structures] == [("vertebrae_T8", engine, state)]
    voxels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "case/labels.nii.gz")))
    np.testing.assert_array_equal(voxels == T8, bone())


def test_plan_tools_and_distances_of_a_case_stay_when_it_is_segmented_again(ct, tmp_path):
    write_draft(segmentation(BOTH), ct, tmp_path / "case")
    path = tmp_path / "case/case.yaml"
    content = yaml.safe_load(path.read_text())
    content["structures"][1] |= {"caution_mm": 3.0, "danger_mm": 1.0, "color": "#123456"}
    content["tools"] = [{"id": "kwire", "kind": "k-wire", "diameter_mm": 2.0, "length_mm": 150.0}]
    path.write_text(yaml.safe_dump(content))
    write_draft(segmentation(BOTH), ct, tmp_path / "case")
    case = load_case(tmp_path / "case", cache=tmp_path)
    assert [t.id for t in case.tools] == ["kwire"]
    assert [(s.name, s.caution_mm, s.color) for s in case.structures if s.caution_mm] == [
        ("spinal_cord", 3.0, "#123456")
    ]


def test_the_case_of_another_ct_is_refused_and_left_alone(ct, tmp_path):
    write_draft(segmentation(BOTH), ct, tmp_path / "case")
    other = sitk.GetArrayFromImage(patient())
    other[3, 20, 20] += 1
    sitk.WriteImage(placed(other), str(tmp_path / "other.nii.gz"))
    with pytest.raises(SegmentationError, match="another CT"):
        write_draft(segmentation(BOTH), read_volume(tmp_path / "other.nii.gz"), tmp_path / "case")
    assert Revisions(tmp_path / "case").numbers() == [1]


def test_a_case_that_was_written_by_hand_is_not_overwritten(ct, tmp_path):
    (tmp_path / "case").mkdir()
    (tmp_path / "case/case.yaml").write_text("name: mine\n")
    with pytest.raises(SegmentationError, match="choose another --out"):
        write_draft(segmentation(BOTH), ct, tmp_path / "case")
    assert (tmp_path / "case/case.yaml").read_text() == "name: mine\n"


def test_labels_that_do_not_lie_in_the_ct_leave_nothing_behind(ct, tmp_path):
    wrong = np.zeros_like(bone())
    wrong[14:22, 30:40, 30:44] = True
    with pytest.raises(SegmentationError, match="does not fit its CT"):
        write_draft(segmentation({"vertebrae_T8": (T8, wrong)}), ct, tmp_path / "case")
    assert not (tmp_path / "case").exists()


def test_a_case_with_its_own_copy_of_the_ct_can_be_moved(ct, tmp_path):
    write_draft(segmentation(BOTH), ct, tmp_path / "case", copy_ct=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "case").rename(tmp_path / "elsewhere/case")
    ct.path.unlink()
    assert len(load_case(tmp_path / "elsewhere/case", cache=tmp_path).structures) == 2


def test_the_command_writes_the_case_and_prints_json(ct, tmp_path, capsys):
    (tmp_path / "names.json").write_text(json.dumps({"1": "T8", "2": "spinal_cord"}))
    sitk.WriteImage(label_map(), str(tmp_path / "labels.nrrd"))
    command = ["plan", "segment", str(ct.path), "--engine", "import", "--from", str(tmp_path / "labels.nrrd")]
    assert main([*command, "--names", str(tmp_path / "names.json"), "--out", str(tmp_path / "case"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {"structures", "seconds", "questions", "warnings"} <= printed.keys()
    first = printed["structures"][0]
    assert first.keys() >= {"name", "engine", "confidence", "voxels", "volume_cm3"}
    assert (first["name"], first["engine"], first["voxels"]) == ("vertebrae_T8", "import", int(bone().sum()))
    assert load_case(tmp_path / "case", cache=tmp_path).structures[0].name == "vertebrae_T8"
    (line,) = CaseTrail(tmp_path / "case").events()
    assert (line["event"], line["revision"], line["branch"], line["structures"]) == ("segmented", 1, "", 2)
    assert line["user"] and line["engine"].startswith("import")


def test_the_command_says_what_an_engine_lacks(ct, tmp_path, capsys):
    for engine, said in (("import", "--from"), ("network", "--model"), ("threshold", "--low-hu")):
        assert main(["plan", "segment", str(ct.path), "--engine", engine, "--out", str(tmp_path / "case")]) == 1
        assert said in capsys.readouterr().err
    assert not (tmp_path / "case").exists()


def test_a_threshold_adds_a_structure_to_a_case(ct, tmp_path):
    write_draft(segmentation(BOTH), ct, tmp_path / "case")
    command = ["plan", "segment", str(ct.path), "--engine", "threshold", "--low-hu", "300", "--name", "implant"]
    assert main([*command, "--out", str(tmp_path / "case")]) == 0
    assert "implant" in {s.name for s in Revisions(tmp_path / "case").newest().structures}


@pytest.mark.parametrize("text", ["T12", "T12=1,2", "T12=a,b,c"])
def test_a_click_that_is_no_point_is_refused(tmp_path, text, capsys):
    with pytest.raises(SystemExit):
        main(["plan", "segment", str(tmp_path), "--at", text, "--out", str(tmp_path)])
    assert "LPS mm" in capsys.readouterr().err
