"""Asks a Modality Worklist for the cases that come up: C-FIND (PS3.4 annex K)."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta, timezone

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from fluoronav.pacs.contexts import WORKLIST
from fluoronav.pacs.database import Database
from fluoronav.pacs.dimse_peer import DimsePeer
from fluoronav.pacs.identities import PatientRecord
from fluoronav.pacs.peers import PeerUnreachable
from fluoronav.pacs.schedule import Schedule, ScheduledCase, TwoPatients
from fluoronav.pacs.tls import TlsError
from fluoronav.site.site_file import Fetch, Worklist

log = logging.getLogger(__name__)
_SOURCE = "worklist"
_STEP = (
    "ScheduledStationAETitle", "Modality", "ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime",
    "ScheduledProcedureStepID",
)  # fmt: skip
_KEYS = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "AccessionNumber",
    "RequestedProcedureID", "StudyInstanceUID", "TimezoneOffsetFromUTC",
)  # fmt: skip


class WorklistPoll:
    """Takes the cases of a worklist into the schedule.

    Parameters
    ----------
    worklist : Worklist
    fetch : Fetch
        How far ahead is asked.
    schedule : Schedule
    database : Database
    """

    def __init__(self, worklist: Worklist, fetch: Fetch, schedule: Schedule, database: Database) -> None:
        self._worklist, self._fetch, self._schedule, self._database = worklist, fetch, schedule, database
        self._peer = DimsePeer(worklist.dimse, worklist.timeout_s)

    def poll(self) -> None:
        """Asks once; what the worklist does not name any more is cancelled."""
        try:
            answers = self._peer.answers(self._query(), WORKLIST)
        except (PeerUnreachable, TlsError) as error:
            log.warning("the worklist gives no answer: %s", error)
            self._database.count("worklist without an answer")
            return
        numbers: set[str] = set()
        for answer in answers:
            try:
                case = scheduled_case(answer)
                numbers.add(case.number)
                self._schedule.take(case, _SOURCE)
            except TwoPatients as error:
                log.warning("a scheduled case is refused: %s", error)
            except ValueError as error:
                log.warning("an entry of the worklist is left out: %s", error)
                self._database.count(f"worklist entry left out: {error}")
        self._schedule.only(numbers, _SOURCE)
        self._schedule.prefetch()

    def _query(self) -> Dataset:
        now = datetime.now().astimezone()
        days = [now - timedelta(hours=self._fetch.behind_h), now + timedelta(hours=self._fetch.ahead_h)]
        step = _empty(_STEP)
        step.ScheduledProcedureStepStartDate = "-".join(f"{d:%Y%m%d}" for d in days)
        step.ScheduledStationAETitle = self._worklist.station
        query = _empty(_KEYS)
        query.ScheduledProcedureStepSequence = Sequence([step])
        return query


def scheduled_case(answer: Dataset) -> ScheduledCase:
    """A case of an answer.

    Raises
    ------
    ValueError
        What is absent; no value is named.
    """
    steps = answer.get("ScheduledProcedureStepSequence") or []
    if not steps:
        raise ValueError("there is no scheduled step")
    number = _text(steps[0], "ScheduledProcedureStepID")
    study = _text(answer, "StudyInstanceUID") or _text(answer, "AccessionNumber")
    if not number and not study:
        raise ValueError("there is no number of the step, and no study")
    patient_id = _text(answer, "PatientID")
    if not patient_id:
        raise ValueError("there is no PatientID")
    patient = PatientRecord(
        patient_id,
        _text(answer, "IssuerOfPatientID"),
        _text(answer, "PatientName"),
        _text(answer, "PatientBirthDate"),
        _text(answer, "PatientSex"),
    )
    return ScheduledCase(f"{study}/{number}", patient, _starts(steps[0], _text(answer, "TimezoneOffsetFromUTC")))


def _starts(step: Dataset, offset: str) -> datetime:
    """The start of a step; in this computer's time zone where the answer names none (PS3.3 C.12.1.1.8)."""
    date, time = _text(step, "ScheduledProcedureStepStartDate"), _text(step, "ScheduledProcedureStepStartTime")
    digits = (date + time.partition(".")[0].ljust(6, "0"))[:14]
    try:
        naive = datetime.strptime(digits, "%Y%m%d%H%M%S")
        if not offset:
            return naive.astimezone()
        minutes = int(offset[:-2]) * 60 + int(offset[0] + offset[-2:])
        return naive.replace(tzinfo=timezone(timedelta(minutes=minutes))).astimezone(UTC)
    except ValueError as error:
        raise ValueError("the start of the step is no date and time") from error


def _empty(keywords: tuple[str, ...]) -> Dataset:
    part = Dataset()
    for keyword in keywords:
        setattr(part, keyword, "")
    return part


def _text(part: Dataset, keyword: str) -> str:
    value = part.get(keyword)
    return "" if value is None else str(value).strip()
