"""The peers of a site file as archives: DICOMweb first where both are named, DIMSE where that gives no answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from fluoronav.pacs.dicomweb_peer import DicomwebPeer
from fluoronav.pacs.dimse_peer import DimsePeer
from fluoronav.pacs.peers import (
    Archive,
    FoundSeries,
    FoundStudy,
    Landing,
    Outcome,
    Parcel,
    PeerUnreachable,
    Wanted,
)
from fluoronav.site.site_file import Peer

Answer = TypeVar("Answer")


class Either:
    """Two ways to one archive.

    Parameters
    ----------
    first, second : Archive
    """

    def __init__(self, first: Archive, second: Archive) -> None:
        self._first, self._second = first, second

    def store(self, parcels: Sequence[Parcel]) -> dict[str, Outcome]:
        return self._asked(lambda way: way.store(parcels))

    def found(self, parcels: Sequence[Parcel]) -> set[str]:
        return self._asked(lambda way: way.found(parcels))

    def patient_of(self, study: str) -> str | None:
        return self._asked(lambda way: way.patient_of(study))

    def count(self, study: str, series: str) -> int | None:
        return self._asked(lambda way: way.count(study, series))

    def studies(self, wanted: Wanted) -> list[FoundStudy]:
        return self._asked(lambda way: way.studies(wanted))

    def series_of(self, study: str) -> list[FoundSeries]:
        return self._asked(lambda way: way.series_of(study))

    def retrieve(self, series: FoundSeries, landing: Landing) -> None:
        self._asked(lambda way: way.retrieve(series, landing))

    def _asked(self, question: Callable[[Archive], Answer]) -> Answer:
        try:
            return question(self._first)
        except PeerUnreachable as first:
            try:
                return question(self._second)
            except PeerUnreachable as second:
                raise PeerUnreachable(f"{first}; {second}") from second


def archive(peer: Peer) -> Archive:
    """A peer of the site file, ready to be asked."""
    ways: list[Archive] = []
    if peer.dicomweb is not None:
        ways.append(DicomwebPeer(peer.dicomweb, peer.timeout_s))
    if peer.dimse is not None:
        ways.append(DimsePeer(peer.dimse, peer.timeout_s))
    return ways[0] if len(ways) == 1 else Either(ways[0], ways[1])
