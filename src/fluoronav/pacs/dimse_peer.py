"""An archive by DIMSE: C-STORE, C-FIND and C-MOVE."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, evt
from pynetdicom.association import Association

from fluoronav.pacs.contexts import COMMITMENT, COMMITMENT_INSTANCE, FIND, MOVE, PDU_BYTES, PLAIN_SYNTAXES
from fluoronav.pacs.peers import FoundSeries, FoundStudy, Landing, Outcome, Parcel, PeerUnreachable, Result, Wanted
from fluoronav.pacs.requestor import on_open
from fluoronav.pacs.tls import client_context, explained
from fluoronav.site.site_file import Dimse

# Statuses that mean stored, with something to know: PS3.4 B.2.3.
_WARNINGS = {
    0xB000: "stored, with elements coerced", 0xB006: "stored, with elements discarded",
    0xB007: "stored, though the dataset does not match its SOP class",
}  # fmt: skip
_KEYS = {"patient": "PatientID", "accession": "AccessionNumber", "study": "StudyInstanceUID"}
_STUDY_KEYS = (
    "StudyInstanceUID", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "AccessionNumber", "StudyDate",
    "StudyTime",
)  # fmt: skip
_PENDING = (0xFF00, 0xFF01)
_DESTINATION_UNKNOWN = 0xA801  # PS3.4 C.4.2.1.5
_MOST_CONTEXTS = 128  # PS3.8 9.3.2.2: odd numbers up to 255


class DimsePeer:
    """An archive by DIMSE.

    Parameters
    ----------
    dimse : Dimse
    timeout_s : float
        For each answer.
    """

    def __init__(self, dimse: Dimse, timeout_s: float) -> None:
        self._dimse, self._timeout_s = dimse, timeout_s

    def store(self, parcels: Sequence[Parcel]) -> dict[str, Outcome]:
        """C-STORE, each instance in the transfer syntax that it is in."""
        contexts: dict[tuple[str, str], None] = {}
        syntaxes = {p.sop: str(read_file_meta_info(p.file).TransferSyntaxUID) for p in parcels}
        for p in parcels:
            contexts[p.sop_class, syntaxes[p.sop]] = None
        out: dict[str, Outcome] = {}
        with self._association(list(contexts)[:_MOST_CONTEXTS]) as association:
            for p in parcels:
                out[p.sop] = _stored(association, p, syntaxes[p.sop])
        return out

    def found(self, parcels: Sequence[Parcel]) -> set[str]:
        queries = []
        for p in parcels:
            keys = {"StudyInstanceUID": p.study, "SeriesInstanceUID": p.series, "SOPInstanceUID": p.sop}
            queries.append(_query("IMAGE", **keys))
        return {str(a.get("SOPInstanceUID")) for a in self._found(queries)}

    def patient_of(self, study: str) -> str | None:
        answers = self._found([_query("STUDY", StudyInstanceUID=study, PatientID="")])
        return next((str(a.get("PatientID") or "") for a in answers), None)

    def count(self, study: str, series: str) -> int | None:
        query = _query("SERIES", StudyInstanceUID=study, SeriesInstanceUID=series, NumberOfSeriesRelatedInstances="")
        for answer in self._found([query]):
            number = answer.get("NumberOfSeriesRelatedInstances")
            return None if number in (None, "") else int(number)
        return None

    def studies(self, wanted: Wanted) -> list[FoundStudy]:
        query = _query("STUDY", **{**dict.fromkeys(_STUDY_KEYS, ""), _KEYS[wanted.by]: wanted.value})
        return [
            FoundStudy(
                _text(a, "StudyInstanceUID"),
                _text(a, "PatientID"),
                _text(a, "IssuerOfPatientID"),
                _text(a, "PatientBirthDate"),
                _text(a, "AccessionNumber"),
                _text(a, "StudyDate") + _text(a, "StudyTime"),
            )
            for a in self._found([query])
        ]

    def series_of(self, study: str) -> list[FoundSeries]:
        keys = {
            "StudyInstanceUID": study,
            "SeriesInstanceUID": "",
            "Modality": "",
            "NumberOfSeriesRelatedInstances": "",
        }
        return [
            FoundSeries(
                study,
                _text(a, "SeriesInstanceUID"),
                _text(a, "Modality"),
                int(number) if (number := _text(a, "NumberOfSeriesRelatedInstances")) else None,
            )
            for a in self._found([_query("SERIES", **keys)])
        ]

    def retrieve(self, series: FoundSeries, landing: Landing) -> None:
        """C-MOVE to our own AE; the instances come to the receiver."""
        query = _query("SERIES", StudyInstanceUID=series.study, SeriesInstanceUID=series.series)
        with self._association([(MOVE, "")]) as association:
            if not association.accepted_contexts:
                raise PeerUnreachable(f"{self._where} does not answer C-MOVE")
            begun_s = time.monotonic()
            for status, _ in association.send_c_move(query, landing.title, MOVE):
                code = status.get("Status")
                landing.moving()
                if code is None and time.monotonic() - begun_s < self._timeout_s:
                    raise PeerUnreachable(self._not_allowed(landing.title))
                begun_s = time.monotonic()
                if code not in _PENDING:
                    self._check_moved(code, status, landing.title)

    def _not_allowed(self, title: str) -> str:
        return (
            f"{self._where}: broke the association off at C-MOVE: have {self._dimse.calling} allowed there to ask "
            f"for it, and {title} entered as its destination, with this computer's address and the port of `node.port`"
        )

    def _check_moved(self, code: int | None, status: Dataset, title: str) -> None:
        if code is None:
            raise PeerUnreachable(f"{self._where}: no answer to C-MOVE within {self._timeout_s:g} s")
        if code == _DESTINATION_UNKNOWN:
            raise PeerUnreachable(
                f"{self._where}: does not know {title} as a destination of C-MOVE: have it entered there, with this "
                "computer's address and the port of `node.port`"
            )
        failed = status.get("NumberOfFailedSuboperations") or 0
        if code != 0x0000 or failed:
            raise PeerUnreachable(
                f"{self._where}: C-MOVE ended with status 0x{code:04X}, {failed} instances could not be sent to "
                f"{title}: is it among `node.titles`, and is the archive's AE title among `node.callers`?"
            )

    def commit(self, action: Dataset, on_report: Callable[[evt.Event], tuple[int, None]]) -> None:
        """Asks for storage commitment: N-ACTION (PS3.4 J.3.2).

        Parameters
        ----------
        action : Dataset
            TransactionUID and ReferencedSOPSequence.
        on_report : callable
            Takes a report that comes in the same association.

        Raises
        ------
        PeerUnreachable
        """
        reports = [(evt.EVT_N_EVENT_REPORT, on_report)]
        with self._association([(COMMITMENT, "")], reports) as association:
            if not association.accepted_contexts:
                raise PeerUnreachable(f"{self._where} does not answer requests for storage commitment")
            status, _ = association.send_n_action(action, 1, COMMITMENT, COMMITMENT_INSTANCE)
            code = status.get("Status")
        if code is None:
            raise PeerUnreachable(f"{self._where}: no answer to N-ACTION within {self._timeout_s:g} s")
        if code != 0x0000:
            raise PeerUnreachable(f"{self._where}: storage commitment was answered with status 0x{code:04X}")

    def answers(self, query: Dataset, model: str) -> list[Dataset]:
        """The answers to C-FIND in an information model."""
        return self._found([query], model)

    def _found(self, queries: Sequence[Dataset], model: str = FIND) -> list[Dataset]:
        with self._association([(model, "")]) as association:
            if not association.accepted_contexts:
                raise PeerUnreachable(f"{self._where} does not answer C-FIND of this kind, so that nothing is known")
            return [answer for query in queries for answer in self._answers(association, query, model)]

    def _answers(self, association: Association, query: Dataset, model: str) -> Iterator[Dataset]:
        if not association.is_established:
            raise PeerUnreachable(f"{self._where}: the association broke")
        for status, identifier in association.send_c_find(query, model):
            code = status.get("Status")
            if code is None:
                raise PeerUnreachable(f"{self._where}: no answer to C-FIND within {self._timeout_s:g} s")
            if code in _PENDING and identifier is not None:
                yield identifier
            elif code not in (0x0000, *_PENDING):
                raise PeerUnreachable(f"{self._where}: C-FIND failed with status 0x{code:04X}")

    @property
    def _where(self) -> str:
        return f"{self._dimse.called} at {self._dimse.host}:{self._dimse.port}"

    @contextmanager
    def _association(
        self, contexts: Sequence[tuple[str, str]], handlers: Sequence[evt.EventHandlerType] = ()
    ) -> Iterator[Association]:
        dimse = self._dimse
        ae = AE(dimse.calling)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = self._timeout_s
        ae.maximum_pdu_size = PDU_BYTES
        for abstract, syntax in contexts:
            ae.add_requested_context(abstract, syntax or PLAIN_SYNTAXES)
        tls = None
        if dimse.tls is not None:
            tls = (client_context(dimse.tls), dimse.host)
        try:
            association = ae.associate(
                dimse.host,
                dimse.port,
                ae_title=dimse.called,
                tls_args=tls,
                evt_handlers=[(evt.EVT_CONN_OPEN, on_open), *handlers],
            )
        except (ssl.SSLError, OSError, RuntimeError) as error:
            text = explained(error) if isinstance(error, ssl.SSLError) else str(error)
            raise PeerUnreachable(f"{self._where}: {text}") from error
        if not association.is_established:
            raise PeerUnreachable(f"{self._where}: {self._why_not(association)}")
        try:
            yield association
        finally:
            if association.is_established:
                association.release()

    def _why_not(self, association: Association) -> str:
        if association.is_rejected:
            primitive = association.acceptor.primitive
            reason = getattr(primitive, "reason_str", "") or "no reason given"
            return f"the association was rejected ({reason}); are our and its AE titles known there?"
        if self._dimse.tls is not None:
            return f"no association: {self._tls_fault()}"
        return "no connection, or no answer to it"

    def _tls_fault(self) -> str:
        """What the handshake fails of, asked once more by itself: the library only logs it."""
        assert self._dimse.tls is not None
        try:
            address = (self._dimse.host, self._dimse.port)
            with (
                socket.create_connection(address, self._timeout_s) as plain,
                client_context(self._dimse.tls).wrap_socket(plain, server_hostname=self._dimse.host) as secure,
            ):
                # With TLS 1.3 the server refuses our certificate after its own handshake.
                secure.settimeout(1.0)
                secure.recv(1)
        except ssl.SSLError as error:
            return explained(error)
        except TimeoutError:
            pass
        except OSError as error:
            return f"no connection ({error.strerror or error})"
        return "TLS works, but the association was not answered"


def _query(level: str, **keys: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    return query


def _text(answer: Dataset, keyword: str) -> str:
    value = answer.get(keyword)
    return "" if value is None else str(value).strip()


def _stored(association: Association, parcel: Parcel, syntax: str) -> Outcome:
    if not association.is_established:
        return Outcome(Result.AGAIN, "the association broke")
    accepted = {(str(c.abstract_syntax), str(s)) for c in association.accepted_contexts for s in c.transfer_syntax}
    if (parcel.sop_class, syntax) not in accepted:
        return Outcome(Result.REFUSED, "the archive does not take this SOP class in this transfer syntax")
    try:
        status = association.send_c_store(parcel.file)
    except (ValueError, RuntimeError, OSError) as error:
        return Outcome(Result.AGAIN, f"C-STORE failed ({type(error).__name__})")
    return read_status(status.get("Status"), str(status.get("ErrorComment") or ""))


def read_status(code: int | None, comment: str = "") -> Outcome:
    """A C-STORE status: PS3.4 B.2.3 and PS3.7 annex C."""
    if code is None:
        return Outcome(Result.AGAIN, "no answer to C-STORE")
    if code == 0x0000:
        return Outcome(Result.STORED)
    if code in _WARNINGS:
        return Outcome(Result.STORED, f"{_WARNINGS[code]} (0x{code:04X})")
    text = f"C-STORE status 0x{code:04X}" + (": the archive gives a reason in its log" if comment else "")
    # Out of resources passes, and so does what is not authorised or busy.
    again = code & 0xFF00 == 0xA700 or code in (0x0124, 0x0110, 0x0213)
    return Outcome(Result.AGAIN if again else Result.REFUSED, text)
