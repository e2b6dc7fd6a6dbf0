"""What is to be fetched: on the disk before anybody is told that it will be, until it is here or cannot be."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from sqlite3 import Row

from pydicom.uid import UID

from fluoronav.pacs.database import Database
from fluoronav.pacs.outbox import wait_s
from fluoronav.pacs.peers import FoundSeries, Wanted
from fluoronav.pacs.pseudonyms import Pseudonyms

_MOST_CHARS = 64  # of an ID (LO) and of a UID
_FORGET_NS = 90 * 86400 * 10**9  # chosen: what was fetched a quarter ago is of no interest


class FetchError(ValueError):
    """What cannot be asked for; the text says why and names no value."""


class Fetches:
    """The queue. Who is asked for stands in it sealed, as identities do.

    Parameters
    ----------
    database : Database
    pseudonyms : Pseudonyms
    """

    def __init__(self, database: Database, pseudonyms: Pseudonyms) -> None:
        self._database, self._pseudonyms = database, pseudonyms

    def add(self, wanted: Wanted, peer: str, source: str, again_s: float = 0.0) -> int:
        """Puts a request in; one that is in already is tried now.

        Parameters
        ----------
        wanted : Wanted
        peer : str
        source : str
            Who asks: `command`, or where the case was scheduled.
        again_s : float
            How long ago a request that was done must be to be done again. One that waits keeps its turn, if not 0.

        Returns
        -------
        int
            Its number.

        Raises
        ------
        FetchError
        """
        _check(wanted)
        key = self._pseudonyms.name(json.dumps([peer, asdict(wanted)]))
        sealed = self._pseudonyms.sealed(f"fetch/{key}", json.dumps(asdict(wanted)).encode())
        now = time.time_ns()
        with self._database.transaction() as sql:
            row = sql.execute("SELECT * FROM fetches WHERE key = ?", (key,)).fetchone()
            if row is None:
                added = sql.execute(
                    "INSERT INTO fetches (key, sealed, peer, source, state, next_ns, made_ns) "
                    "VALUES (?, ?, ?, ?, 'waiting', ?, ?)",
                    (key, sealed, peer, source, now, now),
                )
                sql.execute(
                    "DELETE FROM fetched WHERE fetch IN (SELECT id FROM fetches WHERE made_ns < ?)", (now - _FORGET_NS,)
                )
                sql.execute("DELETE FROM fetches WHERE made_ns < ?", (now - _FORGET_NS,))
                return int(added.lastrowid or 0)
            recent = abs(now - (row["done_ns"] or 0)) < again_s * 1e9
            if not again_s or (row["state"] != "waiting" and not recent):
                sql.execute(
                    "UPDATE fetches SET state = 'waiting', attempts = 0, next_ns = ?, reason = '', made_ns = ? "
                    "WHERE id = ?",
                    (now, now, row["id"]),
                )
            return int(row["id"])

    def due(self) -> tuple[Row, Wanted] | None:
        """The request that has waited longest for its turn."""
        now = time.time_ns()
        # A turn in the far future is of a clock that was set back since.
        rows = self._database.rows(
            "SELECT * FROM fetches WHERE state = 'waiting' AND (next_ns <= ? OR next_ns > ?) ORDER BY next_ns LIMIT 1",
            now,
            now + 3600 * 10**9,
        )
        if not rows:
            return None
        content = self._pseudonyms.opened(f"fetch/{rows[0]['key']}", rows[0]["sealed"])
        return rows[0], Wanted(**json.loads(content))

    def begin(self, row: Row) -> None:
        """Notes an attempt, before it is made, and when the next may be."""
        with self._database.transaction() as sql:
            sql.execute(
                "UPDATE fetches SET attempts = attempts + 1, next_ns = ? WHERE id = ?",
                (time.time_ns() + int(wait_s(row["attempts"] + 1) * 1e9), row["id"]),
            )

    def found(self, row: Row, series: Sequence[tuple[str, FoundSeries]]) -> None:
        """Notes which series are to come: their keys, and what the archive says of them."""
        with self._database.transaction() as sql:
            sql.execute("DELETE FROM fetched WHERE fetch = ?", (row["id"],))
            sql.executemany(
                "INSERT OR REPLACE INTO fetched VALUES (?, ?, ?)", [(row["id"], key, s.instances) for key, s in series]
            )

    def end(self, row: Row, state: str, reason: str = "") -> None:
        """Notes how an attempt ended: `waiting`, `done` or `refused`."""
        with self._database.transaction() as sql:
            sql.execute(
                "UPDATE fetches SET state = ?, reason = ?, done_ns = ? WHERE id = ?",
                (state, reason, None if state == "waiting" else time.time_ns(), row["id"]),
            )

    def retry(self) -> int:
        """Has everything tried now that was refused or waits; returns the number."""
        with self._database.transaction() as sql:
            return sql.execute(
                "UPDATE fetches SET state = 'waiting', next_ns = ?, reason = '' WHERE state IN ('refused', 'waiting')",
                (time.time_ns(),),
            ).rowcount

    def progress(self, number: int) -> dict[str, object]:
        """How a request stands, without a name or an ID."""
        (row,) = self._database.rows("SELECT * FROM fetches WHERE id = ?", number)
        series = self._database.rows(
            "SELECT f.series, f.instances AS expected, s.state, s.reason, s.case_name, s.handled, "
            "(SELECT COUNT(*) FROM instances i WHERE i.series = f.series) AS here "
            "FROM fetched f LEFT JOIN series s ON s.key = f.series WHERE f.fetch = ?",
            number,
        )
        return {
            "peer": row["peer"],
            "state": row["state"],
            "attempts": row["attempts"],
            "reason": row["reason"],
            "series": [
                {
                    "series": r["series"].rpartition("/")[2][:12],
                    "instances": r["here"],
                    "expected": r["expected"],
                    "state": r["state"],
                    "reason": r["reason"] or "",
                    "case": r["case_name"],
                }
                for r in series
            ],
        }


def _check(wanted: Wanted) -> None:
    what = {"patient": "a PatientID", "accession": "an accession number", "study": "a StudyInstanceUID"}[wanted.by]
    value = wanted.value
    # `*` and `?` would find other patients; a backslash parts values (PS3.5 6.2, PS3.4 C.2.2.2.4).
    if not value.strip() or len(value) > _MOST_CHARS or set(value) & set("*?\\") or not value.isprintable():
        raise FetchError(f"this is not {what}: it has 1 to {_MOST_CHARS} characters, and none of * ? \\")
    if wanted.by == "study" and not UID(value).is_valid:
        raise FetchError("this is not a StudyInstanceUID: numbers and dots, at most 64 characters")
