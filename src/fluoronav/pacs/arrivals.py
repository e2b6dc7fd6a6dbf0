"""What came: instances and series in the database, and their files."""

from __future__ import annotations

import json
import logging
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from sqlite3 import Connection, Row

from fluoronav.durable import digest_from, made_folder, moved, sync_file
from fluoronav.pacs.completeness import missing_slices
from fluoronav.pacs.database import Database
from fluoronav.pacs.header import Header, HeaderError, read_header
from fluoronav.pacs.pseudonyms import Pseudonyms
from fluoronav.pacs.series import Event, State, after

log = logging.getLogger(__name__)


class Verdict(Enum):
    """What an instance is to the node."""

    NEW = "new"
    SAME = "here already, with the same bytes"
    OTHER = "here already, with other bytes"


@dataclass(frozen=True)
class Taken:
    """An instance that was taken in, and the series that it is of."""

    verdict: Verdict
    series: str


class Arrivals:
    """Keeps what the receiver takes.

    Parameters
    ----------
    folder : Path
        Of the node; ``arriving/``, ``inbox/`` and ``aside/`` are in it.
    database : Database
    pseudonyms : Pseudonyms
    issuer : str
        Of patient IDs that name none.
    """

    def __init__(self, folder: Path, database: Database, pseudonyms: Pseudonyms, issuer: str) -> None:
        self._database, self._pseudonyms, self._issuer = database, pseudonyms, issuer
        self.arriving = made_folder(folder / "arriving")
        self.inbox = made_folder(folder / "inbox")
        self.aside = made_folder(folder / "aside")

    def key(self, workflow: str, uid: str) -> str:
        """The key of a series or of an instance."""
        return f"{workflow}/{self._pseudonyms.name(uid)}"

    def take(self, path: Path, header: Header, workflow: str) -> Taken:
        """Takes a file of ``arriving/`` in; what it is, and where it lies, is on the disk when this returns.

        The file comes first and its row second: a file without a row is found at the next start.
        """
        series = self.key(workflow, header.series)
        instance = self.key(workflow, header.sop)
        digest = digest_from(path, header.digest_offset)
        sync_file(path)
        size = path.stat().st_size
        with self._database.transaction(durable=False) as sql:
            known = sql.execute("SELECT digest FROM instances WHERE key = ?", (instance,)).fetchone()
            if known is not None:
                return self._again(sql, path, Taken(Verdict.SAME, series), instance, digest, known["digest"])
            moved(path, self.file(series, instance))
            self._insert(sql, header, (series, instance, digest, size))
        return Taken(Verdict.NEW, series)

    def file(self, series: str, instance: str) -> Path:
        """Where an instance lies until a case is made of it."""
        return self.inbox / series / f"{instance.rpartition('/')[2]}.dcm"

    def files(self, series: str) -> list[Path]:
        """The files of a series that are still as they came."""
        return sorted((self.inbox / series).glob("*.dcm"))

    def series(self, *states: State) -> list[Row]:
        """The series in these states, the oldest first."""
        marks = ",".join("?" * len(states))
        return self._database.rows(
            f"SELECT s.*, (SELECT COUNT(*) FROM instances i WHERE i.series = s.key) AS here FROM series s "
            f"WHERE state IN ({marks}) ORDER BY first_ns",
            *(s.value for s in states),
        )

    def here(self, series: str) -> int:
        """The number of instances of a series that came."""
        return int(self._database.rows("SELECT COUNT(*) AS n FROM instances WHERE series = ?", series)[0]["n"])

    def missing(self, series: str) -> int:
        """The number of slices that are missing inside a series."""
        rows = self._database.rows("SELECT place FROM instances WHERE series = ?", series)
        return missing_slices([r["place"] for r in rows])

    def patients(self, series: str) -> list[str]:
        """The pseudonyms of the patients of a series' instances; empty text for none."""
        rows = self._database.rows("SELECT DISTINCT patient FROM instances WHERE series = ?", series)
        return [r["patient"] for r in rows]

    def happens(
        self, series: str, event: Event, evidence: str = "", reason: str = "", sql: Connection | None = None
    ) -> State:
        """Takes a series to its next state, by the table."""
        if sql is None:
            with self._database.transaction() as own:
                return self.happens(series, event, evidence, reason, own)
        (state,) = sql.execute("SELECT state FROM series WHERE key = ?", (series,)).fetchone()
        to = after(State(state), event)
        sql.execute(
            "UPDATE series SET state = ?, evidence = ?, reason = ?, handled = 0 WHERE key = ?",
            (to.value, evidence, reason, series),
        )
        return to

    def with_text(self, series: str) -> list[str]:
        """The keys of a series' instances into whose pixels text may be burned."""
        rows = self._database.rows("SELECT key, place FROM instances WHERE series = ? ORDER BY key", series)
        return [r["key"] for r in rows if json.loads(r["place"]).get("t")]

    def set_aside(self, series: str, instance: str, reason: str) -> bool:
        """Moves an instance to ``aside/``, so that it does not become part of a case; False if that was done."""
        path = self.file(series, instance)
        target = self.aside / f"{instance.replace('/', '-')}.dcm"
        with self._database.transaction() as sql:
            sql.execute(
                "INSERT INTO aside VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (target.name, instance, reason, time.time_ns()),
            )
            if not path.exists():
                return False
            moved(path, target)
        return True

    def expects(self, series: str, number: int) -> None:
        """Notes how many instances an archive counts."""
        with self._database.transaction() as sql:
            sql.execute("UPDATE series SET expected = ? WHERE key = ?", (number, series))

    def recover(self) -> int:
        """After a start: takes in files whose rows are missing, and removes what was cut off; the number taken in."""
        self.sweep(0.0)
        found = 0
        for path in sorted(self.inbox.glob("*/*/*.dcm")):
            workflow = path.parent.parent.name
            if self._database.rows("SELECT 1 FROM instances WHERE key = ?", f"{workflow}/{path.stem}"):
                continue
            try:
                header = read_header(path)
            except HeaderError as error:
                log.error("inbox/%s: %s; moved to aside/", path.relative_to(self.inbox), error)
                moved(path, self.aside / path.name)
                continue
            found += 1
            digest = digest_from(path, header.digest_offset)
            keys = (self.key(workflow, header.series), self.key(workflow, header.sop), digest, path.stat().st_size)
            with self._database.transaction() as sql:
                self._insert(sql, header, keys)
        return found

    def sweep(self, age_s: float) -> None:
        """Removes what arrived in part, and has not grown for so long: its sender broke off."""
        for part in self.arriving.iterdir():
            with suppress(FileNotFoundError):
                if part.is_file() and time.time() - part.stat().st_mtime >= age_s:
                    part.unlink()

    def retry(self) -> int:
        """Has series judged anew that are incomplete or refused; returns their number."""
        again = self.series(State.INCOMPLETE, State.REFUSED)
        for series in again:
            self.happens(series["key"], Event.RETRIED)
        return len(again)

    def _insert(self, sql: Connection, header: Header, keys: tuple[str, str, str, int]) -> None:
        series, instance, digest, size = keys
        now = time.time_ns()
        issuer = header.issuer or self._issuer
        patient = self._pseudonyms.patient(issuer, header.patient_id) if header.patient_id else ""
        sql.execute(
            "INSERT INTO series (key, state, study, kind, first_ns, last_ns) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT(key) DO UPDATE SET last_ns = excluded.last_ns",
            (series, State.ARRIVING.value, self._pseudonyms.name(header.study), header.kind, now, now),
        )
        sql.execute(
            "INSERT INTO instances VALUES (?, ?, ?, ?, ?, ?, ?)",
            (instance, series, patient, digest, size, header.place, now),
        )
        self.happens(series, Event.INSTANCE, sql=sql)

    def _again(self, sql: Connection, path: Path, taken: Taken, instance: str, digest: str, known: str) -> Taken:
        if digest == known:
            os.unlink(path)
            return taken
        target = self.aside / f"{instance.replace('/', '-')}-{digest[:16]}.dcm"
        moved(path, target)
        sql.execute(
            "INSERT INTO aside VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (target.name, instance, "the same SOPInstanceUID came with other bytes", time.time_ns()),
        )
        return Taken(Verdict.OTHER, taken.series)
