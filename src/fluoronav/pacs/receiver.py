"""Takes objects in by DIMSE: C-STORE (PS3.4 annex B), C-ECHO (PS3.4 annex A), and C-FIND of what is here."""

from __future__ import annotations

import errno
import logging
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.transport import ThreadedAssociationServer

from fluoronav.pacs.arrivals import Arrivals, Verdict
from fluoronav.pacs.associations import OpenAssociations
from fluoronav.pacs.contexts import COMMITMENT, PDU_BYTES, PLAIN_SYNTAXES, accepted
from fluoronav.pacs.database import Database
from fluoronav.pacs.find import Finder
from fluoronav.pacs.header import HeaderError, read_header
from fluoronav.pacs.incoming import Incoming
from fluoronav.pacs.moves import Moves
from fluoronav.pacs.tls import server_context
from fluoronav.pacs.transport import BoundedServer
from fluoronav.site.site_file import Node

log = logging.getLogger(__name__)
# Statuses of C-STORE: PS3.4 B.2.3 and PS3.7 annex C.
SUCCESS, OUT_OF_RESOURCES, NO_MATCH, CANNOT_UNDERSTAND, UNABLE = 0x0000, 0xA700, 0xA900, 0xC000, 0xC001
NOT_AUTHORIZED = 0x0124
_COMMENT_CHARS = 64  # of ErrorComment (LO)
# Connections that are no association yet, or none any more, beside the associations; chosen.
_MORE_CONNECTIONS = 64
_ABOVE_THE_LIMIT = (0x02, 0x03, 0x02)  # transient, presentation related, local limit exceeded: PS3.8 9.3.4
_REJECTED = {3: "unknown calling AE title", 7: "unknown called AE title", 2: "association above the limit"}


class Receiver:
    """The listening node.

    Parameters
    ----------
    node : Node
    arrivals : Arrivals
    associations : OpenAssociations
    finder : Finder
    database : Database
    moves : Moves, optional
        What archives are asked to send.

    Raises
    ------
    TlsError, OSError
        Of :meth:`start`: a certificate cannot be used, or the port is taken.
    """

    def __init__(
        self,
        node: Node,
        arrivals: Arrivals,
        associations: OpenAssociations,
        finder: Finder,
        database: Database,
        moves: Moves | None = None,
    ) -> None:
        self._node, self._arrivals, self._associations = node, arrivals, associations
        self._finder, self._database = finder, database
        self._incoming = Incoming(arrivals.arriving)
        self._server: ThreadedAssociationServer | None = None
        self._moves = moves or Moves()
        self._on_report: Callable[[evt.Event], tuple[int, None]] | None = None
        self._report_titles: frozenset[str] = frozenset()

    def take_reports(self, titles: frozenset[str], on_report: Callable[[evt.Event], tuple[int, None]]) -> None:
        """Takes reports of storage commitment, too; called before :meth:`start`.

        Parameters
        ----------
        titles : frozenset of str
            The titles under which archives were asked, which they call back. Nothing is stored under them.
        on_report : callable
        """
        self._report_titles, self._on_report = titles, on_report

    def start(self) -> None:
        """Listens, in threads of its own."""
        # Datasets go to the disk as they come, beside where they will lie; no object is held in memory.
        _config.STORE_RECV_CHUNKED_DATASET = True
        # Its messages quote UIDs and names.
        _config.LOG_HANDLER_LEVEL = "none"
        self._incoming.serve()
        node = self._node
        ae = AE(next(iter(node.titles)))
        ae.require_called_aet = True
        ae.require_calling_aet = list(node.callers)
        # The library counts connections that are silent, too; associations are counted below.
        ae.maximum_associations = node.most_associations + _MORE_CONNECTIONS
        ae.acse_timeout = node.acse_timeout_s
        ae.network_timeout = ae.dimse_timeout = node.network_timeout_s
        ae.maximum_pdu_size = PDU_BYTES
        for abstract, syntaxes in accepted().items():
            ae.add_supported_context(abstract, list(syntaxes))
        if self._on_report is not None:
            # An archive that reports is the SCP in an association that it opens (PS3.4 J.3.3): roles are negotiated.
            ae.add_supported_context(COMMITMENT, list(PLAIN_SYNTAXES), scu_role=True, scp_role=True)
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_RELEASED, self._released),
            (evt.EVT_CONN_CLOSE, self._closed),
        ]
        if self._on_report is not None:
            handlers.append((evt.EVT_N_EVENT_REPORT, self._on_report))
        try:
            server = ae.make_server(
                (node.host, node.port),
                ssl_context=None if node.tls is None else server_context(node.tls),
                evt_handlers=handlers,
                server_class=BoundedServer,
                most_connections=node.most_associations + _MORE_CONNECTIONS,
                handshake_s=node.acse_timeout_s,
                silence_s=node.network_timeout_s,
                counted=self._database.count,
            )
        except OSError as error:
            raise OSError(f"{node.host}:{node.port}: cannot be listened on: {error.strerror}") from error
        ae._servers.append(server)
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.1,), name="dimse", daemon=True).start()

    def stop(self) -> None:
        """Stops to listen, and ends the associations."""
        if self._server is not None:
            for association in self._server.active_associations:
                association.abort()
            self._server.shutdown()

    def _requested(self, event: evt.Event) -> None:
        """The library knows one AE title; any of ours is made that of the association. Above the limit, none begins."""
        association = event.assoc
        request = cast(A_ASSOCIATE, association.requestor.primitive)
        called = (request.called_ae_title or "").strip()
        if called in self._node.titles or called in self._report_titles:
            association.acceptor.ae_title = called
        established = sum(a.is_established for a in self._server.active_associations) if self._server else 0
        if established >= self._node.most_associations:
            association.acse.send_reject(*_ABOVE_THE_LIMIT)
            self._rejected(event)
            association.kill()

    def _rejected(self, event: evt.Event) -> None:
        primitive = event.assoc.acceptor.primitive
        reason = _REJECTED.get(getattr(primitive, "diagnostic", 0), "association rejected")
        self._database.count(reason)
        log.warning("an association was rejected: %s", reason)

    def _released(self, event: evt.Event) -> None:
        self._associations.released(event.assoc)

    def _closed(self, event: evt.Event) -> None:
        if not self._associations.closed(event.assoc):
            self._database.count("association aborted or broken")

    def _store(self, event: evt.Event) -> Dataset:
        path = Path(event.dataset_path)
        try:
            self._incoming.check(path)
            return self._stored(event, path)
        except (OSError, sqlite3.Error) as error:
            full = _is_full(error)
            self._count("out of resources" if full else "could not be stored")
            log.error("an object could not be stored: %s", "the disk is full" if full else type(error).__name__)
            return _status(OUT_OF_RESOURCES if full else UNABLE, "the disk is full" if full else "the disk failed")
        finally:
            path.unlink(missing_ok=True)

    def _stored(self, event: evt.Event, path: Path) -> Dataset:
        if shutil.disk_usage(self._arrivals.inbox).free < self._node.least_free_mb * 2**20:
            self._count("out of resources")
            log.error("less than %d MB of the disk are free: nothing is taken", self._node.least_free_mb)
            return _status(OUT_OF_RESOURCES, "too little free disk")
        if event.assoc.acceptor.ae_title not in self._node.titles:
            self._count("object refused: this AE title takes reports of storage commitment alone")
            return _status(NOT_AUTHORIZED, "this AE title takes no images")
        try:
            header = read_header(path)
        except HeaderError as error:
            self._count("object refused: " + str(error))
            log.warning("an object was refused: %s", error)
            return _status(NO_MATCH, str(error))
        request = cast(C_STORE, event.request)
        if (header.sop, header.sop_class) != (request.AffectedSOPInstanceUID, request.AffectedSOPClassUID):
            self._count("object refused: other UIDs in the dataset than in the request")
            return _status(NO_MATCH, "SOP class or instance UID differ from the request's")
        originator = (request.MoveOriginatorApplicationEntityTitle or "").strip()
        if refusal := self._moves.refusal(header, originator):
            self._count(f"object refused: {refusal}")
            log.warning("an object was refused: %s", refusal)
            return _status(NO_MATCH, refusal)
        taken = self._arrivals.take(path, header, self._workflow(event.assoc))
        self._associations.touched(event.assoc, taken.series)
        if taken.verdict is Verdict.OTHER:
            log.warning("an object has the UID of one that is here, and other bytes: kept in aside/")
            return _status(CANNOT_UNDERSTAND, "this SOP Instance UID is here with other content")
        return _status(SUCCESS)

    def _count(self, what: str) -> None:
        """Counts, where the disk can take it: what a sender is told does not depend on it."""
        try:
            self._database.count(what)
        except sqlite3.Error as error:
            log.error("%s: it could not be counted (%s)", what, type(error).__name__)

    def _workflow(self, association: Association) -> str:
        return self._node.titles[association.acceptor.ae_title]

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        if event.assoc.acceptor.ae_title not in self._node.titles:
            return
        for found in self._finder.matches(event.identifier, self._workflow(event.assoc)):
            if event.is_cancelled:
                yield 0xFE00, None
                return
            yield 0xFF00, found


def _is_full(error: Exception) -> bool:
    if isinstance(error, sqlite3.Error):
        return error.sqlite_errorcode == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _status(code: int, comment: str = "") -> Dataset:
    status = Dataset()
    status.Status = code
    if comment:
        status.ErrorComment = comment[:_COMMENT_CHARS]
    return status
