"""The node: what `fluoronav pacs serve` runs until it is told to end."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from fluoronav.durable import made_folder
from fluoronav.pacs.ahead import Ahead
from fluoronav.pacs.archives import archive
from fluoronav.pacs.arrivals import Arrivals
from fluoronav.pacs.associations import OpenAssociations
from fluoronav.pacs.cases import CaseStore
from fluoronav.pacs.commitment import Reports, commitments
from fluoronav.pacs.database import Database
from fluoronav.pacs.delivery import Delivery
from fluoronav.pacs.fetcher import Fetcher
from fluoronav.pacs.fetches import Fetches
from fluoronav.pacs.fhir import FhirPoll
from fluoronav.pacs.find import Finder
from fluoronav.pacs.identities import Identities
from fluoronav.pacs.judge import LOOK_S, Judge
from fluoronav.pacs.mllp import Listener
from fluoronav.pacs.moves import Moves
from fluoronav.pacs.outbox import Outbox
from fluoronav.pacs.outgoing import DATABASE
from fluoronav.pacs.pseudonyms import Pseudonyms
from fluoronav.pacs.quiet import quiet_libraries
from fluoronav.pacs.receiver import Receiver
from fluoronav.pacs.schedule import Schedule
from fluoronav.pacs.spool import STRUCTURES, Spool
from fluoronav.pacs.structure_watch import StructureWatch
from fluoronav.pacs.workers import Workers, WorkersEndedError
from fluoronav.pacs.worklist import WorklistPoll
from fluoronav.site.site_file import SiteFile

log = logging.getLogger(__name__)
_PREFETCH_S = 60.0  # between looks at what is scheduled; chosen: cases come up by the hour
_STRUCTURES_S = 0.5  # between looks at the cases' files after a fault; chosen
_SWEEP_S = 30.0  # between looks for what was broken off; chosen
_AFTER_DISK_FAULT_S = 5.0  # chosen: a full disk is not mended sooner
_BEAT_S = 2.0  # of the heartbeat that `pacs status` reads


class NodeError(RuntimeError):
    """A node that cannot start; the text says why."""


class Node:
    """All parts of the node.

    Parameters
    ----------
    site : SiteFile

    Raises
    ------
    SiteKeyError, DatabaseError, TlsError, OSError
    """

    def __init__(self, site: SiteFile) -> None:
        quiet_libraries()
        folder = made_folder(site.folder)
        pseudonyms = Pseudonyms.load(site.key)
        self._folder = folder
        self._database = Database(folder / DATABASE)
        self._arrivals = Arrivals(folder, self._database, pseudonyms, site.issuer)
        identities = Identities(self._database, pseudonyms)
        self._outbox = Outbox(folder, self._database, pseudonyms, identities)
        self._cases = CaseStore(site, self._database, self._arrivals, identities)
        archives = {name: archive(peer) for name, peer in site.peers.items()}
        self._stirred, self._judged = threading.Event(), threading.Event()
        associations = OpenAssociations(self._released)
        counter = archives[site.series.count_from] if site.series.count_from else None
        self._judge = Judge(site.series, self._arrivals, associations, counter, self._judged.set)
        self._delivery = Delivery(self._outbox, archives, commitments(site, self._outbox))
        moves = Moves()
        finder = Finder(self._database, self._arrivals, pseudonyms)
        self._receiver = Receiver(site.node, self._arrivals, associations, finder, self._database, moves)
        dimse = [peer.dimse for peer in site.peers.values() if peer.dimse is not None and peer.dimse.commitment]
        if dimse:
            self._receiver.take_reports(frozenset(d.calling for d in dimse), Reports(self._outbox).take)
        fetches = Fetches(self._database, pseudonyms)
        self._fetcher = Fetcher(site, self._database, self._arrivals, associations, fetches, archives, moves)
        self._schedule = Schedule(site, self._database, pseudonyms, identities, fetches)
        self._workers = Workers()
        self._ahead = Ahead(self._workers.take_in)
        spool = Spool(folder / STRUCTURES, self._outbox, pseudonyms, site.results_to)
        self._structures = StructureWatch(site, self._database, spool, self._workers)
        self._silence_s = site.node.network_timeout_s
        self._ended = threading.Event()
        self._threads = [
            self._loop("judge", self._judge.judge, LOOK_S, self._stirred),
            self._loop("counter", self._judge.ask, LOOK_S),
            self._loop("intake", self._take_in, LOOK_S, self._judged),
            self._loop("fetch", self._fetcher.work, LOOK_S),
            self._loop("structures", self._structures.look, _STRUCTURES_S),
            self._loop("sweep", self._sweep, _SWEEP_S),
            self._loop("heartbeat", self._beat, _BEAT_S),
        ]
        self._hl7 = None if site.hl7 is None else Listener(site.hl7, self._schedule, self._database)
        if site.hl7 is not None:
            self._threads.append(self._loop("prefetch", self._schedule.prefetch, _PREFETCH_S))
        if site.fhir is not None:
            asking = FhirPoll(site, site.fhir, self._schedule, fetches, self._database)
            self._threads.append(self._loop("fhir", asking.poll, site.fhir.every_s))
        if site.worklist is not None:
            poll = WorklistPoll(site.worklist, site.fetch, self._schedule, self._database)
            self._threads.append(self._loop("worklist", poll.poll, site.worklist.every_s))

    def start(self) -> None:
        """Puts in order what a crash has left, then listens and works."""
        self._only_one()
        found = self._arrivals.recover()
        if found:
            log.info("%d instances that were received before the last end were taken in", found)
        self._outbox.recover()
        self._schedule.reidentify()  # a merge may have been cut off
        self._cases.recover()
        self._beat()  # before it listens: who sees it listen may ask whether it runs
        self._receiver.start()
        if self._hl7 is not None:
            self._hl7.start()
        self._workers.warm()
        self._delivery.start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends; what is not done is done after the next start."""
        self._ended.set()
        self._released()
        self._receiver.stop()
        if self._hl7 is not None:
            self._hl7.stop()
        self._delivery.stop()
        self._workers.close()
        with self._database.transaction() as sql:
            sql.execute("DELETE FROM heartbeat")

    def _only_one(self) -> None:
        """Two nodes on one folder would take each other's files for leftovers."""
        import fcntl

        self._lock = open(self._folder / "node.lock", "w")  # noqa: SIM115 (held until the process ends)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise NodeError(f"{self._folder}: another node runs on this folder; end it first") from error

    def _released(self) -> None:
        self._stirred.set()
        self._judged.set()

    def _take_in(self) -> None:
        for series in self._cases.todo():
            job = self._cases.job(series)
            if job is None or self._ended.is_set():
                self._ahead.forget(series["key"])
                continue
            try:
                made = self._ahead.taken(series["key"], job)
            except OSError as error:
                log.error("a case could not be written: %s", os.strerror(error.errno or 5))
                self._ended.wait(_AFTER_DISK_FAULT_S)
                return
            except WorkersEndedError:
                return
            except Exception as error:
                self._cases.failed(series, job, f"making its case failed ({type(error).__name__})")
                continue
            self._cases.finish(series, job, made)
        for series in self._judge.settling():
            if (job := self._cases.job_ahead(series)) is not None and not self._ended.is_set():
                self._ahead.make(series["key"], job)

    def _sweep(self) -> None:
        self._arrivals.sweep(2 * self._silence_s)

    def _beat(self) -> None:
        with self._database.transaction() as sql:
            sql.execute("INSERT OR REPLACE INTO heartbeat VALUES (1, ?, ?)", (os.getpid(), time.time_ns()))

    def _loop(
        self, name: str, work: Callable[[], float | None], pause_s: float, bell: threading.Event | None = None
    ) -> threading.Thread:
        """A thread that works, waits, and works again: when the bell rings, and after a pause, which work may say."""
        return threading.Thread(target=self._repeat, args=(work, pause_s, bell or self._ended), name=name, daemon=True)

    def _repeat(self, work: Callable[[], float | None], pause_s: float, bell: threading.Event) -> None:
        while not self._ended.is_set():
            # Before the work: what happens meanwhile has it done again.
            if bell is not self._ended:
                bell.clear()
            next_s = None
            try:
                next_s = work()
            except WorkersEndedError:
                return
            except Exception as error:
                # One series must not end the work on all others; the kind of error is said, never its text.
                log.error("%s failed: %s", threading.current_thread().name, type(error).__name__)
                self._ended.wait(1.0)
            bell.wait(pause_s if next_s is None else next_s)
