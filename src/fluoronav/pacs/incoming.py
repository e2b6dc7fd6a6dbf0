"""Files that a dataset is written to while it arrives; a disk that fails meanwhile fails that object, and nothing else.

pynetdicom writes in the thread that reads the connection. An error there would end the thread without an answer, and
leave what was written: it is kept instead until the object is at its end, and is then the sender's answer.
"""

from __future__ import annotations

import errno
import secrets
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from pynetdicom import dimse_messages

from fluoronav.paths import private_opener


class Incoming:
    """Where objects arrive, and which of them the disk did not take.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._faults: dict[str, int] = {}
        self._lock = threading.Lock()

    def serve(self) -> None:
        """Has the library write into files of this kind, in the place of temporary ones."""
        dimse_messages.NamedTemporaryFile = self._file  # type: ignore[assignment, attr-defined]

    def check(self, path: Path) -> None:
        """Raises the OSError that writing this file met, once."""
        with self._lock:
            number = self._faults.pop(str(path), None)
        if number is not None:
            raise OSError(number, "an object could not be written")

    def failed(self, path: str, error: OSError) -> None:
        """Notes it, for :meth:`check`."""
        with self._lock:
            self._faults[path] = error.errno or errno.EIO

    def _file(self, suffix: str = ".dcm", **unused: Any) -> _ArrivingFile:
        return _ArrivingFile(self, self._folder / f"{secrets.token_hex(8)}{suffix}")


class _ArrivingFile:
    """What the library uses of a temporary file; after an error it takes and keeps nothing."""

    def __init__(self, incoming: Incoming, path: Path) -> None:
        self.name, self.file = str(path), self
        self._incoming, self._open = incoming, None
        try:
            self._open = open(path, "wb", buffering=0, opener=private_opener)  # noqa: SIM115  closed by the library
        except OSError as error:
            incoming.failed(self.name, error)

    def write(self, content: Any) -> int:
        whole = memoryview(content)
        left = whole
        while self._open is not None and len(left):
            try:
                left = left[self._open.write(left) :]
            except OSError as error:
                self._incoming.failed(self.name, error)
                with suppress(OSError):
                    self._open.truncate(0)  # others need the room
                self.close()
        return len(whole)

    def tell(self) -> int:
        return self._open.tell() if self._open is not None else 0

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
