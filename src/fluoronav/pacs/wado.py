"""The answer to WADO-RS (PS3.18 8.6.1): each part is an instance, and is written to a file as it comes."""

from __future__ import annotations

import secrets
from email.message import Message
from io import BufferedWriter
from pathlib import Path
from types import TracebackType

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from fluoronav.pacs.peers import Landing
from fluoronav.paths import private_opener

# Any transfer syntax: the archive need not decode, and the bytes are those of C-STORE.
ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_MOST_PART_BYTES = 4 * 2**30  # of one instance; chosen: the largest enhanced multi-frame objects have 2 GB


class WadoError(RuntimeError):
    """An answer that is no multipart answer, or is cut off; the text says what."""


class PartFiles:
    """Writes each part of an answer to a file, and hands that on as soon as it is whole.

    Parameters
    ----------
    content_type : str
        The header of the answer, with the boundary.
    landing : Landing

    Raises
    ------
    WadoError
    """

    def __init__(self, content_type: str, landing: Landing) -> None:
        header = Message()
        header["Content-Type"] = content_type
        boundary = header.get_param("boundary")
        if header.get_content_type() != "multipart/related" or not isinstance(boundary, str) or not boundary:
            raise WadoError(f"the answer is {header.get_content_type()}, not multipart/related with a boundary")
        self._landing = landing
        self._file: BufferedWriter | None = None
        self._path = Path()
        self._size = 0
        self._ended = False
        self._parser = MultipartParser(
            boundary.encode("latin-1"),
            {
                "on_part_begin": self._begin,
                "on_part_data": self._data,
                "on_part_end": self._part,
                "on_end": self._end,
            },
        )

    def __enter__(self) -> PartFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Removes a part that was cut off."""
        if self._file is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)

    def write(self, content: bytes) -> None:
        """The next bytes of the answer."""
        try:
            self._parser.write(content)
        except MultipartParseError as error:
            raise WadoError("the answer is not multipart as its header says") from error

    def end(self) -> None:
        """The answer has ended; raises :class:`WadoError` if it was cut off."""
        if not self._ended:
            raise WadoError("the answer was cut off")

    def _begin(self) -> None:
        self._path = self._landing.folder / f"fetched-{secrets.token_hex(8)}"
        self._file = open(self._path, "xb", opener=private_opener)  # noqa: SIM115 (closed when the part ends)
        self._size = 0

    def _data(self, content: bytes, start: int, end: int) -> None:
        assert self._file is not None
        self._size += end - start
        if self._size > _MOST_PART_BYTES:
            raise WadoError(f"an instance has more than {_MOST_PART_BYTES >> 30} GiB")
        self._file.write(memoryview(content)[start:end])

    def _part(self) -> None:
        assert self._file is not None
        self._file.close()
        self._file = None
        try:
            self._landing.take(self._path)
        finally:
            self._path.unlink(missing_ok=True)

    def _end(self) -> None:
        self._ended = True
