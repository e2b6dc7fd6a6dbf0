"""Who lies there, for a screen that may know it: the person behind the case that a stream guides by."""

from __future__ import annotations

import re

from fluoronav.pacs.database import Database
from fluoronav.pacs.identities import Identities, PatientRecord
from fluoronav.pacs.outgoing import DATABASE
from fluoronav.pacs.pseudonyms import Pseudonyms
from fluoronav.site.site_file import SiteFile

_CASE = re.compile(r"(P[A-Z2-7]{16}(?:-[0-9]+)?)@[0-9a-f]+")


class Who:
    """Looks persons up in the table of identities.

    Parameters
    ----------
    site : SiteFile

    Raises
    ------
    SiteKeyError, DatabaseError
        The site's key or its database cannot be read.
    """

    def __init__(self, site: SiteFile) -> None:
        pseudonyms = Pseudonyms.load(site.key)
        self._database = Database(site.folder / DATABASE)
        self._identities = Identities(self._database, pseudonyms)

    def of_case(self, case: str) -> PatientRecord | None:
        """Who is behind `health.case`; None where that is none of the store, or nobody is known behind it."""
        match = _CASE.fullmatch(case)
        rows = self._database.rows("SELECT patient FROM cases WHERE name = ?", match[1]) if match else []
        return self._identities.record(self._identities.survivor(rows[0]["patient"])) if rows else None
