"""What `fluoronav pacs live` runs: hears a stream as a display does, and puts what becomes of it into the outbox.

Two threads. This one receives, and never waits for a disk. The other makes objects, which takes tenths of a second.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import queue
import sqlite3
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.objects import Source
from fluoronav.durable import written
from fluoronav.pacs.database import Database
from fluoronav.pacs.heard import Event, Heard, Moment
from fluoronav.pacs.identities import Identities
from fluoronav.pacs.live_case import LiveCaseError, source_of_case
from fluoronav.pacs.live_results import Mark, of_end, of_moment, of_run
from fluoronav.pacs.marks import Marks
from fluoronav.pacs.outbox import Outbox
from fluoronav.pacs.outgoing import DATABASE
from fluoronav.pacs.pseudonyms import Pseudonyms, SiteKeyError
from fluoronav.pacs.quiet import quiet_libraries
from fluoronav.pacs.running import LOCK, held
from fluoronav.pacs.spool import LIVE, Spool
from fluoronav.paths import regular_file
from fluoronav.recording import RecordingError
from fluoronav.site.site_file import SiteFile
from fluoronav.wire import subscriber
from fluoronav.wire.marks import MarkRequest

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LiveLimits:
    """What waits in `pacs live`; all are chosen."""

    frames_held: int = 4  # messages: 8 MB; a frame that is lost here costs nobody anything
    results_held: int = 1000
    max_message_bytes: int = 2**28
    poll_ms: int = 50  # a mark is answered within this, and a twentieth of a second is not felt
    jobs: int = 64  # results that wait to be made; each holds a frame of 2 MB
    again_s: float = 5.0  # after which a full disk is tried again


LIMITS = LiveLimits()
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Job:
    """One result that is to be made."""

    event: Event
    mark: Mark | None = None
    done: Future[int] = field(default_factory=Future)


class Live:
    """The process.

    Parameters
    ----------
    site : SiteFile

    Raises
    ------
    SiteKeyError, DatabaseError, EndpointInUse, OSError
    """

    def __init__(self, site: SiteFile) -> None:
        quiet_libraries()
        self._site = site
        pseudonyms = Pseudonyms.load(site.key)
        self._database = Database(site.folder / DATABASE)
        self._identities = Identities(self._database, pseudonyms)
        outbox = Outbox(site.folder, self._database, pseudonyms, self._identities)
        self._outbox = Spool(site.folder / LIVE, outbox, pseudonyms, site.results_to)
        self._lock = held(site.folder / LIVE / LOCK)
        self._acceptance = site.folder / LIVE / "acceptance.json"
        self._heard = Heard(_last_acceptance(self._acceptance))
        self._jobs: queue.Queue[Job | None] = queue.Queue(LIMITS.jobs)
        self._source: tuple[str, Source] | None = None
        self._ended = threading.Event()
        self._context = zmq.Context()
        self._marks = Marks(self._context, site.live.marks)
        self._maker = threading.Thread(target=self._make, name="maker")

    def run(self) -> None:
        """Until :meth:`stop`; what waits is made before it returns."""
        live, most = self._site.live, LIMITS.max_message_bytes
        topics = [f"{kind}/{live.source}" for kind in ("overlay", "alert", "health")]
        frames = subscriber(
            self._context, live.frames, [f"frame/{live.source}"], high_water=LIMITS.frames_held, max_bytes=most
        )
        results = subscriber(self._context, live.out, topics, high_water=LIMITS.results_held, max_bytes=most)
        poller = zmq.Poller()
        for socket in (frames, results, self._marks.socket):
            poller.register(socket, zmq.POLLIN)
        self._maker.start()
        try:
            while not self._ended.is_set():
                ready = dict(poller.poll(LIMITS.poll_ms))
                for socket in (frames, results):
                    if socket in ready:
                        parts = [part.buffer for part in socket.recv_multipart(copy=False)]
                        self._happen(self._heard.take(parts, time.monotonic()))
                self._happen(self._heard.silence(time.monotonic()))
                self._marks.serve(self._mark)
            self._happen(self._heard.end())
            lost = {"invalid messages": self._heard.invalid, **self._heard.counted}
            log.info("not used: %s", ", ".join(f"{number} {what}" for what, number in lost.items()))
        finally:
            self._jobs.put(None)
            self._maker.join()
            for socket in (frames, results):
                socket.close()
            self._marks.close()
            self._context.term()
            self._database.close()
            os.close(self._lock)

    def stop(self) -> None:
        """May be called from any thread."""
        self._ended.set()

    def _mark(self, asked: MarkRequest) -> tuple[Moment, Future[int]]:
        """Takes a person's mark; raises ValueError where there is nothing to mark."""
        event = self._heard.mark(asked.seq)
        if event is None or event.moment is None:
            raise ValueError(
                "no frame with an overlay has come of a loaded case; is the stream running, and are `live.out`, "
                "`live.frames` and `live.source` of the site file those of its launch file?"
            )
        job = Job(event, Mark(asked.note, asked.accepted_by, asked.organization))
        if not self._put(job):
            raise ValueError(f"{LIMITS.jobs} results wait to be made already; see the log, and mark again")
        return event.moment, job.done

    def _happen(self, events: list[Event]) -> None:
        for event in events:
            if event.kind != "run" or self._site.live.run:
                self._put(Job(event))

    def _put(self, job: Job) -> bool:
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            log.error("a result of kind %s is not made: %d wait already", job.event.kind, LIMITS.jobs)
            return False
        return True

    def _make(self) -> None:
        """The other thread: one job after another."""
        while True:
            self._forward()
            try:
                job = self._jobs.get(timeout=LIMITS.again_s)
            except queue.Empty:
                continue
            if job is None:
                self._forward()
                return
            try:
                job.done.set_result(self._kept(job))
            except (LiveCaseError, DicomError, RecordingError, SiteKeyError) as error:
                log.warning("%s: no result is sent: %s", job.event.kind, error)
                job.done.set_exception(error)
            except Exception as error:
                # One result must not end all others; the kind of error is said, its text may name a patient.
                log.error("%s: making its result failed: %s", job.event.kind, type(error).__name__)
                job.done.set_exception(RuntimeError(f"making it failed ({type(error).__name__})"))

    def _kept(self, job: Job) -> int:
        """Makes the objects of a job and keeps them on the disk, however long that is full."""
        event = job.event
        source = self._source_of(event.case)
        while True:
            try:
                number = self._outbox.keep(self._made(job, source))
                self._forward()
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                log.error("a result waits for the disk: %s", os.strerror(error.errno or 5))
                if self._ended.wait(LIMITS.again_s):
                    raise
                continue
            if event.kind == "accept":
                written(self._acceptance, json.dumps([event.case, event.t]).encode())
            if number:
                log.info("%s: %d objects for %s", event.kind, number, self._site.results_to)
            return number

    def _made(self, job: Job, source: Source) -> Any:
        event, site = job.event, self._site.name
        if event.kind == "begin":
            return []
        if event.kind == "end":
            return of_end(source, event, site)
        if event.kind == "run":
            return of_run(source, event.case, regular_file(Path(event.recording)), site)
        assert event.moment is not None
        return of_moment(source, event, site, job.mark)

    def _source_of(self, case: str) -> Source:
        if self._source is None or self._source[0] != case:
            self._source = case, source_of_case(self._site, self._database, self._identities, case)
        return self._source[1]

    def _forward(self) -> None:
        try:
            _, faults = self._outbox.forward()
        except (OSError, sqlite3.Error) as error:
            log.error("the outbox cannot be written (%s); results wait in the folder `live`", type(error).__name__)
            return
        for fault in faults:
            log.error("%s", fault)


def _last_acceptance(path: Path) -> tuple[str, int]:
    """The acceptance whose results were kept last: the case, and when a person accepted (ns since the epoch)."""
    try:
        case, t = json.loads(path.read_bytes())
        return str(case), int(t)
    except FileNotFoundError:
        return "", 0
    except (OSError, ValueError, TypeError) as error:
        log.warning("the note of the last acceptance cannot be read (%s): it is made again", type(error).__name__)
        return "", 0
