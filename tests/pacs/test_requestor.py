"""Requests that follow one another in an association: each gets its own answer."""

import random
import threading
import time

import pytest
from pynetdicom import AE, evt
from tests.pacs.conftest import ct_series, until
from tests.pacs.test_outbox import outbox, put  # noqa: F401 (a fixture)

from fluoronav.pacs.archives import archive
from fluoronav.pacs.dimse_peer import _query
from fluoronav.pacs.requestor import Checkpoint
from fluoronav.site.site_file import Peer


@pytest.fixture
def held_up(monkeypatch, senders_lose_no_answer):
    """Holds up the thread of every association whenever it has been let pass; gives the checkpoints of them all."""
    establish, delay = senders_lose_no_answer, random.Random(0)  # the product opens its associations by itself

    checkpoints = []

    def associate(self, *arguments, evt_handlers=(), **named):
        def hold_up(event):
            checkpoint = event.assoc._reactor_checkpoint
            checkpoints.append(checkpoint)
            wait = checkpoint.wait

            def late(timeout=None):
                passes = wait(timeout)
                time.sleep(delay.random() * 0.003)
                return passes

            checkpoint.wait = late

        handlers = [*(evt_handlers or ()), (evt.EVT_CONN_OPEN, hold_up)]
        return establish(self, *arguments, evt_handlers=handlers, **named)

    monkeypatch.setattr(AE, "associate", associate)
    return checkpoints


def test_every_query_gets_its_answer_however_late_the_association_s_thread_is(orthanc, outbox, tmp_path, held_up):  # noqa: F811
    put(outbox, tmp_path / "out", ct_series(count=4))
    waiting = outbox.due()
    peer = archive(Peer(timeout_s=5, dimse=orthanc.dimse))
    assert {o.result.value for o in peer.store(waiting.parcels).values()} == {"stored"}
    until(lambda: len(orthanc.get("/instances")) == 4)
    asked = [
        _query("IMAGE", StudyInstanceUID=p.study, SeriesInstanceUID=p.series, SOPInstanceUID=p.sop)
        for p in waiting.parcels
    ] * 100
    assert [a.SOPInstanceUID for a in peer._found(asked)] == [q.SOPInstanceUID for q in asked]
    assert held_up and all(isinstance(checkpoint, Checkpoint) for checkpoint in held_up)


def test_a_checkpoint_is_closed_only_when_the_thread_stands_and_never_for_one_that_has_ended():
    passed, ending = [], threading.Event()

    def pass_by():
        while not ending.is_set():
            checkpoint.wait()
            passed.append(time.monotonic())

    thread = threading.Thread(target=pass_by, daemon=True)
    checkpoint = Checkpoint(thread)
    thread.start()
    for _ in range(200):
        checkpoint.clear()
        so_far = len(passed)
        time.sleep(0.0005)
        assert len(passed) == so_far, "it passed a closed checkpoint"
        checkpoint.set()
    assert checkpoint.is_set() and passed
    ending.set()
    thread.join(10)
    checkpoint.clear()
    assert not checkpoint.is_set()
