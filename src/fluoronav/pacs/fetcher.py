"""Fetches CT series from archives; to the intake they come as by C-STORE."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from sqlite3 import Row

from fluoronav.pacs.arrivals import Arrivals, Verdict
from fluoronav.pacs.associations import OpenAssociations
from fluoronav.pacs.database import Database
from fluoronav.pacs.fetches import Fetches
from fluoronav.pacs.header import HeaderError, read_header
from fluoronav.pacs.moves import Move, Moves
from fluoronav.pacs.peers import Archive, FoundSeries, FoundStudy, PeerUnreachable, Wanted
from fluoronav.pacs.tls import TlsError
from fluoronav.site.site_file import SiteFile

log = logging.getLogger(__name__)
_WORKFLOW = "plan"


class NothingToFetch(RuntimeError):
    """What is asked for cannot be fetched, however often; the text says why and names no patient."""


class Fetcher:
    """Works off the queue of fetches.

    Parameters
    ----------
    site : SiteFile
    database : Database
    arrivals : Arrivals
    associations : OpenAssociations
    fetches : Fetches
    archives : mapping of str to Archive
    moves : Moves, optional
        Shared with the receiver, which gets what archives send.
    """

    def __init__(
        self,
        site: SiteFile,
        database: Database,
        arrivals: Arrivals,
        associations: OpenAssociations,
        fetches: Fetches,
        archives: Mapping[str, Archive],
        moves: Moves | None = None,
    ) -> None:
        self._moves = moves or Moves()
        self._site, self._database, self._arrivals, self._associations = site, database, arrivals, associations
        self._fetches, self._archives = fetches, archives

    def work(self) -> None:
        """One attempt at what is due."""
        due = self._fetches.due()
        if due is None:
            return
        row, wanted = due
        self._fetches.begin(row)
        archive = self._archives.get(row["peer"])
        try:
            if archive is None:
                raise PeerUnreachable(f"the site file has no peer {row['peer']} any more")
            number = self._fetched(archive, row, wanted)
        except NothingToFetch as error:
            log.warning("fetch %d from %s: %s", row["id"], row["peer"], error)
            self._fetches.end(row, "refused", str(error))
        except (PeerUnreachable, TlsError) as error:
            log.warning("fetch %d waits for %s: %s", row["id"], row["peer"], error)
            self._fetches.end(row, "waiting", str(error))
        else:
            log.info("fetch %d from %s: %d series are here", row["id"], row["peer"], number)
            self._fetches.end(row, "done")

    def _fetched(self, archive: Archive, row: Row, wanted: Wanted) -> int:
        studies = self._of_one_patient(archive.studies(wanted), wanted)
        chosen = self._chosen(archive, studies, wanted)
        self._fetches.found(row, [(self._arrivals.key(_WORKFLOW, s.series), s) for _, s in chosen])
        for study, series in chosen:
            self._fetch(archive, study, series, self._originators(row["peer"]))
        return len(chosen)

    def _of_one_patient(self, found: list[FoundStudy], wanted: Wanted) -> list[FoundStudy]:
        """The studies that are of what is asked for, and of one patient."""
        issuer = wanted.issuer or self._site.issuer
        if wanted.by == "patient":
            found = [s for s in found if s.patient_id == wanted.value and (s.issuer or self._site.issuer) == issuer]
        elif wanted.by == "accession":
            found = [s for s in found if s.accession == wanted.value]
        else:
            found = [s for s in found if s.study == wanted.value]
        if not found:
            hint = f" of issuer {issuer}" if wanted.by == "patient" else ""
            raise NothingToFetch(
                f"the archive has no study of this {wanted.by}{hint}: is the number right, and is it the right archive?"
            )
        patients = {(s.patient_id, s.issuer or self._site.issuer) for s in found}
        if len(patients) > 1:
            raise NothingToFetch(
                f"studies of {len(patients)} patients have this {wanted.by}: ask by --study or --patient"
            )
        if len({s.birth_date for s in found if s.birth_date}) > 1:
            raise NothingToFetch(
                "two patients have one ID: the studies of this PatientID have several dates of birth. Have the record "
                "corrected at the archive, or fetch one study by --study"
            )
        return sorted(found, key=lambda s: s.when, reverse=True)

    def _chosen(
        self, archive: Archive, studies: list[FoundStudy], wanted: Wanted
    ) -> list[tuple[FoundStudy, FoundSeries]]:
        """The CT series of the newest studies that have some; of one study or accession, all."""
        settings = self._site.fetch
        chosen: list[tuple[FoundStudy, FoundSeries]] = []
        taken = 0
        for study in studies:
            series = [
                s
                for s in archive.series_of(study.study)
                if s.modality == "CT" and (s.instances is None or s.instances >= settings.least_instances)
            ]
            chosen += [(study, s) for s in series]
            taken += bool(series)
            if wanted.by == "patient" and taken == settings.studies:
                break
        if not chosen:
            raise NothingToFetch(
                f"the archive has no CT series of at least {settings.least_instances} instances of this {wanted.by} "
                "(`fetch.least_instances`)"
            )
        return chosen

    def _originators(self, peer: str) -> frozenset[str]:
        dimse = self._site.peers[peer].dimse
        return frozenset() if dimse is None else frozenset({dimse.calling, dimse.called})

    def _fetch(self, archive: Archive, study: FoundStudy, series: FoundSeries, originators: frozenset[str]) -> None:
        key = self._arrivals.key(_WORKFLOW, series.series)
        if series.instances and self._arrivals.here(key) >= series.instances:
            return
        landing = _Landing(self._site, self._database, self._arrivals, self._associations, study, series)
        move = Move(study.study, series.series, study.patient_id, originators)
        try:
            with self._moves.open(move):
                archive.retrieve(series, landing)
        except BaseException as error:
            self._associations.closed(landing)
            if move.fault and isinstance(error, PeerUnreachable):
                raise NothingToFetch(move.fault) from error
            raise
        if move.fault:
            self._associations.closed(landing)
            raise NothingToFetch(move.fault)
        landing.moving()
        self._associations.released(landing)
        self._associations.closed(landing)
        here = self._arrivals.here(key)
        if here < (series.instances or 1):
            raise PeerUnreachable(f"{here} of {series.instances or 'an unknown number of'} instances came")


class _Landing:
    """Takes a series in that is fetched: to the series it is an association like any other."""

    def __init__(
        self,
        site: SiteFile,
        database: Database,
        arrivals: Arrivals,
        associations: OpenAssociations,
        study: FoundStudy,
        series: FoundSeries,
    ) -> None:
        self.title = next((t for t, workflow in site.node.titles.items() if workflow == _WORKFLOW), "")
        self.folder = arrivals.arriving
        self._least_free = site.node.least_free_mb * 2**20
        self._database, self._arrivals, self._associations = database, arrivals, associations
        self._study, self._series = study, series
        self._key = arrivals.key(_WORKFLOW, series.series)
        self._said = False

    def take(self, path: Path) -> None:
        if shutil.disk_usage(self.folder).free < self._least_free:
            raise PeerUnreachable(f"less than {self._least_free >> 20} MB of this disk are free: nothing is fetched")
        try:
            header = read_header(path)
        except HeaderError as error:
            self._database.count(f"object refused: {error}")
            return
        if (header.study, header.series) != (self._series.study, self._series.series):
            raise PeerUnreachable("it sent instances of another series than it was asked for")
        if self._study.patient_id and header.patient_id != self._study.patient_id:
            raise NothingToFetch("the archive sent images of another patient than it said the study is of")
        taken = self._arrivals.take(path, header, _WORKFLOW)
        if taken.verdict is Verdict.OTHER:
            log.warning("an object has the UID of one that is here, and other bytes: kept in aside/")
        self._associations.touched(self, taken.series)
        if not self._said:
            self.moving()
            self._said = True

    def moving(self) -> None:
        if self._series.instances:
            self._arrivals.expects(self._key, self._series.instances)
