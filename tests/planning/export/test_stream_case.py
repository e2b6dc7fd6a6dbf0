import shutil

import numpy as np
import pytest
import SimpleITK as sitk
import yaml
from tests.planning.planned_case import BEST, LEFT, RIGHT, planned_case

from fluoronav.case import load_case
from fluoronav.case.file import read_case_file
from fluoronav.case.instruments import read_instruments
from fluoronav.case.schema import CaseError
from fluoronav.display.case_view import case_head
from fluoronav.planning.export.stream_case import write_stream_case
from fluoronav.planning.plan.file import PlanError
from fluoronav.planning.plan.planned import read_planned
from fluoronav.planning.plan.schema import Flag


def exported(case, folder):
    write_stream_case(read_planned(case), folder, lambda _: None)
    return folder


@pytest.fixture(scope="module")
def stream_case(tmp_path_factory):
    """The exported case; tests copy it before they change it."""
    folder = tmp_path_factory.mktemp("stream")
    return exported(planned_case(folder / "case", drafts=("aorta",)), folder / "out")


def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_an_approved_plan_becomes_a_case_that_the_stream_loads(stream_case):
    case = load_case(stream_case)
    assert [t.name for t in case.plan] == ["T8_left", "T8_right"]
    assert case.plan[0].entry_ct == LEFT.entry_ct and case.plan[0].target_ct == LEFT.tip_ct
    assert case.plan[0].radius_mm == LEFT.diameter_mm / 2
    assert case.rigid_labels == (38, 37, 36, 35, 34)
    assert case.file.approved_plan is not None and case.file.approved_plan.approved_by == "Test^Person"


def test_the_exported_case_says_what_is_done(stream_case, tmp_path):
    """The planned case's own words, else what a plan of screws alone tells."""
    assert read_case_file(stream_case / "case.yaml").procedure == "Pedicle screws"
    case = planned_case(tmp_path / "case")
    content = yaml.safe_load((case / "case.yaml").read_text())
    (case / "case.yaml").write_text(yaml.safe_dump(content | {"procedure": "Fusion of T8"}))
    assert read_case_file(exported(case, tmp_path / "out") / "case.yaml").procedure == "Fusion of T8"


def test_an_unapproved_structure_is_kept_but_never_raises_an_alarm(stream_case):
    case = load_case(stream_case)
    assert [s.name for s in case.watched] == ["spinal_cord"]
    assert "aorta" in [s.name for s in case.structures]


def test_only_the_planned_vertebrae_their_neighbours_and_what_raises_alarms_are_drawn(stream_case):
    drawn = {s.name for s in load_case(stream_case).structures if s.drawn}
    assert drawn == {"vertebrae_T7", "vertebrae_T8", "vertebrae_T9", "spinal_cord"}


def test_the_display_is_told_the_planned_views(stream_case):
    (view,) = case_head(load_case(stream_case))["views"]
    assert view == {"item": "T8_left", "orbital_deg": 12.0, "angular_deg": -4.0, "bound_mm": None}


def test_the_prior_is_the_best_view_about_its_screw(stream_case):
    prior = load_case(stream_case).prior
    assert (prior.orbital_deg, prior.angular_deg) == (BEST.orbital_deg, BEST.angular_deg)
    assert np.allclose(prior.isocentre_ct, np.mean([LEFT.entry_ct, LEFT.tip_ct], axis=0), atol=0.1)


@pytest.mark.parametrize("state", ["draft", "reviewed"])
def test_a_plan_that_is_not_approved_is_not_exported(tmp_path, state):
    with pytest.raises(PlanError, match=f"is {state}, not approved"):
        exported(planned_case(tmp_path / "case", state=state), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_plan_of_another_ct_is_not_exported(tmp_path):
    case = planned_case(tmp_path / "case")
    ct = sitk.ReadImage(str(case / "ct.nrrd"))
    ct[5, 5, 5] = ct[5, 5, 5] + 1
    sitk.WriteImage(ct, str(case / "ct.nrrd"))
    with pytest.raises(PlanError, match="another CT"):
        exported(case, tmp_path / "out")


def test_a_plan_of_edited_labels_is_not_exported(tmp_path):
    case = planned_case(tmp_path / "case")
    labels = sitk.ReadImage(str(case / "labels.nrrd"))
    labels[5, 5, 5] = 36
    sitk.WriteImage(labels, str(case / "labels.nrrd"))
    with pytest.raises(PlanError, match="another label map"):
        exported(case, tmp_path / "out")


def test_a_flag_that_nobody_acknowledged_stops_the_export(tmp_path):
    flag = Flag(id="f", origin="proposed", what="count", text="13 thoracic vertebrae")
    with pytest.raises(PlanError, match="13 thoracic vertebrae"):
        exported(planned_case(tmp_path / "case", LEFT, flag), tmp_path / "out")


def test_a_plan_without_a_trajectory_is_not_exported(tmp_path):
    with pytest.raises(PlanError, match="nothing to guide along"):
        exported(planned_case(tmp_path / "case", BEST), tmp_path / "out")


def test_a_plan_that_differs_from_its_approved_revision_is_not_exported(tmp_path):
    case = planned_case(tmp_path / "case")
    (case / "plan").mkdir()
    (case / "plan" / "0001.yaml").write_text(
        (case / "plan.yaml").read_text().replace("state: approved", "state: draft")
    )
    with pytest.raises(PlanError, match="differs from the revision"):
        exported(case, tmp_path / "out")


def test_files_of_another_case_are_not_mixed_in(stream_case, tmp_path):
    with pytest.raises(PlanError, match="not empty"):
        exported(planned_case(tmp_path / "case"), copied(stream_case, tmp_path))


def test_the_stream_refuses_a_plan_that_is_not_approved(stream_case, tmp_path):
    case = copied(stream_case, tmp_path)
    (case / "plan.yaml").write_text((case / "plan.yaml").read_text().replace("state: approved", "state: draft"))
    with pytest.raises(CaseError, match="the plan is draft, not approved"):
        load_case(case)


def test_the_stream_refuses_a_plan_that_was_changed(stream_case, tmp_path):
    case = copied(stream_case, tmp_path)
    (case / "plan.yaml").write_text((case / "plan.yaml").read_text() + "\n")
    with pytest.raises(CaseError, match="was changed after"):
        load_case(case)


def test_the_stream_refuses_a_plan_of_another_ct(stream_case, tmp_path):
    case = copied(stream_case, tmp_path)
    ct = sitk.ReadImage(str(case / "ct.nrrd"))
    ct.SetOrigin([x + 0.5 for x in ct.GetOrigin()])
    sitk.WriteImage(ct, str(case / "ct.nrrd"), useCompression=True)
    with pytest.raises(CaseError, match="made on another CT"):
        load_case(case)


def test_the_stream_refuses_a_trajectory_that_is_not_in_the_approved_plan(stream_case, tmp_path):
    case = copied(stream_case, tmp_path)
    content = yaml.safe_load((case / "case.yaml").read_text())
    content["plan"][1]["target_ct"][0] += 1.0
    (case / "case.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(CaseError, match="T8_right is not in the approved plan"):
        load_case(case)


def test_the_stream_refuses_a_case_whose_plan_is_missing(stream_case, tmp_path):
    case = copied(stream_case, tmp_path)
    (case / "plan.yaml").unlink()
    with pytest.raises(CaseError, match="cannot be read as a plan"):
        load_case(case)


def test_without_revisions_of_the_segmentation_nothing_raises_an_alarm(tmp_path):
    case = planned_case(tmp_path / "case", LEFT, RIGHT)
    shutil.rmtree(case / "segmentation")
    assert load_case(exported(case, tmp_path / "out")).watched == ()


ROOM = """
tools:
- {id: probe, kind: pointer, diameter_mm: 4.0, length_mm: 180.0, tip_mm: [0, 0, 172.5]}
tracker: {reference: spine_marker}
"""


def room(tmp_path, text=ROOM):
    path = tmp_path / "room2.yaml"
    path.write_text(text)
    return path


def without_instruments(case):
    content = yaml.safe_load((case / "case.yaml").read_text())
    del content["tools"], content["tracker"]
    (case / "case.yaml").write_text(yaml.safe_dump(content))
    return case


def test_the_exported_case_names_the_rooms_instruments(tmp_path):
    case = without_instruments(planned_case(tmp_path / "case"))
    report = write_stream_case(read_planned(case), tmp_path / "out", lambda _: None, read_instruments(room(tmp_path)))
    assert (report["tools"], report["tracker"]) == (["probe"], "spine_marker")
    loaded = load_case(tmp_path / "out")
    assert [t.id for t in loaded.tools] == ["probe"] and loaded.tools[0].tip_mm == (0, 0, 172.5)
    assert loaded.file.tracker.reference == "spine_marker" and loaded.file.tracker.T_ct_reference is None


def test_the_place_of_the_planned_cases_marker_is_kept_with_the_rooms_tools(tmp_path):
    case = planned_case(tmp_path / "case")
    place = load_case(case).file.tracker.T_ct_reference
    same = ROOM.replace("spine_marker", "patient_reference")
    write_stream_case(read_planned(case), tmp_path / "out", lambda _: None, read_instruments(room(tmp_path, same)))
    assert load_case(tmp_path / "out").file.tracker.T_ct_reference == place


def test_a_case_without_tools_is_exported_with_a_warning(tmp_path):
    case = without_instruments(planned_case(tmp_path / "case"))
    report = write_stream_case(read_planned(case), tmp_path / "out", lambda _: None)
    assert any("no tip will be guided" in w for w in report["warnings"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ROOM.replace("diameter_mm: 4.0", "diameter_mm: 0.004"), "diameter_mm"),
        (ROOM + "prior: {}\n", "unknown key"),
        ("tracker: {reference: m}\n", "tools"),
        (ROOM.replace("spine_marker", "probe"), "'probe' is there twice"),
        (
            ROOM.replace("spine_marker}", f"m, T_ct_reference: {np.eye(4).tolist()}}}"),
            "belongs into that patient's case.yaml",
        ),
    ],
)
def test_a_wrong_file_of_instruments_is_refused(tmp_path, text, said):
    with pytest.raises(CaseError, match=said):
        read_instruments(room(tmp_path, text))
