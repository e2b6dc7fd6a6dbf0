"""What is to be sent: on the disk before anybody is told that it will be, until an archive has it.

A table rather than a workflow engine: an instance has three states and one question ("is it there?"), which is asked
before it is sent again. So a process that is killed between sending and noting sends nothing twice.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Row

from pydicom import dcmread
from tenacity import RetryCallState, Retrying, wait_exponential, wait_random

from fluoronav.durable import digest_from, made_folder, moved, sync_file
from fluoronav.pacs.database import Database
from fluoronav.pacs.header import HeaderError, read_header
from fluoronav.pacs.identities import Identities
from fluoronav.pacs.peers import Outcome, Parcel, Result
from fluoronav.pacs.pseudonyms import Pseudonyms


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """Times of the outbox; all are chosen."""

    first_wait_s: float = 2.0  # doubled with each attempt
    longest_wait_s: float = 300.0  # an archive that is back gets its results within five minutes
    jitter_s: float = 1.0  # so that nodes do not come back all at once
    batch: int = 100  # instances of one request: an answer that is lost is asked for again, for no more than these
    part_s: float = 3600.0  # after which a file that was never finished is removed


LIMITS = OutboxLimits()
_WAIT = wait_exponential(multiplier=LIMITS.first_wait_s / 2, max=LIMITS.longest_wait_s) + wait_random(
    0, LIMITS.jitter_s
)


class OutboxError(ValueError):
    """A file that cannot be sent; the text names the file and what to do."""


@dataclass(frozen=True)
class Waiting:
    """Instances of one study that are due at one peer."""

    peer: str
    rows: tuple[Row, ...]
    parcels: tuple[Parcel, ...]


class Outbox:
    """The queue.

    Parameters
    ----------
    folder : Path
        Of the node; ``outbox/`` is in it.
    database : Database
    pseudonyms : Pseudonyms
    identities : Identities
    """

    def __init__(self, folder: Path, database: Database, pseudonyms: Pseudonyms, identities: Identities) -> None:
        self._folder = made_folder(folder / "outbox")
        self._database, self._pseudonyms, self._identities = database, pseudonyms, identities

    def add(self, file: Path, peer: str) -> bool:
        """Puts a file in; returns False if it is in already. It is on the disk when this returns.

        A result of a pseudonymous case gets its patient, study and UIDs back first.

        Raises
        ------
        OutboxError
            It is no DICOM, lacks an attribute, or has the UID of another that was put in.
        """
        part = self._folder / f".{time.time_ns()}-{id(file)}.part"
        try:
            self._copy(file, part)
            header = read_header(part)
            digest = digest_from(part, header.digest_offset)
            instance = self._pseudonyms.name(header.sop)
            with self._database.transaction() as sql:
                known = sql.execute(
                    "SELECT digest FROM outbox WHERE instance = ? AND peer = ?", (instance, peer)
                ).fetchone()
                if known is not None:
                    if known["digest"] != digest:
                        raise OutboxError(
                            f"{file}: has the SOPInstanceUID of an object that was put in with other content; "
                            "give it a UID of its own"
                        )
                    return False
                name = f"{peer}-{instance}.dcm"
                moved(part, self._folder / name)
                now = time.time_ns()
                sql.execute(
                    "INSERT INTO outbox (instance, study, peer, file, digest, state, next_ns, made_ns) "
                    "VALUES (?, ?, ?, ?, ?, 'waiting', ?, ?)",
                    (instance, self._pseudonyms.name(header.study), peer, name, digest, now, now),
                )
            return True
        except HeaderError as error:
            raise OutboxError(f"{file}: cannot be sent: {error}") from error
        finally:
            part.unlink(missing_ok=True)

    def due(self) -> Waiting | None:
        """What is to be tried now: the instances of one study at one peer, the oldest first."""
        now = time.time_ns()
        # A clock that was set back must not make anything wait longer than the longest wait.
        far = now + int(2 * LIMITS.longest_wait_s * 1e9)
        rows = self._database.rows(
            "SELECT * FROM outbox WHERE state = 'waiting' AND (next_ns <= ? OR next_ns > ?) ORDER BY next_ns LIMIT 500",
            now,
            far,
        )
        if not rows:
            return None
        of_study = [r for r in rows if (r["peer"], r["study"]) == (rows[0]["peer"], rows[0]["study"])][: LIMITS.batch]
        read, parcels = [], []
        for row in of_study:
            path = self._folder / row["file"]
            try:
                h = read_header(path)
            except HeaderError as error:
                self.end(row, Outcome(Result.REFUSED, f"its file in the outbox was lost or damaged: {error}"))
                continue
            read.append(row)
            parcels.append(Parcel(path, h.sop, h.sop_class, h.series, h.study, h.patient_id))
        return Waiting(rows[0]["peer"], tuple(read), tuple(parcels)) if read else self.due()

    def begin(self, rows: Sequence[Row]) -> None:
        """Notes an attempt, before it is made, and when the next may be."""
        with self._database.transaction() as sql:
            for row in rows:
                wait_ns = int(wait_s(row["attempts"] + 1) * 1e9)
                sql.execute(
                    "UPDATE outbox SET attempts = attempts + 1, next_ns = ? WHERE id = ?",
                    (time.time_ns() + wait_ns, row["id"]),
                )

    def end(self, row: Row, outcome: Outcome) -> None:
        """Notes what became of an instance; one that an archive has is not kept any longer."""
        state = {Result.STORED: "sent", Result.AGAIN: "waiting", Result.REFUSED: "refused"}[outcome.result]
        sent = time.time_ns() if state == "sent" else None
        with self._database.transaction() as sql:
            sql.execute(
                "UPDATE outbox SET state = ?, reason = ?, sent_ns = ? WHERE id = ?",
                (state, outcome.text, sent, row["id"]),
            )
        if state == "sent":
            (self._folder / row["file"]).unlink(missing_ok=True)

    def retry(self) -> int:
        """Has everything tried now that was refused or waits; returns the number."""
        with self._database.transaction() as sql:
            return sql.execute(
                "UPDATE outbox SET state = 'waiting', next_ns = ? WHERE state IN ('refused', 'waiting')",
                (time.time_ns(),),
            ).rowcount

    def left(self) -> int:
        """The number of instances that wait."""
        return self._database.rows("SELECT COUNT(*) AS n FROM outbox WHERE state = 'waiting'")[0]["n"]

    def recover(self) -> None:
        """After a start: removes files without a row (nobody was told that they are sent), and those that were sent."""
        kept = {r["file"] for r in self._database.rows("SELECT file FROM outbox WHERE state != 'sent'")}
        for path in self._folder.iterdir():
            # A .part may be another process', which is putting a file in; an old one is of a process that ended.
            if path.name.endswith(".part") and time.time() - path.stat().st_mtime < LIMITS.part_s:
                continue
            if path.name not in kept:
                path.unlink()

    def _copy(self, file: Path, part: Path) -> None:
        try:
            head = dcmread(file, stop_before_pixels=True, specific_tags=["PatientID"])
            if self._identities.patient(str(head.get("PatientID") or "")) is None:
                shutil.copyfile(file, part)
            else:
                dataset = dcmread(file)
                self._identities.reassociated(dataset)
                dataset.save_as(part, enforce_file_format=True)
        except OSError:
            raise
        except Exception as error:  # pydicom raises nearly anything on a damaged file
            raise OutboxError(f"{file}: cannot be read as DICOM ({type(error).__name__}): not put in") from error
        sync_file(part)


def wait_s(attempt: int) -> float:
    """The time until an attempt is followed by the next, s."""
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = attempt
    return _WAIT(state)
