"""Revisions of a segmentation: immutable folders below ``segmentation/``, each with its label map and its record."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

import SimpleITK as sitk

from fluoronav.durable import locked, made_folder, sync_file, sync_folder, written
from fluoronav.planning.plan.hashes import volume_hash
from fluoronav.planning.segmentation.engine import SegmentedStructure

_LABELS, _RECORD = "labels.nii.gz", "revision.json"


class RevisionError(ValueError):
    """A revision that cannot be read or made; the text says why."""


class Conflict(RevisionError):
    """Somebody else made a revision meanwhile; `newest` is its number."""

    def __init__(self, newest: int, parent: int) -> None:
        super().__init__(f"revision {newest} was made meanwhile, after revision {parent}: load it and edit again")
        self.newest, self._parent = newest, parent

    def __reduce__(self) -> tuple[type[Conflict], tuple[int, int]]:
        return Conflict, (self.newest, self._parent)  # it comes from worker processes, too


@dataclass(frozen=True)
class Revision:
    """One state of a case's segmentation; it is never changed.

    Attributes
    ----------
    number : int
        From 1.
    parent : int
        Number of the revision before; 0 for none.
    author : str
        Engine, or user.
    made : str
        ISO 8601 with time zone.
    ct_hash, labels_hash : str
        By :func:`fluoronav.planning.plan.hashes.volume_hash`.
    structures : tuple of SegmentedStructure
    note : str
    branch : str
        Name of the branch that it is on; empty for the main line, of which the newest revision is the case's.
    merged : int
        Number of the revision that its author edited, where that is not `parent`: both works are in it. 0: none.
    session : str
        The working session whose edits it holds, up to `sequence`.
    sequence : int
    """

    number: int
    parent: int
    author: str
    made: str
    ct_hash: str
    labels_hash: str
    structures: tuple[SegmentedStructure, ...]
    note: str = ""
    branch: str = ""
    merged: int = 0
    session: str = ""
    sequence: int = 0


class Revisions:
    """The revisions of one case.

    Parameters
    ----------
    case : Path
        The case's folder.
    """

    def __init__(self, case: Path) -> None:
        self.folder = case / "segmentation"

    def numbers(self) -> list[int]:
        """Numbers of all revisions, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(int(p.name) for p in self.folder.iterdir() if p.name.isdigit())

    def newest(self, branch: str = "") -> Revision | None:
        """The last revision of a branch, the main line by default; None where there is none."""
        for number in reversed(self.numbers()):
            if (revision := self.read(number)).branch == branch:
                return revision
        return None

    def read(self, number: int) -> Revision:
        """The record of a revision.

        Raises
        ------
        RevisionError
        """
        path = self.folder / f"{number:04d}" / _RECORD
        try:
            content = json.loads(path.read_bytes())
            structures = tuple(SegmentedStructure(**s) for s in content.pop("structures"))
            return Revision(structures=structures, **content)
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise RevisionError(f"{path}: cannot be read as a revision of a segmentation: {error}") from error

    def labels_path(self, number: int) -> Path:
        """The label map of a revision."""
        return self.folder / f"{number:04d}" / _LABELS

    def add(
        self,
        labels: sitk.Image,
        structures: tuple[SegmentedStructure, ...],
        *,
        author: str,
        ct_hash: str,
        parent: int,
        note: str = "",
        branch: str = "",
        merged: int = 0,
        session: str = "",
        sequence: int = 0,
    ) -> Revision:
        """Adds a revision; it is on the disk as a whole when this returns, or not there at all.

        Raises
        ------
        Conflict
            `parent` is not the newest revision of the branch; a new branch may begin at any revision.
        OSError
        """

        def write(path: Path) -> None:
            sitk.WriteImage(labels, str(path), useCompression=True)

        about = Revision(
            0, parent, author, "", ct_hash, volume_hash(labels), structures, note, branch, merged, session, sequence
        )
        return self._added(about, write)

    def restated(self, parent: int, structures: tuple[SegmentedStructure, ...], author: str, note: str) -> Revision:
        """Adds a revision with the same voxels, about which something else is said.

        Raises
        ------
        Conflict, RevisionError, OSError
        """
        about = replace(
            self.read(parent), parent=parent, structures=structures, author=author, note=note, merged=0, session="",
            sequence=0,
        )  # fmt: skip
        return self._added(about, lambda path: os.link(self.labels_path(parent), path))

    def _added(self, about: Revision, write: Callable[[Path], None]) -> Revision:
        with locked(self.folder):
            numbers = self.numbers()
            newest = self.newest(about.branch)
            tip = newest.number if newest else 0
            if about.parent != tip and not (about.branch and newest is None and about.parent in numbers):
                raise Conflict(tip, about.parent)
            number = numbers[-1] + 1 if numbers else 1
            made = datetime.now().astimezone().isoformat(timespec="seconds")
            revision = replace(about, number=number, made=made)
            part = self.folder / f".{number:04d}"
            shutil.rmtree(part, ignore_errors=True)
            made_folder(part)
            write(part / _LABELS)
            sync_file(part / _LABELS)
            written(part / _RECORD, json.dumps(asdict(revision), indent=1).encode())
            os.replace(part, self.folder / f"{number:04d}")
            sync_folder(self.folder)
            return revision
