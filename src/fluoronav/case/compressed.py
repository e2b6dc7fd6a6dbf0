"""Checks that the voxels of a file are complete and have the length that the header gives."""

from __future__ import annotations

import zlib
from pathlib import Path

from fluoronav.case.schema import CaseError

_CHUNK = 1 << 20
_PACKED = ("gzip", "gz", "zlib")
_GZIP_OR_ZLIB = 47  # wbits: zlib detects the format


def check_stream(data: Path, start: int, wanted: int, encoding: str, path: Path) -> None:
    """Compares the length of a file's voxels with the length by its header.

    Parameters
    ----------
    data : Path
        The file that holds the voxels, from byte `start` on.
    wanted : int
        Bytes of voxels by the header.
    encoding : str
        ``raw``, ``gzip``, ``gz`` or ``zlib``.
    path : Path
        For messages.

    Raises
    ------
    CaseError
    """
    if encoding == "raw":
        _compare(data.stat().st_size - start, wanted, path)
    elif encoding in _PACKED:
        # SimpleITK's readers verify no checksum: a flipped bit would change a voxel's HU.
        _compare(_inflated(data, start, wanted, path), wanted, path)
    else:
        raise CaseError(f"{path}: its encoding {encoding!r} is not read; write it raw or as gzip")


def inflated_start(path: Path, count: int) -> bytes:
    """The first bytes of a file, inflated where it is gzip; never more than `count`."""
    with path.open("rb") as file:
        start = file.read(count)
        if start[:2] != b"\x1f\x8b":
            return start
        inflate = zlib.decompressobj(wbits=31)
        try:
            return inflate.decompress(start + file.read(_CHUNK), count)
        except zlib.error:
            return b""


def _inflated(data: Path, start: int, wanted: int, path: Path) -> int:
    """Number of bytes in a gzip or zlib stream, its checksums verified; stops beyond `wanted`, and keeps no data."""
    count, ended, inflate = 0, False, zlib.decompressobj(wbits=_GZIP_OR_ZLIB)
    with data.open("rb") as file:
        file.seek(start)
        rest = file.read(_CHUNK)
        try:
            while rest and count <= wanted:
                count += len(inflate.decompress(rest, _CHUNK))
                rest = inflate.unconsumed_tail
                if ended := inflate.eof:
                    rest = inflate.unused_data.lstrip(b"\0")
                    inflate = zlib.decompressobj(wbits=_GZIP_OR_ZLIB)
                rest = rest or file.read(_CHUNK)
            if count <= wanted and not ended:
                raise CaseError(f"{path}: its compressed voxels end too soon; copy the file again")
        except zlib.error as error:
            raise CaseError(f"{path}: its compressed voxels are damaged ({error}); copy the file again") from error
    return count


def _compare(there: int, wanted: int, path: Path) -> None:
    if there < wanted:
        raise CaseError(
            f"{path}: cannot be read as a volume: it holds {there} bytes of voxels where its header promises {wanted}; "
            "copy the file again"
        )
    if there > wanted:
        raise CaseError(
            f"{path}: holds more voxels than its header says ({wanted} bytes); its sizes or its type are wrong"
        )
