"""What the node asks of an archive, whatever it is spoken to by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol


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
