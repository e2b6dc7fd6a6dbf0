"""The header of a NRRD file (teem.sourceforge.net/nrrd/format.html): every field is used, checked or refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from fluoronav.case.compressed import check_stream
from fluoronav.case.schema import CaseError
from fluoronav.case.units import mm_per
from fluoronav.geometry.grid import Grid, check_size
from fluoronav.paths import regular_file

_MOST_HEADER_BYTES = 1_000_000
# Signs that turn the axes of `space` into LPS.
_TO_LPS = {
    "left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1), "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1), "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1),
}  # fmt: skip
_ITEM_BYTES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t", "float"), 4),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), 4),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t", "double"), 8),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), 8),
}
_SPATIAL_KINDS = {"domain", "space", "???", "none"}
# Fields that change neither a voxel's position nor its value; centerings do not move samples.
_IGNORED = {
    "content", "number", "labels", "thicknesses", "centers", "centerings", "min", "max", "endian", "blocksize",
    "block size", "space dimension",
}  # fmt: skip
_USED = {
    "type", "dimension", "space", "sizes", "space directions", "space origin", "space units", "kinds", "encoding",
    "data file", "datafile", "measurement frame", "spacings", "axis mins", "axismins", "axis maxs", "axismaxs", "units",
    "sample units", "sampleunits", "byte skip", "byteskip", "line skip", "lineskip",
}  # fmt: skip
_HOUNSFIELD = ("hu", "hounsfield", "hounsfield unit", "hounsfield units")


def read_nrrd_grid(path: Path) -> Grid:
    """The grid of a NRRD file, in LPS mm whatever its space and its units.

    Raises
    ------
    CaseError
        Names the field that is missing, contradicts another, or is not supported.
    """
    fields, pairs, header_bytes = _fields(path)
    unknown = set(fields) - _USED - _IGNORED
    if unknown:
        raise CaseError(f"{path}: its field `{sorted(unknown)[0]}` is not understood; write the file again without it")
    missing = [f for f in ("type", "dimension", "sizes", "encoding") if f not in fields]
    if missing:
        raise CaseError(f"{path}: has no `{missing[0]}` in its header")
    size = _sizes(fields, path)
    space = fields.get("space", "").lower()
    if space not in _TO_LPS:
        raise CaseError(
            f"{path}: has no place in the patient: `space` is {space or 'absent'}; it must be left-posterior-superior, "
            "right-anterior-superior or left-anterior-superior"
        )
    for needed in ("space directions", "space origin"):
        if needed not in fields:
            raise CaseError(f"{path}: has no `{needed}`, so no place in the patient")
    step = np.array(_vectors(fields["space directions"], len(size), path, "space directions")).T
    origin = np.array(_vectors(fields["space origin"], 1, path, "space origin")[0])
    units = _quoted(fields["space units"]) if "space units" in fields else ["mm"] * 3
    if len(units) != 3:
        raise CaseError(f"{path}: `space units` gives {len(units)} units for 3 axes")
    factor = np.array([mm_per(u, path, "space units") for u in units]) * _TO_LPS[space]
    _check_other_fields(fields, pairs, factor[:, None] * step, path)
    grid = Grid(size, factor[:, None] * step, factor * origin)
    _check_data(fields, size, path, header_bytes)
    return grid


def declares_hounsfield(path: Path) -> bool:
    """Whether the header of a NRRD file says that its values are HU."""
    return _sample_units(_fields(path)[0]) in _HOUNSFIELD


def _sample_units(fields: dict[str, str]) -> str:
    return (fields.get("sample units") or fields.get("sampleunits") or "").strip('"').lower()


def _fields(path: Path) -> tuple[dict[str, str], dict[str, str], int]:
    with regular_file(path).open("rb") as file:
        start = file.read(_MOST_HEADER_BYTES)
    end = re.search(rb"\r?\n\r?\n", start)
    header = start[: end.start()] if end else start
    if end is None and len(start) == _MOST_HEADER_BYTES:
        raise CaseError(f"{path}: cannot be read as a volume: its header has no end")
    fields: dict[str, str] = {}
    pairs: dict[str, str] = {}
    for line in header.decode("utf-8", "replace").splitlines()[1:]:
        if not line.strip() or line.startswith("#"):
            continue
        at = re.search(r":(=|\s|$)", line)
        if at is None:
            raise CaseError(f"{path}: cannot be read as a volume: {line[:60]!r} in its header is no field")
        into, name = (pairs, line[: at.start()]) if at[1] == "=" else (fields, line[: at.start()].strip().lower())
        if into is fields and name in fields:
            raise CaseError(f"{path}: has `{name}` twice in its header")
        into[name] = line[at.end() :].strip()
    return fields, pairs, end.end() if end else len(start)


def _sizes(fields: dict[str, str], path: Path) -> tuple[int, int, int]:
    try:
        dimension, size = int(fields["dimension"]), tuple(int(n) for n in fields["sizes"].split())
    except ValueError as error:
        raise CaseError(f"{path}: `dimension` or `sizes` is not whole numbers") from error
    if dimension != 3 or len(size) != 3:
        raise CaseError(f"{path}: has {dimension} dimensions ({len(size)} sizes); a volume has 3 and one value a voxel")
    if min(size) < 1:
        raise CaseError(f"{path}: `sizes` {fields['sizes']} must be above 0")
    return size


def _vectors(text: str, count: int, path: Path, field: str) -> list[list[float]]:
    found = re.findall(r"\(([^)]*)\)|(none)", text)
    try:
        vectors = [[float(x) for x in inside.split(",")] for inside, none in found if not none]
    except ValueError:
        vectors = []
    if len(vectors) != count or any(len(v) != 3 for v in vectors):
        raise CaseError(f"{path}: `{field}` is {text[:80]!r}, not {count} vector(s) of 3 numbers")
    return vectors


def _quoted(text: str) -> list[str]:
    return re.findall(r'"([^"]*)"', text) or text.split()


def _check_other_fields(fields: dict[str, str], pairs: dict[str, str], step_mm: np.ndarray, path: Path) -> None:
    for kind in fields.get("kinds", "").split():
        if kind.lower() not in _SPATIAL_KINDS:
            raise CaseError(f"{path}: `kinds` has {kind!r}: a volume has three axes in space and one value a voxel")
    if "measurement frame" in fields:
        frame = _vectors(fields["measurement frame"], 3, path, "measurement frame")
        if not np.allclose(frame, np.eye(3), atol=1e-6):
            raise CaseError(f"{path}: its `measurement frame` is not the unit matrix; it is meant for vectors")
    for unit in _quoted(fields.get("units", "")):
        if unit and unit != "???" and mm_per(unit, path, "units") != 1:
            raise CaseError(f"{path}: `units` says {unit!r} beside `space directions`; say it as `space units`")
    _check_axes(fields, step_mm, path)
    sample = _sample_units(fields)
    if sample not in ("", *_HOUNSFIELD, "label", "labels"):
        raise CaseError(f"{path}: `sample units` is {sample!r}, not HU")
    for name in ("byte skip", "byteskip", "line skip", "lineskip"):
        if fields.get(name, "0") not in ("0", "-1"):
            raise CaseError(f"{path}: `{name}` {fields[name]} is not read; write the file again without it")
    modality = next((v for k, v in pairs.items() if k.lower() == "modality"), "CT")
    if modality.upper() not in ("CT", "CBCT"):
        raise CaseError(f"{path}: its modality is {modality}, not CT")


def _check_axes(fields: dict[str, str], step_mm: np.ndarray, path: Path) -> None:
    """Refuses fields that place the axes otherwise than `space directions` does."""
    for name in ("spacings", "axis mins", "axismins", "axis maxs", "axismaxs"):
        values = [float(v) for v in fields.get(name, "").split() if re.fullmatch(r"[-+.\deE]+", v)]
        if not values:
            continue
        if name != "spacings" or not np.allclose(values, np.linalg.norm(step_mm, axis=0), rtol=1e-3):
            raise CaseError(f"{path}: `{name}` {fields[name]} stands beside `space directions` and says another place")


def _check_data(fields: dict[str, str], size: tuple[int, int, int], path: Path, header_bytes: int) -> None:
    """Checks the size by the header against the limit and against the data."""
    kind = fields["type"].lower()
    if kind not in _ITEM_BYTES:
        raise CaseError(f"{path}: `type` {fields['type']} is not read; voxels must be whole or floating point numbers")
    wanted = check_size(size, _ITEM_BYTES[kind], path)
    data, start = path, header_bytes
    name = fields.get("data file", fields.get("datafile"))
    if name is not None:
        if name.upper().startswith("LIST") or "%" in name:
            raise CaseError(f"{path}: its voxels lie in several files; write it again as one")
        data, start = path.parent / name, 0
    try:
        regular_file(data)
    except OSError as error:
        raise CaseError(str(error)) from error
    check_stream(data, start, wanted, fields["encoding"].lower(), path)
