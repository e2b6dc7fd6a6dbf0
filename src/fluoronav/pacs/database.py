"""The node's database: SQLite with a write-ahead log, on the disk that holds the files that it describes.

The standard library's sqlite3 is enough: one file on one computer, short statements, and full control of when a
transaction begins and when it is on the disk.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fluoronav.paths import private_folder

_BUSY_S = 30.0  # chosen: another process' transaction takes milliseconds
_SCHEMA = """
CREATE TABLE series (
  key TEXT PRIMARY KEY,            -- workflow/keyed hash of SeriesInstanceUID
  state TEXT NOT NULL,             -- pacs/series.py
  study TEXT NOT NULL,             -- keyed hash of StudyInstanceUID
  kind TEXT NOT NULL,              -- modality, or CBCT
  expected INTEGER,                -- instances, as an archive counts them
  evidence TEXT NOT NULL DEFAULT '',
  reason TEXT NOT NULL DEFAULT '', -- why it is not a case, or what to know about it
  handled INTEGER NOT NULL DEFAULT 0, -- whether the intake is done with it, as it is now
  case_name TEXT,
  first_ns INTEGER NOT NULL,
  last_ns INTEGER NOT NULL
);
CREATE TABLE instances (
  key TEXT PRIMARY KEY,            -- workflow/keyed hash of SOPInstanceUID
  series TEXT NOT NULL REFERENCES series(key),
  patient TEXT NOT NULL,           -- pseudonym, empty without a PatientID
  digest TEXT NOT NULL,            -- SHA-256 of the dataset as it came
  size INTEGER NOT NULL,
  place TEXT NOT NULL,             -- JSON: orientation, position, frames, localizer
  received_ns INTEGER NOT NULL
);
CREATE INDEX instances_of_series ON instances(series);
CREATE TABLE aside (
  file TEXT PRIMARY KEY,
  instance TEXT NOT NULL,
  reason TEXT NOT NULL,
  received_ns INTEGER NOT NULL
);
CREATE TABLE tally (what TEXT PRIMARY KEY, number INTEGER NOT NULL);
CREATE TABLE cases (
  name TEXT PRIMARY KEY,
  patient TEXT NOT NULL,
  series TEXT NOT NULL UNIQUE,
  stage TEXT NOT NULL,             -- arrived; planning adds its own
  warnings TEXT NOT NULL,          -- JSON list
  made_ns INTEGER NOT NULL
);
CREATE TABLE identities (key TEXT PRIMARY KEY, sealed BLOB NOT NULL);
CREATE TABLE outbox (
  id INTEGER PRIMARY KEY,
  instance TEXT NOT NULL,          -- keyed hash of SOPInstanceUID
  study TEXT NOT NULL,             -- keyed hash of StudyInstanceUID
  peer TEXT NOT NULL,
  file TEXT NOT NULL,
  digest TEXT NOT NULL,
  state TEXT NOT NULL,             -- waiting, stored (not committed yet), sent, refused
  attempts INTEGER NOT NULL DEFAULT 0,
  next_ns INTEGER NOT NULL,
  reason TEXT NOT NULL DEFAULT '',
  made_ns INTEGER NOT NULL,
  sent_ns INTEGER,
  UNIQUE (instance, peer)
);
CREATE INDEX outbox_waiting ON outbox(state, next_ns);
CREATE TABLE heartbeat (one INTEGER PRIMARY KEY CHECK (one = 1), pid INTEGER NOT NULL, beat_ns INTEGER NOT NULL);
"""
_FETCHES = """
CREATE TABLE fetches (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,        -- keyed hash of the peer and of what is asked for
  sealed BLOB NOT NULL,            -- what is asked for
  peer TEXT NOT NULL,
  source TEXT NOT NULL,            -- command, worklist, hl7, fhir
  state TEXT NOT NULL,             -- waiting, done, refused
  attempts INTEGER NOT NULL DEFAULT 0,
  next_ns INTEGER NOT NULL,
  reason TEXT NOT NULL DEFAULT '',
  made_ns INTEGER NOT NULL,
  done_ns INTEGER
);
CREATE TABLE fetched (
  fetch INTEGER NOT NULL REFERENCES fetches(id),
  series TEXT NOT NULL,            -- as in the table of series
  instances INTEGER,               -- as the archive counts them
  PRIMARY KEY (fetch, series)
);
CREATE TABLE scheduled (
  key TEXT PRIMARY KEY,            -- keyed hash of the source and its number of the case
  source TEXT NOT NULL,            -- worklist, hl7, fhir
  patient TEXT NOT NULL,           -- pseudonym
  sealed BLOB NOT NULL,            -- who, and what is planned
  starts_ns INTEGER NOT NULL,
  state TEXT NOT NULL,             -- scheduled, cancelled, refused
  reason TEXT NOT NULL DEFAULT '',
  seen_ns INTEGER NOT NULL
);
CREATE TABLE merges (
  old TEXT PRIMARY KEY,            -- pseudonym of the record that was given up
  new TEXT NOT NULL,               -- of the one that goes on
  merged_ns INTEGER NOT NULL
);
"""
_COMMITMENTS = """
CREATE TABLE commitments (
  transaction_uid TEXT PRIMARY KEY,
  peer TEXT NOT NULL,
  asked_ns INTEGER NOT NULL
);
ALTER TABLE outbox ADD COLUMN asked INTEGER NOT NULL DEFAULT 0;
"""
_LAYOUTS = (_SCHEMA, _FETCHES, _COMMITMENTS)  # each is added to what the one before has made


class DatabaseError(RuntimeError):
    """A database that cannot be used; the text names the file and what to do."""


class Database:
    """One connection, shared by the threads of a process.

    Parameters
    ----------
    path : Path
        Created if needed, readable by this user alone.

    Raises
    ------
    DatabaseError
    """

    def __init__(self, path: Path) -> None:
        private_folder(path.parent)
        self.path = path
        self._lock = threading.RLock()
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            with self.transaction() as sql:
                (version,) = sql.execute("PRAGMA user_version").fetchone()
                if version < len(_LAYOUTS):
                    for statement in ";\n".join(_LAYOUTS[version:]).split(";\n"):
                        sql.execute(statement)
                    sql.execute(f"PRAGMA user_version = {len(_LAYOUTS)}")
        except (OSError, sqlite3.Error) as error:
            raise DatabaseError(f"{path}: cannot be opened as the node's database: {error}") from error
        if version > len(_LAYOUTS):
            raise DatabaseError(f"{path}: was written by a newer fluoronav (layout {version}, not {len(_LAYOUTS)})")

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """What is done inside is on the disk as a whole afterwards, or not at all.

        Parameters
        ----------
        durable : bool
            Whether it must survive a power cut. What can be found again in files need not: it is flushed with the next
            durable transaction. A process that is killed loses neither.
        """
        with self._lock:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def rows(self, statement: str, *values: Any) -> list[sqlite3.Row]:
        """The rows of a query."""
        with self._lock:
            return self._connection.execute(statement, values).fetchall()

    def count(self, what: str) -> None:
        """Adds one to a tally."""
        with self.transaction() as sql:
            sql.execute("INSERT INTO tally VALUES (?, 1) ON CONFLICT(what) DO UPDATE SET number = number + 1", (what,))

    def close(self) -> None:
        with self._lock:
            self._connection.close()
