"""What an object takes over from the images that it is about: the patient, the study and the references."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import UID

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.objects.charset import with_mended_charset
from fluoronav.dicom.slices import opened_file

_NEEDED_UIDS = {
    "StudyInstanceUID": "(0020,000d)",
    "SeriesInstanceUID": "(0020,000e)",
    "SOPInstanceUID": "(0008,0018)",
    "SOPClassUID": "(0008,0016)",
}
# Type 2 of the patient and the study module: present in every object, if only empty (PS3.3 C.7.1.1, C.7.2.1).
_TYPE_2 = (
    "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime",
    "ReferringPhysicianName",
)  # fmt: skip
# Equal in two objects of one patient; an empty value says nothing.
_IDENTITY = ("PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")


@dataclass(frozen=True)
class Source:
    """The images that an object is about, all of one series.

    Attributes
    ----------
    name : str
        File or folder, for messages.
    datasets : tuple of pydicom.Dataset
        Headers. Slices are sorted along their normal; a single image or a multi-frame object is one dataset.
    """

    name: str
    datasets: tuple[pydicom.Dataset, ...]

    @property
    def first(self) -> pydicom.Dataset:
        return self.datasets[0]

    @property
    def study_uid(self) -> str:
        return str(self.first.StudyInstanceUID)

    @property
    def series_uid(self) -> str:
        return str(self.first.SeriesInstanceUID)

    @property
    def instance_uids(self) -> tuple[str, ...]:
        return tuple(str(d.SOPInstanceUID) for d in self.datasets)

    @property
    def frames(self) -> int:
        """Number of frames in the first dataset."""
        return max(int(self.first.get("NumberOfFrames") or 1), 1)

    def check_frame(self, frame: int) -> None:
        """Raises :class:`DicomError` where the object has no such frame, counted from 1."""
        if not 1 <= frame <= self.frames:
            raise DicomError(f"{self.name}: has {self.frames} frames, not {frame}; they are counted from 1")

    def single(self) -> pydicom.Dataset:
        """The one image; raises :class:`DicomError` where the source is a series of slices."""
        if len(self.datasets) != 1:
            raise DicomError(f"{self.name}: holds {len(self.datasets)} images; name the file of one")
        return self.first


def read_source(path: Path, series: str | None = None) -> Source:
    """Reads the headers of an image, or of a series in a folder.

    Parameters
    ----------
    path : Path
        A DICOM file, or a folder (without its sub-folders).
    series : str, optional
        SeriesInstanceUID to take, where the folder holds several.

    Raises
    ------
    DicomError
        No image; several series; what :func:`source_of` refuses.
    """
    if not path.exists():
        raise DicomError(f"{path}: no such file or folder")
    if not path.is_dir():
        file, reason = opened_file(path)
        if file is None:
            raise DicomError(f"{path}: cannot be read as a DICOM image: {reason}")
        return source_of([file.header], str(path))
    by_series: dict[str, list[pydicom.Dataset]] = defaultdict(list)
    for entry in sorted(p for p in path.iterdir() if not p.is_dir()):
        file, _ = opened_file(entry)
        if file is not None:
            by_series[str(file.header.get("SeriesInstanceUID") or "")].append(file.header)
    if not by_series:
        raise DicomError(f"{path}: holds no DICOM image")
    if series is None and len(by_series) > 1:
        listed = "; ".join(f"{uid} ({len(found)} images)" for uid, found in by_series.items())
        raise DicomError(f"{path}: holds {len(by_series)} series: {listed}. Name one with --series")
    if series is not None and series not in by_series:
        raise DicomError(f"{path}: has no series {series}; it has {', '.join(by_series)}")
    return source_of(by_series[series if series is not None else next(iter(by_series))], str(path))


def source_of(datasets: Iterable[pydicom.Dataset], name: str) -> Source:
    """Checks that datasets identify one patient, study and series, and sorts them along their normal.

    Parameters
    ----------
    datasets : iterable of pydicom.Dataset
        Pixels are not needed. The datasets are not changed.
    name : str
        For messages.

    Raises
    ------
    DicomError
        A UID is missing or invalid; PatientID is missing; two patients, studies, series or instances with one UID.
    """
    found = [with_mended_charset(d) for d in datasets]
    if not found:
        raise DicomError(f"{name}: holds no DICOM image")
    for dataset in found:
        for keyword, tag in _NEEDED_UIDS.items():
            _check_uid(dataset, keyword, tag, name)
        if not str(dataset.get("PatientID") or "").strip():
            raise DicomError(
                f"{name}: PatientID (0010,0020) is missing or empty; an archive may file the result with any other "
                "patient who has none. Export the series with its PatientID, or with a pseudonym"
            )
        for keyword in _TYPE_2:
            if keyword not in dataset:
                setattr(dataset, keyword, "")
    for keyword, what in (("PatientID", "patients"), ("StudyInstanceUID", "studies"), ("SeriesInstanceUID", "series")):
        values = {str(d.get(keyword)) for d in found}
        if len(values) > 1:
            raise DicomError(f"{name}: the images are of {len(values)} {what} ({keyword} differs)")
    if len({str(d.SOPInstanceUID) for d in found}) < len(found):
        raise DicomError(f"{name}: two images have the same SOPInstanceUID (0008,0018); remove the repeats")
    return Source(name, tuple(sorted(found, key=_along_normal)))


def check_same_patient(one: Source, other: Source) -> None:
    """Raises :class:`DicomError` where two sources are of different patients; no identifier is in the text."""
    for keyword in _IDENTITY:
        a, b = (str(s.first.get(keyword) or "").strip() for s in (one, other))
        if a and b and a != b:
            raise DicomError(
                f"{other.name}: is of another patient than {one.name} ({keyword} differs); nothing was written"
            )


def check_study(source: Source, study_uid: str | None) -> None:
    """Raises :class:`DicomError` where what is written belongs to another study than the source."""
    if study_uid and study_uid != source.study_uid:
        raise DicomError(
            f"{source.name}: is of another study (StudyInstanceUID differs) than what is written; nothing was written"
        )


def _check_uid(dataset: pydicom.Dataset, keyword: str, tag: str, name: str) -> None:
    value = str(dataset.get(keyword) or "")
    if not value:
        raise DicomError(f"{name}: {keyword} {tag} is missing or empty, so no result can refer to it")
    if not UID(value).is_valid:
        raise DicomError(f"{name}: {keyword} {tag} is {value[:64]!r}, which is no UID")


def _along_normal(dataset: pydicom.Dataset) -> float:
    """A slice's place along the normal of its plane, mm; 0 for an image without one."""
    try:
        cosines = np.array(dataset.ImageOrientationPatient, dtype=np.float64)
        position = np.array(dataset.ImagePositionPatient, dtype=np.float64)
        return float(np.cross(cosines[:3], cosines[3:]) @ position)
    except (AttributeError, TypeError, ValueError, IndexError):
        return 0.0
