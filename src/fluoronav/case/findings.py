"""What a case says of itself in a report: volumes of its structures, its planned paths. Needs the extra `pacs`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from fluoronav.case.file import CaseFile
from fluoronav.case.volume import read_volume
from fluoronav.dicom.objects import Finding, Measurement, Source
from fluoronav.dicom.objects.label_grid import is_on_grid, planes_of, resampled


def labels_on(source: Source, file: CaseFile, folder: Path, say: Callable[[str], object]) -> sitk.Image:
    """The case's label map, resampled to the source where it lies on another grid.

    Parameters
    ----------
    source : Source
        The CT.
    file : CaseFile
    folder : Path
        Of the case file.
    say : callable
        Takes a text where it is resampled.

    Raises
    ------
    ValueError
        The case has no label map.
    """
    if file.labels is None:
        raise ValueError(f"{folder}: the case has no label map (`labels`), so there are no structures to write")
    labels, planes = read_volume(folder / file.labels).image, planes_of(source)
    if is_on_grid(labels, planes):
        return labels
    say(f"{file.labels} is on another grid than {source.name}; it is resampled to it (nearest neighbour)")
    return resampled(labels, planes, source.name)


def volume_findings(file: CaseFile, folder: Path, segments: Mapping[str, int]) -> list[Finding]:
    """One finding for each structure with its volume, mL.

    Parameters
    ----------
    file : CaseFile
    folder : Path
        Of the case file.
    segments : mapping of str to int
        Numbers of segments by structure, in the segmentation that the report refers to.
    """
    if file.labels is None:
        return []
    labels = read_volume(folder / file.labels)
    voxel_ml = float(np.prod(labels.image.GetSpacing())) / 1000
    out = []
    for s in file.structures:
        volume = Measurement("volume_ml", int((labels.voxels == s.label).sum()) * voxel_ml)
        out.append(Finding(s.name, (volume,), structure=s.name, segment=segments.get(s.name)))
    return out


def path_findings(file: CaseFile) -> list[Finding]:
    """One finding for each planned path with its length and diameter, mm."""
    return [
        Finding(
            t.name,
            (
                Measurement("length_mm", float(np.linalg.norm(np.subtract(t.entry_ct, t.target_ct)))),
                Measurement("diameter_mm", 2 * t.radius_mm),
            ),
            comment="Planned path, entry to target",
        )
        for t in file.plan
    ]
