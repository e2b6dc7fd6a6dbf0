"""A series of slices (CT, CBCT, MR) from a folder, a medium with a DICOMDIR, or one multi-frame file.

SimpleITK's series reader sorts and stacks whatever it gets. Here the headers are checked before any pixels are read:
slices that do not form one complete, orthogonal volume are refused with a reason.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from fluoronav.dicom.dicomdir import files_of
from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.reading import UNREADABLE, read_dataset
from fluoronav.dicom.slices import DicomFile, is_localizer, opened_file, tag_name
from fluoronav.dicom.stack import stack_of
from fluoronav.geometry.grid import GridError

_NAMED_FILES = 5  # in one message
_NO_SERIES = "without a SeriesInstanceUID (0020,000e)"


@dataclass(frozen=True)
class FoundSeries:
    """What a folder or a medium holds.

    Attributes
    ----------
    series : dict
        From a SeriesInstanceUID to its slices, without localizers. Slices that have none are one series, "", where no
        others are there: whether they belong together, their geometry says.
    images : list of DicomFile
        Images without a place in the patient: X-ray images, screen shots.
    notes : tuple of str
        What was not read or set aside.
    """

    series: dict[str, list[DicomFile]]
    images: list[DicomFile]
    notes: tuple[str, ...]


def find_series(path: Path) -> FoundSeries:
    """The series of a folder (without its sub-folders) or of a DICOMDIR, by their headers.

    Raises
    ------
    DicomError
        A DICOMDIR that cannot be used.
    """
    by_series: dict[str, list[DicomFile]] = defaultdict(list)
    left_out: dict[str, list[str]] = defaultdict(list)
    images: list[DicomFile] = []
    localizers: list[str] = []
    paths, notes = files_of(path)
    for file_path in paths:
        file, reason = opened_file(file_path)
        if file is None:
            left_out[reason].append(file_path.name)
        elif not file.has_groups and file.is_placed and is_localizer(file):
            localizers.append(file_path.name)
        else:
            by_series[str(file.header.get("SeriesInstanceUID") or "")].append(file)
    for uid, files in list(by_series.items()):
        if not any(f.is_placed for f in files):
            images += by_series.pop(uid)
            left_out["without a place in the patient"] += [f.path.name for f in files]
    if "" in by_series and len(by_series) > 1:
        left_out[_NO_SERIES] += [f.path.name for f in by_series.pop("")]
    if localizers:
        notes = (*notes, f"{path}: {_counted(localizers, 'localizer')} set aside")
    return FoundSeries(dict(by_series), images, (*notes, *_left_out_text(left_out, len(paths), path)))


def read_dicom_series(
    path: Path, series: str | None = None, modalities: Sequence[str] = ("CT",)
) -> tuple[sitk.Image, tuple[str, ...]]:
    """Reads one series: sorted by position, rescale applied, geometry verified.

    Parameters
    ----------
    path : Path
        A folder, searched without its sub-folders, or a DICOMDIR.
    series : str, optional
        SeriesInstanceUID to take.
    modalities : sequence of str
        "CT" (also volumes of a C-arm), "MR" or both.

    Returns
    -------
    SimpleITK.Image
        float32, LPS: HU of a CT, intensities of MR.
    tuple of str
        What was not read of the folder.

    Raises
    ------
    DicomError
        No image, several series, another modality, an empty or absent tag, gantry tilt, missing or different doubled
        slices, slices of different size or orientation.
    """
    found = find_series(path)
    if not found.series:
        raise DicomError(
            f"{path}: holds no DICOM slices with a position in the patient{_because(found.notes)}{_below(path)}"
        )
    if series is not None and series not in found.series:
        raise DicomError(f"{path}: has no series {series}; it has {', '.join(found.series)}")
    if series is None and len(found.series) > 1:
        listed = "; ".join(_described(uid, files) for uid, files in found.series.items())
        raise DicomError(f"{path}: holds {len(found.series)} series: {listed}. Name one as `ct_series`")
    uid = next(iter(found.series)) if series is None else series
    notes = found.notes
    if len(found.series) > 1:
        others = "; ".join(_described(o, files) for o, files in found.series.items() if o != uid)
        notes = (*notes, f"{path}: beside `ct_series` it holds other series, which were not read: {others}")
    files = found.series[uid]
    try:
        stack = stack_of(files, path, modalities)
        return stack.image(), (*notes, *stack.notes, *_identity(files, path))
    except (DicomError, GridError) as error:
        raise DicomError(f"{error}{_because(notes)}") from error


def read_dicom_file(
    path: Path, series: str | None = None, modalities: Sequence[str] = ("CT",)
) -> tuple[sitk.Image, tuple[str, ...]]:
    """Reads one multi-frame file, or the series of a DICOMDIR, as :func:`read_dicom_series` reads a folder."""
    if is_directory_of_medium(path):
        return read_dicom_series(path, series, modalities)
    file, reason = opened_file(path)
    if file is None:
        raise DicomError(f"{path}: cannot be read as a volume: {reason}")
    if not file.has_groups:
        raise DicomError(f"{path}: is one slice of a series; name the folder that holds all of it")
    stack = stack_of([file], path, modalities)
    return stack.image(), (*stack.notes, *_identity([file], path))


def is_directory_of_medium(path: Path) -> bool:
    """Whether a file is a DICOMDIR."""
    try:
        return "DirectoryRecordSequence" in read_dataset(path, with_pixels=False)
    except UNREADABLE:
        return False


def _identity(files: Sequence[DicomFile], path: Path) -> tuple[str, ...]:
    """A note where nothing says whose the slices are, or that they are of one series."""
    missing = [tag_name(keyword) for keyword in ("PatientID", "SeriesInstanceUID") if not files[0].header.get(keyword)]
    if not missing:
        return ()
    return (
        f"{path}: has no {' and no '.join(missing)}: check that it is this patient's CT; results cannot be sent back "
        "to its study",
    )


def _below(path: Path) -> str:
    """What to do where the images may lie in sub-folders."""
    count = sum(p.is_dir() for p in path.iterdir()) if path.is_dir() else 0
    return f". Its {count} sub-folders were not searched: name the one with the series" if count else ""


def _counted(names: list[str], what: str) -> str:
    listed = ", ".join(names[:_NAMED_FILES]) + (", ..." if len(names) > _NAMED_FILES else "")
    return f"{len(names)} {what}{'s were' if len(names) > 1 else ' was'} ({listed})"


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
