"""From objects to the outbox, through a folder that outlives a full disk, a busy database and a kill."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from pydicom.dataset import Dataset

from fluoronav.durable import made_folder, sync_file, sync_folder, written
from fluoronav.pacs.outbox import Outbox, OutboxError
from fluoronav.pacs.pseudonyms import Pseudonyms

LIVE, STRUCTURES = "live", "structures"  # folders of spools, in the node's
REFUSED, WHY = ".refused", ".why"  # of an object that the outbox refused, and of the reason
log = logging.getLogger(__name__)


class Spool:
    """Puts results into the outbox, once.

    Parameters
    ----------
    folder : Path
        Of this spool alone: no two processes write into one.
    outbox : Outbox
    pseudonyms : Pseudonyms
    peer : str
    """

    def __init__(self, folder: Path, outbox: Outbox, pseudonyms: Pseudonyms, peer: str) -> None:
        self.folder = made_folder(folder)
        self._outbox, self._pseudonyms, self._peer = outbox, pseudonyms, peer
        for cut_off in self.folder.glob("*.part"):
            cut_off.unlink()

    def keep(self, made: Iterable[Dataset]) -> int:
        """Writes objects to the disk, as :func:`keep` does."""
        return keep(made, self.folder, self._pseudonyms)

    def forward(self) -> tuple[int, list[str]]:
        """Puts what is kept into the outbox; the number of what was not in it yet, and what cannot be sent.

        Raises
        ------
        OSError, sqlite3.Error
            It is tried again with the next call.
        """
        new, faults = 0, []
        for path in sorted(self.folder.glob("*.dcm")):
            try:
                new += self._outbox.add(path, self._peer)
            except OutboxError as error:
                # The folder's name is of this computer; the file's is a pseudonym.
                why = str(error).replace(f"{path}: ", "")
                faults.append(f"{path.name}: {why}")
                written(path.with_suffix(WHY), why.encode())
                path.replace(path.with_suffix(REFUSED))
                continue
            path.unlink()
        return new, faults


def keep(made: Iterable[Dataset], folder: Path, pseudonyms: Pseudonyms) -> int:
    """Writes objects into a spool's folder; the number of them.

    Raises
    ------
    OSError
        The disk is full. What was written stays, and what comes again has the same name.
    """
    # Imported by who makes objects: the resident node, which only forwards them, does not need the memory.
    from fluoronav.dicom.objects import write_object

    number = 0
    for dataset in made:
        path = folder / f"{pseudonyms.name(str(dataset.SOPInstanceUID))}.dcm"
        if not path.exists():
            write_object(dataset, path)
            sync_file(path)
            sync_folder(folder)
        number += 1
    return number
