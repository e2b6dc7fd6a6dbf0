"""From a series to its results in the archive, without the analysis: its structures are known beforehand."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from fluoronav.dicom.objects import (
    Finding,
    Measurement,
    Producer,
    Provenance,
    Segment,
    measurement_report,
    read_source,
    segmentation,
    write_object,
)
from fluoronav.lab.bench.pacs.rig import ARCHIVE, BenchNode, Orthanc, until
from fluoronav.lab.bench.pacs.series import Template
from fluoronav.pacs.outgoing import open_outbox

MADE = ("SEG", "SR")
# Of every object: the same results made again are the same bytes.
_PROVENANCE = Provenance(Producer(), datetime(2026, 1, 1, 12))


def make_results(case: Path, series: Template, folder: Path) -> list[Path]:
    """Writes the segmentation and the report of a case that arrived; returns their files."""
    source = read_source(case / "ct")
    present = np.bincount(sitk.GetArrayViewFromImage(series.labels).ravel(), minlength=256)
    segments: list[Segment] = [s for s in series.segments if present[s.label]]
    voxel_ml = float(np.prod(series.labels.GetSpacing())) / 1000
    seg = segmentation(source, _PROVENANCE, series.labels, segments)
    findings = [
        Finding(s.name, (Measurement("volume_ml", float(present[s.label]) * voxel_ml),), structure=s.name, segment=k)
        for k, s in enumerate(segments, 1)
    ]
    sr = measurement_report(source, _PROVENANCE, findings, segmentation=seg)
    files = []
    for name, made in zip(MADE, (seg, sr), strict=True):
        files.append(folder / f"{name}.dcm")
        write_object(made, files[-1])
    return files


def put_out(node: BenchNode, files: list[Path]) -> None:
    """Puts files into the outbox, as `fluoronav pacs send` does."""
    outbox = open_outbox(node.site)
    for file in files:
        outbox.add(file, ARCHIVE)


def wait_visible(archive: Orthanc, study: str) -> None:
    """Returns when the archive finds both results by QIDO-RS."""
    until(lambda: archive.modalities(study) >= set(MADE), "SEG and SR are visible by QIDO-RS")
