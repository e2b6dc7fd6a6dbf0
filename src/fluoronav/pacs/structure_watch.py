"""Sees when a case of the store has got structures, or others, and has their results made and sent."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

from fluoronav.pacs.database import Database
from fluoronav.pacs.jobs import StructureJob
from fluoronav.pacs.spool import Spool
from fluoronav.pacs.workers import Workers
from fluoronav.site.site_file import SiteFile

log = logging.getLogger(__name__)
_STILL_S = 0.5  # between looks at the cases' files; chosen: a few stats for each case
_CHANGING_S = 0.2  # where one has changed: two looks that see the same make it whole; chosen
Signature = tuple[tuple[str, int, int], ...]


class StructureWatch:
    """Looks at the cases' files, reads none, and gives those that changed to the workers.

    Parameters
    ----------
    site : SiteFile
    database : Database
    spool : Spool
        Of this watch alone.
    workers : Workers
    """

    def __init__(self, site: SiteFile, database: Database, spool: Spool, workers: Workers) -> None:
        self._site, self._database, self._spool, self._workers = site, database, spool, workers
        self._seen: dict[str, Signature] = {}
        self._done: dict[str, Signature] = {}

    def look(self) -> float:
        """One look at all cases; the time until the next, s. Raises what :meth:`Spool.forward` raises."""
        changing = False
        for row in self._database.rows("SELECT name FROM cases WHERE series GLOB 'plan/*'"):
            name = row["name"]
            signature = _signature(self._site.cases / name)
            # What is still being written changes between two looks.
            still, self._seen[name] = self._seen.get(name) == signature, signature
            changing |= not still
            if still and self._done.get(name) != signature:
                self._make(name)
                self._done[name] = signature
        self._forward()
        return _CHANGING_S if changing else _STILL_S

    def _make(self, name: str) -> None:
        job = StructureJob(self._site.cases / name, self._spool.folder, self._site.key, self._site.name)
        made = self._workers.structures(job)
        if made.fault:
            log.warning("case %s: no results of its structures: %s", name, made.fault)
        elif made.objects:
            log.info("case %s: %d results of its structures", name, made.objects)

    def _forward(self) -> None:
        try:
            _, faults = self._spool.forward()
        except sqlite3.Error as error:
            log.error("the outbox cannot be written (%s); results wait in `structures`", type(error).__name__)
            return
        for fault in faults:
            log.error("%s", fault)


def _signature(folder: Path) -> Signature:
    """Names, times and sizes of a case's own files; those of the CT by their folder."""
    found = []
    try:
        for path in folder.iterdir():
            if not path.name.startswith("."):
                stat = path.stat()
                found.append((path.name, stat.st_mtime_ns, stat.st_size))
    except OSError:
        return ()  # it is being replaced: the next look finds it
    return tuple(sorted(found))
