"""Files that are on the disk, under their name and as a whole, before anything is said about them."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fluoronav.paths import private_folder, private_opener

_CHUNK = 1 << 20


def sync_file(path: Path) -> None:
    """Returns when the file's content is on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


sync_folder = sync_file  # a folder is opened and flushed the same way


def made_folder(folder: Path) -> Path:
    """A private folder whose name is on the disk."""
    if not folder.is_dir():
        if not folder.parent.is_dir():
            made_folder(folder.parent)
        private_folder(folder)
        sync_folder(folder.parent)
    return folder


def moved(source: Path, target: Path) -> None:
    """Gives a file its name in one step; it is there as a whole, or not at all."""
    made_folder(target.parent)
    os.chmod(source, 0o600)
    os.replace(source, target)
    sync_folder(target.parent)


def written(path: Path, content: bytes) -> None:
    """Writes a file as a whole: beside its name first."""
    made_folder(path.parent)
    part = path.with_name(f".{path.name}.part")
    with open(part, "wb", opener=private_opener) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    moved(part, path)


def digest_from(path: Path, offset: int) -> str:
    """SHA-256 of a file from an offset on."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def locked(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Holds a folder, created if needed, against other processes and threads that lock it too; waits for them.

    Parameters
    ----------
    folder : Path
    name : str
        Of the file that is locked; for a part of the folder that has a lock of its own.
    """
    with (made_folder(folder) / name).open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
