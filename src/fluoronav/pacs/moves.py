"""Which series an archive is sending because we asked it to (C-MOVE), and of which patient they must be."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fluoronav.pacs.header import Header

_OTHER_PATIENT = "the archive sent images of another patient than it said the study is of"
_OTHER_SERIES = "the archive sent images of another series than it was asked for"


@dataclass
class Move:
    """A series that is asked for.

    Attributes
    ----------
    study, series : str
        UIDs.
    patient_id : str
        As the archive said in its answer to the query; empty where it said none.
    originators : frozenset of str
        AE titles that the archive may name as the originator of each C-STORE (0000,1030): ours that asks, as the
        standard has it, or its own, as some do.
    fault : str
        Why instances of it were refused.
    """

    study: str
    series: str
    patient_id: str
    originators: frozenset[str]
    fault: str = ""


class Moves:
    """The moves in progress; shared by the fetching thread and the receiver's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: list[Move] = []

    @contextmanager
    def open(self, move: Move) -> Iterator[Move]:
        """A move is in progress inside."""
        with self._lock:
            self._open.append(move)
        try:
            yield move
        finally:
            with self._lock:
                self._open.remove(move)

    def refusal(self, header: Header, originator: str) -> str:
        """Why an instance that came is not taken; empty text where nothing speaks against it.

        Parameters
        ----------
        header : Header
        originator : str
            Who asked for it by C-MOVE, as the request says; empty text for what nobody asked for.
        """
        with self._lock:
            of_series = [m for m in self._open if m.series == header.series]
            asked = of_series or [m for m in self._open if originator in m.originators]
            if not asked:
                return ""
            reason = ""
            if not of_series or header.study != asked[0].study:
                reason = _OTHER_SERIES
            if asked[0].patient_id and header.patient_id != asked[0].patient_id:
                reason = _OTHER_PATIENT
            if reason:
                asked[0].fault = reason
            return reason
