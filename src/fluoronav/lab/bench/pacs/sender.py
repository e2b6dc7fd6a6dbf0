"""The scanner of the bench: sends series by C-STORE, each file as it lies on the disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, _config, evt

from fluoronav.give_way import give_way
from fluoronav.lab.bench.pacs.series import write_series
from fluoronav.pacs.requestor import on_open

_PDU_BYTES = 131072  # as the node's
_ANSWER_S = 30.0  # for an association, and for each answer; chosen


@dataclass(frozen=True)
class Sent:
    """What became of a series.

    Attributes
    ----------
    accepted : int
        Instances that were answered with success.
    seconds : float
        From the request of the association to the last answer.
    last_answer_s : float
        When that was, on the monotonic clock.
    """

    accepted: int
    seconds: float
    last_answer_s: float


def send(files: Sequence[Path], port: int, called: str = "FLUORO_PLAN") -> Sent:
    """C-STORE of CT slices over one association, until all are sent or the connection breaks."""
    # Its handlers write every message to the log.
    _config.LOG_HANDLER_LEVEL = "none"
    # The file is not decoded and encoded again.
    _config.STORE_SEND_CHUNKED_DATASET = True
    ae = AE("STORESCU")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = _ANSWER_S
    ae.maximum_pdu_size = _PDU_BYTES
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    begin, accepted = time.monotonic(), 0
    association = ae.associate("127.0.0.1", port, ae_title=called, evt_handlers=[(evt.EVT_CONN_OPEN, on_open)])
    for path in files:
        if not association.is_established:
            break
        try:
            status = association.send_c_store(path)
        except RuntimeError:  # the connection broke between the two
            break
        accepted += status.get("Status") == 0x0000
    end = time.monotonic()
    if association.is_established:
        association.release()
    return Sent(accepted, end - begin, end)


def send_for_ever(slices: tuple[bytes, ...], port: int, folder: Path, pause_s: float, taken: Any, ended: Any) -> None:
    """A series of another patient, then a pause, until told to end; run in a process of its own.

    Parameters
    ----------
    slices : tuple of bytes
        As in a template.
    port : int
    folder : Path
        For the files that are sent.
    pause_s : float
    taken : multiprocessing.Value
        Counts series of which every instance was accepted.
    ended : multiprocessing.Event
    """
    give_way()  # as a scanner, which is another computer in a hospital
    number = 0
    while not ended.is_set():
        number += 1
        series = write_series(slices, folder / str(number), 500_000 + number)
        taken.value += send(series.files, port).accepted == len(series.files)
        shutil.rmtree(folder / str(number))
        ended.wait(pause_s)
