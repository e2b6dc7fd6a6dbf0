"""The objects of a live case: of a marked or an accepted moment, of its end, and of a recorded run."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import RE_VALID_UID

from fluoronav.dicom import objects
from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.objects import Approval, Finding, Measurement, Producer, Provenance, Source, source_of
from fluoronav.dicom.objects.anatomy import own_code
from fluoronav.pacs.heard import Event, Moment
from fluoronav.pacs.identities import STUDY
from fluoronav.recording import RecordingError
from fluoronav.recording.acquisition import acquisition_of
from fluoronav.recording.moments import cases_of, frames_of
from fluoronav.wire import FrameHeader

_MARKED, _DISTANCE = own_code("Marked moment"), own_code("Distance of instrument to structure")
_WHY = {"mark": "Marked moment", "accept": "Accepted registration"}


@dataclass(frozen=True)
class RunLimits:
    """How a recorded run is cut into objects."""

    part_bytes: int = 2**27  # of pixels; chosen: making one object takes three times as much memory


LIMITS = RunLimits()


@dataclass(frozen=True)
class Mark:
    """What a person says of a moment.

    Attributes
    ----------
    note : str
    accepted_by, organization : str
        Who accepts the objects, FAMILY^GIVEN; without it they are drafts.
    """

    note: str = ""
    accepted_by: str = ""
    organization: str = ""


def of_moment(ct: Source, event: Event, site: str, mark: Mark | None = None) -> list[Dataset]:
    """The X-ray image of a moment, its graphics as a presentation state, their twin and a report.

    All are of one study: that which the frame names, the C-arm's, or else the CT's. The presentation state is left out
    where the overlay draws nothing.

    Parameters
    ----------
    ct : Source
        Whose patient it is.
    event : Event
        A `mark` or an `accept`; its moment, and the alerts that the report tells of.
    site : str
        Name of this installation.
    mark : Mark, optional

    Raises
    ------
    DicomError
    """
    mark, moment, kind = mark or Mark(), event.moment, event.kind
    if moment is None:
        raise ValueError(f"an event of kind {kind} has a moment")
    at = datetime.fromtimestamp(moment.header.t_acq / 1e9, UTC).astimezone()
    approval = Approval(mark.accepted_by, mark.organization, at) if mark.accepted_by else None
    made_by = _provenance(site, moment.overlay.get("models"), at, approval)
    study = in_study(ct, moment.header.study)
    picture = objects.xray_run(
        study, made_by, moment.counts[None], acquisition_of([moment.header]), description=_WHY[kind]
    )
    image = source_of([picture], "the frame")
    graphics = objects.graphics_of(moment.overlay)
    out = [picture]
    if len(graphics.within(*moment.counts.shape)):
        out.append(objects.presentation_state(image, made_by, graphics))
    out.append(objects.secondary_capture(image, made_by, moment.counts, graphics))
    findings = [
        _of_frame(moment, _WHY[kind], _when_accepted(event) if kind == "accept" else mark.note),
        *_registration(moment.accepted),
        *_distances(moment.overlay),
        *objects.alert_findings(event.alerts, "at this moment"),
    ]
    out.append(objects.measurement_report(image, made_by, findings, description=_WHY[kind]))
    return out


def of_end(ct: Source, event: Event, site: str) -> list[Dataset]:
    """The report of a case that has ended; nothing where nothing was accepted and no alert raised."""
    findings = [*_registration(event.registration), *objects.alert_findings(event.alerts)]
    if not findings:
        return []
    at = datetime.fromtimestamp(event.t / 1e9, UTC).astimezone()
    return [objects.measurement_report(ct, _provenance(site, event.models, at), findings, description="End of case")]


def of_run(ct: Source, case: str, recording: Path, site: str) -> Iterator[Dataset]:
    """The frames of a recording as X-ray images, in parts of a bounded size.

    Raises
    ------
    RecordingError
        It cannot be read, or another case was loaded meanwhile.
    DicomError
    """
    if cases_of(recording) != {case}:
        raise RecordingError("another case was loaded while it was recorded: the run is not sent")
    headers: list[FrameHeader] = []
    counts: list[Any] = []
    for header, picture in frames_of(recording):
        full = counts and (len(counts) + 1) * picture.nbytes > LIMITS.part_bytes
        # One object has one size, one study, and times that rise; a grabber that starts again may change all.
        differs = counts and (
            (picture.shape, picture.dtype, header.study, header.bits)
            != (counts[0].shape, counts[0].dtype, headers[0].study, headers[0].bits)
            or header.t_acq <= headers[-1].t_acq
        )
        if full or differs:
            yield _part(ct, site, headers, counts)
            headers, counts = [], []
        headers.append(header)
        counts.append(picture)
    if counts:
        yield _part(ct, site, headers, counts)


def in_study(source: Source, study_uid: str | None) -> Source:
    """The patient of a source in another study, of which nothing but its UID is known; the source itself without one.

    The archive refuses nothing here; :class:`~fluoronav.pacs.delivery.Delivery` asks it first whose study it is.
    """
    if not study_uid or study_uid == source.study_uid:
        return source
    if not re.fullmatch(RE_VALID_UID, study_uid):
        raise DicomError(
            "the frame's `study` is no UID: no result of it is sent. Have the grabber send none, or the right one"
        )
    moved = []
    for dataset in source.datasets:
        other = copy.copy(dataset)
        other._dict = dict(dataset._dict)
        for keyword in STUDY:
            if keyword in other:
                setattr(other, keyword, None)
        other.StudyInstanceUID = study_uid
        moved.append(other)
    return source_of(moved, source.name)


def _part(ct: Source, site: str, headers: list[FrameHeader], counts: list[Any]) -> Dataset:
    at = datetime.fromtimestamp(headers[0].t_acq / 1e9, UTC).astimezone()
    study = in_study(ct, headers[0].study)
    return objects.xray_run(study, _provenance(site, None, at), np.stack(counts), acquisition_of(headers))


def _provenance(
    site: str, models: Mapping[str, str] | None, at: datetime, approval: Approval | None = None
) -> Provenance:
    """Who and what made it. The time is the moment's: the same content is the same bytes whenever it is made."""
    return Provenance(Producer(serial=site, models=dict(models or {})), at, approval)


def _of_frame(moment: Moment, why: str, note: str) -> Finding:
    at = datetime.fromtimestamp(moment.header.t_acq / 1e9, UTC)
    text = f"Frame {moment.header.seq}, {at:%H:%M:%S} UTC, registration {moment.overlay.get('status')}"
    return Finding(why.lower(), (), f"{text}. {note}".strip(". "), _MARKED)


def _when_accepted(event: Event) -> str:
    return f"A person accepted at {datetime.fromtimestamp(event.t / 1e9, UTC):%H:%M:%S} UTC"


def _registration(accepted: Mapping[str, Any] | None) -> list[Finding]:
    return [objects.registration_finding(accepted)] if accepted else []


def _distances(overlay: Mapping[str, Any]) -> list[Finding]:
    return [
        Finding(
            f"{d['instrument']} to {d['structure']}",
            (Measurement("distance_mm", float(d["distance_mm"])), Measurement("lower_mm", float(d["lower_mm"]))),
            f"Level {d['level']}",
            _DISTANCE,
            d["structure"],
        )
        for d in overlay.get("distances") or ()
    ]
