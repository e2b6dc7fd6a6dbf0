"""Who a pseudonym is: the one table of names, IDs, dates and UIDs, sealed row by row under the site key."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from io import BytesIO

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from fluoronav.pacs.database import Database
from fluoronav.pacs.pseudonyms import Pseudonyms

_NO_OBJECT = "2.25.1"  # a file format wants UIDs; the module is no object of its own
# What a result copies of its patient and of its study: PS3.3 C.7.1.1 and C.7.2.1.
PATIENT = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "OtherPatientIDs",
    "PatientBirthTime", "EthnicGroup", "PatientComments",
)  # fmt: skip
STUDY = (
    "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber", "StudyDescription",
    "PatientAge", "PatientSize", "PatientWeight",
)  # fmt: skip


@dataclass(frozen=True)
class PatientRecord:
    """Who a patient is, as orders and worklists say; dates as DICOM writes them, texts empty where absent."""

    patient_id: str
    issuer: str
    name: str = ""
    birth_date: str = ""
    sex: str = ""

    def differs(self, other: PatientRecord) -> str:
        """Why both cannot be one patient; empty if they can. Names are written in several ways."""
        for a, b, what in (
            (self.birth_date, other.birth_date, "date of birth"),
            (self.sex, other.sex, "sex"),
        ):
            if a and b and a != b:
                return (
                    f"two patients have one ID: the {what} differs from that of the patient who has this PatientID "
                    "already. Have the patient's record corrected at its source, and send it again"
                )
        return ""


@dataclass(frozen=True)
class Identity:
    """What an intake found out about a series' patient and study.

    Attributes
    ----------
    pseudonym, study : str
        The patient's pseudonym, and the UID that stands for the study.
    patient_module, study_module : bytes
        The attributes, as an explicit VR little endian dataset in UTF-8.
    uids : dict of str to str
        Original UIDs by the UIDs that stand for them.
    """

    pseudonym: str
    study: str
    patient_module: bytes
    study_module: bytes
    uids: dict[str, str]


def module_of(header: Dataset, keywords: tuple[str, ...]) -> bytes:
    """The attributes of a header whose texts are decoded, as bytes in UTF-8."""
    part = Dataset()
    part.SpecificCharacterSet = "ISO_IR 192"
    for keyword in keywords:
        if keyword in header:
            element = header[keyword]
            value = str(element.value) if element.VR == "PN" else element.value
            part.add_new(element.tag, element.VR, value)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = meta.MediaStorageSOPInstanceUID = UID(_NO_OBJECT)
    part.file_meta = meta
    out = BytesIO()
    part.save_as(out, enforce_file_format=True)
    return out.getvalue()


class Identities:
    """The table.

    Parameters
    ----------
    database : Database
    pseudonyms : Pseudonyms
    """

    def __init__(self, database: Database, pseudonyms: Pseudonyms) -> None:
        self._database, self._pseudonyms = database, pseudonyms

    def patient(self, pseudonym: str) -> Dataset | None:
        """The patient's attributes."""
        return self._module(f"patient/{pseudonym}")

    def add(self, sql: sqlite3.Connection, identity: Identity) -> None:
        """Adds an identity inside a transaction; what the hospital says last counts."""
        rows = {
            f"patient/{identity.pseudonym}": identity.patient_module,
            f"study/{identity.study}": identity.study_module,
            **{f"uid/{new}": old.encode() for new, old in identity.uids.items()},
        }
        if self.survivor(identity.pseudonym) != identity.pseudonym:
            # Images that still carry the ID that was given up do not bring it back.
            known = self.patient(identity.pseudonym) or self.patient(self.survivor(identity.pseudonym))
            if known is not None:
                rows[f"patient/{identity.pseudonym}"] = module_of(known, PATIENT)
        for key, content in rows.items():
            sql.execute(
                "INSERT OR REPLACE INTO identities VALUES (?, ?)",
                (key, self._pseudonyms.sealed(key, content)),
            )

    def contradiction(self, identity: Identity) -> str:
        """Why an identity cannot be the patient whom its pseudonym stands for; empty if it can.

        A name may change and be written in several ways; a date of birth does not.
        """
        known = self.record(identity.pseudonym)
        return "" if known is None else known.differs(_record(dcmread(BytesIO(identity.patient_module))))

    def record(self, pseudonym: str) -> PatientRecord | None:
        """Who a pseudonym is."""
        known = self.patient(pseudonym)
        return None if known is None else _record(known)

    def survivor(self, pseudonym: str) -> str:
        """The pseudonym of the record that goes on where records were merged; itself where none was."""
        seen = {pseudonym}
        while rows := self._database.rows("SELECT new FROM merges WHERE old = ?", pseudonym):
            pseudonym = rows[0]["new"]
            if pseudonym in seen:
                break
            seen.add(pseudonym)
        return pseudonym

    def update(self, sql: sqlite3.Connection, pseudonym: str, record: PatientRecord) -> None:
        """Corrects what is known of a patient, if anything is, inside a transaction."""
        known = self.patient(pseudonym)
        if known is None:
            return
        known.PatientID = record.patient_id
        for keyword, value in (
            ("IssuerOfPatientID", record.issuer),
            ("PatientName", record.name),
            ("PatientBirthDate", record.birth_date),
            ("PatientSex", record.sex),
        ):
            if value:
                setattr(known, keyword, value)
        key = f"patient/{pseudonym}"
        sealed = self._pseudonyms.sealed(key, module_of(known, PATIENT))
        sql.execute("INSERT OR REPLACE INTO identities VALUES (?, ?)", (key, sealed))

    def merge(self, sql: sqlite3.Connection, old: str, new: str, record: PatientRecord) -> None:
        """The record `old` was given up for `new`: its results go back under the new one."""
        merged = [r["old"] for r in sql.execute("SELECT old FROM merges WHERE new = ?", (old,)).fetchall()]
        for pseudonym in (old, *merged, new):
            self.update(sql, pseudonym, record)
        sql.execute("DELETE FROM merges WHERE old = ?", (new,))
        sql.execute("INSERT OR REPLACE INTO merges VALUES (?, ?, ?)", (old, new, time.time_ns()))

    def reassociated(self, dataset: Dataset) -> bool:
        """Puts patient, study and UIDs back into a result, in place; whether its patient is one of ours."""
        pseudonym = str(dataset.get("PatientID") or "")
        patient = self.patient(pseudonym) if pseudonym else None
        if patient is None:
            return False
        study = self._module(f"study/{dataset.get('StudyInstanceUID')}")
        dataset.decode()
        for module in (patient, study):
            for element in module or ():
                dataset[element.tag] = element
        dataset.SpecificCharacterSet = "ISO_IR 192"
        self._restore_uids(dataset)
        for keyword in ("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"):
            if keyword in dataset:
                delattr(dataset, keyword)
        if getattr(dataset, "file_meta", None) is not None:
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        return True

    def _restore_uids(self, dataset: Dataset) -> None:
        for element in dataset:
            if element.VR == "SQ":
                for item in element.value or ():
                    self._restore_uids(item)
            elif element.VR == "UI" and element.value:
                values = [element.value] if isinstance(element.value, str) else list(element.value)
                old = [self._opened(f"uid/{v}") for v in values]
                new = [v if o is None else o.decode() for v, o in zip(values, old, strict=True)]
                element.value = new[0] if len(new) == 1 else new

    def _module(self, key: str) -> Dataset | None:
        content = self._opened(key)
        return None if content is None else Dataset(dcmread(BytesIO(content)))

    def _opened(self, key: str) -> bytes | None:
        rows = self._database.rows("SELECT sealed FROM identities WHERE key = ?", key)
        return self._pseudonyms.opened(key, rows[0]["sealed"]) if rows else None


def _record(module: Dataset) -> PatientRecord:
    def text(keyword: str) -> str:
        return str(module.get(keyword) or "").strip()

    return PatientRecord(
        text("PatientID"), text("IssuerOfPatientID"), text("PatientName"), text("PatientBirthDate"), text("PatientSex")
    )
