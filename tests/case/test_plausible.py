"""What a case's parts say of each other: labels in the CT, bone in bone, lengths in mm, values in HU, one identity."""

import logging
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
import yaml
from tests.case.scans import BONE, CORD, ORIGIN, SPACING, label_map, patient, placed, save, slices

from fluoronav.case import CaseError, load_case
from fluoronav.cli import main
from fluoronav.paths import embedded_case

HU, LABELS = sitk.GetArrayFromImage(patient()), sitk.GetArrayFromImage(label_map())
TARGET = [0.0, -15.0, 58.0]
GOOD = {
    "name": "test",
    "ct": "ct.nrrd",
    "labels": "labels.nrrd",
    "structures": [
        {"name": "L1", "label": 1},
        {"name": "cord", "label": 2, "caution_mm": 3, "danger_mm": 1},
    ],
    "rigid": {"structures": ["L1"]},
    "plan": [{"name": "a", "entry_ct": [0, 15, 58], "target_ct": TARGET}],
    "tools": [{"id": "wire", "kind": "k-wire", "diameter_mm": 2, "length_mm": 150}],
    "prior": {"isocentre_ct": TARGET, "source_to_isocentre_mm": 600},
}


def load(folder, ct=None, labels=None, **change):
    sitk.WriteImage(patient() if ct is None else ct, str(folder / "ct.nrrd"))
    sitk.WriteImage(label_map() if labels is None else labels, str(folder / "labels.nrrd"))
    (folder / "case.yaml").write_text(yaml.safe_dump({k: v for k, v in (GOOD | change).items() if v is not ...}))
    return load_case(folder, cache=folder)


def test_a_case_whose_parts_belong_together_is_loaded_without_a_word(tmp_path):
    assert load(tmp_path).warnings == ()


# Labels and CT.


@pytest.mark.parametrize(
    "labels",
    [
        placed(LABELS, origin=(0, 0, 0)),
        placed(LABELS, origin=(0, 0, 0), spacing=(1, 1, 1)),
        placed(LABELS, origin=(-ORIGIN[0], -ORIGIN[1], ORIGIN[2])),
        placed(LABELS, origin=np.array(ORIGIN) + [300, 0, 0]),
        placed(LABELS, origin=np.array(ORIGIN) / 10, spacing=np.array(SPACING) / 10),
        placed(LABELS[:, ::-1]),
        placed(LABELS[::-1]),
        placed(LABELS[:, :, ::-1]),
        placed(LABELS, origin=np.array(ORIGIN) + [12, 0, 0]),
    ],
    ids=[
        "origin lost", "no geometry", "numbers of RAS", "beside the CT", "in cm", "rows upside down",
        "slices upside down", "left and right exchanged", "12 mm aside",
    ],
)  # fmt: skip
def test_labels_that_are_not_where_the_patient_is_are_refused(tmp_path, labels):
    with pytest.raises(CaseError, match=r"labels.nrrd: .*(inside ct.nrrd|exchanged|farther to the|do not lie in bone)"):
        load(tmp_path, labels=labels)


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        (np.s_[:, ::-1], "front and back exchanged"),
        (np.s_[::-1], "head and feet exchanged"),
        (np.s_[:, :, ::-1], "left and right exchanged"),
    ],
)
def test_a_mirrored_label_map_of_the_real_spine_is_refused_with_the_axis(tmp_path, axes, said):
    source = embedded_case().parent
    content = yaml.safe_load((source / "case.yaml").read_text())
    labels = sitk.ReadImage(str(source / "labels.nrrd"))
    flipped = sitk.GetImageFromArray(sitk.GetArrayFromImage(labels)[axes])
    flipped.CopyInformation(labels)
    sitk.WriteImage(flipped, str(tmp_path / "labels.nrrd"))
    content |= {"ct": str(source / "ct.nrrd"), "surroundings": None, "rigid": {"structures": ["vertebrae_T8"]}}
    # One vertebra is nearly its own mirror image: the hardest.
    content["structures"] = [s for s in content["structures"] if s["label"] in (36, 79)]
    (tmp_path / "case.yaml").write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
    with pytest.raises(CaseError, match=said):
        load_case(tmp_path, cache=tmp_path)


def test_labels_of_which_a_part_lies_outside_the_ct_are_said_or_refused(tmp_path):
    cut = patient()[:, :, :9]
    with pytest.raises(CaseError, match=r"L1 \(label 1\) lies 57 % inside ct.nrrd; at least 99 % must"):
        load(tmp_path, ct=cut)
    free = GOOD["structures"][1:]
    case = load(tmp_path, ct=cut, structures=free, rigid=...)
    assert any("cord lies only 57 % inside ct.nrrd" in w for w in case.warnings)
    with pytest.raises(CaseError, match=r"cord \(label 2\) lies 29 % inside ct.nrrd; at least 50 % must"):
        load(tmp_path, ct=patient()[:, :, :7], structures=free, rigid=...)


def test_a_watched_structure_that_lies_in_air_is_said(tmp_path):
    labels = LABELS.copy()
    labels[2:4, :4, :] = 3
    watched = [*GOOD["structures"], {"name": "nerve", "label": 3, "caution_mm": 3, "danger_mm": 1}]
    case = load(tmp_path, labels=placed(labels), structures=watched)
    assert any("nerve lies in air (-1000 HU on the mean)" in w for w in case.warnings)


def test_a_watched_structure_that_lies_half_in_bone_is_said(tmp_path):
    labels = placed(np.roll(LABELS, -4, axis=1))
    watched = [{"name": "cord", "label": 2, "caution_mm": 3, "danger_mm": 1}]
    case = load(tmp_path, labels=labels, structures=watched, rigid=...)
    assert any("cord goes from 40 to 500 HU, which one organ hardly does" in w for w in case.warnings)


def test_bones_in_soft_tissue_are_refused_by_name_of_the_map(tmp_path):
    hu = HU.copy()
    hu[BONE] = 40
    with pytest.raises(CaseError, match=r"its bones \(L1\) do not lie in bone: 0 % of it is above 150 HU"):
        load(tmp_path, ct=placed(hu))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (placed(LABELS + np.float32(0.4)), "not whole numbers"),
        (placed(LABELS.astype(np.float64) * 1e10), "its values reach from 0 to 2e.10"),
        (placed(LABELS.astype(np.float32) - 3), "its values reach from -3"),
        (patient(), "its values reach from -1000 to 500"),
        (placed(np.where(LABELS > 0, LABELS, np.float32("nan"))), "not finite numbers"),
        (sitk.Compose(label_map(), label_map()), "a volume has three axes|a volume has 3"),
    ],
)
def test_a_file_that_is_no_label_map_is_refused(tmp_path, labels, said):
    with pytest.raises(CaseError, match=said):
        load(tmp_path, labels=labels)


# Values and sizes.


def with_padding(hu):
    hu = hu.copy()
    hu[:, :3] = hu[:, -3:] = -2000
    return hu


def noisy(hu):
    return (hu + np.random.default_rng(0).normal(0, 12, hu.shape)).astype(np.int16)


@pytest.mark.parametrize(
    ("ct", "said"),
    [
        (placed((HU + 1024).astype(np.uint16)), "are not HU: nothing in it is fat or air"),
        (placed(with_padding(HU.astype(np.int32) + 1024)), "are not HU"),
        (placed(np.abs(HU.astype(np.float32))), "are not HU"),
        (placed(HU / 1000.0), "are not HU"),
        (placed(noisy(HU) - 1024), "rescale applied twice"),
        (placed(HU * 0 - 1000), "all air"),
    ],
    ids=["stored values", "stored values with padding", "MR", "normalised", "rescaled twice", "air"],
)
def test_a_ct_whose_values_are_not_hu_is_refused_with_what_to_do(tmp_path, ct, said):
    with pytest.raises(CaseError, match=said):
        load(tmp_path, ct=ct)


def test_a_ct_with_padding_outside_its_circle_is_loaded(tmp_path):
    assert load(tmp_path, ct=placed(with_padding(HU))).warnings == ()


def test_a_scan_without_soft_tissue_is_said(tmp_path):
    hu = np.where(HU == 40, -500, HU).astype(np.int16)
    assert any("soft tissue" in w for w in load(tmp_path, ct=placed(hu)).warnings)


@pytest.mark.parametrize("factor", [0.1, 1e-3, 1 / 25.4, 10])
def test_a_ct_that_is_not_in_mm_is_refused(tmp_path, factor):
    def scaled(image):
        return placed(sitk.GetArrayFromImage(image), np.array(ORIGIN) * factor, np.array(SPACING) * factor)

    if factor == 10:
        with pytest.raises(CaseError, match=r"spacing 10 x 10 x 2e\+01|spacing|no CT of a patient is|outside the CT"):
            load(tmp_path, ct=scaled(patient()), labels=scaled(label_map()))
        return
    with pytest.raises(CaseError, match="in cm, m or inches|is the file in another unit"):
        load(tmp_path, ct=scaled(patient()), labels=scaled(label_map()))


# What the case file says.


def region(z, radius_mm):
    return {"name": "n", "caution_mm": 5, "danger_mm": 2, "sphere": {"centre_ct": [0, 0, z], "radius_mm": radius_mm}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tools": [GOOD["tools"][0] | {"length_mm": 0.15, "diameter_mm": 0.002}]}, "0.002 mm is too short"),
        ({"tools": [GOOD["tools"][0] | {"length_mm": 0.15}]}, r"length_mm: 0.15 mm is too short .*in metres"),
        ({"tools": [GOOD["tools"][0] | {"tip_mm": [0, 0, 0.12]}]}, "tip_mm is 0.12 mm from the marker.*in metres"),
        ({"structures": [GOOD["structures"][0] | {"caution_mm": 0.006, "danger_mm": 0.003}]}, "in metres"),
        ({"no_go": [region(58, 0.01)]}, "radius_mm: 0.01 mm is too short"),
        ({"no_go": [region(400, 9)]}, "no_go: n lies 3.* mm outside the CT"),
        ({"plan": [{"name": "a", "entry_ct": [0, 0.015, 0.058], "target_ct": [0, -0.015, 0.058]}]}, "in metres"),
        ({"plan": [{"name": "a", "entry_ct": [0, 0, 58], "target_ct": [0, 300, 58]}]}, "target_ct .* outside the CT"),
        ({"plan": [{"name": "a", "entry_ct": [0, 400, 58], "target_ct": TARGET}]}, "entry_ct .* outside the CT"),
        ({"plan": [{"name": "a", "entry_ct": [0, 900, 58], "target_ct": TARGET}]}, "more than 500 mm apart"),
        ({"prior": GOOD["prior"] | {"source_to_isocentre_mm": 0.62}}, "0.62 mm is too short to be meant; at least 100"),
        ({"prior": GOOD["prior"] | {"isocentre_ct": [0, 0, 900]}}, "isocentre_ct .* outside the CT"),
        ({"prior": GOOD["prior"] | {"spread": {"in_plane_mm": 0.1}}}, "spread.in_plane_mm: 0.1 mm is too short"),
        ({"tracker": {"reference": "m", "T_ct_reference": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 4e3], [0, 0, 0, 1]]}},
         "T_ct_reference puts the marker"),
    ],
)  # fmt: skip
def test_lengths_and_places_that_no_patient_has_are_refused_with_the_unit(tmp_path, change, said):
    with pytest.raises(CaseError, match=said):
        load(tmp_path, **change)


def test_a_short_path_and_a_target_just_outside_are_said(tmp_path):
    plan = [{"name": "a", "entry_ct": [0, 15, 58], "target_ct": [0, 20, 58]}]
    assert "plan: a is 5.0 mm long" in load(tmp_path, plan=plan).warnings[1]
    plan = [{"name": "a", "entry_ct": [0, 5, 58], "target_ct": [0, 25, 58]}]
    assert "target_ct lies 8.0 mm outside the CT" in load(tmp_path, plan=plan).warnings[0]


def test_what_is_unusual_comes_out_of_case_build_in_words_and_goes_into_the_log(tmp_path, capsys, caplog):
    folder = save(slices(patient()), tmp_path / "dicom")
    for path in sorted(folder.iterdir())[24:]:
        path.write_bytes(b"")
    load(tmp_path)
    content = yaml.safe_load((tmp_path / "case.yaml").read_text()) | {"ct": "dicom"}
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(content))
    with caplog.at_level(logging.WARNING):
        assert main(["case", "build", str(tmp_path)]) == 0
    said = "2 of 26 files were not read: 2 empty (0024.dcm, 0025.dcm)"
    assert f"WARNING {folder}: {said}" in capsys.readouterr().out
    assert said in caplog.text


# Identity.


def test_the_id_is_of_the_content_and_not_of_where_it_lies(tmp_path):
    first = load(tmp_path).id
    (tmp_path / "moved").mkdir()
    for name in ("ct", "labels"):
        shutil.copy(tmp_path / f"{name}.nrrd", tmp_path / "moved" / f"other-{name}.nrrd")
    content = GOOD | {"ct": "other-ct.nrrd", "labels": "other-labels.nrrd"}
    (tmp_path / "moved" / "case.yaml").write_text("# a comment\n" + yaml.safe_dump(content))
    assert load_case(tmp_path / "moved", cache=tmp_path).id == first


def changed(voxels, at, value):
    voxels = voxels.copy()
    voxels[at] = value
    return placed(voxels)


def test_what_is_only_shown_does_not_change_the_id(tmp_path):
    assert load(tmp_path, procedure="Pedicle screws").id == load(tmp_path).id


@pytest.mark.parametrize(
    "change",
    [
        {"ct": placed(HU, spacing=(1.0, 1.0, 2.001)), "labels": label_map()},
        {"ct": placed(HU, origin=np.array(ORIGIN) + [0.01, 0, 0])},
        {"ct": changed(HU, (0, 0, 0), -999)},
        {"labels": placed(LABELS, origin=np.array(ORIGIN) + [0, 0.01, 0])},
        {"labels": changed(LABELS, (9, 23, 24), 2)},
        {"structures": [GOOD["structures"][0], GOOD["structures"][1] | {"caution_mm": 3.5}]},
        {"plan": [GOOD["plan"][0] | {"target_ct": [0, -15, 58.5]}]},
        {"tools": [GOOD["tools"][0] | {"diameter_mm": 2.2}]},
        {"prior": GOOD["prior"] | {"orbital_deg": 1}},
        {"no_go": [region(58, 4)]},
    ],
    ids=[
        "spacing", "place of the CT", "a voxel of the CT", "place of the labels", "a voxel of the labels", "a margin",
        "the plan", "a tool", "the prior", "a region",
    ],
)  # fmt: skip
def test_whatever_changes_guidance_changes_the_id(tmp_path, change):
    assert load(tmp_path, **change).id != load(tmp_path).id


def test_mm_and_cm_and_a_turned_ct_are_different_cases(tmp_path):
    def times(factor):
        return placed(HU, np.array(ORIGIN) * factor, np.array(SPACING) * factor)

    only_ct = {"structures": ..., "rigid": ..., "plan": ...}
    wide = GOOD["prior"] | {"isocentre_ct": [0, 0, 0]}
    turned = times(1)
    turned.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    ids = {load(tmp_path, ct=ct, prior=wide, **only_ct).id for ct in (times(1), times(1.5), times(5), turned)}
    assert len(ids) == 4


def test_surroundings_an_objects_own_volume_and_a_tools_file_are_part_of_the_id(tmp_path):
    first = load(tmp_path).id
    sitk.WriteImage(patient(), str(tmp_path / "around.nrrd"))
    with_around = load(tmp_path, surroundings="around.nrrd").id
    sitk.WriteImage(changed(HU, (0, 0, 0), -998), str(tmp_path / "around.nrrd"))
    assert len({first, with_around, load(tmp_path, surroundings="around.nrrd").id}) == 3

    objects = [{"name": "L1", "volume": "around.nrrd"}]
    own = load(tmp_path, objects=objects).id
    sitk.WriteImage(placed(HU, origin=np.array(ORIGIN) + 0.5), str(tmp_path / "around.nrrd"))
    assert load(tmp_path, objects=objects).id != own

    tool = {"kind": "k-wire", "diameter_mm": 2.0, "length_mm": 150}
    ids = set()
    for tip in ([0, 0, 0], [0, 0, 120]):
        (tmp_path / "wire.yaml").write_text(yaml.safe_dump(tool | {"tip_mm": tip}))
        ids.add(load(tmp_path, tools=[{"id": "wire", "file": "wire.yaml"}]).id)
    assert len(ids) == 2


# The cache of distance fields.


def distances_of_the_cord(folder):
    point = np.array(ORIGIN) + np.array([21, 30, 8]) * SPACING
    return load(folder).structures[1].field.sample(point[None])[0][0]


def spoilt_header(path):
    path.write_bytes(path.read_bytes().replace(b"fortran_order': False", b"fortran_order': True "))


def far_away(path):
    np.save(path, np.full_like(np.load(path), 24_070))


def far_away_with_its_length(path):
    right = path.read_bytes()
    np.save(path, np.full_like(np.load(path), 24_070))
    path.write_bytes(path.read_bytes() + right[len(path.read_bytes()) :])


def one_voxel(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)


@pytest.mark.parametrize("spoil", [far_away, far_away_with_its_length, one_voxel, spoilt_header])
def test_a_poisoned_distance_field_is_not_believed_and_is_said(tmp_path, caplog, spoil):
    right = distances_of_the_cord(tmp_path)
    assert 3 < right < 7
    stored = list(tmp_path.glob("*.npy"))
    assert len(stored) == 2
    for path in stored:
        spoil(path)
    with caplog.at_level(logging.WARNING):
        assert distances_of_the_cord(tmp_path) == right
    assert caplog.text.count("the cached distance field") == 2 and "it is computed again" in caplog.text
    caplog.clear()
    assert distances_of_the_cord(tmp_path) == right and not caplog.text


def test_another_structures_field_under_this_ones_name_is_not_believed(tmp_path, caplog):
    labels = LABELS.copy()
    labels[CORD] = 0
    labels[CORD[0], CORD[1], slice(19, 25)] = 2
    right = distances_of_the_cord(tmp_path)
    mine = {p.name: p.read_bytes() for p in tmp_path.glob("*.npy")}
    load(tmp_path, labels=placed(labels))
    (other,) = [p for p in tmp_path.glob("*.npy") if p.name not in mine]
    for name, content in mine.items():
        (tmp_path / name).write_bytes(other.read_bytes() if len(content) == other.stat().st_size else content)
    with caplog.at_level(logging.WARNING):
        assert distances_of_the_cord(tmp_path) == right
    assert "is not the one that was written" in caplog.text


def test_a_cache_that_cannot_be_written_is_said_and_the_case_is_loaded(tmp_path, caplog):
    (tmp_path / "cache").write_text("a file where the folder should be")
    load(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert load_case(tmp_path, cache=tmp_path / "cache").structures
    assert "cannot be cached" in caplog.text
