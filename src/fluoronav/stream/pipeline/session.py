"""What a restart must know of the operation at hand: which patient, what was shown, what had been accepted."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fluoronav.paths import private_folder, private_opener
from fluoronav.stream.frame import Alert
from fluoronav.validation import first_error

# A session is one operation; what is older belongs to another day's patient.
_LONGEST_NS = 12 * 3600 * 10**9
# A clock that was set right between two starts.
_CLOCK_STEP_NS = 60 * 10**9
MOST_ALERTS = 256
# Room for so many alerts whose names are as long as they may be, in letters that JSON writes as twelve.
_MOST_BYTES = 2**21
# A file is filled up to a multiple of this, so that it can be overwritten where a full disk takes no second one.
_ROOM_BYTES = 8192

Number = Annotated[float, Field(allow_inf_nan=False)]


class SessionError(ValueError):
    """A session that cannot be kept or taken up; the text says why."""


class Mark(BaseModel):
    """That a person has said yes, and when (ns since the epoch)."""

    model_config = ConfigDict(frozen=True)

    user: str
    t: int


class Accepted(Mark):
    """A registration that a person has accepted; row-major."""

    T_camera_ct: Annotated[tuple[Number, ...], Field(min_length=16, max_length=16)]


class Session(BaseModel):
    """One operation, as of `written` (ns since the epoch).

    `case_name` is the case's name among the launch file's `cases` and empty for its first one; `mode` is what was asked
    for, whatever is in effect.
    """

    model_config = ConfigDict(frozen=True)

    launch: str
    case_name: str
    case: str
    mode: Literal["live", "shadow"]
    plan: tuple[str, ...]
    confirmed: Mark | None = None
    accepted: Accepted | None = None
    alerts: Annotated[tuple[Alert, ...], Field(max_length=MOST_ALERTS)] = ()
    written: int = 0


class SessionFile:
    """``session-<source>.json``, written as a whole or not at all, which only this user may read.

    Parameters
    ----------
    folder : Path
    source : str
    """

    def __init__(self, folder: Path, source: str) -> None:
        self.path = folder / f"session-{source}.json"

    def read(self, launch: str) -> Session | None:
        """The session of that launch file; None where there is none.

        Raises
        ------
        SessionError
            There is one, but it cannot be read, or is too old.
        """
        try:
            with self.path.open("rb") as file:
                content = file.read(_MOST_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SessionError(f"{self.path}: cannot be read: {error}") from error
        try:
            session = Session.model_validate_json(content)
        except ValidationError as error:
            raise SessionError(f"{self.path}: cannot be read: {first_error(error)}") from error
        if session.launch != launch:
            return None
        age = time.time_ns() - session.written
        if not -_CLOCK_STEP_NS <= age <= _LONGEST_NS:
            raise SessionError(f"{self.path}: is {age / 3.6e12:.1f} hours old; at most 12 are taken up")
        return session

    def write(self, session: Session) -> None:
        """Keeps a session, in place of the one before.

        On a disk that takes no second file the one before is overwritten, and where that cannot be, it is removed: what
        no longer holds must not be taken up.

        Raises
        ------
        SessionError
            It could not be kept.
        """
        content = json.dumps(session.model_dump(mode="json", warnings=False), indent=1).encode()
        content += b" " * (-len(content) % _ROOM_BYTES)
        new = self.path.with_suffix(".new")
        try:
            private_folder(self.path.parent)
            try:
                _written(new, content)
                os.replace(new, self.path)
            except OSError:
                with contextlib.suppress(OSError):
                    new.unlink()
                if self.path.stat().st_size < len(content):
                    raise
                _written(self.path, content.ljust(self.path.stat().st_size))
                return
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                self.path.unlink()
            raise SessionError(f"{self.path}: the session cannot be kept: {error}") from error

    def remove(self) -> None:
        """The operation is over; raises :class:`SessionError` where the file stays."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise SessionError(f"{self.path}: the session cannot be removed: {error}") from error


def _written(path: Path, content: bytes) -> None:
    """Writes over what is there, without giving its room back in between."""
    file = private_opener(str(path), os.O_WRONLY | os.O_CREAT)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(file, rest) :]
        os.ftruncate(file, len(content))
        os.fsync(file)
    finally:
        os.close(file)
