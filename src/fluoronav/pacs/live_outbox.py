"""From objects to the outbox, through a folder that outlives a full disk, a busy database and a kill."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from pydicom.dataset import Dataset

from fluoronav.dicom.objects import write_object
from fluoronav.pacs.files import made_folder, sync_file, sync_folder
from fluoronav.pacs.outbox import Outbox, OutboxError
from fluoronav.pacs.pseudonyms import Pseudonyms

log = logging.getLogger(__name__)


class LiveOutbox:
    """Puts the results of a live case into the outbox, once.

    Parameters
    ----------
    folder : Path
        Of the node; ``live/`` is in it.
    outbox : Outbox
    pseudonyms : Pseudonyms
    peer : str
    """

    def __init__(self, folder: Path, outbox: Outbox, pseudonyms: Pseudonyms, peer: str) -> None:
        self._folder = made_folder(folder / "live")
        self._outbox, self._pseudonyms, self._peer = outbox, pseudonyms, peer
        for cut_off in self._folder.glob("*.part"):
            cut_off.unlink()

    def keep(self, made: Iterable[Dataset]) -> int:
        """Writes objects to the disk; the number of them.

        Raises
        ------
        OSError
            The disk is full. What was written stays, and what comes again has the same name.
        """
        number = 0
        for dataset in made:
            path = self._folder / f"{self._pseudonyms.name(str(dataset.SOPInstanceUID))}.dcm"
            if not path.exists():
                write_object(dataset, path)
                sync_file(path)
                sync_folder(self._folder)
            number += 1
        return number

    def forward(self) -> tuple[int, list[str]]:
        """Puts what is kept into the outbox; the number of what was not in it yet, and what cannot be sent.

        Raises
        ------
        OSError, sqlite3.Error
            It is tried again with the next call.
        """
        new, faults = 0, []
        for path in sorted(self._folder.glob("*.dcm")):
            try:
                new += self._outbox.add(path, self._peer)
            except OutboxError as error:
                faults.append(str(error))
                path.replace(path.with_suffix(".refused"))
                continue
            path.unlink()
        return new, faults
