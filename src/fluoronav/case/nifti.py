"""The header of a NIfTI-1 file (nifti.nimh.nih.gov, nifti1.h): the position of its grid in the patient."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fluoronav.case.compressed import check_stream, inflated_start
from fluoronav.case.schema import CaseError
from fluoronav.geometry.grid import Grid, GridError, check_grid, check_same_place, check_size

_HEADER_BYTES = 348
_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
# Of xyzt_units & 7. An unknown unit (0) is taken for mm; the grid's size is checked later.
_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 1e-3}
_ITEM_BYTES = {2: 1, 256: 1, 4: 2, 512: 2, 8: 4, 768: 4, 16: 4, 64: 8, 1024: 8, 1280: 8}
_NAMES = {1: "the scanner", 2: "the patient", 3: "Talairach's atlas", 4: "the MNI152 atlas", 5: "a template"}
_IN_THE_PATIENT = (1, 2)
_INTENTS = {0, 1002}  # none; labels
_SAME_SPACING = 0.01  # relative, between pixdim and the columns of the sform; chosen


@dataclass(frozen=True)
class _Header:
    size: tuple[int, int, int]
    pixdim: tuple[float, ...]
    qform_code: int
    sform_code: int
    quatern: tuple[float, ...]
    offset: tuple[float, ...]
    srow: NDArray[np.float64]
    mm: float


def read_nifti_grid(path: Path) -> Grid:
    """The grid of a NIfTI file in LPS mm, from its sform or qform, which must agree where it has both.

    Raises
    ------
    CaseError
        No form, one in an atlas, two that differ, a sheared one, an unknown unit, or a size that does not fit the file.
    """
    header = _read(path)
    forms = []
    for name, code, form in (("sform", header.sform_code, _sform), ("qform", header.qform_code, _qform)):
        if code <= 0:
            continue
        if code not in _IN_THE_PATIENT:
            where = _NAMES.get(code, "an unknown space")
            raise CaseError(f"{path}: its {name} (code {code}) says a place in {where}, not in the patient")
        grid = form(header, path)
        try:
            check_grid(grid, path)
        except GridError as error:
            raise CaseError(f"{error} ({name})") from error
        forms.append((name, code, grid))
    if not forms:
        raise CaseError(
            f"{path}: has no place in the patient: sform_code and qform_code are both 0; export it again with one"
        )
    if len(forms) == 2:
        (s_name, s_code, s_grid), (q_name, q_code, q_grid) = forms
        check_same_place(s_grid, q_grid, (f"its {s_name} (code {s_code})", f"its {q_name} (code {q_code})"), path)
    grid = forms[0][2]
    pixdim_mm = np.array(header.pixdim[1:4]) * header.mm
    if not np.allclose(grid.spacing_mm, pixdim_mm, rtol=_SAME_SPACING):
        raise CaseError(
            f"{path}: pixdim says voxels of {np.round(pixdim_mm, 4).tolist()} mm, its {forms[0][0]} "
            f"{np.round(grid.spacing_mm, 4).tolist()}; write the file again with one spacing"
        )
    return grid


def _read(path: Path) -> _Header:
    raw = inflated_start(path, _HEADER_BYTES)
    if len(raw) < _HEADER_BYTES:
        raise CaseError(f"{path}: cannot be read as a volume: it ends within its header; copy the file again")
    order = next((o for o in "<>" if struct.unpack_from(f"{o}i", raw)[0] == _HEADER_BYTES), None)
    if order is None:
        is_two = 540 in (struct.unpack_from("<i", raw)[0], struct.unpack_from(">i", raw)[0])
        what = "is NIfTI-2; write it as NIfTI-1" if is_two else "cannot be read as a volume: it is no NIfTI file"
        raise CaseError(f"{path}: {what}")
    if raw[344:347] != b"n+1":
        raise CaseError(
            f"{path}: is an Analyze file or a NIfTI pair (.hdr and .img); write it as one NIfTI file (.nii or .nii.gz)"
        )

    def get(layout: str, at: int) -> tuple:
        return struct.unpack_from(order + layout, raw, at)

    dim = get("8h", 40)
    rank, size = dim[0], dim[1:4]
    if not 3 <= rank <= 7 or any(n > 1 for n in dim[4 : rank + 1]) or min(dim[1 : rank + 1]) < 1:
        raise CaseError(
            f"{path}: dim is {list(dim[1 : max(rank, 0) + 1])}, {rank} dimensions; a volume has 3 and one value a voxel"
        )
    datatype, bitpix = get("2h", 70)
    item = _ITEM_BYTES.get(datatype)
    if item is None or bitpix != 8 * item:
        raise CaseError(f"{path}: datatype {datatype} of {bitpix} bits is not read; voxels must be plain numbers")
    (intent,) = get("h", 68)
    if intent not in _INTENTS:
        raise CaseError(f"{path}: intent_code {intent} says that its values are neither an image nor labels")
    pixdim, (vox_offset, slope, inter) = get("8f", 76), get("3f", 108)
    if not np.isfinite([slope, inter]).all():
        raise CaseError(f"{path}: scl_slope {slope:g} or scl_inter {inter:g} is no number")
    if not _HEADER_BYTES <= vox_offset < 1e9:
        raise CaseError(f"{path}: vox_offset {vox_offset:g} is impossible")
    unit = raw[123] & 7
    if unit not in _MM:
        raise CaseError(f"{path}: xyzt_units {raw[123]} names no known unit of length: metres, mm and microns are read")
    wanted = check_size(size, item, path) + int(vox_offset)
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    check_stream(path, 0, wanted, "gzip" if packed else "raw", path)
    return _Header(
        size=size, pixdim=pixdim, qform_code=get("h", 252)[0], sform_code=get("h", 254)[0], quatern=get("3f", 256),
        offset=get("3f", 268), srow=np.array(get("12f", 280), float).reshape(3, 4), mm=_MM[unit],
    )  # fmt: skip


def _sform(header: _Header, path: Path) -> Grid:
    form = header.srow * header.mm * _RAS_TO_LPS[:, None]
    if not (np.linalg.norm(form[:, :3], axis=0) > 0).all():
        raise CaseError(f"{path}: its sform (code {header.sform_code}) has an axis of no length")
    return Grid(header.size, form[:, :3], form[:, 3])


def _qform(header: _Header, path: Path) -> Grid:
    """Method 2 of nifti1.h: a quaternion, the spacing, and the handedness in pixdim[0]."""
    b, c, d = header.quatern
    rest = 1.0 - (b * b + c * c + d * d)
    if not rest > -1e-3:
        raise CaseError(f"{path}: its qform (code {header.qform_code}) has a quaternion longer than 1")
    a = np.sqrt(max(rest, 0.0))
    R = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    spacing = np.array(header.pixdim[1:4]) * [1, 1, -1 if header.pixdim[0] < 0 else 1]
    if not (np.abs(spacing) > 0).all():
        raise CaseError(f"{path}: pixdim {list(header.pixdim[1:4])} must be above 0")
    step = R * spacing * header.mm * _RAS_TO_LPS[:, None]
    return Grid(header.size, step, np.array(header.offset) * header.mm * _RAS_TO_LPS)
