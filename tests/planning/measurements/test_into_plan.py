"""Measurements in a plan, in a report, and by the command."""

import json
import shutil
import subprocess

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import yaml
from pydicom.uid import generate_uid
from tests.case.scans import save, slices
from tests.planning.measurements.built import spine

from fluoronav.cli import main
from fluoronav.planning.measurements.into_plan import MadeOn, merged, write_into_plan
from fluoronav.planning.measurements.measure import MeasureError
from fluoronav.planning.measurements.results import Results
from fluoronav.planning.measurements.spine_flags import flag
from fluoronav.planning.plan.file import read_plan
from fluoronav.planning.plan.schema import Screw
from fluoronav.site.case_trail import CaseTrail

SCREW = Screw(
    id="T8-left", origin="proposed", level="T8", side="left", entry_ct=(14.4, 109.8, -158.0),
    tip_ct=(5.1, 75.1, -158.0), diameter_mm=4.5, length_mm=35.0, clearance_mm=1.2, breach_mm=0.0, grade="A",
)  # fmt: skip
MADE_ON = MadeOn("a" * 64, "b" * 64)


def results(value=26.0, text="T12 has no rib"):
    out = Results()
    out.add("height_anterior", "vertebrae_L1", value, "mm", 0.4, "m", np.zeros((2, 3)))
    out.flags.append(flag("rib12", text, "rib_left_12"))
    return out


def test_what_a_person_moved_stays_and_what_was_proposed_is_replaced():
    first = results().items[0]
    moved = first.model_copy(update={"origin": "moved", "value": 24.0})
    assert merged([SCREW, moved], results(27.0))[:2] == (SCREW, moved)
    again = merged([SCREW, first], results(27.0))
    assert again[0] == SCREW
    assert [m.value for m in again if m.kind == "measurement"] == [27.0]


def test_a_flag_stays_acknowledged_while_it_says_the_same():
    seen = results().flags[0].model_copy(update={"acknowledged_by": "weiss"})
    assert merged([seen], results())[-1].acknowledged_by == "weiss"
    assert merged([seen], results(text="T12 has a rib of 20 mm"))[-1].acknowledged_by == ""


def test_a_plan_gets_a_revision_and_the_one_before_stays(tmp_path):
    first = write_into_plan(tmp_path, "P", MADE_ON, results())
    second = write_into_plan(tmp_path, "P", MADE_ON, results(27.0))
    assert (first.revision, second.revision) == (1, 2)
    assert read_plan(tmp_path / "plan.yaml") == second == read_plan(tmp_path / "plan/0002.yaml")
    assert read_plan(tmp_path / "plan/0001.yaml").items[0].value == 26.0


def test_a_plan_of_another_ct_is_left_alone(tmp_path):
    write_into_plan(tmp_path, "P", MADE_ON, results())
    with pytest.raises(MeasureError, match="another CT"):
        write_into_plan(tmp_path, "P", MadeOn("c" * 64, "b" * 64), results())
    assert read_plan(tmp_path / "plan.yaml").revision == 1


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A case with a DICOM CT of two vertebrae and a lesion."""
    folder = tmp_path_factory.mktemp("case")
    labels = spine([31, 30], spacing=(1.0, 1.0, 1.5))
    voxels = sitk.GetArrayFromImage(labels)
    hu = np.where(voxels > 0, 320, 40).astype(np.int16)
    hu[:, :4] = hu[:, -4:] = -1000
    voxels[20:26, 100:110, 10:22][voxels[20:26, 100:110, 10:22] == 0] = 200
    marked = sitk.GetImageFromArray(voxels)
    marked.CopyInformation(labels)
    ct = sitk.GetImageFromArray(hu)
    ct.CopyInformation(labels)
    datasets = slices(ct)
    study = generate_uid()
    for d in datasets:
        d.StudyInstanceUID = study
    save(datasets, folder / "ct")
    sitk.WriteImage(marked, str(folder / "labels.nii.gz"))
    names = {"vertebrae_L1": 31, "vertebrae_L2": 30, "lesion_1": 200}
    content = {
        "name": "P2KQX7NCL3FWH5MDA",
        "ct": "ct",
        "labels": "labels.nii.gz",
        "structures": [{"name": n, "label": v} for n, v in names.items()],
        "prior": {"isocentre_ct": [0, 20, -20], "source_to_isocentre_mm": 600},
    }
    (folder / "case.yaml").write_text(yaml.safe_dump(content))
    return folder


def content(item):
    """All items of a report's tree."""
    for child in item.get("ContentSequence", []):
        yield child
        yield from content(child)


def test_a_case_is_measured_into_its_plan_and_a_valid_report(case, tmp_path, capsys):
    report, numbers = tmp_path / "sr.dcm", tmp_path / "measured.json"
    assert main(["plan", "measure", str(case), "--cobb", "L1", "L2", "--sr", str(report), "--json", str(numbers)]) == 0
    plan = read_plan(case / "plan.yaml")
    assert plan.frame_of_reference
    found = {(m.structure, m.name): m for m in plan.items if m.kind == "measurement"}
    assert found["vertebrae_L1", "height_middle"].value == pytest.approx(27.5, abs=1.5)
    assert found["vertebrae_L2", "trabecular_hu"].value == pytest.approx(320, abs=1)
    assert found["L1-L2", "cobb_coronal"].value < 1.5
    assert ("lesion_1", "distance_vertebrae_L1") in found
    assert json.loads(numbers.read_text())["measurements"]
    sr = pydicom.dcmread(report)
    assert (sr.Modality, sr.VerificationFlag) == ("SR", "UNVERIFIED")
    said = [str(item.get("TextValue") or item.ConceptNameCodeSequence[0].CodeMeaning) for item in content(sr)]
    assert "Long Axis" in said
    assert any(text.startswith("height_middle, proposed: ") and "points LPS mm" in text for text in said)
    for tool, errors in (("dciodvfy", "Error"), ("dsrdump", "E: ")):
        if shutil.which(tool):
            done = subprocess.run([tool, str(report)], capture_output=True, text=True, check=False)
            assert errors not in done.stderr, done.stderr
    assert "revision 1, a draft" in capsys.readouterr().out
    (line,) = CaseTrail(case).events()
    assert (line["event"], line["revision"], line["measured"]) == ("plan.measure", 1, len(found)) and line["user"]


def test_a_report_is_never_overwritten_and_needs_a_dicom_ct(case, tmp_path, capsys):
    taken = tmp_path / "sr.dcm"
    taken.write_bytes(b"x")
    assert main(["plan", "measure", str(case), "--sr", str(taken)]) != 0
    assert "never overwritten" in capsys.readouterr().err
    assert main(["plan", "measure", "--labels", str(case / "labels.nii.gz"), "--sr", str(tmp_path / "b.dcm")]) != 0
    assert "--source" in capsys.readouterr().err


def test_labels_of_another_frame_are_refused(case, tmp_path, capsys):
    image = sitk.ReadImage(str(case / "labels.nii.gz"))
    image.SetOrigin([c + 400 for c in image.GetOrigin()])
    sitk.WriteImage(image, str(tmp_path / "moved.nii.gz"))
    assert main(["plan", "measure", "--labels", str(tmp_path / "moved.nii.gz"), "--ct", str(case / "ct")]) != 0
    assert "inside" in capsys.readouterr().err


def test_a_label_map_alone_is_measured_with_names_of_its_own(case, tmp_path):
    out = tmp_path / "m.json"
    command = ["plan", "measure", "--labels", str(case / "labels.nii.gz"), "--name", "200=lesion_7", "--json", str(out)]
    assert main(command) == 0
    assert any(m["structure"] == "lesion_7" for m in json.loads(out.read_text())["measurements"])


@pytest.mark.parametrize("command", [["plan", "measure"], ["plan", "measure", "x", "--labels", "y"]])
def test_a_case_or_a_label_map_is_named(command, capsys):
    assert main(command) != 0
    assert "name a case, or a label map" in capsys.readouterr().err
