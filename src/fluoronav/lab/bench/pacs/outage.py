"""An archive that is stopped while the node runs: series go on arriving, results go on being sent, nothing is lost."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fluoronav.lab.bench.pacs.results import MADE, make_results, put_out, wait_visible
from fluoronav.lab.bench.pacs.rig import BenchNode, Orthanc, PacsBenchError, until
from fluoronav.lab.bench.pacs.sender import send
from fluoronav.lab.bench.pacs.series import SentSeries, Template

MINUTES = 10.0
_MOST_SERIES = 20  # of one outage: a scanner sends one every half a minute, and results wait on the disk
_BACK_S = 2 * 300.0  # the longest wait of the outbox, twice


def bench_outage(
    folder: Path, series: Template, say: Callable[[str], None], minutes: float = MINUTES, most: int = _MOST_SERIES
) -> dict[str, Any]:
    """Stops the archive, sends series and results meanwhile, and starts the archive again.

    Parameters
    ----------
    folder : Path
    series : Template
    say : callable
    minutes : float
        For which the archive is down.
    most : int
        Series that are sent meanwhile, evenly spread.

    Returns
    -------
    dict
        ``lost`` and ``doubled``: slices of cases and results in the archive. ``outage``: ``minutes``, ``series``, and
        ``all_there_s``, from the archive's first answer until QIDO-RS finds all results.
    """
    archive = Orthanc(folder / "archive")
    node = BenchNode(folder / "site", archive.url)
    sent: list[SentSeries] = []
    try:
        node.start()
        # One before, so that sending is under way when the archive goes.
        sent.append(_one(folder, node, series, 1))
        wait_visible(archive, sent[0].study)
        archive.pause()
        begun = time.monotonic()
        for k in range(most):
            sent.append(_one(folder, node, series, k + 2))
            next_s = begun + minutes * 60 * (k + 1) / most
            say(f"archive down for {time.monotonic() - begun:.0f} s: {_waiting(node)} results wait")
            time.sleep(max(next_s - time.monotonic(), 0.0))
            if time.monotonic() - begun > minutes * 60:
                break
        time.sleep(max(begun + minutes * 60 - time.monotonic(), 0.0))
        archive.resume()
        back = time.monotonic()
        until(lambda: _waiting(node) == 0, "all results are sent", seconds=_BACK_S)
        for patient in sent:
            wait_visible(archive, patient.study)
        seconds = time.monotonic() - back
        lost, doubled = _counted(node, archive, sent)
    finally:
        node.stop()
        archive.stop()
    say(f"the archive is back: everything is there after {seconds:.1f} s; {lost} lost, {doubled} doubled")
    told = {"minutes": minutes, "series": len(sent) - 1, "all_there_s": round(seconds, 1)}
    return {"lost": lost, "doubled": doubled, "outage": told | {"lost": lost, "doubled": doubled}}


def _one(folder: Path, node: BenchNode, series: Template, number: int) -> SentSeries:
    """A series that arrives, and its results in the outbox."""
    place = folder / str(number)
    patient = series.write(place / "ct", number)
    known = len(node.cases())
    sent = send(patient.files, node.port)
    if sent.accepted != len(patient.files):
        raise PacsBenchError(f"the node accepted {sent.accepted} of {len(patient.files)} instances")
    put_out(node, make_results(node.next_case(known), series, place))
    shutil.rmtree(place)
    return patient


def _waiting(node: BenchNode) -> int:
    return sum(o["state"] == "waiting" for o in node.status["outbox"])


def _counted(node: BenchNode, archive: Orthanc, sent: list[SentSeries]) -> tuple[int, int]:
    """How many slices, cases and results are missing, and how many are there more than once."""
    slices = [len(list((case / "ct").iterdir())) for case in node.cases()]
    wanted = len(sent[0].files)
    lost = sum(max(wanted - n, 0) for n in slices) + wanted * max(len(sent) - len(slices), 0)
    doubled = sum(max(n - wanted, 0) for n in slices) + max(len(slices) - len(sent), 0) + len(node.status["aside"])
    for patient in sent:
        stored = archive.stored(patient.study)
        lost += max(len(MADE) - len(set(stored)), 0)
        doubled += len(stored) - len(set(stored))
    return lost, doubled
