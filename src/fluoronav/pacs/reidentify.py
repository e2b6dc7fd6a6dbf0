"""Results that wait under an ID that was given up: they get that of the record that goes on, and keep their UIDs."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from pydicom import dcmread

from fluoronav.durable import digest_from, moved, sync_file
from fluoronav.pacs.database import Database
from fluoronav.pacs.header import HeaderError, read_header
from fluoronav.pacs.identities import Identities
from fluoronav.pacs.pseudonyms import Pseudonyms

log = logging.getLogger(__name__)


def reidentify_waiting(
    folder: Path, issuer: str, database: Database, pseudonyms: Pseudonyms, identities: Identities
) -> int:
    """Puts the surviving record's patient into each result of the outbox that was not sent; returns their number.

    It may be called at any time, and again after a crash: what is right already is left alone.

    Parameters
    ----------
    folder : Path
        Of the node; ``outbox/`` is in it.
    issuer : str
        Of patient IDs that name none.
    database : Database
    pseudonyms : Pseudonyms
    identities : Identities
    """
    given_up = {r["old"] for r in database.rows("SELECT old FROM merges")}
    if not given_up:
        return 0
    number = 0
    for row in database.rows("SELECT id, file FROM outbox WHERE state != 'sent'"):
        path = folder / "outbox" / row["file"]
        try:
            header = read_header(path)
        except (HeaderError, OSError):
            continue  # it was sent meanwhile, or is damaged, which the delivery says
        old = pseudonyms.patient(header.issuer or issuer, header.patient_id)
        if old not in given_up or not _rewritten(path, old, identities):
            continue
        digest = digest_from(path, read_header(path).digest_offset)
        with database.transaction() as sql:
            sql.execute("UPDATE outbox SET digest = ? WHERE id = ?", (digest, row["id"]))
        number += 1
    if number:
        log.info("%d results that wait were given the ID of the record that goes on", number)
    return number


def _rewritten(path: Path, pseudonym: str, identities: Identities) -> bool:
    """Gives a file the patient that a pseudonym stands for now; False where nothing is known of them."""
    dataset = dcmread(path)
    dataset.PatientID = pseudonym
    if not identities.reassociated(dataset):
        return False
    part = path.with_name(f".{path.stem}-merged.part")
    try:
        dataset.save_as(part, enforce_file_format=True)
        sync_file(part)
        # One that was sent meanwhile must not come back as a file without a row.
        if path.exists():
            moved(part, path)
            return True
    finally:
        if part.exists():
            os.unlink(part)
    return False
