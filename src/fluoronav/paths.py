"""Places of files: those shipped with the package, the cache of this computer, and private folders."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import platformdirs

_PACKAGE = Path(__file__).parent


def cache_folder(kind: str) -> Path:
    """The cache folder for things of a kind that can be computed again; created if needed."""
    folder = Path(platformdirs.user_cache_dir("fluoronav")) / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def shipped(name: str) -> Path:
    """A file of ``launch/``, ``calibration/`` or ``engines/``: in the installed package, or in a checkout."""
    installed = _PACKAGE / name
    return installed if installed.exists() else _PACKAGE.parents[1] / name


def embedded_case() -> Path:
    """The case file of the embedded thoracic spine."""
    return _PACKAGE / "case" / "thoracic_spine" / "case.yaml"


def regular_file(path: Path) -> Path:
    """The path, if it is a regular file.

    A pipe, a socket or a device may never end, or block the reader.

    Raises
    ------
    OSError
        There is no file, or something else; the text says what.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        raise OSError(f"{path}: no such file ({error})") from error
    if stat.S_ISREG(mode):
        return path
    kinds = (
        (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
    )  # fmt: skip
    what = next((name for test, name in kinds if test(mode)), "something else")
    raise OSError(f"{path}: is {what}, not a file; name a regular file")


def private_folder(folder: Path) -> Path:
    """A folder for data of patients and users, created if needed with access for this user alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def private_opener(path: str, flags: int) -> int:
    """For ``open(..., opener=private_opener)``: a new file is for this user alone."""
    return os.open(path, flags, 0o600)


def write_json(result: object, path: Path) -> None:
    """Writes a result as JSON; creates the folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
