"""A node that is killed with -9 at ten points between the first C-STORE and the results in the archive."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fluoronav.lab.bench.pacs.results import MADE, make_results, put_out, wait_visible
from fluoronav.lab.bench.pacs.rig import BenchNode, Orthanc, PacsBenchError, until
from fluoronav.lab.bench.pacs.sender import Sent, send
from fluoronav.lab.bench.pacs.series import SentSeries, Template

POINTS = 10
_WHOLE = 2  # ways without a crash, whose shorter one the points are spread over


@dataclass
class Chain:
    """A series on its way, as sender and planning see it: each step is done once, however often the node dies."""

    node: BenchNode
    archive: Orthanc
    series: Template
    patient: SentSeries
    folder: Path
    steps: list[str] = field(default_factory=list)
    sent: Sent | None = None
    fault: Exception | None = None

    def run(self) -> None:
        """Sends, waits for the case, makes results and puts them out, waits for the archive."""
        try:
            self._send()
            case = self.node.next_case(0)
            self.steps.append("case")
            files = make_results(case, self.series, self.folder)
            put_out(self.node, files)
            self.steps.append("put out")
            wait_visible(self.archive, self.patient.study)
            self.steps.append("visible")
        except Exception as error:  # told by the thread that waits for this one
            self.fault = error

    def _send(self) -> None:
        # As senders do: a series that was broken off is sent again, whole.
        while self.sent is None or self.sent.accepted < len(self.patient.files):
            until(self.node.listens, "the node listens again")
            self.sent = send(self.patient.files, self.node.port)
            self.steps.append(f"sent {self.sent.accepted}")


def bench_crash(folder: Path, series: Template, say: Callable[[str], None], points: int = POINTS) -> dict[str, Any]:
    """Measures how long the way takes, and then kills the node at points evenly spread over it.

    Returns
    -------
    dict
        ``lost`` and ``doubled``, instances (slices of the case, results in the archive) and cases, summed over all
        points; ``crashes``, each point: ``killed_after_s``, ``done`` before, ``lost``, ``doubled``.
    """
    archive = Orthanc(folder / "archive")
    try:
        # The first warms the archive up.
        seconds = min(_point(folder / f"whole-{k}", archive, series, k + 1, None)[1] for k in range(_WHOLE))
        say(f"without a crash: {seconds:.1f} s from the first C-STORE to the results in the archive")
        crashes = []
        for k in range(points):
            after_s = seconds * (k + 0.5) / points
            crash, _ = _point(folder / f"point-{k}", archive, series, k + 1 + _WHOLE, after_s)
            crashes.append(crash)
            say(
                f"killed after {after_s:.2f} s (then done: {crash['done']}): {crash['lost']} lost, "
                f"{crash['doubled']} doubled"
            )
    finally:
        archive.stop()
    return {
        "lost": sum(c["lost"] for c in crashes),
        "doubled": sum(c["doubled"] for c in crashes),
        "crashes": crashes,
    }


def _point(
    folder: Path, archive: Orthanc, series: Template, number: int, after_s: float | None
) -> tuple[dict[str, Any], float]:
    """One way from series to results with a crash in it; what was lost or doubled, and the seconds that it took."""
    folder.mkdir()
    node = BenchNode(folder / "site", archive.url)
    chain = Chain(node, archive, series, series.write(folder / "ct", number), folder)
    done = ""
    try:
        node.start()
        thread = threading.Thread(target=chain.run, daemon=True)
        begin = time.monotonic()
        thread.start()
        if after_s is not None:
            thread.join(after_s)
            done = chain.steps[-1] if chain.steps else "nothing"
            node.kill()
            node.start()
        thread.join()
        seconds = time.monotonic() - begin
        if chain.fault is not None:
            raise PacsBenchError(f"killed after {after_s} s, {done}: {chain.fault}") from chain.fault
        lost, doubled = _counted(node, archive, chain.patient)
    finally:
        node.stop()
    shutil.rmtree(folder)
    killed = None if after_s is None else round(after_s, 2)
    return {"killed_after_s": killed, "done": done, "lost": lost, "doubled": doubled}, seconds


def _counted(node: BenchNode, archive: Orthanc, patient: SentSeries) -> tuple[int, int]:
    """How many slices, cases and results are missing, and how many are there more than once."""
    until(lambda: not any(o["state"] == "waiting" for o in node.status["outbox"]), "the outbox is empty")
    cases, status = node.cases(), node.status
    slices = sum(len(list((case / "ct").iterdir())) for case in cases)
    stored = archive.stored(patient.study)
    lost = max(len(patient.files) - slices, 0) + max(len(MADE) - len(set(stored)), 0)
    more_slices, more_results = max(slices - len(patient.files), 0), len(stored) - len(set(stored))
    return lost, more_slices + more_results + len(cases) - 1 + len(status["aside"])
