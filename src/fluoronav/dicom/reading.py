"""Reads DICOM files as hospitals hand them over: with their header alone or whole, deflated, in any character set."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.charset import convert_encodings
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset as parse_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from fluoronav.dicom.character_sets import mend_character_set
from fluoronav.dicom.decoding import quiet_pydicom
from fluoronav.dicom.errors import DicomError
from fluoronav.geometry.grid import LIMITS as GRID

_PREAMBLE = 132  # bytes before the first element, with the letters DICM
_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
# What pydicom raises on a header that is no DICOM, or is truncated.
UNREADABLE = (
    InvalidDicomError, OSError, EOFError, ValueError, KeyError, AttributeError, TypeError, NotImplementedError,
    RuntimeError, struct.error, zlib.error,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FileLimits:
    """Limits of one file; all are chosen."""

    most_bytes: int = GRID.most_bytes + 256 * 2**20  # a file holds little besides its pixels
    most_element_bytes: int = 1 << 20  # longer elements of a header are not loaded; no tag that is read is so long
    most_inflated_bytes: int = 512 * 2**20  # of a deflated file: 250 X-ray frames of 1024 x 1024
    inflated_block_bytes: int = 1 << 16  # read at once from a deflated file


LIMITS = FileLimits()


def read_dataset(
    path: Path, *, with_pixels: bool = True, force: bool = False, notes: list[str] | None = None
) -> FileDataset:
    """Reads a file.

    Parameters
    ----------
    path : Path
    with_pixels : bool
        False: the header alone; long elements of it are not loaded.
    force : bool
        Also without the preamble of PS3.10.
    notes : list of str, optional
        What was mended is added to it.

    Returns
    -------
    pydicom.dataset.FileDataset
        Its SpecificCharacterSet is the one that its texts are in.

    Raises
    ------
    DicomError
        A deflated file is too large.
    InvalidDicomError
        No DICOM, and not `force`.
    Exception
        Any of :data:`UNREADABLE`: a damaged header.
    """
    with quiet_pydicom():
        dataset = _deflated(path, with_pixels)
        if dataset is None:
            defer = None if with_pixels else LIMITS.most_element_bytes
            dataset = pydicom.dcmread(path, stop_before_pixels=not with_pixels, force=force, defer_size=defer)
        mended = mend_character_set(dataset)
    if mended and notes is not None:
        notes.append(mended)
    return dataset


def _deflated(path: Path, with_pixels: bool) -> FileDataset | None:
    """The data set of a file that is deflated as a whole (PS3.5 A.5); None of any other file."""
    with path.open("rb") as file:
        start = file.read(_PREAMBLE + 12)
        # FileMetaInformationGroupLength (0002,0000) comes first and is required (PS3.10 7.1).
        if start[128:132] != b"DICM" or start[132:140] != b"\x02\0\0\0UL\x04\0":
            return None
        (length,) = struct.unpack("<I", start[140:144])
        if length > LIMITS.most_element_bytes:
            return None
        meta = parse_dataset(io.BytesIO(file.read(length)), is_implicit_VR=False, is_little_endian=True)
        if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            return None
        stream: Any = _Inflated(file, path)
        stop = None if with_pixels else (lambda tag, vr, length: tag in _PIXEL_TAGS)
        content = parse_dataset(stream, is_implicit_VR=False, is_little_endian=True, stop_when=stop)
    dataset = FileDataset(path, content, start[:128], FileMetaDataset(meta), is_implicit_VR=False)
    character_set = content.get("SpecificCharacterSet", "ISO_IR 6")
    dataset.set_original_encoding(False, True, convert_encodings(character_set))
    return dataset


class _Inflated(io.RawIOBase):
    """Inflates a file as far as it is read, so that a header costs little and a size can be refused in time."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)  # raw deflate, RFC 1951
        self._held, self._at = bytearray(), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            self._fill(None)
            offset += len(self._held)
        elif whence == io.SEEK_CUR:
            offset += self._at
        self._at = offset
        return offset

    def read(self, size: int = -1) -> bytes:
        end = None if size is None or size < 0 else self._at + size
        self._fill(end)
        part = bytes(self._held[self._at : end])
        self._at += len(part)
        return part

    def _fill(self, end: int | None) -> None:
        """Inflates up to a position, or all."""
        while (end is None or len(self._held) < end) and not self._inflate.eof:
            block = self._inflate.unconsumed_tail or self._file.read(LIMITS.inflated_block_bytes)
            if not block:
                break
            self._held += self._inflate.decompress(block, LIMITS.inflated_block_bytes)
            if len(self._held) > LIMITS.most_inflated_bytes:
                most = LIMITS.most_inflated_bytes // 2**20
                raise DicomError(
                    f"{self._path}: is deflated and inflates to more than {most} MiB; store it uncompressed"
                )
