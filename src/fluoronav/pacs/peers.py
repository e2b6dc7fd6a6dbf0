"""What the node asks of an archive, whatever it is spoken to by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal, Protocol


class PeerUnreachable(RuntimeError):
    """An archive that gives no answer, or none that can be used; the text says what and names no patient."""


class Result(Enum):
    """What became of an instance that was sent."""

    STORED = "stored"
    AGAIN = "not stored; it may be if it is sent again"
    REFUSED = "refused for good"


@dataclass(frozen=True)
class Outcome:
    """What an archive said about an instance; `text` is a warning, or a reason."""

    result: Result
    text: str = ""


@dataclass(frozen=True)
class Parcel:
    """An instance that is to be sent.

    Attributes
    ----------
    file : Path
        Part 10.
    sop, sop_class, series, study : str
        UIDs.
    patient_id : str
    """

    file: Path
    sop: str
    sop_class: str
    series: str
    study: str
    patient_id: str


@dataclass(frozen=True)
class Wanted:
    """What is to be fetched.

    Attributes
    ----------
    by : {"patient", "accession", "study"}
        What the value is: PatientID, AccessionNumber or StudyInstanceUID.
    value : str
    issuer : str
        Of the PatientID.
    """

    by: Literal["patient", "accession", "study"]
    value: str
    issuer: str = ""


@dataclass(frozen=True)
class FoundStudy:
    """A study that an archive has; texts are empty where it does not say.

    Attributes
    ----------
    study : str
        UID.
    patient_id, issuer, birth_date, accession : str
    when : str
        Date and time as DICOM writes them, so that they sort: YYYYMMDDHHMMSS.
    """

    study: str
    patient_id: str
    issuer: str
    birth_date: str
    accession: str
    when: str


@dataclass(frozen=True)
class FoundSeries:
    """A series that an archive has; `instances` is None where it does not count them."""

    study: str
    series: str
    modality: str
    instances: int | None


class Landing(Protocol):
    """Where a series that is fetched goes.

    Attributes
    ----------
    title : str
        AE title of ours that takes it in.
    folder : Path
        For files that are not taken yet.
    """

    title: str
    folder: Path

    def take(self, path: Path) -> None:
        """Takes a Part 10 file of the folder; it is on the disk afterwards."""
        ...

    def moving(self) -> None:
        """The archive says that it goes on sending to us."""
        ...


class Archive(Protocol):
    """An archive; every method raises :class:`PeerUnreachable`."""

    def store(self, parcels: Sequence[Parcel]) -> dict[str, Outcome]:
        """Sends instances of one study; what became of each, by its SOPInstanceUID."""
        ...

    def found(self, parcels: Sequence[Parcel]) -> set[str]:
        """The SOPInstanceUIDs of those that the archive finds in their study."""
        ...

    def patient_of(self, study: str) -> str | None:
        """The PatientID of a study; None if the archive does not know the study."""
        ...

    def count(self, study: str, series: str) -> int | None:
        """The number of instances of a series; None if the archive does not know it."""
        ...

    def studies(self, wanted: Wanted) -> list[FoundStudy]:
        """The studies that it has of what is wanted."""
        ...

    def series_of(self, study: str) -> list[FoundSeries]:
        """The series of a study."""
        ...

    def retrieve(self, series: FoundSeries, landing: Landing) -> None:
        """Fetches a series; all of it has come when this returns, as far as the archive says."""
        ...
