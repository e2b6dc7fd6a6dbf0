"""Sends what waits: asks first whether it is there, and believes that it is when the archive finds it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from fluoronav.pacs.bell import Bell, ring
from fluoronav.pacs.commitment import Commitment
from fluoronav.pacs.outbox import Outbox, Waiting
from fluoronav.pacs.peers import Archive, Outcome, PeerUnreachable, Result
from fluoronav.pacs.tls import TlsError

log = logging.getLogger(__name__)
_AFTER_FAULT_S = 2.0
_PAUSE_S = 1.0  # between looks at what is due again; what is put in rings, and is on its way at once


class Delivery:
    """A thread that empties the outbox.

    Parameters
    ----------
    outbox : Outbox
    archives : mapping of str to Archive
    commitments : mapping of str to Commitment
        Of those archives that are asked for storage commitment.
    """

    def __init__(
        self, outbox: Outbox, archives: Mapping[str, Archive], commitments: Mapping[str, Commitment] | None = None
    ) -> None:
        self._outbox, self._archives, self._commitments = outbox, archives, commitments or {}
        self._silent: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)

    def start(self) -> None:
        self._bell = Bell(self._outbox.bell)
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Ends after the attempt in progress; what is left waits for the next start."""
        self._ended.set()
        ring(self._outbox.bell)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                waiting = self._outbox.due()
                if waiting is not None:
                    self.deliver(waiting)
                self.commit()
            except Exception as error:
                # One object must not end the sending of all others; the kind of error is said, never its text.
                log.error("delivery failed: %s", type(error).__name__)
                self._ended.wait(_AFTER_FAULT_S)
                continue
            if waiting is None:
                self._bell.wait(_PAUSE_S)
        self._bell.close()

    def deliver(self, waiting: Waiting) -> None:
        """One attempt at the instances of one study."""
        archive = self._archives.get(waiting.peer)
        if archive is None:
            self._outbox.begin(waiting.rows)
            self._all(waiting, Outcome(Result.AGAIN, f"the site file has no peer {waiting.peer} any more"))
            return
        again = [bool(row["attempts"]) for row in waiting.rows]
        self._outbox.begin(waiting.rows)
        try:
            outcomes = _delivered(archive, waiting, again)
        except (PeerUnreachable, TlsError) as error:
            log.warning("%d instances wait for %s: %s", len(waiting.rows), waiting.peer, error)
            self._silent.add(waiting.peer)
            self._all(waiting, Outcome(Result.AGAIN, str(error)))
            return
        if waiting.peer in self._silent:
            # It is back: nothing waits for the end of its own wait, which has grown to minutes.
            self._silent.discard(waiting.peer)
            self._outbox.due_now(waiting.peer)
        for row, parcel in zip(waiting.rows, waiting.parcels, strict=True):
            outcome = outcomes[parcel.sop]
            if outcome.result is not Result.STORED:
                log.warning("outbox %d: %s: %s", row["id"], outcome.result.value, outcome.text)
            self._outbox.end(row, outcome, committed_later=waiting.peer in self._commitments)

    def commit(self) -> None:
        """Asks each archive that commits for what it has stored, and has not been asked for."""
        for peer, commitment in self._commitments.items():
            waiting = self._outbox.uncommitted(peer, commitment.wait_s)
            if waiting is None:
                continue
            transaction = self._outbox.ask(waiting, commitment.wait_s)
            try:
                commitment.ask(transaction, waiting.parcels)
            except (PeerUnreachable, TlsError) as error:
                log.warning("%d instances are not committed by %s: %s", len(waiting.rows), peer, error)
                self._outbox.not_asked(waiting, str(error))

    def _all(self, waiting: Waiting, outcome: Outcome) -> None:
        for row in waiting.rows:
            self._outbox.end(row, outcome)


def _delivered(archive: Archive, waiting: Waiting, again: list[bool]) -> dict[str, Outcome]:
    parcels = waiting.parcels
    owner = archive.patient_of(parcels[0].study)
    out: dict[str, Outcome] = {}
    if owner is not None:
        strange = Outcome(Result.REFUSED, "its study is another patient's at the archive")
        out = {p.sop: strange for p in parcels if p.patient_id != owner}
    repeated = [p for p, r in zip(parcels, again, strict=True) if r and p.sop not in out]
    if repeated:
        out |= {sop: Outcome(Result.STORED) for sop in archive.found(repeated)}
    left = [p for p in parcels if p.sop not in out]
    if left:
        out |= archive.store(left)
    stored = [p for p in left if out[p.sop].result is Result.STORED]
    found = archive.found(stored) if stored else set()
    lost = Outcome(Result.AGAIN, "stored, says the archive, which does not find it")
    return out | {p.sop: lost for p in stored if p.sop not in found}
