"""A CT series from a folder of DICOM files.

SimpleITK's series reader sorts and stacks whatever it gets. Here the headers are checked before any pixels are read:
slices that do not form one complete, orthogonal volume are refused with a reason.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import SimpleITK as sitk

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.slices import DicomFile, opened_file
from fluoronav.dicom.stack import stacked
from fluoronav.geometry.grid import GridError

_NAMED_FILES = 5  # in one message


def read_dicom_series(folder: Path, series: str | None = None) -> tuple[sitk.Image, tuple[str, ...]]:
    """Reads one CT series: sorted by position, rescale applied, geometry verified.

    Parameters
    ----------
    folder : Path
        Searched without its sub-folders.
    series : str, optional
        SeriesInstanceUID to take.

    Returns
    -------
    SimpleITK.Image
        float32 HU, LPS.
    tuple of str
        What was not read of the folder.

    Raises
    ------
    DicomError
        No image, several series, another modality, an empty or absent tag, gantry tilt, missing or doubled slices,
        slices of different size or orientation.
    """
    by_series: dict[str, list[DicomFile]] = defaultdict(list)
    left_out: dict[str, list[str]] = defaultdict(list)
    paths = sorted(p for p in folder.iterdir() if not p.is_dir())
    for path in paths:
        file, reason = opened_file(path)
        if file is None:
            left_out[reason].append(path.name)
        else:
            by_series[str(file.header.get("SeriesInstanceUID") or "")].append(file)
    for uid, files in list(by_series.items()):
        if not any(f.is_placed for f in files):
            left_out["without a place in the patient"] += [f.path.name for f in by_series.pop(uid)]
    warnings = _left_out_text(left_out, len(paths), folder)
    if not by_series:
        raise DicomError(f"{folder}: holds no DICOM slices with a position in the patient" + _because(warnings))
    if series is not None and series not in by_series:
        raise DicomError(f"{folder}: has no series {series}; it has {', '.join(by_series)}")
    if series is None and len(by_series) > 1:
        listed = "; ".join(_described(uid, files) for uid, files in by_series.items())
        raise DicomError(f"{folder}: holds {len(by_series)} series: {listed}. Name one as `ct_series`")
    uid = next(iter(by_series)) if series is None else series
    if len(by_series) > 1:
        others = "; ".join(_described(o, files) for o, files in by_series.items() if o != uid)
        warnings = (*warnings, f"{folder}: beside `ct_series` it holds other series, which were not read: {others}")
    try:
        return stacked(by_series[uid], folder), warnings
    except (DicomError, GridError) as error:
        raise DicomError(f"{error}{_because(warnings)}") from error


def read_dicom_file(path: Path) -> tuple[sitk.Image, tuple[str, ...]]:
    """Reads one multi-frame file as :func:`read_dicom_series` reads a folder."""
    file, reason = opened_file(path)
    if file is None:
        raise DicomError(f"{path}: cannot be read as a volume: {reason}")
    if not file.has_groups:
        raise DicomError(f"{path}: is one slice of a series; name the folder that holds all of it")
    return stacked([file], path), ()


def _left_out_text(left_out: dict[str, list[str]], total: int, folder: Path) -> tuple[str, ...]:
    count = sum(map(len, left_out.values()))
    if not count:
        return ()
    parts = []
    for reason, names in left_out.items():
        listed = ", ".join(names[:_NAMED_FILES]) + (", ..." if len(names) > _NAMED_FILES else "")
        parts.append(f"{len(names)} {reason} ({listed})")
    return (
        f"{folder}: {count} of {total} files were not read: {'; '.join(parts)}. "
        "If they are slices, the CT is shorter than the scan",
    )


def _because(warnings: Sequence[str]) -> str:
    return "".join(f". {w}" for w in warnings)


def _described(uid: str, files: list[DicomFile]) -> str:
    header = files[0].header
    count = sum(f.frames for f in files)
    return f"{uid} ({header.get('Modality')}, {count} slices, {header.get('SeriesDescription', 'no description')})"
