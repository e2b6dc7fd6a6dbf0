"""Makes a case of a CT series: de-identified slices and a draft of ``case.yaml``, checked as loading does.

Runs in a process of its own (:mod:`fluoronav.pacs.workers`), so that a damaged image can end that, and not the node.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import yaml
from pydicom import dcmread
from pydicom.dataset import FileDataset

from fluoronav.case import CaseError, read_volume
from fluoronav.case.ct import checked_ct
from fluoronav.case.file import read_case_file
from fluoronav.case.place_checks import check_places
from fluoronav.dicom.character_sets import mend_character_set
from fluoronav.dicom.errors import DicomError
from fluoronav.durable import made_folder, sync_file, sync_folder, written
from fluoronav.pacs.deidentify import deidentify
from fluoronav.pacs.identities import PATIENT, STUDY, Identity, module_of
from fluoronav.pacs.jobs import Job, Made
from fluoronav.pacs.memory import give_back
from fluoronav.pacs.pseudonyms import Pseudonyms
from fluoronav.site.case_trail import CaseTrail

_SOURCE_TO_ISOCENTRE_MM = 620.0  # chosen: that of common C-arms; planning or calibration says the real one
_LEAST_IN_PLANE_MM, _MOST_IN_PLANE_MM = 100.0, 300.0  # of the search around the isocentre; chosen, the schema's limit
_DRAFT = """\
# Draft, made from a received CT: no structures, no plan. Planning writes them; the prior is the middle of the CT.
"""


def take_in(job: Job) -> Made:
    """De-identifies the slices, writes the draft, and checks it as ``fluoronav case build`` does."""
    pseudonyms = Pseudonyms.load(job.key)
    shutil.rmtree(job.into, ignore_errors=True)
    ct = made_folder(job.into / "ct")
    warnings = [job.flag] if job.flag else []
    try:
        for old in sorted(job.before.glob("*.dcm")) if job.before else ():
            os.link(old, ct / old.name)
        identity, localizers = _slices(job, pseudonyms, ct)
    except OSError:
        raise
    except Exception as error:  # pydicom raises nearly anything on a damaged header
        return Made(None, refused=f"a header cannot be read ({type(error).__name__})")
    if localizers:
        warnings.append(f"{localizers} localizers of the series were left out")
    if identity is None:
        return Made(None, refused="the series holds localizers alone")
    sync_folder(ct)
    give_back()  # before the CT is read as a whole
    try:
        warnings += _draft(job)
    except (CaseError, DicomError) as error:
        return Made(identity, refused=str(error).replace(f"{job.into}/", ""))
    trail = CaseTrail(job.into)
    trail.add("arrived", slices=len(list(ct.iterdir())), complete_by=job.evidence, warnings=warnings)
    return Made(identity, tuple(warnings))


def _slices(job: Job, pseudonyms: Pseudonyms, ct: Path) -> tuple[Identity | None, int]:
    """Writes the de-identified slices; the first's identity with the UIDs of all, and the number of localizers."""
    identity, uids, localizers = None, {}, 0
    for path in job.files:
        dataset = dcmread(path)
        if any(str(k).upper() == "LOCALIZER" for k in dataset.get("ImageType") or ()):
            localizers += 1
            continue
        if identity is None:
            header = _decoded(dcmread(path, stop_before_pixels=True))
            study = pseudonyms.uid(str(header.StudyInstanceUID))
            identity = Identity(job.patient, study, module_of(header, PATIENT), module_of(header, STUDY), uids)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
            if value := str(dataset.get(keyword) or ""):
                uids[pseudonyms.uid(value)] = value
        _decoded(dataset)
        deidentify(dataset, pseudonyms, job.patient)
        target = ct / path.name
        target.unlink(missing_ok=True)  # it may be a link to the case's own file
        dataset.save_as(target, enforce_file_format=True)
        sync_file(target)
    return identity, localizers


def _decoded(dataset: FileDataset) -> FileDataset:
    """The dataset with its texts read in the character set that they are in, and declared as UTF-8."""
    mend_character_set(dataset)
    dataset.decode()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    return dataset


def _draft(job: Job) -> list[str]:
    """Writes the draft, with all checks of a case that has no structures yet; what is unusual about the CT.

    The CT is read once: the prior is its middle.
    """
    volume = read_volume(job.into / "ct")
    path = job.into / "case.yaml"
    corners = volume.corners_ct()
    low, high = corners.min(axis=0), corners.max(axis=0)
    prior = {
        "isocentre_ct": [round(float(v), 1) for v in (low + high) / 2],
        "source_to_isocentre_mm": _SOURCE_TO_ISOCENTRE_MM,
        "spread": {
            "rotation_deg": 30.0,
            "in_plane_mm": round(min(max(float((high - low).max()) / 2, _LEAST_IN_PLANE_MM), _MOST_IN_PLANE_MM), 1),
            "depth_mm": 60.0,
        },
    }
    written(path, (_DRAFT + yaml.safe_dump({"name": job.name, "ct": "ct", "prior": prior}, sort_keys=False)).encode())
    file = read_case_file(path)
    ct, warnings = checked_ct(volume, file.units)
    return [*warnings, *check_places(file, ct, None, path)]
