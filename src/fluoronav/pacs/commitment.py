"""Storage commitment as its user (PS3.4 annex J): an archive says that it has taken over the keeping of instances.

It is asked by N-ACTION, and reports by N-EVENT-REPORT: in the same association, or in one that it opens to our node.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pydicom.dataset import Dataset
from pynetdicom import evt

from fluoronav.pacs.dimse_peer import DimsePeer
from fluoronav.pacs.outbox import Outbox
from fluoronav.pacs.peers import Parcel
from fluoronav.site.site_file import SiteFile

log = logging.getLogger(__name__)
_SUCCESS, _PROCESSING_FAILURE = 0x0000, 0x0110
# FailureReason (0008,1197): PS3.4 J.3.3 and PS3.3 C.14.1.1.
_REASONS = {
    0x0110: "the archive failed in processing it", 0x0112: "the archive does not have it",
    0x0119: "the archive has it with another SOP class", 0x0122: "the archive does not commit this SOP class",
    0x0131: "the transaction's UID was used before", 0x0213: "the archive is out of resources",
}  # fmt: skip


class Reports:
    """Takes reports.

    Parameters
    ----------
    outbox : Outbox
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def take(self, event: evt.Event) -> tuple[int, None]:
        """Notes what a report says; it is answered when that is on the disk."""
        try:
            said = event.event_information
            failed = {str(i.ReferencedSOPInstanceUID): _reason(i) for i in said.get("FailedSOPSequence") or ()}
            # One that is in both sequences contradicts itself: not committed, then.
            done = [
                uid
                for i in said.get("ReferencedSOPSequence") or ()
                if (uid := str(i.ReferencedSOPInstanceUID)) not in failed
            ]
            known = self._outbox.reported(str(said.get("TransactionUID") or ""), done, failed)
        except Exception as error:
            # A damaged report, or a full disk: it is asked again, and the error's text may quote UIDs.
            log.error("a report of storage commitment could not be used: %s", type(error).__name__)
            return _PROCESSING_FAILURE, None
        if not known:
            log.warning("a report of storage commitment is of no transaction of ours: not used")
            return _PROCESSING_FAILURE, None
        log.info("storage commitment: %d instances committed, %d not", len(done), len(failed))
        return _SUCCESS, None


class Commitment:
    """An archive that commits.

    Parameters
    ----------
    peer : DimsePeer
    reports : Reports
    wait_s : float
        Without a report, until it is asked again.
    """

    def __init__(self, peer: DimsePeer, reports: Reports, wait_s: float) -> None:
        self._peer, self._reports, self.wait_s = peer, reports, wait_s

    def ask(self, transaction: str, parcels: Sequence[Parcel]) -> None:
        """Asks for commitment of instances; raises :class:`PeerUnreachable`."""
        action = Dataset()
        action.TransactionUID = transaction
        action.ReferencedSOPSequence = []
        for parcel in parcels:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = parcel.sop_class, parcel.sop
            action.ReferencedSOPSequence.append(item)
        self._peer.commit(action, self._reports.take)


def commitments(site: SiteFile, outbox: Outbox) -> dict[str, Commitment]:
    """The peers of a site file that are asked for storage commitment, by name."""
    reports = Reports(outbox)
    return {
        name: Commitment(DimsePeer(peer.dimse, peer.timeout_s), reports, peer.dimse.commitment_wait_s)
        for name, peer in site.peers.items()
        if peer.dimse is not None and peer.dimse.commitment
    }


def _reason(item: Dataset) -> str:
    code = item.get("FailureReason")
    if code is None:
        return "not committed, without a reason"
    return f"not committed: {_REASONS.get(int(code), 'the archive gives no other reason')} (0x{int(code):04X})"
