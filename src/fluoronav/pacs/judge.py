"""Judges whether series are complete, and asks an archive how many instances they have."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from sqlite3 import Row

from fluoronav.pacs.arrivals import Arrivals
from fluoronav.pacs.associations import OpenAssociations
from fluoronav.pacs.header import HeaderError, read_header
from fluoronav.pacs.peers import Archive, PeerUnreachable
from fluoronav.pacs.series import Event, State
from fluoronav.pacs.tls import TlsError
from fluoronav.site.site_file import Series

log = logging.getLogger(__name__)
LOOK_S = 0.1  # between looks at what arrives; chosen: what goes quiet is not known sooner
_ASK_AGAIN_S = 5.0  # chosen: while a series arrives, and where the archive did not know it


class Judge:
    """The events of series that no instance causes.

    Parameters
    ----------
    settings : Series
    arrivals : Arrivals
    associations : OpenAssociations
    archive : Archive, optional
        Who counts.
    on_judged : callable
        Called when a series came to another state.
    """

    def __init__(
        self,
        settings: Series,
        arrivals: Arrivals,
        associations: OpenAssociations,
        archive: Archive | None,
        on_judged: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_judged = on_judged
        self._settings, self._arrivals, self._associations, self._archive = settings, arrivals, associations, archive
        self._asked_s: dict[str, float] = {}
        self._answered: set[str] = set()

    def judge(self) -> float:
        """One look at all series that arrive, or that lack something; the time until the next may be due, s."""
        soonest_s = LOOK_S
        for series in self._arrivals.series(State.ARRIVING, State.INCOMPLETE):
            judged = self.event(series)
            if judged is None:
                settled_s = self._associations.settled_s(series["key"])
                if settled_s is not None and settled_s < self._settings.settle_s:
                    soonest_s = min(soonest_s, self._settings.settle_s - settled_s)
                continue
            event, evidence, reason = judged
            state = self._arrivals.happens(series["key"], event, evidence, reason)
            self._associations.forget(series["key"])
            self._answered.discard(series["key"])
            log.info("a series of %d instances is %s (%s)", series["here"], state.value, evidence)
            self._on_judged()
        return soonest_s

    def settling(self) -> list[Row]:
        """Series that will be complete when they have settled, if nothing more comes."""
        if self._archive is not None:
            return []  # its count says so before they have settled
        return [
            series
            for series in self._arrivals.series(State.ARRIVING)
            if self._associations.settled_s(series["key"]) is not None and not self._arrivals.missing(series["key"])
        ]

    def event(self, series: Row) -> tuple[Event, str, str] | None:
        """What has happened to a series: the event, the evidence for it, and a reason."""
        expected, here = series["expected"], series["here"]
        if expected and here >= expected:
            return Event.COUNTED, "counted", ""
        if series["state"] == State.INCOMPLETE.value:
            return None
        missing = self._arrivals.missing(series["key"])
        short = max(expected - here, 0) if expected else 0
        settled = self._associations.settled_s(series["key"])
        # Geometry does not show what is missing at the ends: where an archive counts, its answer comes first.
        asked = self._archive is None or series["key"] in self._answered
        if settled is not None and settled >= self._settings.settle_s and not missing and not short and asked:
            return Event.RELEASED, "released", ""
        if self._associations.quiet_s(series["key"]) < self._settings.quiet_s:
            return None
        if short:
            return Event.QUIET_GAP, "quiet", f"{here} of {expected} instances came: send the series again"
        if missing:
            return Event.QUIET_GAP, "quiet", f"{missing} slices are missing inside the stack: send the series again"
        return Event.QUIET_WHOLE, "quiet", ""

    def ask(self) -> None:
        """Asks the archive for the number of instances of what arrives; may take as long as an answer may."""
        if self._archive is None:
            return
        for series in self._arrivals.series(State.ARRIVING, State.INCOMPLETE):
            key, now = series["key"], time.monotonic()
            if now - self._asked_s.get(key, -_ASK_AGAIN_S) < _ASK_AGAIN_S:
                continue
            self._asked_s[key] = now
            files = self._arrivals.files(key)
            if not files:
                continue
            try:
                header = read_header(files[0])
                number = self._archive.count(header.study, header.series)
            except (PeerUnreachable, HeaderError, TlsError) as error:
                log.warning("how many instances a series has is not known: %s", error)
                number = None
            self._answered.add(key)
            if number:
                self._arrivals.expects(key, number)
