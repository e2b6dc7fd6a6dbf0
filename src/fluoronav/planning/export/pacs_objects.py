"""The plan for the PACS: segmentation (SEG), report (SR) and surfaces (STL) in the study of the CT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from fluoronav.case.findings import labels_on
from fluoronav.dicom.objects import (
    Finding,
    Measurement,
    Provenance,
    Segment,
    encapsulated_stl,
    measurement_report,
    read_source,
    segmentation,
    stl_bytes,
    write_object,
)
from fluoronav.planning.meshes.parts import Part, file_name
from fluoronav.planning.plan.file import PlanError
from fluoronav.planning.plan.planned import Planned, ends
from fluoronav.planning.plan.schema import Measured, Screw
from fluoronav.planning.plan.schema import Path as PlannedPath

_FILES = (".nrrd", ".nii", ".gz", ".mha", ".mhd")
# Quantities of a report by the unit of a plan's measurement.
_QUANTITY = {"mm": "length_mm", "deg": "angle_deg", "cm3": "volume_ml", "HU": "attenuation_hu"}


def write_dicom(
    planned: Planned,
    parts: Sequence[Part],
    folder: Path,
    provenance: Provenance,
    source: Path | None,
    say: Callable[[str], object],
) -> dict[str, Any]:
    """Writes the objects.

    Parameters
    ----------
    planned : Planned
    parts : sequence of Part
        Bodies that become surfaces.
    folder : Path
        Holds none of these files yet.
    provenance : Provenance
        With the approval of the plan, or none: then the objects are drafts.
    source : Path, optional
        The CT as DICOM, where the case names another format.
    say : callable
        Takes a text for each step.

    Raises
    ------
    PlanError
        The CT is no DICOM, or there is nothing to write.
    DicomError
    """
    path = source or planned.case_path.parent / planned.case.ct
    if path.suffix.lower() in _FILES:
        raise PlanError(
            f"{planned.case_path}: its CT {path.name} is no DICOM; name the series that it was made of with --source"
        )
    say(f"reading {path}")
    images = read_source(path, None if source else planned.case.ct_series)
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Any] = {}
    seg, numbers = None, {}
    # An empty label has no frame in a segmentation.
    there = set(np.unique(planned.labels.voxels).astype(int).tolist()) if planned.structures else set()
    segments = [Segment(s.name, s.label, s.color, "fluoronav") for s in planned.structures if s.label in there]
    if segments:
        say("writing the segmentation")
        labels = labels_on(images, planned.case, planned.case_path.parent, say)
        seg = segmentation(images, provenance, labels, segments)
        numbers = {s.name: k + 1 for k, s in enumerate(segments)}
        write_object(seg, folder / "segmentation.dcm")
        files["seg"] = "segmentation.dcm"
    found = _findings(planned, numbers)
    if found:
        report = measurement_report(images, provenance, found, segmentation=seg, description="Surgical plan")
        write_object(report, folder / "plan.dcm")
        files["sr"] = "plan.dcm"
    files["stl"] = []
    for p in parts:
        say(f"writing the surface {p.name}")
        name = f"{file_name(p.name)}.stl.dcm"
        made = encapsulated_stl(images, provenance, stl_bytes(p.mesh.points, p.mesh.triangles), p.name)
        write_object(made, folder / name)
        files["stl"].append(name)
    return {"files": files, "draft": provenance.approval is None}


def approved_at(planned: Planned) -> datetime:
    """When the approved revision was made."""
    try:
        return datetime.fromisoformat(planned.plan.made).astimezone()
    except ValueError as error:
        raise PlanError(f"{planned.path}: made: {planned.plan.made!r} is no time; write it as ISO 8601") from error


def _findings(planned: Planned, numbers: dict[str, int]) -> list[Finding]:
    """Volumes of structures, screws, paths and measurements."""
    voxel_ml = float(np.prod(planned.labels.image.GetSpacing())) / 1000 if planned.structures else 0.0
    values, counts = np.unique(planned.labels.voxels, return_counts=True) if planned.structures else ([], [])
    voxels = {int(v): int(n) for v, n in zip(values, counts, strict=True)}
    out = []
    for s in planned.structures:
        if s.label in voxels:
            volume = Measurement("volume_ml", voxels[s.label] * voxel_ml)
            out.append(Finding(s.name, (volume,), structure=s.name, segment=numbers.get(s.name)))
    for item in planned.plan.items:
        if isinstance(item, Screw | PlannedPath):
            entry, target = ends(item)
            length = item.length_mm if isinstance(item, Screw) else float(np.linalg.norm(np.subtract(target, entry)))
            said = f"Planned screw, Gertzbein-Robbins grade {item.grade}" if isinstance(item, Screw) else "Planned path"
            out.append(
                Finding(item.id, (Measurement("length_mm", length), Measurement("diameter_mm", item.diameter_mm)), said)
            )
        elif isinstance(item, Measured) and item.unit in _QUANTITY:
            spread = f", standard deviation {item.uncertainty:g} {item.unit}" if item.uncertainty is not None else ""
            number = Measurement(_QUANTITY[item.unit], item.value)
            out.append(Finding(item.name, (number,), f"{item.method}{spread}", structure=item.structure or ""))
    return out
