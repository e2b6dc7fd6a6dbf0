"""Segmentations of other programs are taken as what they say they are, or refused with the reason."""

import gzip
import json
import struct

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.sr.codedict import codes
from tests.case.scans import BONE, ORIGIN, SPACING, label_map, patient, placed, slices
from tests.dicom.objects.scene import DRAFT, SEGMENTS

from fluoronav.case.volume import read_volume
from fluoronav.dicom.objects import read_source, segmentation, write_object
from fluoronav.planning.anatomy import by_name
from fluoronav.planning.segmentation.engine import SegmentationError
from fluoronav.planning.segmentation.imported.checks import unusual
from fluoronav.planning.segmentation.imported.engine import ImportEngine, ImportOptions
from fluoronav.planning.segmentation.imported.names import known_name, names_in_file, names_of_scheme

trimesh = pytest.importorskip("trimesh", reason="needs the extra `planning`")
T8, CORD_LABEL = by_name()["vertebrae_T8"].label, by_name()["spinal_cord"].label


@pytest.fixture
def ct(tmp_path):
    sitk.WriteImage(patient(), str(tmp_path / "ct.nii.gz"))
    return read_volume(tmp_path / "ct.nii.gz")


def labelled(tmp_path, values, name="labels.nii.gz"):
    """The label map of the patient with other values, as a file."""
    voxels = sitk.GetArrayFromImage(label_map())
    image = placed(np.array([0, *values], np.uint8)[voxels])
    sitk.WriteImage(image, str(tmp_path / name))
    return tmp_path / name


def imported(ct, *files, **options):
    return ImportEngine(ImportOptions(tuple(files), **options)).segment(ct, lambda text, done: None)


def names_of(found):
    return {s.name: s.voxels for s in found.structures}


def refusal(ct, *files, **options):
    with pytest.raises(SegmentationError) as error:
        imported(ct, *files, **options)
    return str(error.value)


@pytest.mark.parametrize(
    ("scheme", "values"),
    [
        ("totalsegmentator", (36, 79)),
        ("totalsegmentator2", (36, 79)),
        ("totalsegmentator1", (27, 7)),
        ("verse", (15, 16)),
    ],
)
def test_the_values_of_a_label_map_mean_what_its_scheme_says(ct, tmp_path, scheme, values):
    found = imported(ct, labelled(tmp_path, values), scheme=scheme)
    second = {"totalsegmentator1": "aorta", "verse": "vertebrae_T9"}.get(scheme, "spinal_cord")
    expected = np.count_nonzero(sitk.GetArrayFromImage(label_map()) == 1)
    assert names_of(found)["vertebrae_T8"] == expected and second in names_of(found)
    assert set(np.unique(sitk.GetArrayViewFromImage(found.labels))) == {0, T8, by_name()[second].label}
    assert all(s.engine == "import" and s.state == "draft" for s in found.structures)


def test_the_two_versions_of_totalsegmentator_differ():
    one, two = names_of_scheme("totalsegmentator1"), names_of_scheme("totalsegmentator2")
    assert len(one) == 104 and len(two) == 117
    assert (one[18], two[27]) == ("vertebrae_L5", "vertebrae_L5")
    assert (one[104], two[117]) == ("urinary_bladder", "costal_cartilages")


def test_verse_s_additional_vertebrae_keep_their_names():
    assert [names_of_scheme("verse")[v] for v in (25, 28)] == ["vertebrae_L6", "vertebrae_T13"]


def test_names_in_totalsegmentator_s_header_extension_are_read(ct, tmp_path):
    path = labelled(tmp_path, (5, 9), "plain.nii.gz")
    raw = gzip.decompress(path.read_bytes())
    xml = b'<?xml version="1.0"?><CaretExtension><VolumeInformation Index="0"><LabelTable>'
    xml += b'<Label Key="5" Red="1" Green="0" Blue="0" Alpha="1"><![CDATA[vertebrae_T8]]></Label>'
    xml += b'<Label Key="9" Red="1" Green="0" Blue="0" Alpha="1"><![CDATA[spinal_cord]]></Label>'
    xml += b"</LabelTable></VolumeInformation></CaretExtension>"
    xml += b" " * (-(len(xml) + 8) % 16)
    extension = struct.pack("<ii", len(xml) + 8, 0) + xml
    header = bytearray(raw[:348])
    header[108:112] = struct.pack("<f", 352 + len(extension))
    out = tmp_path / "total.nii.gz"
    out.write_bytes(gzip.compress(bytes(header) + b"\1\0\0\0" + extension + raw[352:]))
    assert names_in_file(out) == {5: "vertebrae_T8", 9: "spinal_cord"}
    assert set(names_of(imported(ct, out))) == {"vertebrae_T8", "spinal_cord"}


def test_names_of_a_segmentation_of_slicer_are_read(ct, tmp_path):
    image = label_map()
    for k, (value, name) in enumerate(((1, "vertebrae T8"), (2, "my lesion"))):
        image.SetMetaData(f"Segment{k}_LabelValue", str(value))
        image.SetMetaData(f"Segment{k}_Name", name)
    sitk.WriteImage(image, str(tmp_path / "seg.nrrd"))
    assert set(names_of(imported(ct, tmp_path / "seg.nrrd"))) == {"vertebrae_T8", "my_lesion"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.json", json.dumps({"1": "T8", "2": "spinal_cord"})),
        ("labels.json", json.dumps({"labels": {"background": 0, "vertebrae_T8": 1, "spinal_cord": 2}})),
        ("labels.csv", "group,original_idx,structure,id\nx,1,vertebrae_T8,1\nx,2,spinal_cord,2\n"),
    ],
)
def test_a_file_beside_the_label_map_names_its_values(ct, tmp_path, name, text):
    path = labelled(tmp_path, (1, 2))
    (tmp_path / name).write_text(text)
    assert set(names_of(imported(ct, path))) == {"vertebrae_T8", "spinal_cord"}


def test_values_without_names_are_never_guessed(ct, tmp_path):
    assert "--scheme" in refusal(ct, labelled(tmp_path, (36, 79)))


def test_a_mask_of_one_structure_takes_the_name_that_is_given(ct, tmp_path):
    found = imported(ct, labelled(tmp_path, (1, 0)), name="tumour")
    assert names_of(found).keys() == {"tumour"} and found.structures[0].label > 202


def test_our_own_dicom_segmentation_comes_back_voxel_for_voxel(ct, tmp_path):
    folder = series(tmp_path)
    ours = segmentation(read_source(folder), DRAFT, label_map(), SEGMENTS)
    write_object(ours, tmp_path / "seg.dcm")
    found = imported(read_volume(folder), tmp_path / "seg.dcm")
    voxels, original = sitk.GetArrayFromImage(found.labels), sitk.GetArrayFromImage(label_map())
    np.testing.assert_array_equal(voxels == T8, original == 1)
    np.testing.assert_array_equal(voxels == CORD_LABEL, original == 2)


def test_a_segmentation_written_by_highdicom_is_named_by_its_codes(tmp_path):
    folder = series(tmp_path)
    images = [pydicom.dcmread(p) for p in sorted(folder.iterdir())]
    for image in images:
        for keyword in ("PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
                        "AccessionNumber", "ReferringPhysicianName"):  # fmt: skip
            setattr(image, keyword, "")
        image.StudyInstanceUID, image.SeriesNumber, image.SliceThickness = "1.2.3", 1, 2
    mask = (sitk.GetArrayFromImage(label_map()) == 1).astype(np.uint8)
    description = hd.seg.SegmentDescription(1, "liver (left out by nobody)", codes.SCT.Organ, codes.SCT.Liver, "MANUAL")
    other = hd.seg.Segmentation(
        images, mask, "BINARY", [description], hd.UID(), 1, hd.UID(), 1, "maker", "model", "1", "serial"
    )
    other.save_as(tmp_path / "other.dcm")
    found = imported(read_volume(folder), tmp_path / "other.dcm")
    assert names_of(found) == {"liver": int(mask.sum())}


def test_a_segmentation_of_another_frame_of_reference_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two = series(tmp_path / "a"), series(tmp_path / "b")
    write_object(segmentation(read_source(two), DRAFT, label_map(), SEGMENTS), tmp_path / "seg.dcm")
    assert "another frame of reference" in refusal(read_volume(one), tmp_path / "seg.dcm")


def series(folder):
    out = folder / "series"
    out.mkdir()
    for k, d in enumerate(slices(patient())):
        d.StudyInstanceUID = "1.2.3"
        d.save_as(out / f"{k:03d}.dcm", enforce_file_format=True)
    return out


def test_a_mirrored_label_map_is_refused(ct, tmp_path):
    mirrored = placed(sitk.GetArrayFromImage(label_map())[:, :, ::-1].copy())
    sitk.WriteImage(mirrored, str(tmp_path / "mirrored.nii.gz"))
    text = refusal(ct, tmp_path / "mirrored.nii.gz", names=names_file(tmp_path))
    assert "mirrored" in text or "do not lie in bone" in text


def test_exchanged_sides_are_refused(ct, tmp_path):
    (tmp_path / "n.json").write_text(json.dumps({"1": "kidney_left", "2": "kidney_right"}))
    voxels = np.zeros_like(sitk.GetArrayFromImage(label_map()))
    voxels[8:14, 20:30, 8:14], voxels[8:14, 20:30, 36:42] = 1, 2  # the left one to the right (LPS)
    sitk.WriteImage(placed(voxels), str(tmp_path / "sides.nii.gz"))
    assert "exchanged" in refusal(ct, tmp_path / "sides.nii.gz", names=tmp_path / "n.json")


def names_file(folder):
    (folder / "names.json").write_text(json.dumps({"1": "vertebrae_T8", "2": "spinal_cord"}))
    return folder / "names.json"


def test_labels_whose_header_was_lost_are_refused(ct, tmp_path):
    lost = label_map()
    lost.SetOrigin((500.0, 500.0, 900.0))
    sitk.WriteImage(lost, str(tmp_path / "lost.nii.gz"))
    assert "header was lost" in refusal(ct, tmp_path / "lost.nii.gz", names=names_file(tmp_path))


def test_labels_of_another_place_in_the_scan_are_refused(ct, tmp_path):
    moved = label_map()
    moved.SetOrigin((ORIGIN[0] + 10, ORIGIN[1] + 10, ORIGIN[2]))
    sitk.WriteImage(moved, str(tmp_path / "moved.nii.gz"))
    text = refusal(ct, tmp_path / "moved.nii.gz", names=names_file(tmp_path))
    assert "bone" in text


def test_an_empty_label_map_is_refused(ct, tmp_path):
    sitk.WriteImage(placed(np.zeros_like(sitk.GetArrayFromImage(label_map()))), str(tmp_path / "empty.nii.gz"))
    assert "is empty" in refusal(ct, tmp_path / "empty.nii.gz", scheme="verse")


def test_a_ct_is_not_taken_for_labels(ct, tmp_path):
    assert "is not a label map" in refusal(ct, ct.path, scheme="verse")


def test_a_label_map_on_a_finer_grid_is_resampled_and_said(ct, tmp_path):
    fine = sitk.Expand(label_map(), [2, 2, 2], sitk.sitkNearestNeighbor)
    sitk.WriteImage(fine, str(tmp_path / "fine.nii.gz"))
    found = imported(ct, tmp_path / "fine.nii.gz", names=names_file(tmp_path))
    assert found.labels.GetSize() == ct.image.GetSize()
    assert any("another grid" in w for w in found.warnings)
    expected = np.count_nonzero(sitk.GetArrayFromImage(label_map()) == 1)
    assert abs(names_of(found)["vertebrae_T8"] - expected) < 0.1 * expected


def box_file(folder, name="box.stl", scale=1.0, drop=0, header=None):
    """The block of bone as STL."""
    low = np.array(ORIGIN) + np.array([BONE[2].start, BONE[1].start, BONE[0].start]) * SPACING - np.array(SPACING) / 2
    size = np.array([s.stop - s.start for s in BONE[::-1]]) * SPACING
    box = trimesh.creation.box(extents=size, transform=trimesh.transformations.translation_matrix(low + size / 2))
    box.vertices *= scale
    if drop:
        box.update_faces(np.arange(len(box.faces)) >= drop)
    box.export(folder / name)
    if header:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(header.ljust(80, b"\0") + content[80:])
    return folder / name


def test_a_closed_surface_becomes_the_voxels_whose_centres_it_encloses(ct, tmp_path):
    found = imported(ct, box_file(tmp_path), name="T8")
    np.testing.assert_array_equal(
        sitk.GetArrayViewFromImage(found.labels) == T8, sitk.GetArrayFromImage(label_map()) == 1
    )


def test_a_hollow_surface_stays_hollow(ct, tmp_path):
    outer, inner = (trimesh.creation.icosphere(3, radius) for radius in (9.0, 5.0))
    inner.invert()
    both = trimesh.util.concatenate([outer, inner])
    both.apply_translation([5.0, -5.0, 65.0])
    both.export(tmp_path / "shell.stl")
    found = imported(ct, tmp_path / "shell.stl", name="shell")
    volume = found.structures[0].volume_cm3 * 1000
    assert abs(volume - both.volume) < 0.06 * both.volume
    middle = found.labels.TransformPhysicalPointToIndex((5.0, -5.0, 65.0))
    assert found.labels[middle] == 0


def test_a_surface_in_ras_is_turned_where_its_header_says_so(ct, tmp_path):
    mesh = trimesh.load(box_file(tmp_path))
    mesh.vertices[:, :2] *= -1
    mesh.invert()
    mesh.export(tmp_path / "ras.stl")
    content = (tmp_path / "ras.stl").read_bytes()
    (tmp_path / "ras.stl").write_bytes(b"3D Slicer output. SPACE=RAS".ljust(80, b"\0") + content[80:])
    found = imported(ct, tmp_path / "ras.stl", name="T8")
    np.testing.assert_array_equal(
        sitk.GetArrayViewFromImage(found.labels) == T8, sitk.GetArrayFromImage(label_map()) == 1
    )


def test_a_surface_with_a_hole_is_refused_with_the_number_of_open_edges(ct, tmp_path):
    assert "3 edges have one triangle" in refusal(ct, box_file(tmp_path, drop=1), name="T8")


def test_a_surface_in_metres_is_refused(ct, tmp_path):
    assert "in metres" in refusal(ct, box_file(tmp_path, scale=1e-3), name="T8")


def test_a_text_that_is_no_stl_is_refused(ct, tmp_path):
    (tmp_path / "x.stl").write_bytes(b"hello")
    assert "x.stl" in refusal(ct, tmp_path / "x.stl", name="T8")


def vertebra_mask(is_open=False, is_cut=False, pieces=1):
    mask = np.zeros((30, 60, 60), bool)
    bottom = 0 if is_cut else 8
    mask[bottom:22, 10:30, 15:45] = True
    mask[12:20, 30:50, 18:24] = mask[12:20, 30:50, 36:42] = True
    if not is_open:
        mask[12:20, 46:52, 18:42] = True
    if pieces > 1:
        mask[10:16, 55:59, 24:36] = True
    return mask


@pytest.mark.parametrize(
    ("options", "name", "said"),
    [
        ({}, "vertebrae_L1", None),
        ({"is_open": True}, "vertebrae_L1", "arch is open"),
        ({"is_cut": True}, "vertebrae_L1", "end of the scan"),
        ({"pieces": 2}, "vertebrae_L1", "2 pieces"),
        ({}, "vertebrae_L6", "sixth lumbar"),
        ({}, "vertebrae_T13", "thirteenth thoracic"),
    ],
)
def test_what_is_unusual_about_a_vertebra_is_said_and_kept(options, name, said):
    image = sitk.Image(60, 60, 30, sitk.sitkUInt8)
    found = unusual(name, vertebra_mask(**options), image)
    assert (found == []) if said is None else any(said in text for text in found)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("T8", "vertebrae_T8"),
        ("vertebra_L1", "vertebrae_L1"),
        ("Spinal Cord", "spinal_cord"),
        ("my lesion", "my_lesion"),
    ],
)
def test_names_are_matched_to_the_vocabulary(name, known):
    assert known_name(name) == known


def test_two_files_that_hold_the_same_structure_are_refused(ct, tmp_path):
    path = labelled(tmp_path, (36, 79))
    other = tmp_path / "again.nii.gz"
    other.write_bytes(path.read_bytes())
    assert "already there" in refusal(ct, path, other, scheme="totalsegmentator")


def test_segments_that_share_voxels_are_told_and_the_smaller_one_keeps_them(tmp_path):
    folder = series(tmp_path)
    big = (sitk.GetArrayFromImage(label_map()) == 1).astype(np.uint8)
    small = np.zeros_like(big)
    small[7:9, 12:16, 14:20] = 1

    images = [pydicom.dcmread(p) for p in sorted(folder.iterdir())]
    for image in images:
        for keyword in ("PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
                        "AccessionNumber", "ReferringPhysicianName"):  # fmt: skip
            setattr(image, keyword, "")
        image.SeriesNumber, image.SliceThickness = 1, 2
    describe = [
        hd.seg.SegmentDescription(k + 1, name, codes.SCT.Tissue, codes.SCT.Bone, "MANUAL")
        for k, name in enumerate(("vertebrae_T8", "lesion"))
    ]
    seg = hd.seg.Segmentation(
        images, np.stack([big, small], -1), "BINARY", describe, hd.UID(), 1, hd.UID(), 1, "m", "m", "1", "s"
    )
    seg.save_as(tmp_path / "overlap.dcm")
    found = imported(read_volume(folder), tmp_path / "overlap.dcm")
    assert names_of(found) == {"vertebrae_T8": int(big.sum() - small.sum()), "lesion": int(small.sum())}
    assert any("more than one segment" in w for w in found.warnings)


def test_an_import_of_nothing_says_what_is_missing():
    with pytest.raises(SegmentationError, match="--from"):
        ImportEngine(ImportOptions(()))


def test_the_map_of_the_chest_is_imported_whole(shared_data):
    ct = read_volume(shared_data / "planning/patient_b/ct.nii.gz")
    labels = shared_data / "planning/patient_b/labels.nii.gz"
    found = imported(ct, labels, scheme="totalsegmentator")
    assert len(found.structures) == 58
    assert any("vertebrae_T11" in w and "end of the scan" in w for w in found.warnings)
    assert not any("arch is open" in w for w in found.warnings)
