"""A node that is killed with -9 at any point goes on where it was: nothing is lost, nothing is there twice."""

import errno
import os
import threading
import time
from contextlib import suppress
from types import SimpleNamespace

import psutil
import pytest
from pynetdicom import AE
from tests.pacs.conftest import ct_series, free_port, send, until

from fluoronav.case import load_case
from fluoronav.pacs.ahead import Ahead
from fluoronav.pacs.arrivals import Arrivals
from fluoronav.pacs.associations import OpenAssociations
from fluoronav.pacs.cases import CaseStore
from fluoronav.pacs.database import Database
from fluoronav.pacs.find import Finder
from fluoronav.pacs.header import read_header
from fluoronav.pacs.identities import Identities
from fluoronav.pacs.intake import take_in
from fluoronav.pacs.node import Node
from fluoronav.pacs.pseudonyms import Pseudonyms
from fluoronav.pacs.receiver import Receiver
from fluoronav.pacs.series import Event, State
from fluoronav.site.init import init_site
from fluoronav.site.site_file import load_site


def accepted(port, datasets, taken):
    """Sends until the connection breaks; notes what was answered with success."""
    ae = AE("STORESCU")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
    ae.add_requested_context(datasets[0].SOPClassUID, datasets[0].file_meta.TransferSyntaxUID)
    association = ae.associate("127.0.0.1", port, ae_title="FLUORO_PLAN")
    for d in datasets:
        if not association.is_established:
            return
        try:
            if association.send_c_store(d).get("Status") == 0:
                taken.append(d.SOPInstanceUID)
        except RuntimeError:
            return
    association.release()


@pytest.mark.parametrize("after_s", [0.05, 0.2, 0.4, 0.7, 1.0, 1.4, 1.8, 2.3, 2.9, 3.6])
def test_killed_at_any_point_nothing_is_lost_and_nothing_doubled(node, after_s):
    single = ct_series()
    taken = []
    sender = threading.Thread(target=accepted, args=(node.port, single, taken))
    sender.start()
    time.sleep(after_s)
    node.kill()
    sender.join()
    node.start()
    # What was answered with success is here; the sender sends the series again, as senders do.
    known = node.status["series"]
    assert sum(s["instances"] for s in known) >= len(taken)
    send(node.port, single)
    until(lambda: node.status["series"][0]["instances"] == 26)
    until(lambda: node.status["cases"] and load_case(node.case()).ct.image.GetSize() == (52, 48, 26))
    until(lambda: not list((node.site.folder / "inbox").rglob("*.dcm")))
    assert len(node.status["cases"]) == 1 and node.status["aside"] == []
    assert not list(node.site.cases.glob(".incoming-*"))


@pytest.fixture
def parts(tmp_path):
    """A node's parts without its threads, so that it can be cut off between two steps."""
    site = load_site(init_site(tmp_path / "site"))

    def started():
        database, pseudonyms = Database(site.folder / "node.sqlite"), Pseudonyms.load(site.key)
        arrivals = Arrivals(site.folder, database, pseudonyms, site.issuer)
        cases = CaseStore(site, database, arrivals, Identities(database, pseudonyms))
        return SimpleNamespace(database=database, arrivals=arrivals, cases=cases, site=site)

    return started


def arrive(arrivals, datasets, workflow="plan"):
    for k, d in enumerate(datasets):
        path = arrivals.arriving / f"{k}.dcm"
        d.save_as(path, enforce_file_format=True)
        arrivals.take(path, read_header(path), workflow)
    (series,) = arrivals.series(State.ARRIVING)
    return series["key"]


class Cut(Exception):
    """The process ends here."""


def test_a_file_whose_row_was_not_written_is_taken_in_after_the_start(parts):
    node = parts()
    (single,) = ct_series(count=1)
    path = node.arrivals.arriving / "x.dcm"
    single.save_as(path, enforce_file_format=True)

    def cut(*_):
        raise Cut

    node.arrivals._insert = cut
    with pytest.raises(Cut):
        node.arrivals.take(path, read_header(path), "plan")
    assert node.database.rows("SELECT * FROM instances") == []
    (node.arrivals.arriving / "half.dcm").write_bytes(b"half")
    again = parts()
    assert again.arrivals.recover() == 1 and again.arrivals.recover() == 0
    assert len(again.arrivals.series(State.ARRIVING)) == 1
    assert not list(again.arrivals.arriving.iterdir())


@pytest.mark.parametrize("step", ["_put", "transaction", "unlink"])
def test_an_intake_that_was_cut_off_is_done_again_to_the_same_end(parts, step, monkeypatch):
    node = parts()
    key = arrive(node.arrivals, ct_series())
    node.arrivals.happens(key, Event.RELEASED, "released")
    (series,) = node.cases.todo()
    job = node.cases.job(series)
    made = take_in(job)
    with monkeypatch.context() as patched:

        def cut(*_, **__):
            raise Cut

        if step == "_put":
            patched.setattr(node.cases, "_put", cut)
        elif step == "transaction":
            patched.setattr(node.cases._identities, "add", cut)
        else:
            patched.setattr("pathlib.Path.unlink", cut)
        with pytest.raises(Cut):
            node.cases.finish(series, job, made)
    again = parts()
    again.arrivals.recover()
    again.cases.recover()
    for series in again.cases.todo():
        job = again.cases.job(series)
        again.cases.finish(series, job, take_in(job))
    assert again.cases.todo() == []
    (case,) = again.database.rows("SELECT * FROM cases")
    folder = again.site.cases / case["name"]
    assert len(list((folder / "ct").iterdir())) == 26 and load_case(folder).ct.image.GetSize() == (52, 48, 26)
    assert [p.name for p in again.site.cases.iterdir()] == [case["name"]]
    assert not list(again.arrivals.inbox.rglob("*.dcm"))


def made_of(node, datasets):
    """A case of the series, which was released."""
    key = arrive(node.arrivals, datasets)
    node.arrivals.happens(key, Event.RELEASED, "released")
    (series,) = node.cases.todo()
    job = node.cases.job(series)
    node.cases.finish(series, job, take_in(job))
    return series


def test_what_planning_wrote_stays_when_more_slices_come(parts):
    node = parts()
    single = ct_series()
    made_of(node, single[:13])
    (folder,) = node.site.cases.iterdir()
    mine = (folder / "case.yaml").read_text() + "# edited\n"
    (folder / "case.yaml").write_text(mine)
    made_of(node, single[13:])
    assert (folder / "case.yaml").read_text() == mine
    assert len(list((folder / "ct").iterdir())) == 26
    assert len((folder / "provenance.jsonl").read_text().splitlines()) == 2


def test_a_case_that_is_cut_off_while_its_ct_is_replaced_loses_no_slice(parts, monkeypatch):
    node = parts()
    single = ct_series()
    made_of(node, single[:13])
    replace = os.replace

    def cut_at_the_second(source, target):
        if str(source).endswith("/ct") and ".incoming" in str(source):
            raise Cut
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr("fluoronav.pacs.cases.os.replace", cut_at_the_second)
        with pytest.raises(Cut):
            made_of(node, single[13:])
    (folder,) = [p for p in node.site.cases.iterdir() if not p.name.startswith(".")]
    assert not (folder / "ct").exists()
    again = parts()
    again.arrivals.recover()
    again.cases.recover()
    (series,) = again.cases.todo()
    job = again.cases.job(series)
    again.cases.finish(series, job, take_in(job))
    assert len(list((folder / "ct").iterdir())) == 26 and not list(folder.glob(".ct*"))
    assert load_case(folder).ct.image.GetSize() == (52, 48, 26)


def test_slices_that_came_while_their_case_was_made_and_are_in_it_refuse_nothing(parts):
    node = parts()
    series = made_of(node, ct_series())
    with node.database.transaction() as sql:
        sql.execute("UPDATE series SET handled = 0")
    (series,) = node.cases.todo()
    assert node.cases.job(series) is None and node.cases.todo() == []
    assert node.arrivals.series(State.REFUSED) == []


def test_what_a_sender_broke_off_is_removed_when_it_is_old(parts):
    arrivals = parts().arrivals
    old, young = arrivals.arriving / "old.dcm", arrivals.arriving / "young.dcm"
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(old, (time.time() - 100, time.time() - 100))
    arrivals.sweep(60)
    assert list(arrivals.arriving.iterdir()) == [young]


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 0xA700), (errno.EIO, 0xC001)])
def test_a_disk_that_is_full_or_fails_is_said_to_the_sender_and_nothing_is_left(tmp_path, number, status, monkeypatch):
    site = load_site(init_site(tmp_path / "site", port=free_port()))
    database, pseudonyms = Database(site.folder / "node.sqlite"), Pseudonyms.load(site.key)
    arrivals = Arrivals(site.folder, database, pseudonyms, site.issuer)
    node = site.node.model_copy(update={"least_free_mb": 1})
    finder = Finder(database, arrivals, pseudonyms)
    receiver = Receiver(node, arrivals, OpenAssociations(), finder, database)
    receiver.start()

    def full(path):
        raise OSError(number, os.strerror(number))

    single = ct_series(count=2)
    with monkeypatch.context() as patched:
        patched.setattr("fluoronav.pacs.arrivals.sync_file", full)
        assert send(node.port, single) == [status, status]
    assert not list(site.folder.rglob("*.dcm")) and database.rows("SELECT * FROM instances") == []
    assert send(node.port, single) == [0x0000, 0x0000]
    receiver.stop()


def test_the_process_that_makes_cases_ends_with_a_node_that_is_killed(make_node):
    node = make_node(cold=True)
    until(lambda: len(psutil.Process(node.process.pid).children(recursive=True)) >= 2, what="a worker")
    children = psutil.Process(node.process.pid).children(recursive=True)
    time.sleep(3)
    node.kill()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []


def test_a_worker_that_is_killed_is_replaced_and_the_series_becomes_a_case(make_node):
    node = make_node(cold=True)
    until(lambda: len(psutil.Process(node.process.pid).children(recursive=True)) >= 2, what="a worker")
    time.sleep(3)
    for child in psutil.Process(node.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # a library may ask a short-lived process something while it is imported
            if "spawn_main" in " ".join(child.cmdline()):
                child.kill()
    send(node.port, ct_series())
    assert load_case(node.case()).ct.image.GetSize() == (52, 48, 26)


def test_an_error_that_nobody_foresaw_refuses_one_series_and_the_others_go_on(tmp_path):
    site = load_site(init_site(tmp_path / "site", port=free_port()))
    node = Node(site)
    for _ in range(2):
        key = arrive(node._arrivals, ct_series())
        node._arrivals.happens(key, Event.RELEASED, "released")
    done = []

    def first_fails(job):
        done.append(job)
        if len(done) == 1:
            raise LookupError("a text that may name a patient")
        return take_in(job)

    node._ahead = Ahead(first_fails)
    node._take_in()
    (refused,) = node._arrivals.series(State.REFUSED)
    assert refused["reason"] == "making its case failed (LookupError)"
    assert len(list(site.cases.iterdir())) == 1 and node._cases.todo() == []


def test_two_nodes_do_not_run_on_one_folder(node):
    second = node.command("serve", node.file)
    assert second.returncode == 1 and "another node runs on this folder" in second.stderr


def test_a_broken_association_and_a_released_one_are_told_apart():
    open_ = OpenAssociations()
    open_.touched("a", "s")
    assert open_.settled_s("s") is None
    assert not open_.closed("a")
    assert open_.settled_s("s") is None
    open_.touched("b", "s")
    open_.released("b")
    assert open_.closed("b") and open_.settled_s("s") >= 0
