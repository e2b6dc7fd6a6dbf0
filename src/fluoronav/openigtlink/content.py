"""The contents of OpenIGTLink messages by type, packed from arrays and unpacked to them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fluoronav.openigtlink.protocol import NAME_BYTES, ProtocolError, decode_name, decode_text, encode_text

Float = NDArray[np.float64]

_MATRIX = struct.Struct("> 12f")
_TOOL = struct.Struct("> 20s B B 12f")
_START = struct.Struct("> I 32s")
_STATUS = struct.Struct("> H q 20s")
_STRING = struct.Struct("> H H")
_IMAGE = struct.Struct("> H B B B B 3H 12f 6H")
_POLYDATA = struct.Struct("> 10I")

STATUS_OK = 1
# The limit of one message to the pipeline.
MOST_TOOLS = 256
_RAS, _LITTLE = 1, 2
_SCALARS = {2: "i1", 3: "u1", 4: "i2", 5: "u2", 6: "i4", 7: "u4", 10: "f4", 11: "f8"}
# A tool's type in TDATA: an instrument with six degrees of freedom.
_SIX_DEGREES = 2


@dataclass(frozen=True, slots=True)
class TrackedTool:
    """One tool of a TDATA message.

    Attributes
    ----------
    name : str
        At most 20 bytes.
    name_full : bool
        The name fills its field: it may be the beginning of a longer one.
    T : ndarray, shape (4, 4)
        As it was sent, rigid or not.
    """

    name: str
    name_full: bool
    T: Float


def _columns(T: ArrayLike) -> list[float]:
    """The rotation's columns, then the translation."""
    T = np.asarray(T, np.float64)
    if T.shape != (4, 4):
        raise ValueError(f"a pose is 4 x 4, not {T.shape}")
    return T[:3].T.ravel().tolist()


def _matrix(numbers: Sequence[float]) -> Float:
    T = np.eye(4)
    T[:3] = np.reshape(numbers, (4, 3)).T
    return T


def pack_transform(T: ArrayLike) -> bytes:
    """TRANSFORM of a matrix, shape (4, 4), mm."""
    return _MATRIX.pack(*_columns(T))


def unpack_transform(content: bytes) -> Float:
    """The matrix, shape (4, 4), as it was sent; raises :class:`ProtocolError`."""
    if len(content) != _MATRIX.size:
        raise ProtocolError("content", f"TRANSFORM is {len(content)} bytes long, not {_MATRIX.size}")
    return _matrix(_MATRIX.unpack(content))


def pack_tracking_data(tools: Sequence[tuple[str, ArrayLike]]) -> bytes:
    """TDATA of tools by name; each name is ASCII and has at most 20 letters."""
    return b"".join(_TOOL.pack(name.encode("ascii"), _SIX_DEGREES, 0, *_columns(T)) for name, T in tools)


def unpack_tracking_data(content: bytes) -> list[TrackedTool]:
    """The tools of a TDATA message; raises :class:`ProtocolError`."""
    if len(content) % _TOOL.size or len(content) > MOST_TOOLS * _TOOL.size:
        raise ProtocolError(
            "content", f"TDATA is {len(content)} bytes long; up to {MOST_TOOLS} tools of {_TOOL.size} were expected"
        )
    return [
        TrackedTool(decode_name(name), b"\0" not in name, _matrix(numbers))
        for name, _, _, *numbers in _TOOL.iter_unpack(content)
    ]


def pack_start_tracking(interval_ms: int) -> bytes:
    """STT_TDATA: asks for tracking data with at least this interval."""
    return _START.pack(interval_ms, b"")


def pack_status(code: int, text: str, name: str = "", subcode: int = 0) -> bytes:
    """STATUS; code 1 means OK."""
    return _STATUS.pack(code, subcode, name.encode("ascii")[:NAME_BYTES]) + encode_text(text)[1] + b"\0"


def unpack_status(content: bytes) -> tuple[int, str]:
    """Code, and the text of name and message; raises :class:`ProtocolError`."""
    if len(content) < _STATUS.size:
        raise ProtocolError("content", f"STATUS is {len(content)} bytes long; {_STATUS.size} at least")
    code, _, name = _STATUS.unpack_from(content)
    words = (decode_name(name), decode_name(content[_STATUS.size :]))
    return code, ": ".join(w for w in words if w)


def pack_string(text: str) -> bytes:
    """STRING in ASCII where possible, else in UTF-8; cut after 65535 bytes."""
    encoding, data = encode_text(text)
    return _STRING.pack(encoding, len(data)) + data


def unpack_string(content: bytes) -> str:
    """The text; raises :class:`ProtocolError`."""
    if len(content) < _STRING.size:
        raise ProtocolError("content", f"STRING is {len(content)} bytes long; {_STRING.size} at least")
    encoding, size = _STRING.unpack_from(content)
    if len(content) < _STRING.size + size:
        raise ProtocolError("content", f"STRING announces {size} bytes and has {len(content) - _STRING.size}")
    return decode_text(encoding, content[_STRING.size : _STRING.size + size])


def pack_image(pixels: NDArray[np.generic], T_ras_index: ArrayLike) -> bytes:
    """IMAGE of one slice or of several.

    Parameters
    ----------
    pixels : ndarray, shape (rows, cols) or (slices, rows, cols)
        Integers of 8, 16 or 32 bits, or floats.
    T_ras_index : ndarray, shape (4, 4)
        From indices (column, row, slice) to the patient in RAS, mm.
    """
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    scalar = next((n for n, name in _SCALARS.items() if np.dtype(name) == pixels.dtype.newbyteorder("=")), None)
    if pixels.ndim != 3 or scalar is None or not all(0 < n < 65536 for n in pixels.shape):
        raise ValueError(f"pixels {pixels.shape} of {pixels.dtype}: IMAGE has room for 1 to 65535 in each direction")
    T, size = np.asarray(T_ras_index, np.float64), pixels.shape[::-1]
    # The format places an image by its centre.
    middle = T @ [*((n - 1) / 2 for n in size), 1.0]
    head = _IMAGE.pack(
        1, 1, scalar, _LITTLE, _RAS, *size, *T[:3, :3].T.ravel().tolist(), *middle[:3].tolist(), 0, 0, 0, *size
    )
    return head + pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()


def unpack_image(content: bytes) -> tuple[NDArray[np.generic], Float]:
    """Pixels, shape (slices, rows, cols), and ``T_ras_index``; only whole images of one component.

    Raises
    ------
    ProtocolError
    """
    if len(content) < _IMAGE.size:
        raise ProtocolError("content", f"IMAGE is {len(content)} bytes long; {_IMAGE.size} at least")
    _, components, scalar, endian, coordinates, *numbers = _IMAGE.unpack_from(content)
    size, part = numbers[:3], numbers[15:]
    if components != 1 or scalar not in _SCALARS or part != [0, 0, 0, *size]:
        raise ProtocolError("content", "IMAGE of several components, of a part, or of unknown scalars")
    dtype = np.dtype(_SCALARS[scalar]).newbyteorder("<" if endian == _LITTLE else ">")
    if len(content) - _IMAGE.size != int(np.prod(size, dtype=np.int64)) * dtype.itemsize:
        raise ProtocolError("content", f"IMAGE of {size} {dtype} has {len(content) - _IMAGE.size} bytes of pixels")
    T = _matrix(numbers[3:15])
    T[:3, 3] -= T[:3, :3] @ [(n - 1) / 2 for n in size]
    if coordinates != _RAS:
        T = np.diag([-1.0, -1.0, 1.0, 1.0]) @ T
    return np.frombuffer(content, dtype, offset=_IMAGE.size).reshape(size[::-1]), T


def pack_polydata(points: ArrayLike, triangles: ArrayLike) -> bytes:
    """POLYDATA of triangles.

    Parameters
    ----------
    points : ndarray, shape (n, 3)
        RAS, mm.
    triangles : ndarray, shape (m, 3)
        Indices of points.
    """
    points, triangles = np.asarray(points, ">f4").reshape(-1, 3), np.asarray(triangles).reshape(-1, 3)
    cells = np.concatenate([np.full((len(triangles), 1), 3), triangles], axis=1).astype(">u4")
    head = _POLYDATA.pack(len(points), 0, 0, 0, 0, len(triangles), cells.nbytes, 0, 0, 0)
    return head + points.tobytes() + cells.tobytes()


def unpack_polydata(content: bytes) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Points, shape (n, 3), and triangles, shape (m, 3); raises :class:`ProtocolError` for anything else."""
    if len(content) < _POLYDATA.size:
        raise ProtocolError("content", f"POLYDATA is {len(content)} bytes long; {_POLYDATA.size} at least")
    n, vertices, _, lines, _, m, size, strips, _, attributes = _POLYDATA.unpack_from(content)
    if vertices or lines or strips or attributes or size != 16 * m or len(content) != _POLYDATA.size + 12 * n + size:
        raise ProtocolError("content", "POLYDATA of something else than triangles")
    points = np.frombuffer(content, ">f4", 3 * n, _POLYDATA.size).reshape(n, 3).astype(np.float32)
    cells = np.frombuffer(content, ">u4", 4 * m, _POLYDATA.size + 12 * n).reshape(m, 4).astype(np.int64)
    if (cells[:, 0] != 3).any() or (cells[:, 1:] >= n).any():
        raise ProtocolError("content", "POLYDATA of something else than triangles of its points")
    return points, cells[:, 1:]
