"""A node that is killed with -9 at any point goes on where it was: nothing is lost, nothing is there twice."""

import threading
import time
from types import SimpleNamespace

import pytest
from pynetdicom import AE
from tests.pacs.conftest import ct_series, send, until

from fluoronav.case import load_case
from fluoronav.pacs.arrivals import Arrivals
from fluoronav.pacs.associations import OpenAssociations
from fluoronav.pacs.cases import CaseStore
from fluoronav.pacs.database import Database
from fluoronav.pacs.header import read_header
from fluoronav.pacs.identities import Identities
from fluoronav.pacs.intake import take_in
from fluoronav.pacs.pseudonyms import Pseudonyms
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


def test_what_planning_wrote_stays_when_more_slices_come(parts):
    node = parts()
    single = ct_series()
    key = arrive(node.arrivals, single[:13])
    node.arrivals.happens(key, Event.RELEASED, "released")
    (series,) = node.cases.todo()
    job = node.cases.job(series)
    node.cases.finish(series, job, take_in(job))
    (folder,) = node.site.cases.iterdir()
    mine = (folder / "case.yaml").read_text().replace("orbital", "orbital") + "# edited\n"
    (folder / "case.yaml").write_text(mine)
    arrive(node.arrivals, single[13:])
    node.arrivals.happens(key, Event.RELEASED, "released")
    (series,) = node.cases.todo()
    job = node.cases.job(series)
    node.cases.finish(series, job, take_in(job))
    assert (folder / "case.yaml").read_text() == mine
    assert len(list((folder / "ct").iterdir())) == 26
    assert len((folder / "provenance.jsonl").read_text().splitlines()) == 2


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
