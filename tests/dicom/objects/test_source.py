"""A result goes to the patient and the study of its source, or nowhere; names survive their character sets."""

import pydicom
import pytest
from tests.case.scans import save
from tests.dicom.objects.scene import ACCEPTED, DRAFT, PDF, REGISTRATION, ct, dumped, findings, recorded

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.objects import (
    check_same_patient,
    check_study,
    encapsulated_pdf,
    key_object_selection,
    measurement_report,
    read_source,
    source_of,
    spatial_registration,
    write_object,
)


@pytest.mark.parametrize("value", ["", ..., "not a uid"], ids=["empty", "absent", "invalid"])
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
def test_a_source_without_a_uid_is_refused_by_tag(keyword, value):
    series = ct()
    if value is ...:
        delattr(series[3], keyword)
    else:
        setattr(series[3], keyword, value)
    with pytest.raises(DicomError, match=rf"ct: {keyword} \(00"):
        source_of(series, "ct")


def test_a_source_without_a_patient_is_refused():
    with pytest.raises(DicomError, match=r"PatientID \(0010,0020\) is missing or empty"):
        source_of(ct(PatientID=" "), "ct")


@pytest.mark.parametrize(
    ("keyword", "said"),
    [("PatientID", "2 patients"), ("StudyInstanceUID", "2 studies"), ("SeriesInstanceUID", "2 series")],
)
def test_images_of_two_of_anything_are_refused_without_an_identifier(keyword, said):
    series = ct()
    setattr(series[3], keyword, "1.2.77")
    with pytest.raises(DicomError, match=said) as caught:
        source_of(series, "ct")
    assert "1.2.77" not in str(caught.value)


def test_repeated_instances_are_refused():
    with pytest.raises(DicomError, match="same SOPInstanceUID"):
        source_of([*ct(), ct()[0]], "ct")


def test_a_folder_is_read_with_its_slices_in_the_order_of_their_places(tmp_path):
    folder = save(ct()[::-1], tmp_path / "ct")
    (folder / "notes.txt").write_text("no DICOM")
    source = read_source(folder)
    heights = [float(d.ImagePositionPatient[2]) for d in source.datasets]
    assert heights == sorted(heights) and len(heights) == 26
    assert read_source(folder / "0000.dcm").single().SOPInstanceUID == ct()[-1].SOPInstanceUID


def test_a_folder_with_two_series_is_refused_unless_one_is_named(tmp_path):
    other = ct()
    for d in other:
        d.SeriesInstanceUID, d.SOPInstanceUID = "1.2.3.4.8", d.SOPInstanceUID + ".8"
    folder = save([*ct(), *other], tmp_path / "ct")
    with pytest.raises(DicomError, match="holds 2 series.*--series"):
        read_source(folder)
    assert read_source(folder, "1.2.3.4.8").series_uid == "1.2.3.4.8"
    with pytest.raises(DicomError, match="has no series 1.9"):
        read_source(folder, "1.9")


@pytest.mark.parametrize("path", ["none", "text.dcm", "empty"])
def test_what_is_no_image_is_refused_by_path(tmp_path, path):
    (tmp_path / "text.dcm").write_text("no DICOM")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DicomError, match=path):
        read_source(tmp_path / path)


@pytest.mark.parametrize("keyword", ["PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"])
def test_another_patient_is_noticed_without_naming_either(keyword):
    one, other = ct(IssuerOfPatientID="A", PatientSex="F"), ct(IssuerOfPatientID="A", PatientSex="F")
    for d in other:
        setattr(d, keyword, "M" if keyword == "PatientSex" else "19870908")
    with pytest.raises(DicomError, match=f"another patient.*{keyword} differs") as caught:
        check_same_patient(source_of(one, "ct"), source_of(other, "run"))
    assert "19870908" not in str(caught.value)


def test_no_report_registration_or_selection_mixes_two_patients():
    mine = source_of(ct(), "ct")
    foreign = source_of([recorded(source=source_of(ct(PatientID="P2"), "other"))], "run")
    with pytest.raises(DicomError, match="another patient"):
        measurement_report(mine, DRAFT, findings(), references=[foreign])
    with pytest.raises(DicomError, match="another patient"):
        spatial_registration(mine, foreign, ACCEPTED, REGISTRATION["T_camera_ct"])
    with pytest.raises(DicomError, match="another patient or study"):
        key_object_selection([source_of([recorded()], "run"), foreign], DRAFT)


def test_another_study_is_noticed():
    check_study(source_of(ct(), "ct"), None)
    with pytest.raises(DicomError, match="another study"):
        check_study(source_of(ct(), "ct"), "1.2.3.5")


NAMES = {
    "Latin-1": ("Müller^Jörg", "ISO_IR 100", "iso8859-1"),
    "UTF-8": ("山田^太郎", "ISO_IR 192", "utf-8"),
    "Japanese": ("Yamada^Tarou=山田^太郎=やまだ^たろう", ["", "ISO 2022 IR 87"], None),
    "absent, UTF-8": ("Müller^Jörg", None, "utf-8"),
    "absent, Latin-1": ("Müller^Jörg", None, "iso8859-1"),
    "said UTF-8, is Latin-1": ("Müller^Jörg", "ISO_IR 192", "iso8859-1"),
    "said ASCII, is UTF-8": ("Müller^Jörg", "ISO_IR 6", "utf-8"),
}


@pytest.mark.parametrize("case", NAMES)
def test_a_name_survives_in_any_character_set_absent_and_wrong_ones_too(tmp_path, case):
    name, declared, codec = NAMES[case]
    image = ct()[0]
    if codec is None:
        image.SpecificCharacterSet, image.PatientName = declared, name
        image.save_as(tmp_path / "image.dcm", enforce_file_format=True)
    else:
        image.PatientName = "X" * len(name.encode(codec))
        if declared:
            image.SpecificCharacterSet = declared
        image.save_as(tmp_path / "image.dcm", enforce_file_format=True)
        data = (tmp_path / "image.dcm").read_bytes()
        (tmp_path / "image.dcm").write_bytes(data.replace(b"X" * len(name.encode(codec)), name.encode(codec)))
    source = read_source(tmp_path / "image.dcm")
    write_object(encapsulated_pdf(source, DRAFT, PDF, "Briefing"), tmp_path / "pdf.dcm")
    written = pydicom.dcmread(tmp_path / "pdf.dcm")
    assert str(written.PatientName) == name and written.SpecificCharacterSet == "ISO_IR 192"
    write_object(measurement_report(source, DRAFT, findings()), tmp_path / "sr.dcm")
    assert name in dumped(tmp_path / "sr.dcm")


def test_plain_names_need_no_character_set(tmp_path):
    made = encapsulated_pdf(source_of(ct(SpecificCharacterSet="ISO_IR 100"), "ct"), DRAFT, PDF, "Briefing")
    assert "SpecificCharacterSet" not in made
    assert encapsulated_pdf(source_of(ct(), "ct"), DRAFT, PDF, "Übersicht").SpecificCharacterSet == "ISO_IR 192"


def test_what_hospitals_write_into_names_and_dates_is_copied_as_it_is():
    odd = {"PatientSex": "W", "PatientBirthDate": "1960", "PatientName": "Roe,  Jane (Ms.)"}
    made = measurement_report(source_of(ct(**odd), "ct"), DRAFT, findings())
    assert {k: str(made.get(k)) for k in odd} == odd


def test_the_source_is_not_changed():
    series = ct(SpecificCharacterSet="ISO_IR 100", PatientName="Müller")
    del series[0].StudyID
    before = [d.to_json() for d in series]
    encapsulated_pdf(source_of(series, "ct"), DRAFT, PDF, "Briefing")
    assert [d.to_json() for d in series] == before
