"""The node's end: prompt, whatever its worker does, and nothing that it breaks off is held against a series."""

import multiprocessing
import os
import signal
import subprocess
import threading
import time

import pytest
from tests.pacs.conftest import ct_series, send, until

from fluoronav.pacs.workers import Workers, WorkersEndedError


def workers_of(process):
    """The processes that make cases: children of the node that Python started with ``spawn``."""
    found = subprocess.run(["pgrep", "-P", str(process.pid), "-f", "spawn_main"], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


def test_a_series_whose_worker_hangs_at_the_end_is_neither_refused_nor_lost(make_node):
    node = make_node(cold=True)
    (worker,) = until(lambda: workers_of(node.process), what="the worker")
    os.kill(worker, signal.SIGSTOP)  # as a library that never returns
    send(node.port, ct_series())
    until(lambda: any(s["state"] == "complete" for s in node.status["series"]), what="a complete series")
    node.stop()
    assert [s["state"] for s in node.status["series"]] == ["complete"]
    node.start()
    assert node.case().exists()


@pytest.mark.parametrize("wait_s", [0.0, 0.3, 1.0])
def test_a_node_ends_while_its_worker_starts(make_node, wait_s):
    node = make_node(cold=True)
    time.sleep(wait_s)
    node.stop()
    assert node.process.returncode == 0


def test_a_job_that_runs_at_the_end_says_so_and_its_process_is_gone():
    workers, said = Workers(), []

    def job():
        try:
            workers._done(time.sleep, 600.0)
        except WorkersEndedError as error:
            said.append(error)

    thread = threading.Thread(target=job)
    thread.start()
    until(multiprocessing.active_children, what="a process")
    workers.close()
    thread.join(10)
    assert len(said) == 1
    assert not multiprocessing.active_children()


def test_after_the_end_no_job_is_taken():
    workers = Workers()
    workers.close()
    with pytest.raises(WorkersEndedError):
        workers.warm()
