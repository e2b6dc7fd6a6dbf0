"""What the node and the process that makes cases tell one another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fluoronav.pacs.identities import Identity


@dataclass(frozen=True)
class Job:
    """A series of which a case is to be made.

    Attributes
    ----------
    files : tuple of Path
        As they came; localizers among them are left out.
    before : Path or None
        Folder of de-identified slices of the same series that were taken in earlier.
    into : Path
        New folder, which is emptied first.
    name, patient : str
        Of the case, and the patient's pseudonym.
    evidence, flag : str
        Why the series is called complete, and what speaks against it.
    """

    files: tuple[Path, ...]
    before: Path | None
    into: Path
    name: str
    patient: str
    key: Path
    evidence: str
    flag: str = ""


@dataclass(frozen=True)
class Made:
    """A case that was made; or the reason why not."""

    identity: Identity | None
    warnings: tuple[str, ...] = ()
    refused: str = ""


@dataclass(frozen=True)
class StructureJob:
    """A case whose structures, if it has any, are to become results.

    Attributes
    ----------
    folder : Path
        Of the case.
    into : Path
        Spool of the results.
    site : str
        Name of this installation.
    """

    folder: Path
    into: Path
    key: Path
    site: str


@dataclass(frozen=True)
class Structures:
    """How many results were made of a case's structures, or why none could be."""

    objects: int = 0
    fault: str = ""
