"""What every object has: the source's patient and study, its own series, its UIDs, its provenance."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from fluoronav import __version__
from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.objects.charset import UTF8, needs_utf8, unicode_copy
from fluoronav.dicom.objects.provenance import Provenance, uid_of
from fluoronav.dicom.objects.source import Source

# PS3.3 C.7.1.1 patient, C.7.1.3 clinical trial subject, C.7.2.1 general study, C.7.2.2 patient study,
# C.7.2.3 clinical trial study.
_PATIENT = (
    "PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "TypeOfPatientID",
    "OtherPatientIDsSequence", "PatientBirthDate", "PatientBirthTime", "PatientSex", "OtherPatientNames",
    "EthnicGroup", "PatientComments", "PatientIdentityRemoved", "DeidentificationMethod",
    "DeidentificationMethodCodeSequence", "ClinicalTrialSponsorName", "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
)  # fmt: skip
_STUDY = (
    "StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName",
    "ReferringPhysicianIdentificationSequence", "StudyID", "AccessionNumber", "IssuerOfAccessionNumberSequence",
    "StudyDescription", "PhysiciansOfRecord", "PhysiciansOfRecordIdentificationSequence",
    "NameOfPhysiciansReadingStudy", "ReferencedStudySequence", "ProcedureCodeSequence",
    "AdmittingDiagnosesDescription", "PatientAge", "PatientSize", "PatientWeight", "AdmissionID",
    "IssuerOfAdmissionIDSequence", "MedicalAlerts", "Allergies", "PregnancyStatus", "SmokingStatus",
    "ClinicalTrialTimePointID", "ClinicalTrialTimePointDescription",
)  # fmt: skip
_SHARED = (*_PATIENT, *_STUDY)
_TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
# Numbers of our series in a study; chosen: above those that scanners and C-arms count.
_SERIES_NUMBERS = {
    "SEG": 9100, "SR": 9200, "GSPS": 9300, "SC": 9400, "STL": 9500, "PDF": 9600, "XA": 9700, "REG": 9800, "KO": 9900,
}  # fmt: skip


# Modalities whose series module is the general one (PS3.3 C.7.3.1), which names the part of the body.
_GENERAL_SERIES = ("XA", "PR", "OT", "REG")


# When an object was made, by the names that its modules have for it; highdicom writes the time of the call.
_TIMES = (
    ("InstanceCreationDate", "InstanceCreationTime"), ("SeriesDate", "SeriesTime"), ("ContentDate", "ContentTime"),
    ("PresentationCreationDate", "PresentationCreationTime"), ("DateOfSecondaryCapture", "TimeOfSecondaryCapture"),
)  # fmt: skip


@dataclass(frozen=True)
class Identity:
    """The UIDs of an object, and the number of its series."""

    instance_uid: str
    series_uid: str
    series_number: int


def identity(kind: str, source: Source, provenance: Provenance, digest: str) -> Identity:
    """UIDs that follow from the source, the kind, the content's hash and the provenance (the time apart)."""
    made_by = provenance.key()
    series = uid_of("series", kind, source.series_uid, source.study_uid, made_by)
    instance = uid_of("instance", kind, *source.instance_uids, source.study_uid, digest, made_by)
    return Identity(instance, series, _SERIES_NUMBERS[kind] + (0 if provenance.is_draft else 1))


def new_object(sop_class: UID, ids: Identity, modality: str) -> pydicom.Dataset:
    """An object with its file meta information (PS3.10 7.1), its series and nothing else."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, UID(ids.instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    out = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    out.SOPClassUID, out.SOPInstanceUID, out.Modality = sop_class, ids.instance_uid, modality
    out.SeriesInstanceUID, out.SeriesNumber, out.InstanceNumber = ids.series_uid, ids.series_number, 1
    return out


def finished(dataset: pydicom.Dataset, source: Source, provenance: Provenance, description: str) -> pydicom.Dataset:
    """Gives an object what all objects have; returns it.

    Patient and study modules are those of the source. SeriesDescription begins with "DRAFT" unless a person has
    accepted it.
    """
    for keyword in _SHARED:
        if keyword in dataset:
            delattr(dataset, keyword)
    dataset.update(unicode_copy(source.first, _SHARED))
    producer, made = provenance.producer, local_time(provenance.made, source)
    dataset.SeriesDescription = provenance.labelled(description)
    dataset.Manufacturer, dataset.ManufacturerModelName = producer.manufacturer, producer.model
    dataset.SoftwareVersions, dataset.DeviceSerialNumber = list(producer.software), producer.serial
    dataset.ContributingEquipmentSequence = provenance.equipment()
    date, time = f"{made:%Y%m%d}", f"{made:%H%M%S}"
    for day, hour in _TIMES:
        if day.startswith(("Instance", "Series")) or day in dataset or hour in dataset:
            setattr(dataset, day, date)
            setattr(dataset, hour, time)
    if dataset.Modality in _GENERAL_SERIES:
        dataset.update(unicode_copy(source.first, ("BodyPartExamined", "Laterality")))
        if not dataset.get("BodyPartExamined") and "Laterality" not in dataset:
            dataset.Laterality = ""  # type 2C: of what is examined, the source says nothing
    if "TimezoneOffsetFromUTC" in source.first:
        dataset.TimezoneOffsetFromUTC = source.first.TimezoneOffsetFromUTC
    if "SpecificCharacterSet" in dataset:
        del dataset.SpecificCharacterSet
    if needs_utf8(dataset):
        dataset.SpecificCharacterSet = UTF8
    dataset.file_meta.ImplementationClassUID = UID(uid_of("implementation", "fluoronav"))
    dataset.file_meta.ImplementationVersionName = f"FLUORONAV {__version__}"[:16]
    return dataset


def image_reference(dataset: pydicom.Dataset, frames: Sequence[int] = ()) -> pydicom.Dataset:
    """An item that refers to an image, or to some of its frames, counted from 1 (PS3.3 table 10-3)."""
    item = instance_reference(dataset)
    if frames and int(dataset.get("NumberOfFrames") or 1) > 1:
        item.ReferencedFrameNumber = list(frames) if len(frames) > 1 else frames[0]
    return item


def instance_reference(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """An item that refers to an instance (PS3.3 table 10-11)."""
    item = pydicom.Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    return item


def referenced_series(source: Source) -> list[pydicom.Dataset]:
    """Items of ReferencedSeriesSequence (0008,1115) for all instances of a source."""
    item = pydicom.Dataset()
    item.SeriesInstanceUID = source.series_uid
    item.ReferencedInstanceSequence = [instance_reference(d) for d in source.datasets]
    return [item]


def decimal(value: float) -> Any:
    """A number as a decimal string, which has at most 16 characters (VR DS)."""
    return DSfloat(float(value), auto_format=True)


def write_object(dataset: pydicom.Dataset, path: Path) -> None:
    """Writes an object as a DICOM file, for this user alone; a file is whole or not there.

    Raises
    ------
    DicomError
        The file exists.
    OSError
    """
    if path.exists():
        raise DicomError(f"{path}: exists already; name another file, or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            dataset.save_as(file, enforce_file_format=True)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def local_time(moment: datetime, source: Source) -> datetime:
    """The time on the source's clock, where it says its zone; dates of a study are of one zone (PS3.3 C.12.1.1.8)."""
    offset = str(source.first.get("TimezoneOffsetFromUTC") or "")
    if moment.tzinfo is None or len(offset) != 5 or not offset[1:].isdigit():
        return moment
    minutes = int(offset[1:3]) * 60 + int(offset[3:])
    return moment.astimezone(timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes)))


def stand_ins(source: Source) -> list[pydicom.Dataset]:
    """The source's headers for highdicom, without the patient: it refuses names and dates that hospitals do write.

    :func:`finished` gives the object the source's own.
    """
    out = []
    for dataset in source.datasets:
        plain = copy.copy(dataset)
        plain._dict = dict(dataset._dict)
        for keyword in (*_SHARED, "SpecificCharacterSet"):
            if keyword in plain and keyword != "StudyInstanceUID":
                delattr(plain, keyword)
        for keyword in _TYPE_2:
            setattr(plain, keyword, None)
        out.append(plain)
    return out
