"""Every object: valid by another's validator, in the patient's study, labelled as a draft, the same when made again."""

import dataclasses
import datetime

import pydicom
import pytest
from pydicom.dataset import Dataset
from tests.dicom.objects.scene import ACCEPTED, DRAFT, PERSON, dumped, errors_of, every_object

from fluoronav import __version__
from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.objects import Producer, write_object

# What the validator does not know, with the reason.
ALLOWED = {
    "labelmap": {
        # Label Map Segmentation Storage is of 2024 (Supplement 243); dicom3tools in Debian is older.
        "Error - Information Object Not found",
        # In a label map the background is a segment, number 0; in the older object numbers begin at 1.
        "Error -  - SegmentNumber not monotonically increasing from one by one - have SegmentSequence item number 1 "
        "(from one) with SegmentNumber of 0",
    }
}
DRAFTS, FINALS = every_object(DRAFT), every_object(ACCEPTED)
OTHER_STUDY = every_object(ACCEPTED, StudyInstanceUID="1.2.3.9")
OTHER_NETWORK = every_object(dataclasses.replace(ACCEPTED, producer=Producer(models={"other": "b" * 64})))
LATER = dataclasses.replace(DRAFT, made=DRAFT.made + datetime.timedelta(days=3))
AT_THE_SAME_TIME = every_object(ACCEPTED)
AGAIN = {"reg": AT_THE_SAME_TIME["reg"], **every_object(LATER)}


@pytest.mark.parametrize("kind", FINALS)
def test_dciodvfy_finds_no_error(tmp_path, kind):
    for name, made in (("draft", DRAFTS.get(kind)), ("accepted", FINALS[kind])):
        if made is not None:
            write_object(made, tmp_path / f"{name}.dcm")
            assert set(errors_of(tmp_path / f"{name}.dcm")) <= ALLOWED.get(kind, set())


def test_dciodvfy_is_heard(tmp_path):
    broken = every_object()["sc"]
    del broken.StudyInstanceUID
    broken.save_as(tmp_path / "broken.dcm")
    assert errors_of(tmp_path / "broken.dcm")


@pytest.mark.parametrize("kind", FINALS)
def test_patient_and_study_are_those_of_the_source(kind):
    for keyword, value in PERSON.items():
        assert str(FINALS[kind].get(keyword)) == value, keyword


@pytest.mark.parametrize("kind", DRAFTS)
def test_a_draft_says_so_until_a_person_accepts(kind):
    draft, final = DRAFTS[kind], FINALS[kind]
    assert draft.SeriesDescription.startswith("DRAFT ") and not final.SeriesDescription.startswith("DRAFT")
    assert draft.SOPInstanceUID != final.SOPInstanceUID and draft.SeriesInstanceUID != final.SeriesInstanceUID
    said = [item.ContributionDescription for item in final.ContributingEquipmentSequence]
    assert any("accepted by Weiss^Eva on 2026-01-02 03:04" in text for text in said)
    if "ContentLabel" in draft:
        assert draft.ContentLabel == "DRAFT" and final.ContentLabel != "DRAFT"


@pytest.mark.parametrize("kind", FINALS)
def test_software_device_and_networks_are_named(kind):
    software, network = FINALS[kind].ContributingEquipmentSequence
    assert software.SoftwareVersions == __version__ and software.Manufacturer == "fluoronav"
    assert (network.ManufacturerModelName, network.SoftwareVersions) == ("instruments", "a" * 64)


@pytest.mark.parametrize("kind", FINALS)
def test_the_same_content_has_the_same_uids_at_any_depth_and_another_day(kind):
    first = FINALS[kind] if kind == "reg" else DRAFTS[kind]
    assert uids(AGAIN[kind]) == uids(first)


@pytest.mark.parametrize("kind", FINALS)
def test_another_study_or_network_has_other_uids(kind):
    assert OTHER_STUDY[kind].SOPInstanceUID != FINALS[kind].SOPInstanceUID
    assert OTHER_NETWORK[kind].SOPInstanceUID != FINALS[kind].SOPInstanceUID


def test_uids_are_those_of_the_first_day():
    """A change of the names that are hashed would store every object twice."""
    assert {kind: made.SOPInstanceUID[-6:] for kind, made in FINALS.items() if kind in ("pdf", "ko")} == GOLDEN


GOLDEN = {"pdf": "474135", "ko": "209220"}


@pytest.mark.parametrize("kind", FINALS)
def test_no_decimal_string_is_longer_than_16_characters(kind):
    assert [e.keyword for e in elements(FINALS[kind]) if e.VR == "DS" and any(len(str(v)) > 16 for v in many(e))] == []


def test_times_are_of_the_zone_that_the_source_says():
    made = datetime.datetime(2026, 1, 2, 23, 30, tzinfo=datetime.UTC)
    report = every_object(dataclasses.replace(DRAFT, made=made), TimezoneOffsetFromUTC="+0200")["sr"]
    assert (report.ContentDate, report.ContentTime) == ("20260103", "013000")
    approved = dataclasses.replace(ACCEPTED, made=made, approval=dataclasses.replace(ACCEPTED.approval, at=made))
    report = every_object(approved, TimezoneOffsetFromUTC="-0330")["sr"]
    assert report.VerifyingObserverSequence[0].VerificationDateTime == "20260102200000"
    assert report.TimezoneOffsetFromUTC == "-0330"


@pytest.mark.parametrize("kind", FINALS)
def test_the_same_content_at_the_same_time_is_the_same_file_byte_by_byte(tmp_path, kind):
    for name, made in (("one", FINALS[kind]), ("two", AT_THE_SAME_TIME[kind])):
        write_object(made, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_report_is_unverified_until_a_person_accepts(tmp_path):
    write_object(DRAFTS["sr"], tmp_path / "draft.dcm")
    write_object(FINALS["sr"], tmp_path / "final.dcm")
    draft, final = dumped(tmp_path / "draft.dcm"), dumped(tmp_path / "final.dcm")
    assert "Verification Flag   : UNVERIFIED" in draft and "PRELIMINARY" in draft
    assert "Verification Flag   : VERIFIED" in final and "Weiss^Eva, Hospital" in final


def test_a_file_is_not_overwritten_and_is_for_this_user_alone(tmp_path):
    write_object(DRAFTS["pdf"], tmp_path / "a.dcm")
    assert (tmp_path / "a.dcm").stat().st_mode & 0o077 == 0
    with pytest.raises(DicomError, match="exists already"):
        write_object(DRAFTS["pdf"], tmp_path / "a.dcm")
    assert [p.name for p in tmp_path.iterdir()] == ["a.dcm"]
    assert pydicom.dcmread(tmp_path / "a.dcm").SOPInstanceUID == DRAFTS["pdf"].SOPInstanceUID


def elements(dataset):
    for element in dataset:
        yield element
        if element.VR == "SQ":
            for item in element.value:
                yield from elements(item)


def many(element):
    value = element.value
    return value if element.VM > 1 else [value] if value is not None else []


def uids(dataset: Dataset):
    return [(e.keyword, str(e.value)) for e in elements(dataset) if e.VR == "UI"]
