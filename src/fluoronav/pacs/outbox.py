"""What is to be sent: on the disk before anybody is told that it will be, until an archive has it.

A table rather than a workflow engine: an instance has three states and one question ("is it there?"), which is asked
before it is sent again. So a process that is killed between sending and noting sends nothing twice.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection, Row

from pydicom import dcmread
from pydicom.uid import generate_uid
from tenacity import RetryCallState, Retrying, wait_exponential, wait_random

from fluoronav.durable import digest_from, made_folder, moved, sync_file
from fluoronav.pacs.bell import ring
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
    forget_ns: int = 30 * 86400 * 10**9  # a report of commitment that comes after a month is of no use
    part_s: float = 3600.0  # after which a file that was never finished is removed


LIMITS = OutboxLimits()
# A warning with which an archive stored an instance is kept, whatever becomes of its commitment.
_NO_WARNING = "reason = '' OR reason LIKE 'not committed%'"
BELL = "outbox.bell"  # in the node's folder; rung where something was put in
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
        self.bell = folder / BELL
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
            ring(self.bell)
            return True
        except HeaderError as error:
            raise OutboxError(f"{file}: cannot be sent: {error}") from error
        finally:
            part.unlink(missing_ok=True)

    def due(self) -> Waiting | None:
        """What is to be tried now: the instances of one study at one peer, the oldest first."""
        return self._due("waiting", LIMITS.longest_wait_s)

    def uncommitted(self, peer: str, wait_s: float) -> Waiting | None:
        """What an archive is to be asked for commitment of now: stored instances of one study.

        Parameters
        ----------
        peer : str
        wait_s : float
            Without a report, until it is asked again.
        """
        return self._due("stored", wait_s, peer)

    def _due(self, state: str, longest_s: float, peer: str | None = None) -> Waiting | None:
        now = time.time_ns()
        # A clock that was set back must not make anything wait longer than the longest wait.
        far = now + int(2 * longest_s * 1e9)
        rows = self._database.rows(
            "SELECT * FROM outbox WHERE state = ? AND (next_ns <= ? OR next_ns > ?) AND peer = IFNULL(?, peer) "
            "ORDER BY next_ns LIMIT 500",
            state,
            now,
            far,
            peer,
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
        return Waiting(rows[0]["peer"], tuple(read), tuple(parcels)) if read else self._due(state, longest_s, peer)

    def begin(self, rows: Sequence[Row]) -> None:
        """Notes an attempt, before it is made, and when the next may be."""
        with self._database.transaction() as sql:
            for row in rows:
                wait_ns = int(wait_s(row["attempts"] + 1) * 1e9)
                sql.execute(
                    "UPDATE outbox SET attempts = attempts + 1, next_ns = ? WHERE id = ?",
                    (time.time_ns() + wait_ns, row["id"]),
                )

    def end(self, row: Row, outcome: Outcome, *, committed_later: bool = False) -> None:
        """Notes what became of an instance; one that an archive has is not kept any longer.

        Parameters
        ----------
        row : Row
        outcome : Outcome
        committed_later : bool
            Whether the archive is still to say that it has taken over the keeping of it (storage commitment).
        """
        state = {
            Result.STORED: "stored" if committed_later else "sent",
            Result.AGAIN: "waiting",
            Result.REFUSED: "refused",
        }[outcome.result]
        sent = time.time_ns() if state == "sent" else None
        with self._database.transaction() as sql:
            sql.execute(
                "UPDATE outbox SET state = ?, reason = ?, sent_ns = ? WHERE id = ?",
                (state, outcome.text, sent, row["id"]),
            )
            if state == "stored":
                sql.execute("UPDATE outbox SET next_ns = 0 WHERE id = ?", (row["id"],))
        if state == "sent":
            (self._folder / row["file"]).unlink(missing_ok=True)

    def ask(self, waiting: Waiting, wait_s: float) -> str:
        """Notes that commitment is asked for, before it is; the UID of the transaction."""
        uid, now = generate_uid(), time.time_ns()
        with self._database.transaction() as sql:
            sql.execute("INSERT INTO commitments VALUES (?, ?, ?)", (uid, waiting.peer, now))
            sql.execute("DELETE FROM commitments WHERE asked_ns < ?", (now - LIMITS.forget_ns,))
            sql.executemany(
                "UPDATE outbox SET asked = asked + 1, next_ns = ? WHERE id = ?",
                [(now + int(wait_s * 1e9), row["id"]) for row in waiting.rows],
            )
        return uid

    def not_asked(self, waiting: Waiting, reason: str) -> None:
        """Notes that the archive could not be asked, and when it is next."""
        with self._database.transaction() as sql:
            for row in waiting.rows:
                # Counted up by `ask`, so that the waits grow.
                later = time.time_ns() + int(wait_s(row["asked"] + 1) * 1e9)
                sql.execute(
                    f"UPDATE outbox SET next_ns = ?, reason = IIF({_NO_WARNING}, ?, reason) "
                    "WHERE id = ? AND state = 'stored'",
                    (later, f"not committed: {reason}", row["id"]),
                )

    def reported(self, transaction: str, committed: Sequence[str], failed: Mapping[str, str]) -> bool:
        """Takes a report of storage commitment; False if it is of no transaction that was asked for.

        A report that comes late, after commitment was asked for again, counts as well.

        Parameters
        ----------
        transaction : str
            UID.
        committed : sequence of str
            SOPInstanceUIDs. Their files are not kept any longer.
        failed : mapping of str to str
            SOPInstanceUID to the reason. They wait again.
        """
        gone = []
        with self._database.transaction() as sql:
            asked = sql.execute("SELECT peer FROM commitments WHERE transaction_uid = ?", (transaction,)).fetchone()
            if asked is None:
                return False
            for sop in committed:
                row = self._stored(sql, sop, asked["peer"])
                if row is not None:
                    sql.execute(
                        f"UPDATE outbox SET state = 'sent', reason = IIF({_NO_WARNING}, '', reason), sent_ns = ? "
                        "WHERE id = ?",
                        (time.time_ns(), row["id"]),
                    )
                    gone.append(row["file"])
            for sop, reason in failed.items():
                row = self._stored(sql, sop, asked["peer"])
                if row is not None:
                    later = time.time_ns() + int(wait_s(row["attempts"]) * 1e9)
                    sql.execute(
                        "UPDATE outbox SET state = 'waiting', next_ns = ?, reason = ? WHERE id = ?",
                        (later, reason, row["id"]),
                    )
        for name in gone:
            (self._folder / name).unlink(missing_ok=True)
        return True

    def _stored(self, sql: Connection, sop: str, peer: str) -> Row | None:
        return sql.execute(
            "SELECT * FROM outbox WHERE state = 'stored' AND instance = ? AND peer = ?",
            (self._pseudonyms.name(sop), peer),
        ).fetchone()

    def due_now(self, peer: str) -> None:
        """Has everything that waits for a peer tried at once."""
        with self._database.transaction() as sql:
            sql.execute("UPDATE outbox SET next_ns = ? WHERE state = 'waiting' AND peer = ?", (time.time_ns(), peer))

    def retry(self) -> int:
        """Has everything tried now that was refused or waits; returns the number."""
        with self._database.transaction() as sql:
            number = sql.execute(
                "UPDATE outbox SET state = 'waiting', next_ns = ? WHERE state IN ('refused', 'waiting')",
                (time.time_ns(),),
            ).rowcount
            sql.execute("UPDATE outbox SET next_ns = 0 WHERE state = 'stored'")
        ring(self.bell)
        return number

    def left(self) -> int:
        """The number of instances that wait, or are stored and not committed yet."""
        return self._database.rows("SELECT COUNT(*) AS n FROM outbox WHERE state IN ('waiting', 'stored')")[0]["n"]

    def recover(self) -> None:
        """After a start: removes files without a row (nobody was told that they are sent), and those that were sent."""
        # In a transaction: a file that another process puts in meanwhile would not have its row yet.
        with self._database.transaction() as sql:
            kept = {r["file"] for r in sql.execute("SELECT file FROM outbox WHERE state != 'sent'")}
            for path in self._folder.iterdir():
                # A .part may be another process', which is putting a file in; an old one is of a process that ended.
                with suppress(FileNotFoundError):
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
