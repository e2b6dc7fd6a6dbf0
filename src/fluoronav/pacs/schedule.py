"""Cases that are scheduled, whoever says so: who, when, and that their CT is fetched ahead."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass
from datetime import datetime

from fluoronav.pacs.database import Database
from fluoronav.pacs.fetches import FetchError, Fetches
from fluoronav.pacs.identities import Identities, PatientRecord
from fluoronav.pacs.peers import Wanted
from fluoronav.pacs.pseudonyms import Pseudonyms
from fluoronav.pacs.reidentify import reidentify_waiting
from fluoronav.site.site_file import SiteFile

log = logging.getLogger(__name__)
_HOUR_NS = 3600 * 10**9
AGAIN_S = 3600.0  # chosen: a CT that is taken after the case was scheduled is here an hour later
_FORGET_H = 24 * 30  # chosen: after a month a case that was scheduled is of no interest


class TwoPatients(ValueError):
    """A patient's ID that is another patient's already; the text names neither."""


@dataclass(frozen=True)
class ScheduledCase:
    """A case as a worklist or an order has it.

    Attributes
    ----------
    number : str
        Its number at the source.
    patient : PatientRecord
    starts : datetime
        With its time zone.
    """

    number: str
    patient: PatientRecord
    starts: datetime


class Schedule:
    """The table of scheduled cases.

    Parameters
    ----------
    site : SiteFile
    database : Database
    pseudonyms : Pseudonyms
    identities : Identities
    fetches : Fetches
    """

    def __init__(
        self, site: SiteFile, database: Database, pseudonyms: Pseudonyms, identities: Identities, fetches: Fetches
    ) -> None:
        self._site, self._database, self._pseudonyms = site, database, pseudonyms
        self._identities, self._fetches = identities, fetches

    def pseudonym(self, patient: PatientRecord) -> str:
        """The patient's pseudonym."""
        return self._pseudonyms.patient(patient.issuer or self._site.issuer, patient.patient_id)

    def take(self, case: ScheduledCase, source: str) -> None:
        """Notes a case, or what has changed of it; it is on the disk when this returns.

        Raises
        ------
        TwoPatients
            The case is noted as refused, and nothing is fetched for it.
        """
        key, pseudonym = self._key(source, case.number), self.pseudonym(case.patient)
        refused = self.contradiction(case.patient, beside=key)
        sealed = self._pseudonyms.sealed(f"scheduled/{key}", json.dumps(asdict(case.patient)).encode())
        values = (key, source, pseudonym, sealed, int(case.starts.timestamp() * 1e9))
        with self._database.transaction() as sql:
            sql.execute(
                "INSERT OR REPLACE INTO scheduled VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, "refused" if refused else "scheduled", refused, time.time_ns()),
            )
        if refused:
            raise TwoPatients(refused)

    def cancel(self, number: str, source: str) -> None:
        """Notes that a case is off; one that nobody has told of is none."""
        with self._database.transaction() as sql:
            sql.execute(
                "UPDATE scheduled SET state = 'cancelled', seen_ns = ? WHERE key = ?",
                (time.time_ns(), self._key(source, number)),
            )

    def only(self, numbers: set[str], source: str) -> None:
        """Cancels the coming cases of a source that it does not name any more."""
        keys = {self._key(source, n) for n in numbers}
        rows = self._database.rows(
            "SELECT key FROM scheduled WHERE source = ? AND state = 'scheduled' AND starts_ns > ?",
            source,
            time.time_ns(),
        )
        with self._database.transaction() as sql:
            for row in rows:
                if row["key"] not in keys:
                    sql.execute("UPDATE scheduled SET state = 'cancelled' WHERE key = ?", (row["key"],))

    def contradiction(self, patient: PatientRecord, beside: str = "") -> str:
        """Why a patient cannot be the one who has this ID already; empty if they can.

        Parameters
        ----------
        patient : PatientRecord
        beside : str
            Key of a scheduled case that is left out: what is said now takes its place.
        """
        pseudonym = self.pseudonym(patient)
        known = [self._identities.record(pseudonym)]
        rows = self._database.rows(
            "SELECT * FROM scheduled WHERE patient = ? AND state = 'scheduled' AND key != ? ORDER BY seen_ns",
            pseudonym,
            beside,
        )
        for row in rows:
            content = self._pseudonyms.opened(f"scheduled/{row['key']}", row["sealed"])
            known.append(PatientRecord(**json.loads(content)))
        return next((text for k in known if k is not None and (text := k.differs(patient))), "")

    def update(self, patient: PatientRecord) -> None:
        """A patient's record was corrected: what is known of them is replaced. Of others nothing is kept."""
        pseudonym = self.pseudonym(patient)
        with self._database.transaction() as sql:
            self._identities.update(sql, pseudonym, patient)
            for row in sql.execute("SELECT key FROM scheduled WHERE patient = ?", (pseudonym,)).fetchall():
                sealed = self._pseudonyms.sealed(f"scheduled/{row['key']}", json.dumps(asdict(patient)).encode())
                sql.execute("UPDATE scheduled SET sealed = ? WHERE key = ?", (sealed, row["key"]))

    def merge(self, old: PatientRecord, new: PatientRecord) -> None:
        """Two records were one patient's: cases and schedule of the old go to the new, and results go back under it.

        Those that wait in the outbox, too.

        Raises
        ------
        TwoPatients
            Their dates of birth or sexes differ: nothing is merged.
        """
        a, b = self.pseudonym(old), self.pseudonym(new)
        if a == b:
            return
        records = [r for r in (self._identities.record(a), self._identities.record(b), new) if r is not None]
        refused = next((t for k in records for m in records if (t := k.differs(m))), "")
        if refused:
            raise TwoPatients(refused)
        with self._database.transaction() as sql:
            self._identities.merge(sql, a, b, new)
            sql.execute("UPDATE cases SET patient = ? WHERE patient = ?", (b, a))
            for row in sql.execute("SELECT key FROM scheduled WHERE patient = ?", (a,)).fetchall():
                sealed = self._pseudonyms.sealed(f"scheduled/{row['key']}", json.dumps(asdict(new)).encode())
                sql.execute("UPDATE scheduled SET patient = ?, sealed = ? WHERE key = ?", (b, sealed, row["key"]))
        log.info("two records of one patient were merged")
        self.reidentify()

    def reidentify(self) -> None:
        """Gives results that wait under an ID that was given up the ID of the record that goes on."""
        site = self._site
        reidentify_waiting(site.folder, site.issuer, self._database, self._pseudonyms, self._identities)

    def prefetch(self) -> None:
        """Has the CT of the cases fetched that come up; a case that began a while ago still counts.

        Hours before and after now, so that a clock that is an hour off, here or there, loses no case.
        """
        settings, now = self._site.fetch, time.time_ns()
        rows = self._database.rows(
            "SELECT * FROM scheduled WHERE state = 'scheduled' AND starts_ns BETWEEN ? AND ?",
            now - int(settings.behind_h * _HOUR_NS),
            now + int(settings.ahead_h * _HOUR_NS),
        )
        peer = settings.peer or self._site.results_to
        for row in rows:
            content = self._pseudonyms.opened(f"scheduled/{row['key']}", row["sealed"])
            patient = PatientRecord(**json.loads(content))
            try:
                self._fetches.add(
                    Wanted("patient", patient.patient_id, patient.issuer), peer, row["source"], again_s=AGAIN_S
                )
            except FetchError as error:
                with self._database.transaction() as sql:
                    sql.execute(
                        "UPDATE scheduled SET state = 'refused', reason = ? WHERE key = ?", (str(error), row["key"])
                    )
        with self._database.transaction() as sql:
            sql.execute("DELETE FROM scheduled WHERE starts_ns < ?", (now - _FORGET_H * _HOUR_NS,))

    def _key(self, source: str, number: str) -> str:
        return self._pseudonyms.name(json.dumps([source, number]))
