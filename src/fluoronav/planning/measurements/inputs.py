"""The label map, its names and its CT: of a case, or of files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.errors import InvalidDicomError

from fluoronav.case.file import CaseFile, PriorPose, StructureEntry, read_case_file
from fluoronav.case.intensity import to_hounsfield
from fluoronav.case.label_checks import check_labels
from fluoronav.case.loading import along_patient_axes
from fluoronav.case.volume import Volume, read_volume
from fluoronav.planning.anatomy import Scheme, labels_of_scheme
from fluoronav.planning.measurements.into_plan import MadeOn
from fluoronav.planning.measurements.measure import MeasureError
from fluoronav.planning.plan.hashes import volume_hash
from fluoronav.planning.revisions import Revisions

_MOST_NAME = 64


@dataclass(frozen=True)
class Measurable:
    """What is measured.

    Attributes
    ----------
    labels : Volume
    names : dict of int to str
        By label value.
    ct : Volume or None
        HU.
    case : CaseFile or None
        With `folder`, where it is a case's.
    folder : Path or None
    made_on : MadeOn or None
    warnings : tuple of str
    """

    labels: Volume
    names: Mapping[int, str]
    ct: Volume | None
    case: CaseFile | None = None
    folder: Path | None = None
    made_on: MadeOn | None = None
    warnings: tuple[str, ...] = ()


def of_case(path: Path) -> Measurable:
    """A case's label map.

    Names are those of ``case.yaml`` and of the newest revision of its segmentation.

    Raises
    ------
    CaseError
        A file cannot be read, or the labels do not lie in the CT.
    MeasureError
        The case has no label map.
    """
    path = path / "case.yaml" if path.is_dir() else path
    file, folder = read_case_file(path), path.parent
    if file.labels is None:
        raise MeasureError(f"{path}: the case has no label map (`labels`); make one with `fluoronav plan segment`")
    labels, ct = read_volume(folder / file.labels), read_volume(folder / file.ct, file.ct_series)
    names = {s.label: s.name for s in file.structures}
    if (newest := Revisions(folder).newest()) is not None:
        names = {s.label: s.name for s in newest.structures} | names
    hu = to_hounsfield(ct, file.units, "units:").volume
    warnings = check_place(hu, labels, names, path)
    made_on = MadeOn(volume_hash(ct.image), volume_hash(labels.image), frame_of_reference(folder / file.ct))
    return Measurable(labels, names, hu, file, folder, made_on, tuple(warnings))


def of_files(labels: Path, scheme: Scheme, ct: Path | None, more: Mapping[int, str]) -> Measurable:
    """A label map by itself, with the CT where there is one.

    Parameters
    ----------
    labels : Path
    scheme : Scheme
        How its values are numbered.
    ct : Path, optional
    more : mapping of int to str
        Names of values that the scheme does not have, or has otherwise.

    Raises
    ------
    CaseError
    """
    volume = read_volume(labels)
    names = {value: s.name for value, s in labels_of_scheme(scheme).items()} | dict(more)
    if ct is None:
        along_patient_axes(volume)  # refuses what is no label map
        return Measurable(volume, names, None)
    hu = to_hounsfield(read_volume(ct), None, "the CT:").volume
    return Measurable(volume, names, hu, warnings=tuple(check_place(hu, volume, names, labels)))


def check_place(ct: Volume, labels: Volume, names: Mapping[int, str], path: Path) -> list[str]:
    """Whether the labels lie in the CT and their bones in bone, by the checks of a case; returns what is unusual.

    Raises
    ------
    CaseError
        Labels of another patient or frame, or mirrored.
    """
    aligned = along_patient_axes(labels)
    there = set(np.unique(sitk.GetArrayViewFromImage(aligned)).tolist())
    entries = tuple(StructureEntry(name=n[:_MOST_NAME], label=v) for v, n in names.items() if v in there)
    if not entries:
        raise MeasureError(f"{labels.path}: holds none of the named structures: is it empty, or of another scheme?")
    file = CaseFile(
        name="measured", ct=ct.path, labels=labels.path, structures=entries,
        prior=PriorPose(isocentre_ct=(0.0, 0.0, 0.0), source_to_isocentre_mm=600.0),
    )  # fmt: skip
    return check_labels(ct, labels, aligned, file, path)


def frame_of_reference(ct: Path) -> str:
    """FrameOfReferenceUID of a DICOM CT; empty for other formats."""
    files: Iterable[Path] = sorted(p for p in ct.iterdir() if p.is_file()) if ct.is_dir() else [ct]
    for file in files:
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["FrameOfReferenceUID"])
        except (InvalidDicomError, OSError):
            continue
        return str(header.get("FrameOfReferenceUID") or "")
    return ""
