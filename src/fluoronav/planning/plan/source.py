"""What a plan is made on: the CT and the label map of a case, with their hashes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import SimpleITK as sitk

from fluoronav.case.file import CaseFile, PriorPose, StructureEntry, read_case_file
from fluoronav.case.intensity import to_hounsfield
from fluoronav.case.label_checks import check_labels
from fluoronav.case.loading import along_patient_axes
from fluoronav.case.schema import CaseError
from fluoronav.case.volume import Volume, read_volume
from fluoronav.planning.anatomy import level_of, vertebra
from fluoronav.planning.plan.hashes import volume_hash


@dataclass(frozen=True)
class Source:
    """The files of a case that a plan is made on.

    Attributes
    ----------
    path : Path
        The case file.
    file : CaseFile
    ct : Volume
        HU.
    labels : Volume or None
    ct_hash : str
    labels_hash : str or None
    frame_of_reference : str
        UID; empty where the file has none.
    """

    path: Path
    file: CaseFile = field(repr=False)
    ct: Volume = field(repr=False)
    labels: Volume | None = field(repr=False)
    ct_hash: str
    labels_hash: str | None
    frame_of_reference: str

    def widest_ct(self) -> Volume:
        """The surroundings in HU where the case has them, else the CT."""
        if self.file.surroundings is None:
            return self.ct
        around = read_volume(self.path.parent / self.file.surroundings)
        return around if self.file.units is None else to_hounsfield(around, self.file.units, "units:").volume

    @property
    def vertebrae(self) -> dict[str, int]:
        """Label values of the case's vertebrae, by level."""
        return {level: s.label for s in self.file.structures if (level := level_of(s.name)) is not None}

    def check_vertebrae(self) -> list[str]:
        """Whether the labels of the vertebrae lie in bone of the CT; returns what is unusual.

        Raises
        ------
        CaseError
            They do not, or only if they were mirrored.
        """
        assert self.labels is not None
        return check_vertebrae(self.ct, self.labels, self.vertebrae, self.file, self.path)


def check_vertebrae(
    ct: Volume, labels: Volume, vertebrae: Mapping[str, int], case: CaseFile | None = None, path: Path | None = None
) -> list[str]:
    """Whether the labels of vertebrae lie in bone of a CT; returns what is unusual.

    Parameters
    ----------
    ct, labels : Volume
    vertebrae : mapping
        Label values by level.
    case : CaseFile, optional
        That of the labels, where they are a case's.
    path : Path, optional
        For messages; that of the labels by default.

    Raises
    ------
    CaseError
        They do not, or only if they were mirrored.
    """
    names = {vertebra(level).name: label for level, label in vertebrae.items()}
    if case is None:
        prior = PriorPose(isocentre_ct=(0.0, 0.0, 0.0), source_to_isocentre_mm=620.0)
        entries = tuple(StructureEntry(name=n, label=k) for n, k in names.items())
        case = CaseFile(name="labels", ct=ct.path, labels=labels.path, structures=entries, prior=prior)
    else:
        levels = tuple(s for s in case.structures if level_of(s.name) is not None)
        case = case.model_copy(update={"structures": levels})
    return check_labels(ct, labels, along_patient_axes(labels), case, path or labels.path)


def read_source(case_file: Path) -> Source:
    """Reads what a plan is made on.

    Parameters
    ----------
    case_file : Path
        A ``case.yaml``.

    Raises
    ------
    CaseError
    """
    if not case_file.is_file():
        raise CaseError(f"{case_file}: no such case file; name a case.yaml or its folder")
    file, folder = read_case_file(case_file), case_file.parent
    ct = read_volume(folder / file.ct, file.ct_series)
    if file.units is not None:
        ct = to_hounsfield(ct, file.units, "units:").volume
    labels = read_volume(folder / file.labels) if file.labels is not None else None
    return Source(
        case_file, file, ct, labels, volume_hash(ct.image), volume_hash(labels.image) if labels else None,
        frame_of_reference(ct.path),
    )  # fmt: skip


def frame_of_reference(path: Path) -> str:
    """FrameOfReferenceUID of a CT; empty for files that have none.

    Parameters
    ----------
    path : Path
        A DICOM folder or file, or another volume.
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        first = next(p for p in sorted(path.rglob("*")) if p.is_file()) if path.is_dir() else path
        header = dcmread(first, stop_before_pixels=True, specific_tags=["FrameOfReferenceUID"])
    except (InvalidDicomError, OSError, StopIteration):
        return ""
    return str(header.get("FrameOfReferenceUID") or "")


def whole_numbers(labels: Volume) -> sitk.Image:
    """A label map with an integer type.

    Raises
    ------
    CaseError
        Its values are no whole numbers, or no label values.
    """
    voxels = labels.voxels
    if voxels.dtype.kind in "ui" and voxels.min() >= 0:
        return labels.image
    if voxels.min() < 0 or voxels.max() > 65_535 or (voxels != voxels.round()).any():
        raise CaseError(
            f"{labels.path}: is not a label map: its values reach from {voxels.min():g} to {voxels.max():g}, or are "
            "no whole numbers"
        )
    return sitk.Cast(labels.image, sitk.sitkUInt16)
