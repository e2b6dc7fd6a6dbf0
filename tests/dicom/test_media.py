"""A folder and a medium with a DICOMDIR: which series there are, localizers, MR, and what is missing."""

import pytest
from pydicom.fileset import FileSet
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage, generate_uid
from tests.case.scans import enhanced, patient, save, slices
from tests.dicom.test_series import assert_is_the_patient

from fluoronav.case import CaseError, load_case, read_volume
from fluoronav.case.volume import Volume
from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.series import read_dicom_series


def medium(folder, *scans):
    """A DICOMDIR with the scans' slices below it, as a CD has them."""
    files = FileSet()
    study = generate_uid()
    for scan in scans:
        for k, s in enumerate(scan):
            s.StudyInstanceUID, s.StudyDate, s.StudyTime, s.StudyID = study, "20200101", "120000", "1"
            s.PatientName, s.SeriesNumber, s.InstanceNumber = "scan", 1, k + 1
            files.add(s)
    files.write(folder)
    return folder


def test_the_series_of_a_dicomdir_is_read_by_its_file_or_its_folder(tmp_path):
    folder = medium(tmp_path / "cd", slices(patient()))
    assert_is_the_patient(read_volume(folder))
    assert_is_the_patient(read_volume(folder / "DICOMDIR"))


def test_of_two_series_on_a_medium_one_must_be_named(tmp_path):
    one, other = slices(patient()), slices(patient())[:5]
    folder = medium(tmp_path / "cd", one, other)
    with pytest.raises(CaseError, match="holds 2 series.*ct_series"):
        read_volume(folder / "DICOMDIR")
    assert_is_the_patient(read_volume(folder / "DICOMDIR", one[0].SeriesInstanceUID))


def test_a_medium_that_was_copied_in_small_letters_is_read(tmp_path):
    folder = medium(tmp_path / "cd", slices(patient()))
    for path in sorted(folder.rglob("*"), key=lambda p: -len(p.parts)):
        path.rename(path.with_name(path.name.lower()))
    assert_is_the_patient(read_volume(folder))


def test_images_that_a_dicomdir_lists_and_that_are_not_there_are_named(tmp_path):
    folder = medium(tmp_path / "cd", slices(patient()))
    images = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "DICOMDIR")
    images[-1].unlink()
    with pytest.raises(CaseError, match=r"1 of 26 images that it lists are not there|slices are missing"):
        volume = read_volume(folder)
        assert isinstance(volume, Volume)
        raise CaseError(" ".join(volume.warnings))
    for path in images[:-1]:
        path.unlink()
    with pytest.raises(CaseError, match="none of the 26 images that it lists is there; copy the whole medium"):
        read_volume(folder)


def test_a_localizer_in_the_series_is_set_aside_and_said(tmp_path):
    single = slices(patient())
    scout = slices(patient())[0]
    scout.SeriesInstanceUID = single[0].SeriesInstanceUID
    scout.ImageType, scout.ImageOrientationPatient = ["ORIGINAL", "PRIMARY", "LOCALIZER"], [1, 0, 0, 0, 0, -1]
    volume = read_volume(save([*single, scout], tmp_path / "ct"))
    assert_is_the_patient(volume)
    assert any("1 localizer was (0026.dcm) set aside" in w for w in volume.warnings)


def test_a_folder_with_the_series_below_says_where_to_look(tmp_path):
    save(slices(patient()), tmp_path / "cd" / "series")
    with pytest.raises(CaseError, match="Its 1 sub-folders were not searched"):
        read_volume(tmp_path / "cd")


def test_slices_of_which_some_have_no_patient_are_refused(tmp_path):
    single = slices(patient())
    del single[4].PatientID
    with pytest.raises(CaseError, match=r"1 of 26 files have no PatientID \(0010,0020\).*0004.dcm"):
        read_volume(save(single, tmp_path / "ct"))


@pytest.mark.parametrize("multi_frame", [False, True])
def test_an_mr_series_is_read_where_mr_is_meant_and_refused_as_a_case(tmp_path, multi_frame):
    single = slices(patient(), intercept=-1024)
    for s in single:
        s.Modality, s.SOPClassUID = "MR", MRImageStorage
        del s.RescaleSlope, s.RescaleIntercept
    if multi_frame:
        for s in single:
            s.RescaleSlope = s.RescaleIntercept = 0  # the helper copies them
        whole = enhanced(single, sop_class=EnhancedMRImageStorage, modality="MR")
        for groups in whole.PerFrameFunctionalGroupsSequence:
            del groups.PixelValueTransformationSequence
        single = [whole]
    folder = save(single, tmp_path / "mr")
    image, _ = read_dicom_series(folder, modalities=("MR",))
    assert image.GetSize() == patient().GetSize() and image.GetOrigin() == patient().GetOrigin()
    assert image[20, 15, 8] == 500 + 1024  # stored values: MR has no unit
    with pytest.raises(CaseError, match="magnetic resonance"):
        read_volume(folder)
    with pytest.raises(DicomError, match="is MR"):
        read_dicom_series(folder)


def test_a_folder_or_dicomdir_named_as_a_case_says_what_to_write_and_a_case_file_may_name_it(tmp_path):
    folder = medium(tmp_path / "cd", slices(patient()))
    for path in (folder, folder / "DICOMDIR"):
        with pytest.raises(CaseError, match=r"case.yaml that names the CT .* as `ct`. `fluoronav dicom show .*cd"):
            load_case(path)
    prior = "{isocentre_ct: [0, 0, 60], source_to_isocentre_mm: 620}"
    (tmp_path / "case.yaml").write_text(f"name: cd\nct: cd/DICOMDIR\nprior: {prior}\n")
    assert_is_the_patient(load_case(tmp_path).ct)
