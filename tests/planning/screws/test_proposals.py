"""Screws proposed: on a vertebra of known shape, on the embedded case, and on masks drawn by hand."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import yaml

from fluoronav.cli import main
from fluoronav.paths import embedded_case
from fluoronav.planning.plan.file import read_plan
from fluoronav.planning.plan.revisions import PlanRevisions
from fluoronav.planning.plan.schema import Flag, Screw
from fluoronav.planning.screws.catalogue import read_catalogue
from fluoronav.planning.screws.grading import graded
from fluoronav.planning.screws.proposal import proposed
from fluoronav.planning.screws.vertebra import read_vertebra

CATALOGUE = read_catalogue()


def test_the_widest_screw_that_leaves_a_fifth_of_the_pedicle_is_taken(phantom):
    vertebra = read_vertebra(phantom.image(), 20, "L1")
    left, right = (proposed(vertebra, side, CATALOGUE) for side in ("left", "right"))
    assert left.width_mm == pytest.approx(phantom.left_mm, abs=1.0)
    assert right.width_mm == pytest.approx(phantom.right_mm, abs=0.7)
    for screw in (left, right):
        larger = [d for d in CATALOGUE.diameters_mm if d > screw.diameter_mm]
        assert screw.diameter_mm <= 0.8 * screw.width_mm < larger[0]
    for screw in (left, right):
        entry, tip = np.array(screw.entry_ct), np.array(screw.tip_ct)
        assert np.linalg.norm(tip - entry) == pytest.approx(screw.length_mm, abs=0.05)
        assert screw.grade == "A"
        assert screw.clearance_mm > 0.3
        # The front of the body is at y = -41; a screw goes 40 to 80 % into it from the canal's wall at -9.
        assert -38 < tip[1] - phantom.centre_ct[1] < -18
        assert (tip[0] - phantom.centre_ct[0]) * (1 if screw.side == "left" else -1) > 0


def test_a_narrow_pedicle_is_refused_with_the_numbers(phantom):
    from dataclasses import replace

    vertebra = read_vertebra(replace(phantom, right_mm=2.6).image(), 20, "T5")
    screw = proposed(vertebra, "right", CATALOGUE)
    assert not screw.fits
    assert screw.entry_ct is None
    assert "T5 right: the pedicle takes a cylinder of 2." in screw.reason
    assert "the thinnest screw has 3.5 mm" in screw.reason
    assert proposed(vertebra, "left", CATALOGUE).fits


def test_a_catalogue_without_a_fitting_length_is_said(phantom):
    vertebra = read_vertebra(phantom.image(), 20, "L1")
    screw = proposed(vertebra, "left", CATALOGUE.model_copy(update={"lengths_mm": (10.0, 90.0)}))
    assert not screw.fits
    assert "no length fits: the tip has to lie" in screw.reason


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"name": "x", "diameters_mm": [0.0045], "lengths_mm": [30]}, "diameters_mm.*in metres"),
        ({"name": "x", "diameters_mm": [4], "lengths_mm": []}, "lengths_mm"),
        ({"name": "x", "diameters_mm": [4], "lengths_mm": [30], "maker": "y"}, "maker"),
    ],
)
def test_what_is_wrong_with_a_catalogue_is_said(tmp_path, content, said):
    path = tmp_path / "sizes.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=f"sizes.yaml: .*{said}"):
        read_catalogue(path)


@pytest.mark.parametrize(
    ("mask", "values"),
    [
        ("masks/sub-verse010_seg-vert_msk.nii.gz", range(20, 25)),
        ("masks/sub-gl003_dir-ax_seg-vert_msk.nii.gz", range(8, 13)),
        ("l3/sub-ct_seg-vert_label-22_msk.nii.gz", [22]),
    ],
)
def test_on_masks_drawn_by_hand_nothing_worse_than_b_is_proposed(shared_data, mask, values):
    image = sitk.ReadImage(str(shared_data / "planning" / mask))
    for value in values:
        vertebra = read_vertebra(image, value, f"T{value}" if value < 20 else f"L{value - 19}")
        for side in ("left", "right"):
            screw = proposed(vertebra, side, CATALOGUE)
            if not screw.fits:
                assert screw.width_mm < 3.6, screw.reason
                continue
            found = graded(screw.entry_ct, screw.tip_ct, screw.diameter_mm, side, vertebra)
            assert found.grade in ("A", "B")
            assert found.breach_mm < 0.5
            assert found.in_canal_mm == 0


@pytest.fixture
def own_case(tmp_path):
    """The embedded case in a folder of its own."""
    source = embedded_case().parent
    content = yaml.safe_load((source / "case.yaml").read_text())
    for key in ("ct", "labels", "surroundings"):
        content[key] = str(source / content[key])
    content["structures"] = [s for s in content["structures"] if s["name"] in ("vertebrae_T8", "aorta", "spinal_cord")]
    content["rigid"] = {"structures": ["vertebrae_T8"]}
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


def test_in_a_case_the_screws_go_into_a_new_revision_and_a_persons_screw_is_kept(own_case, capsys):
    assert main(["plan", "screws", str(own_case), "--levels", "T8", "--json", str(own_case / "out.json")]) == 0
    said = json.loads((own_case / "out.json").read_text())
    assert {"level", "side", "fits", "entry_ct", "tip_ct", "diameter_mm", "length_mm", "clearance_mm", "breach_mm",
            "grade"} <= said["screws"][0].keys()  # fmt: skip
    plan = read_plan(own_case / "plan.yaml")
    assert [(s.id, s.origin) for s in plan.items] == [("T8-left", "proposed"), ("T8-right", "proposed")]
    assert plan.revision == 1
    assert plan.items[0].audit == "0"
    moved = plan.items[0].model_copy(update={"origin": "moved", "diameter_mm": 3.5})
    flag = Flag(id="f", origin="proposed", what="levels", text="T13?")
    revisions = PlanRevisions(own_case)
    revisions.add(plan.model_copy(update={"items": (moved, plan.items[1], flag)}), parent=1)
    capsys.readouterr()
    assert main(["plan", "screws", str(own_case), "--levels", "T8"]) == 0
    assert "T8-left: a person placed it; it was kept" in capsys.readouterr().out
    again = read_plan(own_case / "plan.yaml")
    assert again.revision == 3
    assert again.state == "draft"
    assert moved in again.items
    assert flag in again.items
    assert [s.id for s in again.items if isinstance(s, Screw)] == ["T8-left", "T8-right"]
    assert revisions.read(1) == plan


def test_a_plan_of_another_ct_is_not_overwritten(own_case, capsys):
    assert main(["plan", "screws", str(own_case), "--levels", "T8"]) == 0
    content = yaml.safe_load((own_case / "plan.yaml").read_text())
    content["ct_hash"] = "0" * 64
    (own_case / "plan.yaml").write_text(yaml.safe_dump(content))
    before = (own_case / "plan.yaml").read_text()
    assert main(["plan", "screws", str(own_case), "--levels", "T8"]) == 1
    assert "was made on another CT" in capsys.readouterr().err
    assert yaml.safe_load((own_case / "plan.yaml").read_text())["items"] == yaml.safe_load(before)["items"]


def test_screws_of_a_label_map_are_printed_and_drawn(phantom, tmp_path, capsys):
    sitk.WriteImage(phantom.image(), str(tmp_path / "l1.nii.gz"))
    arguments = ["plan", "screws", "--labels", str(tmp_path / "l1.nii.gz"), "--scheme", "verse", "--levels", "L1"]
    assert main([*arguments, "--png", str(tmp_path / "out" / "l1.png"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [(s["level"], s["side"], s["fits"]) for s in said["screws"]] == [("L1", "left", True), ("L1", "right", True)]
    import cv2

    picture = cv2.imread(str(tmp_path / "out" / "l1.png"))
    assert picture.shape == (2 * 346, 3 * 320, 3)
    assert (picture == (90, 200, 90)).all(-1).sum() > 250


def test_a_level_that_cannot_be_used_does_not_stop_the_others(phantom, tmp_path, capsys):
    image = phantom.image()
    voxels = sitk.GetArrayFromImage(image)
    voxels[-4:, :6, :6] = 19
    both = sitk.GetImageFromArray(voxels)
    both.CopyInformation(image)
    sitk.WriteImage(both, str(tmp_path / "two.nii.gz"))
    assert main(["plan", "screws", "--labels", str(tmp_path / "two.nii.gz"), "--scheme", "verse"]) == 0
    out = capsys.readouterr().out
    assert "T12 left  does not fit: T12: its label has 0.1 cm3" in out
    assert "L1 left" in out


def test_a_case_or_a_mask_is_needed_not_both(capsys):
    assert main(["plan", "screws"]) == 1
    assert "name either a CASE or a label map" in capsys.readouterr().err
