"""The units of a CT's values: declared, or inferred with a note, or refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import yaml
from tests.case.scans import BONE, patient, placed, save, slices

from fluoronav.case import CaseError, Volume, load_case, read_volume, to_hounsfield


def volume(voxels, units=None):
    return Volume(placed(np.asarray(voxels, np.float32)), Path("ct.nrrd"), (), units)


def whole_ct(rng, padding=None):
    """A noisy CT in HU: air, fat around soft tissue, and bone."""
    hu = sitk.GetArrayFromImage(patient()).astype(float)
    hu[2:24, 4:8, 5:47] = -100
    hu += rng.normal(0, 15, hu.shape)
    if padding is not None:
        hu[:, :, :12] = padding
    return hu


def bone_cut_out(rng, background):
    hu = np.full(sitk.GetArrayFromImage(patient()).shape, float(background))
    hu[BONE] = rng.normal(300, 400, hu[BONE].shape).clip(-250, 2000)
    return hu


def inferred(voxels):
    found = to_hounsfield(volume(voxels), None, "--units")
    return found.units, found.segmented


def test_a_whole_ct_in_hu_is_inferred_by_its_air_and_is_no_segmented_bone(rng):
    hu = whole_ct(rng)
    found = to_hounsfield(volume(hu), None, "--units")
    assert (found.units, found.segmented) == ("hu", False)
    assert "ct.nrrd: its values are taken as Hounsfield units" in found.note and "air is near -1000" in found.note
    np.testing.assert_array_equal(found.volume.voxels, hu.astype(np.float32))


def test_a_whole_ct_without_negative_values_is_shifted_but_no_segmented_bone(rng):
    """What has no negative voxel was once a segmented bone."""
    hu = whole_ct(rng).clip(-1000)
    found = to_hounsfield(volume(hu + 1000), None, "--units")
    assert (found.units, found.segmented) == ("shifted", False)
    assert "HU + 1000" in found.note and "--units shifted" in found.note
    np.testing.assert_allclose(found.volume.voxels, hu, atol=1e-3)


def test_a_bone_cut_out_is_segmented_in_either_units(rng):
    hu = bone_cut_out(rng, -1000)
    assert inferred(hu) == ("hu", True)
    assert inferred(hu + 1000) == ("shifted", True)


def test_padding_below_air_is_no_air(rng):
    """-2048 in HU is -1048 in HU + 1000, near the air of HU."""
    hu = whole_ct(rng, padding=-2048)
    assert inferred(hu) == ("hu", False)
    assert to_hounsfield(volume(hu + 1000), None, "--units").units == "shifted"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda rng: whole_ct(rng).clip(0), "nothing is as low as air or fat in HU"),
        (lambda rng: bone_cut_out(rng, 0).clip(0), "nothing is as low as air or fat in HU"),
        (lambda rng: bone_cut_out(rng, 0), "some are as low as fat, but .* are 0, which is water in HU"),
        (lambda rng: rng.uniform(0, 1500, (20, 20, 20)), "nothing is as low as air or fat in HU"),
        (lambda rng: rng.uniform(900, 1900, (20, 20, 20)), "nothing is as low as air or fat in HU"),
    ],
    ids=["a CT clipped at 0", "HU with 0 around", "HU with fat in the marrow and 0 around", "MR", "no air in view"],
)
def test_ambiguous_values_are_refused_with_the_option_that_declares_them(rng, make, reason):
    voxels = make(rng)
    with pytest.raises(
        CaseError, match=f"ct.nrrd: the units .* ambiguous: {reason}.*Say --units hu .* --units shifted"
    ):
        to_hounsfield(volume(voxels), None, "--units")
    assert to_hounsfield(volume(voxels), "hu", "--units").volume.voxels.max() == pytest.approx(voxels.max())
    if voxels.min() >= 0:
        shifted = to_hounsfield(volume(voxels), "shifted", "--units").volume
        assert shifted.voxels.max() == pytest.approx(voxels.max() - 1000, abs=1e-3)


def test_declared_units_need_no_note_and_a_doubtful_declaration_warns(rng):
    hu = whole_ct(rng)
    found = to_hounsfield(volume(hu), "hu", "--units")
    assert (found.note, found.volume.warnings) == ("", ())
    found = to_hounsfield(volume(hu + 1000), "hu", "--units")
    assert found.note == "" and "is declared as HU, but air is near 0" in found.volume.warnings[0]


def test_a_declaration_against_the_values_is_refused(rng):
    with pytest.raises(CaseError, match="--units shifted as HU . 1000, but air is near -1000: say --units hu"):
        to_hounsfield(volume(whole_ct(rng)), "shifted", "--units")


def test_raw_values_are_refused_with_what_to_do(rng):
    with pytest.raises(CaseError, match="RescaleSlope and add RescaleIntercept .* say --units hu"):
        to_hounsfield(volume(whole_ct(rng) + 1024), "raw", "--units")


def test_one_value_everywhere_is_refused():
    with pytest.raises(CaseError, match="every voxel has the same value, 7"):
        to_hounsfield(volume(np.full((4, 4, 4), 7)), "hu", "--units")


def test_dicom_declares_hu_and_values_that_are_shifted_are_refused(rng, tmp_path):
    whole = placed(whole_ct(rng).astype(np.int16))
    read = read_volume(save(slices(whole), tmp_path / "ct"))
    assert read.units == "hu" and to_hounsfield(read, None, "--units").note == ""
    shifted = replace(read, image=read.image + 1000)
    with pytest.raises(
        CaseError, match="its header declares HU, but air is near 0 .* say --units shifted, or --units hu"
    ):
        to_hounsfield(shifted, None, "--units")
    np.testing.assert_allclose(to_hounsfield(shifted, "shifted", "--units").volume.voxels, read.voxels, atol=1e-3)


def test_a_nrrd_file_may_declare_hu(rng, tmp_path):
    sitk.WriteImage(placed(whole_ct(rng).astype(np.int16)), str(tmp_path / "ct.nrrd"))
    assert read_volume(tmp_path / "ct.nrrd").units is None
    head, _, voxels = (tmp_path / "ct.nrrd").read_bytes().partition(b"\n\n")
    (tmp_path / "hu.nrrd").write_bytes(head + b'\nsample units: "HU"\n\n' + voxels)
    assert read_volume(tmp_path / "hu.nrrd").units == "hu"


def test_the_radius_of_the_wrist_is_a_segmented_bone_in_hu_plus_1000(shared_data):
    read = read_volume(shared_data / "wrist" / "radius.nrrd")
    found = to_hounsfield(read, None, "--units")
    assert (found.units, found.segmented) == ("shifted", True)
    np.testing.assert_array_equal(found.volume.voxels, read.voxels.astype(np.float32) - 1000)


# In a case.


def load(folder, ct, **change):
    """A case of one CT; `change` adds keys to its file."""
    sitk.WriteImage(ct, str(folder / "ct.nrrd"))
    content = {
        "name": "test",
        "ct": "ct.nrrd",
        "prior": {"isocentre_ct": [0.0, -15.0, 58.0], "source_to_isocentre_mm": 600},
    }
    (folder / "case.yaml").write_text(yaml.safe_dump(content | change))
    return load_case(folder, cache=folder)


def write_bone(folder, background, shift):
    hu = sitk.GetArrayFromImage(patient()).astype(np.int16)
    bone = np.full_like(hu, background)
    bone[BONE] = hu[BONE] + shift
    sitk.WriteImage(placed(bone), str(folder / "bone.nrrd"))


def test_a_case_declares_the_units_of_its_ct_and_is_then_the_same_case_model(tmp_path):
    in_hu = load(tmp_path, patient())
    shifted = load(tmp_path, sitk.Cast(patient(), sitk.sitkFloat32) + 1000, units="shifted")
    np.testing.assert_array_equal(in_hu.ct.voxels, shifted.ct.voxels)
    assert in_hu.warnings == shifted.warnings == ()
    assert load(tmp_path, patient(), units="hu").id == in_hu.id


def test_a_case_whose_ct_is_shifted_and_does_not_say_so_is_refused_with_the_key(tmp_path):
    with pytest.raises(CaseError, match=r"are not HU: .* say `units: shifted` if it is HU \+ 1000"):
        load(tmp_path, patient() + 1000)


def test_a_case_of_raw_values_is_refused(tmp_path):
    with pytest.raises(CaseError, match="raw values .* say units: hu"):
        load(tmp_path, patient() + 1024, units="raw")


def test_the_volume_of_an_object_says_what_was_inferred_and_takes_units(tmp_path):
    write_bone(tmp_path, 0, 1000)
    bone = {"name": "L1", "volume": "bone.nrrd"}
    case = load(tmp_path, patient(), objects=[bone])
    assert len(case.warnings) == 1 and "bone.nrrd: its values are taken as HU + 1000" in case.warnings[0]
    declared = load(tmp_path, patient(), objects=[bone | {"units": "shifted"}])
    assert declared.warnings == () and declared.id == case.id
    write_bone(tmp_path, -1000, 0)
    in_hu = load(tmp_path, patient(), objects=[bone])
    assert in_hu.warnings == ()
    np.testing.assert_array_equal(in_hu.objects[0].volume.voxels, case.objects[0].volume.voxels)


def test_the_volume_of_an_object_whose_units_are_ambiguous_is_refused_with_the_key(tmp_path):
    write_bone(tmp_path, 0, 0)
    bone = {"name": "L1", "volume": "bone.nrrd"}
    with pytest.raises(CaseError, match="bone.nrrd: the units .* ambiguous.* Say units: hu .* units: shifted"):
        load(tmp_path, patient(), objects=[bone])
    with pytest.raises(CaseError, match="objects.*`units` are those of a `volume`"):
        load(tmp_path, patient(), objects=[{"name": "L1", "structures": ["a"], "units": "hu"}])
