"""The header of a MetaImage file (.mha, .mhd): every key that changes a voxel is used, checked or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fluoronav.case.compressed import check_stream
from fluoronav.case.schema import CaseError
from fluoronav.case.units import mm_per
from fluoronav.geometry.grid import Grid, check_size
from fluoronav.paths import regular_file

_MOST_HEADER_BYTES = 1_000_000
_ITEM_BYTES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4, "MET_FLOAT": 4,
    "MET_LONG": 8, "MET_ULONG": 8, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_DOUBLE": 8,
}  # fmt: skip
# AnatomicalOrientation gives the side from which an axis starts.
_BEGINS_AT = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "I": (2, 1), "S": (2, -1)}


def read_metaimage_grid(path: Path) -> Grid:
    """The grid of a MetaImage file, LPS mm.

    Raises
    ------
    CaseError
        Names the key that is missing, contradicts another, or is not supported.
    """
    keys, header_bytes = _keys(path)
    n = _numbers(keys, "NDims", 1, path)
    if n[0] != 3 or keys.get("ElementNumberOfChannels", "1") != "1":
        raise CaseError(f"{path}: has {n[0]:g} dimensions or several values a voxel; a volume has 3 and 1")
    x, y, z = _numbers(keys, "DimSize", 3, path)
    size = int(x), int(y), int(z)
    if min(size) < 1:
        raise CaseError(f"{path}: DimSize {keys['DimSize']} must be above 0")
    origin = _numbers(keys, next((k for k in ("Offset", "Position", "Origin") if k in keys), "Offset"), 3, path)
    spacing = _numbers(keys, "ElementSpacing", 3, path)
    matrix = next((k for k in ("TransformMatrix", "Rotation", "Orientation") if k in keys), "TransformMatrix")
    # The file lists one axis after the other: the columns of the matrix.
    direction = np.array(_numbers(keys, matrix, 9, path)).reshape(3, 3).T
    factor = mm_per(keys.get("DistanceUnits", "mm"), path, "DistanceUnits")
    _check_other_keys(keys, direction, path)
    _check_data(keys, size, path, header_bytes)
    return Grid(size, direction * spacing * factor, np.array(origin) * factor)


def _keys(path: Path) -> tuple[dict[str, str], int]:
    with regular_file(path).open("rb") as file:
        start = file.read(_MOST_HEADER_BYTES)
    keys: dict[str, str] = {}
    at = 0
    while (end := start.find(b"\n", at)) >= 0 or at < len(start):
        end = len(start) if end < 0 else end
        name, found, value = start[at:end].decode("utf-8", "replace").partition("=")
        at = end + 1
        if not found:
            break
        keys[name.strip()] = value.strip()
        if name.strip() == "ElementDataFile":
            return keys, at
    raise CaseError(f"{path}: cannot be read as a volume: its header has no ElementDataFile")


def _numbers(keys: dict[str, str], key: str, count: int, path: Path) -> list[float]:
    if key not in keys:
        raise CaseError(f"{path}: has no {key} in its header, so no place in the patient")
    try:
        values = [float(x) for x in keys[key].split()]
    except ValueError:
        values = []
    if len(values) != count:
        raise CaseError(f"{path}: {key} is {keys[key][:60]!r}, not {count} number(s)")
    return values


def _check_other_keys(keys: dict[str, str], direction: np.ndarray, path: Path) -> None:
    orientation = keys.get("AnatomicalOrientation", "???").upper()
    if len(orientation) == 3 and set(orientation) <= set(_BEGINS_AT):
        for axis, letter in enumerate(orientation):
            along, sign = _BEGINS_AT[letter]
            column = direction[:, axis]
            if np.abs(column).argmax() != along or column[along] * sign < 0:
                raise CaseError(
                    f"{path}: AnatomicalOrientation {orientation} and TransformMatrix say different directions of axis "
                    f"{axis}"
                )
    modality = keys.get("Modality", "MET_MOD_CT")
    if modality not in ("MET_MOD_CT", "MET_MOD_OTHER", "MET_MOD_UNKNOWN"):
        raise CaseError(f"{path}: its Modality is {modality.removeprefix('MET_MOD_')}, not CT")
    slope, shift = keys.get("ElementToIntensityFunctionSlope", "1"), keys.get("ElementToIntensityFunctionOffset", "0")
    if (float(slope), float(shift)) != (1.0, 0.0):
        raise CaseError(f"{path}: ElementToIntensityFunction is not read: write the voxels in HU")
    if keys.get("HeaderSize", "0") not in ("0", "-1"):
        raise CaseError(f"{path}: HeaderSize {keys['HeaderSize']} is not read; write the file again without it")


def _check_data(keys: dict[str, str], size: tuple[int, ...], path: Path, header_bytes: int) -> None:
    kind = keys.get("ElementType", "")
    if kind not in _ITEM_BYTES:
        raise CaseError(f"{path}: ElementType {kind or 'absent'} is not read; voxels must be plain numbers")
    wanted = check_size(size, _ITEM_BYTES[kind], path)
    name, data, start = keys["ElementDataFile"], path, header_bytes
    if name.upper().startswith("LIST") or "%" in name:
        raise CaseError(f"{path}: its voxels lie in several files; write it again as one")
    if name.upper() != "LOCAL":
        data, start = path.parent / name, 0
    try:
        regular_file(data)
    except OSError as error:
        raise CaseError(str(error)) from error
    packed = keys.get("CompressedData", "False").lower() == "true"
    length = data.stat().st_size - start
    if packed and keys.get("CompressedDataSize") != str(length):
        # Without the right size, SimpleITK's reader returns voxels that it has not inflated.
        given = keys.get("CompressedDataSize", "absent")
        raise CaseError(
            f"{path}: CompressedDataSize is {given}, but {length} bytes of voxels are there; write it again"
        )
    check_stream(data, start, wanted, "zlib" if packed else "raw", path)
