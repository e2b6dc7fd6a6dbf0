"""C-FIND of what is here, by UID: enough for a sender to make sure that it arrived (PS3.4 annex C, study root)."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from fluoronav.pacs.arrivals import Arrivals
from fluoronav.pacs.database import Database
from fluoronav.pacs.header import HeaderError, read_header
from fluoronav.pacs.pseudonyms import Pseudonyms

_MOST_UIDS = 1000  # of one query; chosen


class Finder:
    """Answers queries that name UIDs; the database holds only keyed hashes, so that there is nothing to browse.

    Parameters
    ----------
    database : Database
    arrivals : Arrivals
    pseudonyms : Pseudonyms
    """

    def __init__(self, database: Database, arrivals: Arrivals, pseudonyms: Pseudonyms) -> None:
        self._database, self._arrivals, self._pseudonyms = database, arrivals, pseudonyms

    def matches(self, query: Dataset, workflow: str) -> Iterator[Dataset]:
        """The answers to a query at level STUDY, SERIES or IMAGE."""
        level = str(query.get("QueryRetrieveLevel") or "")
        if level == "IMAGE":
            yield from self._images(query, workflow)
        elif level == "SERIES":
            yield from self._series(query, workflow)
        elif level == "STUDY":
            yield from self._studies(query, workflow)

    def _images(self, query: Dataset, workflow: str) -> Iterator[Dataset]:
        for uid in _uids(query, "SOPInstanceUID"):
            if self._database.rows("SELECT 1 FROM instances WHERE key = ?", self._arrivals.key(workflow, uid)):
                found = _answer("IMAGE", query)
                found.SOPInstanceUID = uid
                yield found

    def _series(self, query: Dataset, workflow: str) -> Iterator[Dataset]:
        for uid in _uids(query, "SeriesInstanceUID"):
            (row,) = self._database.rows(
                "SELECT COUNT(*) AS here FROM instances WHERE series = ?", self._arrivals.key(workflow, uid)
            )
            if row["here"]:
                found = _answer("SERIES", query)
                found.SeriesInstanceUID, found.NumberOfSeriesRelatedInstances = uid, row["here"]
                yield found

    def _studies(self, query: Dataset, workflow: str) -> Iterator[Dataset]:
        for uid in _uids(query, "StudyInstanceUID"):
            rows = self._database.rows(
                "SELECT i.key, i.series FROM instances i JOIN series s ON s.key = i.series "
                "WHERE s.study = ? AND s.key GLOB ?",
                self._pseudonyms.name(uid),
                f"{workflow}/*",
            )
            file = next((f for r in rows if (f := self._arrivals.file(r["series"], r["key"])).is_file()), None)
            if file is None:
                continue
            try:
                header = read_header(file)
            except HeaderError:
                continue
            found = _answer("STUDY", query)
            found.StudyInstanceUID, found.PatientID = uid, header.patient_id
            found.NumberOfStudyRelatedInstances = len(rows)
            yield found


def _uids(query: Dataset, keyword: str) -> list[str]:
    value = query.get(keyword) or ()
    uids = [value] if isinstance(value, str) else list(value)
    return [u for u in dict.fromkeys(str(u) for u in uids) if u and "*" not in u][:_MOST_UIDS]


def _answer(level: str, query: Dataset) -> Dataset:
    found = Dataset()
    found.QueryRetrieveLevel = level
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        if isinstance(query.get(keyword), str):
            setattr(found, keyword, query.get(keyword))
    return found
