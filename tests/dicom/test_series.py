"""DICOM series as hospitals export them: read as they are, or refused by file and tag; what was not read is said."""

import os
import threading
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.uid import DeflatedExplicitVRLittleEndian, MRImageStorage, XRay3DAngiographicImageStorage, generate_uid
from tests.case.scans import enhanced, one_item, patient, save, slices

from fluoronav.case import CaseError, read_volume
from fluoronav.dicom import reading

HU = sitk.GetArrayFromImage(patient())


def assert_is_the_patient(volume):
    np.testing.assert_array_equal(volume.voxels, HU)
    np.testing.assert_allclose(volume.image.GetSpacing(), patient().GetSpacing())
    np.testing.assert_allclose(volume.image.GetOrigin(), patient().GetOrigin())


@pytest.mark.parametrize("value", [None, ...], ids=["empty", "absent"])
@pytest.mark.parametrize(
    "tag", ["RescaleSlope", "RescaleIntercept", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"]
)
def test_a_tag_that_is_empty_or_absent_in_one_slice_is_refused_by_file_and_tag(tmp_path, tag, value):
    single = slices(patient())
    if value is ...:
        delattr(single[7], tag)
    else:
        setattr(single[7], tag, value)
    with pytest.raises(CaseError) as caught:
        read_volume(save(single, tmp_path / "ct"))
    word = "absent" if value is ... else "empty"
    assert "0007.dcm" in str(caught.value) and f"{tag} (00" in str(caught.value) and word in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"Modality": "MR"}, r"Modality \(0008,0060\) is MR \(magnetic resonance\), not CT"),
        ({"Modality": "PT"}, "is PT .positron emission., not CT"),
        ({"Modality": ""}, "is empty or absent, not CT"),
        ({"SOPClassUID": MRImageStorage}, "is MR Image Storage although Modality"),
        ({"RescaleType": "OD"}, r"RescaleType \(0028,1054\) is OD, not HU"),
        ({"RescaleSlope": 0}, r"RescaleSlope \(0028,1053\) is 0; it must be above 0"),
        ({"RescaleSlope": -1}, "must be above 0"),
        ({"PixelSpacing": [0, 1]}, "must be above 0"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "not two perpendicular unit vectors"),
        ({"ModalityLUTSequence": one_item(ModalityLUTType="HU")}, "ModalityLUTSequence"),
        ({"SamplesPerPixel": 3}, "a picture, not a CT"),
        ({"NumberOfFrames": 2}, "2 frames but no functional groups"),
    ],
)
def test_what_is_no_ct_in_hu_is_refused_by_name(tmp_path, change, said):
    single = slices(patient())
    for s in single:
        for tag, value in change.items():
            setattr(s, tag, value)
    with pytest.raises(CaseError, match=said):
        read_volume(save(single, tmp_path / "ct"))


@pytest.mark.parametrize(
    ("tag", "said"), [("FrameOfReferenceUID", "2 frames of reference"), ("PatientID", "2 patients")]
)
def test_slices_of_two_patients_in_one_series_are_refused_without_their_names(tmp_path, tag, said):
    single = slices(patient())
    for k, s in enumerate(single):
        setattr(s, tag, "1.2.3" if k < 5 else "1.2.4")
    with pytest.raises(CaseError, match=said) as caught:
        read_volume(save(single, tmp_path / "ct"))
    assert "1.2.4" not in str(caught.value)


@pytest.mark.parametrize(
    ("sop_class", "modality"), [(None, "CT"), (XRay3DAngiographicImageStorage, "XA")], ids=["enhanced CT", "CBCT"]
)
def test_a_multi_frame_object_is_read_like_the_plain_series_whatever_its_frames_order(tmp_path, sop_class, modality):
    single = slices(patient())
    for k, s in enumerate(single):  # every frame with a rescale of its own
        s.RescaleIntercept = -1024 - k
        s.PixelData = (np.frombuffer(s.PixelData, "<u2") + k).astype("<u2").tobytes()
    order = np.random.default_rng(3).permutation(len(single))
    kind = {} if sop_class is None else {"sop_class": sop_class}
    folder = save([enhanced(single, order, modality=modality, **kind)], tmp_path / "ct")
    assert_is_the_patient(read_volume(folder))
    assert_is_the_patient(read_volume(folder / "0000.dcm"))


def test_a_frame_without_its_place_is_refused_by_number(tmp_path):
    whole = enhanced(slices(patient()))
    del whole.PerFrameFunctionalGroupsSequence[4].PlanePositionSequence
    with pytest.raises(CaseError, match=r"0000.dcm, frame 5: PlanePositionSequence \(0020,9113\) is absent"):
        read_volume(save([whole], tmp_path / "ct"))
    whole = enhanced(slices(patient()))
    del whole.PerFrameFunctionalGroupsSequence[-1]
    with pytest.raises(CaseError, match=r"NumberOfFrames \(0028,0008\) is 26, but 25 frames are described"):
        read_volume(save([whole], tmp_path / "ct"))


def test_an_enhanced_ct_beside_two_stray_slices_does_not_become_a_ct_of_two_slices(tmp_path):
    single, stray = slices(patient()), slices(patient())[:2]
    folder = save([enhanced(single), *stray], tmp_path / "ct")
    with pytest.raises(CaseError, match="holds 2 series") as caught:
        read_volume(folder)
    assert "CT, 26 slices" in str(caught.value) and "CT, 2 slices" in str(caught.value)
    volume = read_volume(folder, single[0].SeriesInstanceUID)
    assert_is_the_patient(volume)
    assert "other series, which were not read" in volume.warnings[0]


@pytest.mark.parametrize("at", [0, 5, 25])
def test_one_slice_of_another_plane_is_named_wherever_it_lies(tmp_path, at):
    single = slices(patient())
    single[at].ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    with pytest.raises(CaseError, match=f"different planes.*1 of 26 .*{at:04}.dcm"):
        read_volume(save(single, tmp_path / "ct"))


def test_one_slice_pushed_aside_is_refused(tmp_path):
    single = slices(patient())
    single[9].ImagePositionPatient = [-17.0, -30.0, 58.0]
    with pytest.raises(CaseError, match="lies 3.00 mm beside the others"):
        read_volume(save(single, tmp_path / "ct"))


def test_a_file_without_preamble_is_read(tmp_path):
    folder = save(slices(patient()), tmp_path / "ct")
    for path in sorted(folder.iterdir())[20:]:
        path.write_bytes(path.read_bytes()[132:])
    volume = read_volume(folder)
    assert_is_the_patient(volume)
    assert volume.warnings == ()


def test_files_that_could_not_be_read_at_the_end_of_a_stack_are_counted_and_named(tmp_path):
    folder = save(slices(patient()), tmp_path / "ct")
    for path in sorted(folder.iterdir())[23:]:
        path.write_bytes(b"")
    (folder / "notes.txt").write_text("not DICOM")
    volume = read_volume(folder)
    assert volume.image.GetSize()[2] == 23
    (warning,) = volume.warnings
    assert "4 of 27 files were not read" in warning and "3 empty (0023.dcm" in warning
    assert "1 no DICOM (notes.txt)" in warning and "the CT is shorter than the scan" in warning


def test_a_file_that_could_not_be_read_inside_the_stack_is_a_gap_and_is_named(tmp_path):
    folder = save(slices(patient()), tmp_path / "ct")
    (folder / "0012.dcm").write_bytes(b"")
    with pytest.raises(CaseError, match=r"slices are missing.*1 of 26 files were not read: 1 empty \(0012.dcm\)"):
        read_volume(folder)


def test_a_slice_that_is_cut_off_in_its_pixels_is_refused_by_name(tmp_path):
    folder = save(slices(patient()), tmp_path / "ct")
    path = folder / "0003.dcm"
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(CaseError, match="0003.dcm: pixel data cannot be decoded"):
        read_volume(folder)


def test_slices_that_promise_more_than_fits_into_memory_are_refused_from_their_headers(tmp_path):
    single = slices(patient())
    for s in single:
        s.Rows = s.Columns = 60_000
    with pytest.raises(CaseError, match="60000 x 60000 x 26 voxels need 348.7 GiB of memory; at most 2 GiB"):
        read_volume(save(single, tmp_path / "ct"))


def test_deflated_slices_are_read_and_one_that_inflates_without_end_is_refused_by_name(tmp_path, monkeypatch):
    single = slices(patient())
    for s in single:
        s.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    folder = save(single, tmp_path / "ct")
    assert_is_the_patient(read_volume(folder))
    single[-1].PixelData = b"\0" * 50_000_000
    save(single, folder)
    monkeypatch.setattr(reading, "LIMITS", replace(reading.LIMITS, most_inflated_bytes=10 * 2**20))
    with pytest.raises(CaseError, match="0025.dcm: is deflated and inflates to more than 10 MiB"):
        read_volume(folder)


def test_a_pipe_in_the_folder_is_left_out_and_never_opened(tmp_path):
    folder = save(slices(patient()), tmp_path / "ct")
    os.mkfifo(folder / "pipe")
    found = []
    reader = threading.Thread(target=lambda: found.append(read_volume(folder)), daemon=True)
    reader.start()
    reader.join(60)
    assert found and "1 pipe, socket or device (pipe)" in found[0].warnings[0]


def test_one_slice_of_a_series_named_alone_is_refused(tmp_path):
    folder = save(slices(patient()), tmp_path / "ct")
    with pytest.raises(CaseError, match="one slice of a series; name the folder"):
        read_volume(folder / "0003.dcm")


def test_images_without_a_place_are_no_series_of_their_own(tmp_path):
    single = slices(patient())
    shot = slices(patient())[0]
    shot.SeriesInstanceUID = generate_uid()
    del shot.ImagePositionPatient, shot.ImageOrientationPatient
    volume = read_volume(save([*single, shot], tmp_path / "ct"))
    assert_is_the_patient(volume)
    assert "1 without a place in the patient (0026.dcm)" in volume.warnings[0]
