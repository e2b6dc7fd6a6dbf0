"""Heart and liver tell left from right; vertebrae alone do not, and it is said."""

import json

import numpy as np
import pytest
import SimpleITK as sitk

from fluoronav.cli import main
from fluoronav.planning.sides import evidence_of_sides, question_of_sides

SPINE = [[0.0, 60.0, z] for z in range(-280, 40, 40)]


def trunk(*, situs=1.0, heart=True, liver=True):
    """HU of a trunk with lungs, heart and liver, along the patient's axes; `situs` -1 exchanges the sides."""
    z, y, x = np.meshgrid(np.arange(-300, 60, 4.0), np.arange(-120, 120, 4.0), np.arange(-180, 180, 4.0), indexing="ij")
    hu = np.full(z.shape, -1000.0)
    hu[(x / 165) ** 2 + (y / 105) ** 2 < 1] = 0
    hu[(np.hypot(x, y - 60) < 20)] = 300
    x = situs * x
    for side in (-1, 1):
        hu[((x - side * 90) / 55) ** 2 + (y / 80) ** 2 + ((z - 0) / 120) ** 2 < 1] = -800
    if heart:
        hu[((x - 30) / 55) ** 2 + ((y + 30) / 45) ** 2 + ((z + 30) / 50) ** 2 < 1] = 20
    if liver:
        hu[((x + 60) / 75) ** 2 + ((y + 10) / 70) ** 2 + ((z + 200) / 60) ** 2 < 1] = 90
    image = sitk.GetImageFromArray(hu.astype(np.float32))
    image.SetSpacing((4, 4, 4))
    image.SetOrigin((-180, -120, -300))
    return image


def test_heart_and_liver_say_where_left_is():
    for situs, says in ((1.0, "as usual"), (-1.0, "mirrored")):
        found = evidence_of_sides(trunk(situs=situs), SPINE)
        assert [e.says for e in found] == [says, says], found
        question = question_of_sides(found)
        assert (question is None) == (says == "as usual")
    assert "situs inversus" in question


@pytest.mark.parametrize("axes", ["RAS", "RPI", "SLP"])
def test_the_grid_of_the_file_does_not_matter(axes):
    assert {e.says for e in evidence_of_sides(sitk.DICOMOrient(trunk(), axes), SPINE)} == {"as usual"}


def test_a_scan_without_heart_and_liver_says_nothing():
    image = trunk()
    spine_alone = image[30:60, 30:58, 70:]
    assert evidence_of_sides(spine_alone, SPINE) == ()
    assert question_of_sides(()) is None
    assert [e.says for e in evidence_of_sides(trunk(heart=False, liver=True), SPINE)] == ["as usual"]


@pytest.mark.parametrize("patient", ["chest", "planning/patient_b"])
def test_real_patients_are_as_usual_and_their_mirror_images_are_questions(patient, shared_data):
    ct, labels = shared_data / patient / "ct.nii.gz", shared_data / patient / "labels.nii.gz"
    from fluoronav.case.volume import read_volume
    from fluoronav.planning.plan.source import whole_numbers
    from fluoronav.planning.screws.spine import spine_of_scheme

    middles = np.array(
        list(spine_of_scheme(whole_numbers(read_volume(labels)), "totalsegmentator").middles_ct().values())
    )
    image = read_volume(ct).image
    found = evidence_of_sides(image, middles)
    assert found and {e.says for e in found} == {"as usual"}, found
    mirrored = sitk.DICOMOrient(image, "LPS")
    flipped = sitk.Flip(mirrored, (True, False, False))
    flipped.CopyInformation(mirrored)
    low, high = (mirrored.TransformIndexToPhysicalPoint((i, 0, 0))[0] for i in (0, mirrored.GetWidth() - 1))
    middles[:, 0] = low + high - middles[:, 0]
    assert question_of_sides(evidence_of_sides(flipped, middles)) is not None


def test_screws_of_a_mask_alone_say_that_sides_cannot_be_known(tmp_path, phantom, capsys):
    path = tmp_path / "mask.nii.gz"
    sitk.WriteImage(phantom.image(), str(path))
    assert main(["plan", "screws", "--labels", str(path), "--scheme", "verse", "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert any("vertebrae look the same in a mirror" in n for n in notes)


def test_a_mask_that_is_mirrored_against_its_ct_is_refused(tmp_path, phantom, capsys):
    """The phantom's left pedicle is wider than its right one."""
    from dataclasses import replace

    label = replace(phantom, left_mm=12.0, right_mm=3.0).image()
    rng = np.random.default_rng(1)
    bone = sitk.GetArrayFromImage(label) > 0
    hu = np.where(bone, 600.0, 30.0) + rng.normal(0, 10, bone.shape)
    hu[:, :3] = -1000
    ct = sitk.GetImageFromArray(hu.astype(np.float32))
    ct.CopyInformation(label)
    mirrored = sitk.GetImageFromArray(sitk.GetArrayFromImage(label)[:, :, ::-1])
    mirrored.CopyInformation(label)
    for name, image in (("ct", ct), ("right", label), ("wrong", mirrored)):
        sitk.WriteImage(image, str(tmp_path / f"{name}.nii.gz"))

    def screws(mask):
        files = ["--labels", str(tmp_path / mask), "--ct", str(tmp_path / "ct.nii.gz")]
        return main(["plan", "screws", *files, "--scheme", "verse"])

    assert screws("right.nii.gz") == 0
    assert screws("wrong.nii.gz") != 0
    assert "left and right" in capsys.readouterr().err
