"""Findings that a person has to acknowledge: real ones in real scans, and made ones."""

import numpy as np
import SimpleITK as sitk
from tests.planning.measurements.built import spine

from fluoronav.lab.simulation.bones import label_map
from fluoronav.planning.measurements.finding_flags import density_flags, implant_flags, vessel_flags
from fluoronav.planning.measurements.mask import masks_of
from fluoronav.planning.measurements.measure import measure
from fluoronav.planning.measurements.results import Results

LOW, HIGH = np.array([-120.0, -60.0, -60.0]), np.array([120.0, 80.0, 60.0])


def rod(a, b, radius):
    a, b = np.array(a, float), np.array(b, float)

    def inside(p):
        t = np.clip((p - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        return np.linalg.norm(p - a - t[..., None] * (b - a), axis=-1) < radius

    return inside


def with_ribs(left_mm):
    """T12 with a right rib of 90 mm and a left one of `left_mm`; 0 for none."""
    image = spine([32])
    voxels = sitk.GetArrayFromImage(image)
    wide = np.pad(voxels, ((0, 0), (0, 0), (90, 90)))
    out = sitk.GetImageFromArray(wide)
    out.SetOrigin([image.GetOrigin()[0] - 90, *image.GetOrigin()[1:]])
    ribs = {115: rod((-30, 22, 4), (-120, 30, -10), 5)}
    if left_mm:
        ribs[103] = rod((30, 22, 4), (20 + left_mm, 22, 4), 5)
    x, y, z = (np.arange(n) + o for n, o in zip(out.GetSize(), out.GetOrigin(), strict=True))
    points = np.stack(np.meshgrid(z, y, x, indexing="ij")[::-1], axis=-1)
    for value, inside in ribs.items():
        wide[inside(points) & (wide == 0)] = value
    made = sitk.GetImageFromArray(wide)
    made.CopyInformation(out)
    return made


def flags(image, names, **more):
    return measure(image, names, **more).flags


NAMES = {32: "vertebrae_T12", 103: "rib_left_12", 115: "rib_right_12"}


def test_a_short_twelfth_rib_is_a_flag_with_its_length_drawn():
    found = [f for f in flags(with_ribs(24), NAMES) if f.what == "rib12"]
    assert [f.structure for f in found] == ["rib_left_12"]
    a, b = np.array(found[0].points_ct)
    assert 15 < np.linalg.norm(a - b) < 38
    assert found[0].acknowledged_by == ""


def test_a_missing_twelfth_rib_is_a_flag_and_two_long_ones_none():
    assert any(f.what == "rib12" and "no twelfth rib on the left" in f.text for f in flags(with_ribs(0), NAMES))
    assert not [f for f in flags(with_ribs(90), NAMES) if f.what in ("rib12", "ribs")]


def test_a_rib_at_another_level_is_a_flag():
    names = {32: "vertebrae_T9", 103: "rib_left_12", 115: "rib_right_12"}
    assert any(f.what == "level" and "rib 12 lies at T9" in f.text for f in flags(with_ribs(90), names))


def test_a_tall_process_that_meets_the_sacrum_is_a_question_of_sacralisation():
    image = spine([27], spacing=(1.0, 1.0, 1.0))
    voxels = sitk.GetArrayFromImage(image)
    x, y, z = (
        np.arange(n) * s + o for n, s, o in zip(image.GetSize(), image.GetSpacing(), image.GetOrigin(), strict=True)
    )
    z3, y3, x3 = np.meshgrid(z, y, x, indexing="ij")
    process = (x3 > 24) & (x3 < 44) & (np.abs(y3 - 28) < 6) & (np.abs(z3 + 8) < 16)
    voxels[process] = 27
    voxels[(np.abs(x3) < 48) & (np.abs(y3 - 30) < 20) & (z3 < -25)] = 25
    made = sitk.GetImageFromArray(voxels)
    made.CopyInformation(image)
    found = [f for f in flags(made, {27: "vertebrae_L5", 25: "sacrum"}) if f.what == "transitional"]
    assert [f.structure for f in found] == ["vertebrae_L5-left"]
    assert "Castellvi II" in found[0].text


def test_a_carotid_beside_the_trunk_is_a_question_with_its_distance_drawn():
    names = [(54, "brachiocephalic_trunk"), (58, "common_carotid_artery_left")]
    near = label_map(
        {54: rod((-10, 0, -20), (-10, 0, 20), 5), 58: rod((-1.5, 0, -20), (3, 0, 20), 4)}, LOW, HIGH, (1, 1, 1)
    )
    found = vessel_flags(masks_of(near, names))
    assert [f.what for f in found] == ["bovine-arch"]
    assert "mm from the brachiocephalic trunk: check for a bovine arch" in found[0].text
    far = label_map(
        {54: rod((-10, 0, -20), (-10, 0, 20), 5), 58: rod((14, 0, -20), (14, 0, 20), 4)}, LOW, HIGH, (1, 1, 1)
    )
    assert vessel_flags(masks_of(far, names)) == []


def test_the_bovine_arch_of_the_chest_is_found(shared_data):
    image = sitk.ReadImage(str(shared_data / "chest/labels.nii.gz"))
    found = vessel_flags(masks_of(image, [(54, "brachiocephalic_trunk"), (58, "common_carotid_artery_left")]))
    assert [f.text for f in found] == ["left carotid 0.7 mm from the brachiocephalic trunk: check for a bovine arch"]


def test_a_right_subclavian_artery_behind_the_oesophagus_is_a_question():
    image = label_map(
        {15: rod((0, 0, -50), (0, 0, 50), 8), 55: rod((20, 15, 0), (-60, 15, 20), 4)}, LOW, HIGH, (1, 1, 1)
    )
    found = vessel_flags(masks_of(image, [(15, "esophagus"), (55, "subclavian_artery_right")]))
    assert [f.what for f in found] == ["lusoria"]


def test_poor_bone_names_its_threshold_and_source():
    def said(hu):
        results = Results()
        results.add("trabecular_hu", "vertebrae_L1", hu, "HU", 3.0, "mean")
        return [f.text for f in density_flags(results.items)]

    assert "below 110 (Pickhardt 2013" in said(95)[0]
    assert "below 135 (Pickhardt 2013" in said(120)[0]
    assert said(180) == []


def test_screws_in_two_vertebrae_are_counted_and_placed():
    image = spine([31, 30])
    hu = np.full(image.GetSize()[::-1], 40, np.int16)
    hu[sitk.GetArrayViewFromImage(image) > 0] = 300
    x, y, z = (np.arange(n) + o for n, o in zip(image.GetSize(), image.GetOrigin(), strict=True))
    points = np.stack(np.meshgrid(z, y, x, indexing="ij")[::-1], axis=-1)
    for side in (15, -15):
        hu[rod((side, 40, 4), (side / 2, 0, 4), 2.5)(points)] = 3000
    hu[rod((15, 40, -38), (8, 0, -38), 2.5)(points)] = 3000
    hu[rod((45, 70, -20), (48, 75, -20), 3)(points)] = 3000  # far from bone
    ct = sitk.GetImageFromArray(hu)
    ct.CopyInformation(image)
    found = implant_flags(masks_of(image, [(31, "vertebrae_L1"), (30, "vertebrae_L2")]), ct)
    assert "3 in number" in found[0].text
    assert "2 at vertebrae_L1" in found[0].text and "1 at vertebrae_L2" in found[0].text
    assert len(found[0].points_ct) == 3


def test_a_real_hip_prosthesis_is_found(shared_data):
    folder = shared_data / "planning/patient_b"
    masks = masks_of(sitk.ReadImage(str(folder / "labels.nii.gz")), [(75, "femur_left"), (76, "femur_right")])
    found = implant_flags(masks, sitk.ReadImage(str(folder / "ct.nii.gz")))
    assert "1 at femur_left" in found[0].text
