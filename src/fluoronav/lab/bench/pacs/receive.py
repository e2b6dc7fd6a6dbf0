"""How fast a series is taken, when its first results are in the archive, and the memory that it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from fluoronav.lab.bench.pacs.results import make_results, put_out, wait_visible
from fluoronav.lab.bench.pacs.rig import BenchNode, Memory, Orthanc, PacsBenchError
from fluoronav.lab.bench.pacs.sender import send
from fluoronav.lab.bench.pacs.series import Template


def bench_receive(folder: Path, series: Template, runs: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Sends series one after another; the first warms node, worker and archive up, and does not count.

    Parameters
    ----------
    folder : Path
        For everything that is written.
    series : Template
    runs : int
        Series that count.
    say : callable

    Returns
    -------
    dict
        Medians: ``receive_s``, from the request of the association to the last answer; ``first_result_s``, from the
        last answer to both results being found by QIDO-RS, and its ``first_result_phases_s``. ``rss_mb``: the most of
        ``node`` and ``worker``, the process that makes cases.
    """
    archive = Orthanc(folder / "archive")
    node = BenchNode(folder / "site", archive.url)
    measured = []
    try:
        node.start()
        assert node.process is not None
        with Memory(node.process.pid) as memory:
            for k in range(runs + 1):
                took = _one(folder / str(k), node, archive, series, k + 1)
                say(f"series {k} of {runs}: {_told(took)}{' (warm-up, not counted)' if k == 0 else ''}")
                measured.append(took)
    finally:
        node.stop()
        archive.stop()
    middle = {name: round(median(took[name] for took in measured[1:]), 3) for name in measured[0]}
    phases = {name: middle[name] for name in ("case", "objects", "visible")}
    return {
        "receive_s": middle["receive"],
        "first_result_s": middle["first_result"],
        "first_result_phases_s": phases,
        "rss_mb": {"node": round(memory.node_mb), "worker": round(memory.worker_mb)},
    }


def _one(folder: Path, node: BenchNode, archive: Orthanc, series: Template, number: int) -> dict[str, float]:
    """Seconds of one series: `receive`, `first_result`, and its three parts."""
    patient = series.write(folder / "ct", number)
    known = len(node.cases()) if number > 1 else 0
    sent = send(patient.files, node.port)
    if sent.accepted != len(patient.files):
        raise PacsBenchError(f"the node accepted {sent.accepted} of {len(patient.files)} instances")
    case = node.next_case(known)
    arrived = time.monotonic()
    files = make_results(case, series, folder)
    made = time.monotonic()
    put_out(node, files)
    wait_visible(archive, patient.study)
    seen = time.monotonic()
    return {
        "receive": sent.seconds,
        "first_result": seen - sent.last_answer_s,
        "case": arrived - sent.last_answer_s,
        "objects": made - arrived,
        "visible": seen - made,
    }


def _told(took: dict[str, float]) -> str:
    return (
        f"taken in {took['receive']:.2f} s, results visible after {took['first_result']:.2f} s "
        f"(case {took['case']:.2f}, objects {took['objects']:.2f}, archive {took['visible']:.2f})"
    )
