"""The segmentation and the report of a case's structures, once somebody has drawn or computed them.

Runs in the process that makes cases (:mod:`fluoronav.pacs.workers`).
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from fluoronav.case import CaseError
from fluoronav.case.file import CaseFile, read_case_file
from fluoronav.case.findings import labels_on, path_findings, volume_findings
from fluoronav.dicom import objects
from fluoronav.dicom.objects import Producer, Provenance, Segment
from fluoronav.durable import written
from fluoronav.pacs.jobs import StructureJob, Structures
from fluoronav.pacs.pseudonyms import Pseudonyms
from fluoronav.pacs.spool import keep

NOTE = ".structures.json"  # in the case's folder: of what results were made, and when


def make_results(job: StructureJob) -> Structures:
    """Makes the segmentation and the report, and puts them into the spool; nothing where there are no structures.

    Raises
    ------
    OSError
        The disk is full. What comes again is the same bytes.
    """
    try:
        file = read_case_file(job.folder / "case.yaml")
        if file.labels is None or not file.structures:
            return Structures()
        note = _note(job.folder, file)
        if note["done"]:
            return Structures()
        made = _made(job, file, datetime.fromisoformat(note["made"]))
        number = keep(made, job.into, Pseudonyms.load(job.key))
        written(job.folder / NOTE, json.dumps(note | {"done": True}).encode())
    except (CaseError, ValueError) as error:
        return Structures(fault=str(error))
    return Structures(number)


def _made(job: StructureJob, file: CaseFile, at: datetime) -> list[Any]:
    source = objects.read_source(job.folder / file.ct, file.ct_series)
    made_by = Provenance(Producer(serial=job.site), at)
    segments = [Segment(s.name, s.label, s.color, "fluoronav") for s in file.structures]
    labels = labels_on(source, file, job.folder, lambda text: None)
    segmentation = objects.segmentation(source, made_by, labels, segments)
    numbers = {s.name: k + 1 for k, s in enumerate(segments)}
    findings = [*volume_findings(file, job.folder, numbers), *path_findings(file)]
    report = objects.measurement_report(source, made_by, findings, segmentation=segmentation)
    return [segmentation, report]


def _note(folder: Path, file: CaseFile) -> dict[str, Any]:
    """What is noted of the present content. The time is kept: what is made again is the same bytes."""
    digest = hashlib.sha256()
    for path in (folder / "case.yaml", folder / str(file.labels)):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    digest.update("\0".join(sorted(p.name for p in (folder / file.ct).iterdir())).encode())
    content = digest.hexdigest()
    try:
        known = json.loads((folder / NOTE).read_bytes())
        if known["content"] == content:
            return known
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        pass  # none yet, or a damaged one: it is written anew
    note = {"content": content, "made": datetime.now().astimezone().isoformat(timespec="seconds"), "done": False}
    written(folder / NOTE, json.dumps(note).encode())
    return note
