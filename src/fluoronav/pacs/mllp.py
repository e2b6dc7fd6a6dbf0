"""Listens for HL7 v2 over MLLP, and answers each message when what it says is on the disk.

Frames are bounded in size and in time; connections are bounded in number. A frame that is cut off is dropped without an
answer, so that its sender sends it again.
"""

from __future__ import annotations

import logging
import math
import socket
import socketserver
import ssl
import threading
import time
from datetime import UTC, datetime
from typing import Any

import hl7

from fluoronav.pacs.database import Database
from fluoronav.pacs.hl7_messages import (
    Admission,
    Hl7Error,
    Hl7Rejected,
    Merges,
    Order,
    field,
    meaning,
    parsed,
    sent_at,
)
from fluoronav.pacs.schedule import Schedule, ScheduledCase, TwoPatients
from fluoronav.pacs.tls import explained, server_context
from fluoronav.site.site_file import Hl7

log = logging.getLogger(__name__)
_START, _END = b"\x0b", b"\x1c\r"
_CHUNK = 65536
_SOURCE = "hl7"
_SKEW_S = 600.0  # chosen: clocks that are kept by NTP differ by seconds, and a message waits for minutes


class FrameError(Exception):
    """What came is no frame; the connection is of no more use. The text is what is counted."""


class Listener:
    """The listening side.

    Parameters
    ----------
    settings : Hl7
    schedule : Schedule
    database : Database
    """

    def __init__(self, settings: Hl7, schedule: Schedule, database: Database) -> None:
        self._settings, self._schedule, self._database = settings, schedule, database
        self._server: _Server | None = None

    def start(self) -> None:
        """Listens, in threads of its own.

        Raises
        ------
        TlsError, OSError
        """
        s = self._settings
        context = None if s.tls is None else server_context(s.tls)
        try:
            self._server = _Server((s.host, s.port), self, context)
        except OSError as error:
            raise OSError(f"{s.host}:{s.port}: cannot be listened on for HL7: {error.strerror}") from error
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="hl7", daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def allows(self, address: str) -> bool:
        """Whether a computer may call, and is told of if not."""
        if address in self._settings.callers:
            return True
        self.counted("HL7: caller that is not in `hl7.callers`")
        return False

    def counted(self, what: str) -> None:
        self._database.count(what)
        log.warning("%s", what)

    def serve(self, connection: socket.socket) -> None:
        """Answers the messages of a connection until it ends."""
        buffer = bytearray()
        try:
            while (frame := self._frame(connection, buffer)) is not None:
                connection.sendall(_START + self.answer(frame) + _END)
        except FrameError as error:
            self.counted(f"HL7: {error}")
        except OSError:
            self.counted("HL7: connection broke")

    def _frame(self, connection: socket.socket, buffer: bytearray) -> bytes | None:
        """The next message; None when the connection has ended between two."""
        s = self._settings
        searched, until_s = 0, math.inf
        while True:
            if buffer and buffer[:1] != _START:
                raise FrameError("bytes outside a frame: is this MLLP?")
            end = buffer.find(_END, max(searched - 1, 0))
            if end > s.most_bytes or (end < 0 and len(buffer) > s.most_bytes):
                raise FrameError(f"frame of more than {s.most_bytes} bytes (`hl7.most_bytes`)")
            if end >= 0:
                frame = bytes(buffer[1:end])
                del buffer[: end + len(_END)]
                while buffer[:1] in (b"\r", b"\n"):
                    del buffer[:1]
                return frame
            searched = len(buffer)
            begun, now_s = bool(buffer), time.monotonic()
            # The message as a whole has its time: one that comes byte by byte ends, too.
            until_s = min(until_s, now_s + s.frame_timeout_s) if begun else math.inf
            connection.settimeout(max(until_s - now_s, 1e-3) if begun else s.idle_timeout_s)
            try:
                chunk = connection.recv(_CHUNK)
            except TimeoutError as error:
                if begun:
                    raise FrameError("frame that was not finished in time") from error
                return None
            if not chunk:
                if begun:
                    raise FrameError("frame that was cut off")
                return None
            buffer += chunk if begun else chunk.lstrip(b"\r\n")

    def answer(self, frame: bytes) -> bytes:
        """Does what a message says; returns its acknowledgement (HL7 v2.5 2.9.2, original mode)."""
        try:
            message = parsed(frame)
        except Hl7Rejected as error:
            self.counted(f"HL7 rejected: {error}")
            return _bare_reject(str(error))
        try:
            self._check_clock(message)
            self._done(message)
        except (Hl7Error, TwoPatients) as error:
            self.counted(f"HL7 refused: {error}")
            return _acknowledged(message, "AE", str(error))
        except Hl7Rejected as error:
            self.counted(f"HL7 rejected: {error}")
            return _acknowledged(message, "AR", str(error))
        except Exception as error:
            # A full disk or a fault of ours is not the message's; its text may quote the message.
            log.error("an HL7 message could not be handled: %s", type(error).__name__)
            return _acknowledged(message, "AR", "it cannot be handled now; send it again")
        return _acknowledged(message, "AA")

    def _done(self, message: hl7.Message) -> None:
        said = meaning(message, self._settings.issuers)
        if isinstance(said, Merges):
            for old, new in said.pairs:
                self._schedule.merge(old, new)
        elif isinstance(said, Admission):
            refused = "" if said.corrected else self._schedule.contradiction(said.patient)
            if refused:
                raise TwoPatients(refused)
            self._schedule.update(said.patient)
        elif isinstance(said, Order):
            if said.off:
                self._schedule.cancel(said.number, _SOURCE)
            else:
                starts = said.starts or datetime.now(UTC)
                self._schedule.take(ScheduledCase(said.number, said.patient, starts), _SOURCE)
                self._schedule.prefetch()

    def _check_clock(self, message: hl7.Message) -> None:
        sent = sent_at(message)
        if sent is not None and abs((datetime.now(UTC) - sent).total_seconds()) > _SKEW_S:
            self.counted(
                f"HL7: sent more than {_SKEW_S / 60:g} min before or after this computer's time: "
                "did it wait, or is a clock wrong?"
            )


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], listener: Listener, context: ssl.SSLContext | None) -> None:
        self._listener, self._context = listener, context
        self._room = threading.BoundedSemaphore(listener._settings.most_connections)
        super().__init__(address, socketserver.BaseRequestHandler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        if not self._listener.allows(client_address[0]):
            return False
        if not self._room.acquire(blocking=False):
            self._listener.counted("HL7: connection above the limit (`hl7.most_connections`)")
            return False
        return True

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self._context is None:
            self._listener.serve(request)
            return
        request.settimeout(self._listener._settings.frame_timeout_s)
        try:
            with self._context.wrap_socket(request, server_side=True) as secure:
                self._listener.serve(secure)
        except ssl.SSLError as error:
            self._listener.counted("HL7: TLS handshake failed")
            log.warning("a caller was refused: %s", explained(error))
        except OSError:
            self._listener.counted("HL7: TLS handshake ended or timed out")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The library prints a traceback, which may quote a message."""
        self._listener.counted("HL7: connection ended by a fault")


def _acknowledged(message: hl7.Message, code: str, text: str = "") -> bytes:
    separator = str(message.separators[1]) if len(message.separators) > 1 else "|"
    try:
        lines = str(message.create_ack(code)).strip("\r").split("\r")
    except Exception:
        return _bare_reject(text or "MSH is incomplete")
    if text:
        # MSA-3; separators in it would be fields.
        lines[-1] += separator + text.replace(separator, " ").replace("\r", " ")
    return ("\r".join(lines) + "\r").encode(_answer_charset(message), "replace")


def _answer_charset(message: hl7.Message) -> str:
    return "latin-1" if field(message, "MSH", 18).startswith("8859") else "utf-8"


def _bare_reject(text: str) -> bytes:
    """For what has no MSH that could be answered to."""
    now = datetime.now(UTC)
    return f"MSH|^~\\&|FLUORONAV||||{now:%Y%m%d%H%M%S}||ACK|{now:%H%M%S%f}|P|2.5\rMSA|AR||{text}\r".encode()
