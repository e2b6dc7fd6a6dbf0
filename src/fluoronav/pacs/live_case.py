"""Which patient a live case is: the case store's, and nobody else's."""

from __future__ import annotations

import re

from fluoronav.case import CaseError, load_case
from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.objects import Source, read_source
from fluoronav.pacs.database import Database
from fluoronav.pacs.identities import Identities
from fluoronav.site.site_file import SiteFile

_NAME = re.compile(r"(P[A-Z2-7]{16}(?:-[0-9]+)?)@[0-9a-f]+")


class LiveCaseError(ValueError):
    """A live case whose results cannot be sent; the text says why and what to do, and names nobody."""


def source_of_case(site: SiteFile, database: Database, identities: Identities, case: str) -> Source:
    """The CT of the case that a stream says it guides by, once it is certain that it is that.

    The wire says the case's name, a pseudonym, and a hash of its content. Both must be those of a case in the store,
    and the CT there must carry the pseudonym that the node gave it.

    Parameters
    ----------
    site : SiteFile
    database : Database
    identities : Identities
    case : str
        `health.case`.

    Raises
    ------
    LiveCaseError
        No such case in the store, other content, or a CT of another patient.
    """
    match = _NAME.fullmatch(case)
    rows = database.rows("SELECT patient FROM cases WHERE name = ?", match[1]) if match else []
    if match is None or not rows:
        raise LiveCaseError(
            "the stream's case is not one of the case store, so nobody knows whose results these are; put "
            f"{site.cases}/<case> into the launch file"
        )
    name, patient = match[1], rows[0]["patient"]
    folder = site.cases / name
    try:
        here = load_case(folder).id
        source = read_source(folder / "ct")
    except (CaseError, DicomError, OSError) as error:
        raise LiveCaseError(f"case {name} of the store cannot be read: {error}") from error
    if here != case:
        raise LiveCaseError(
            f"the stream guides by another content of case {name} than the store has; load the case again "
            "(case.load), or bring the store's back"
        )
    if str(source.first.PatientID) != patient or name.partition("-")[0] != patient:
        raise LiveCaseError(f"the CT in case {name} is another patient's than the case; no result is made of it")
    if identities.patient(patient) is None:
        raise LiveCaseError(f"the identity behind case {name} is not known here: its results cannot be brought back")
    return source
