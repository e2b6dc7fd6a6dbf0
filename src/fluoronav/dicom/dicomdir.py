"""The files of a folder, or of a medium with a DICOMDIR (PS3.10 8, PS3.3 F)."""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.uid import MediaStorageDirectoryStorage

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.reading import UNREADABLE, read_dataset

_NAME = "DICOMDIR"
_NAMED_FILES = 5  # in one message


def is_dicomdir(dataset: pydicom.Dataset) -> bool:
    """Whether a data set is the directory of a medium."""
    meta = getattr(dataset, "file_meta", None)
    return meta is not None and meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage


def files_of(path: Path) -> tuple[list[Path], tuple[str, ...]]:
    """The files that may hold images, and what a user should know of them.

    Parameters
    ----------
    path : Path
        A folder, which is searched without its sub-folders; a folder with a DICOMDIR, or that DICOMDIR, stands for the
        files that it lists, wherever they lie below.

    Raises
    ------
    DicomError
        A DICOMDIR that cannot be read, or none of whose files is there.
    """
    if not path.is_dir():
        return _listed(path)
    files = sorted(p for p in path.iterdir() if not p.is_dir())
    directory = next((p for p in files if p.name.upper() == _NAME and p.is_file()), None)
    if directory is None:
        return files, ()
    try:
        return _listed(directory)
    except DicomError as error:
        others = [p for p in files if p != directory]
        if not others:
            raise
        return others, (f"{error}. The other files of the folder were read instead",)


def _listed(directory: Path) -> tuple[list[Path], tuple[str, ...]]:
    try:
        dataset = read_dataset(directory)
    except UNREADABLE as error:
        raise DicomError(f"{directory}: cannot be read as a DICOMDIR: {error}") from error
    if not is_dicomdir(dataset):
        raise DicomError(f"{directory}: is no DICOMDIR; name a folder, or the DICOMDIR of a medium")
    found, absent = [], []
    names: dict[Path, dict[str, Path]] = {}
    for record in dataset.get("DirectoryRecordSequence") or ():
        parts = record.get("ReferencedFileID")
        if str(record.get("DirectoryRecordType")) != "IMAGE" or not parts:
            continue
        parts = [parts] if isinstance(parts, str) else [str(p) for p in parts]
        file = _below(directory.parent, parts, names)
        if file is None:
            absent.append("/".join(parts))
        else:
            found.append(file)
    if not found:
        what = f"none of the {len(absent)} images that it lists is there" if absent else "it lists no images"
        raise DicomError(f"{directory}: {what}; copy the whole medium, with its folders")
    if not absent:
        return found, ()
    listed = ", ".join(absent[:_NAMED_FILES]) + (", ..." if len(absent) > _NAMED_FILES else "")
    return found, (
        f"{directory}: {len(absent)} of {len(absent) + len(found)} images that it lists are not there ({listed}); copy "
        "the whole medium",
    )


def _below(folder: Path, parts: list[str], names: dict[Path, dict[str, Path]]) -> Path | None:
    """The file with that ReferencedFileID, in whatever case the medium was copied; None where there is none.

    Names are looked up in the folders, so that none leads out of them.
    """
    for part in parts:
        if folder not in names:
            names[folder] = {_plain(p.name): p for p in folder.iterdir()} if folder.is_dir() else {}
        entry = names[folder].get(_plain(part))
        if entry is None or entry.is_symlink():
            return None
        folder = entry
    return folder if folder.is_file() else None


def _plain(name: str) -> str:
    """A name without ISO 9660's version and final dot, in capitals."""
    return name.split(";")[0].rstrip(".").upper()
