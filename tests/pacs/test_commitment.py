"""Storage commitment with a real archive (Orthanc), and with one that answers as archives should not."""

import re

import pytest
import yaml
from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import CTImageStorage, StorageCommitmentPushModel, StudyRootQueryRetrieveInformationModelFind
from tests.case.scans import save
from tests.pacs.conftest import Orthanc, ct_series, free_port, send, until

from fluoronav.pacs.outgoing import open_outbox
from fluoronav.pacs.peers import Outcome, Result
from fluoronav.site.init import init_site
from fluoronav.site.site_file import load_site


def committing(dimse, wait_s=600):
    def change(content):
        peer = {"dimse": {**dimse, "commitment": True, "commitment_wait_s": wait_s}, "timeout_s": 30}
        content["peers"]["pacs"] = peer
        content["node"]["callers"].append(dimse["called"])

    return change


def changed(node, change):
    content = yaml.safe_load(node.file.read_text())
    change(content)
    node.file.write_text(yaml.safe_dump(content))


def put(node, folder):
    done = node.command("send", folder, "--to", "pacs", "--site", node.file)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def archive(tmp_path):
    """Starts an archive that knows where the node listens."""
    started = []

    def start(port):
        ours = {"node": {"AET": "FLUORONAV", "Host": "127.0.0.1", "Port": port}}
        started.append(Orthanc(tmp_path / "orthanc", {"DicomModalities": ours}))
        return started[-1].start()

    yield start
    for a in started:
        a.stop()


def test_orthanc_commits_what_was_sent_and_the_file_is_let_go(make_node, archive, tmp_path):
    node = make_node(start=False)
    pacs = archive(node.port)
    changed(node, committing(pacs.dimse))
    node.start()
    put(node, save(ct_series(count=3), tmp_path / "out"))
    until(lambda: node.status["sent"] == 3, what=f"commitment; {node.log.read_text()}")

    def committed():  # it is logged after it is on the disk
        return sum(map(int, re.findall(r"storage commitment: (\d) instances committed, 0 not", node.log.read_text())))

    until(lambda: committed() == 3, 10, "three in the log")
    assert not list((node.site.folder / "outbox").iterdir()) and len(pacs.get("/instances")) == 3


class Archive:
    """Takes everything, and reports on what it is told to; by an association of its own, as SCP."""

    def __init__(self):
        self.port, self.asked, self.kept, self.answer = free_port(), [], {}, 0x0000
        ae = AE("STRANGE")
        for sop in (CTImageStorage, StudyRootQueryRetrieveInformationModelFind, StorageCommitmentPushModel):
            ae.add_supported_context(sop)
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_C_FIND, self._find), (evt.EVT_N_ACTION, self._action)]
        self._server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    @property
    def dimse(self):
        return {"host": "127.0.0.1", "port": self.port, "called": "STRANGE", "insecure": True}

    def _store(self, event):
        uid = str(event.dataset.SOPInstanceUID)
        self.kept[uid] = self.kept.get(uid, 0) + 1
        return 0x0000

    def _find(self, event):
        uid = str(event.identifier.get("SOPInstanceUID") or "")
        if uid in self.kept:
            found = Dataset()
            found.SOPInstanceUID = uid
            yield 0xFF00, found

    def _action(self, event):
        said = event.action_information
        uids = [str(i.ReferencedSOPInstanceUID) for i in said.ReferencedSOPSequence]
        self.asked.append((str(said.TransactionUID), uids))
        return self.answer, None

    def report(self, port, transaction, done=(), failed=(), title="FLUORONAV"):
        """Sends a report; the status that it is answered with."""
        said = Dataset()
        said.TransactionUID = transaction
        for keyword, uids in (("ReferencedSOPSequence", done), ("FailedSOPSequence", failed)):
            items = []
            for uid in uids:
                item = Dataset()
                item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, uid
                if keyword == "FailedSOPSequence":
                    item.FailureReason = 0x0213
                items.append(item)
            if items:
                setattr(said, keyword, items)
        ae = AE("STRANGE")
        ae.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        association = ae.associate("127.0.0.1", port, ae_title=title, ext_neg=[role])
        assert association.is_established
        instance = "1.2.840.10008.1.20.1.1"
        status, _ = association.send_n_event_report(said, 2 if failed else 1, StorageCommitmentPushModel, instance)
        association.release()
        return status.Status

    def stop(self):
        self._server.shutdown()


@pytest.fixture
def strange():
    archive = Archive()
    yield archive
    archive.stop()


def test_it_is_sent_only_when_the_report_says_so_and_that_outlives_a_kill(make_node, strange, tmp_path):
    node = make_node(committing(strange.dimse), start=False)
    put(node, save(ct_series(count=2), tmp_path / "out"))
    node.start()
    until(lambda: strange.asked, what=node.log.read_text())
    assert [o["state"] for o in node.status["outbox"]] == ["stored"] * 2 and node.status["sent"] == 0
    assert "2 stored and not committed" in node.command("status", node.file).stdout
    node.kill()
    node.start()
    (transaction, uids) = strange.asked[0]
    assert strange.report(node.port, transaction, done=uids) == 0x0000
    assert node.status["sent"] == 2 and not list((node.site.folder / "outbox").iterdir())
    assert len(strange.asked) == 1 and set(strange.kept.values()) == {1}


def test_what_was_not_committed_waits_and_is_asked_for_again_and_stored_once(make_node, strange, tmp_path):
    node = make_node(committing(strange.dimse), start=False)
    put(node, save(ct_series(count=2), tmp_path / "out"))
    node.start()
    (transaction, (first, second)) = until(lambda: strange.asked, what=node.log.read_text())[0]
    assert strange.report(node.port, transaction, done=[first], failed=[second]) == 0x0000
    (row,) = node.status["outbox"]
    assert row["state"] == "waiting" and "out of resources" in row["reason"] and node.status["sent"] == 1
    again, uids = until(lambda: strange.asked[1:], what=node.log.read_text())[0]
    assert uids == [second] and again != transaction and strange.kept[second] == 1
    assert strange.report(node.port, again, done=uids) == 0x0000
    assert node.status["sent"] == 2


def test_without_a_report_it_is_asked_again_and_the_first_report_still_counts(make_node, strange, tmp_path):
    node = make_node(committing(strange.dimse, wait_s=1))
    put(node, save(ct_series(count=1), tmp_path / "out"))
    until(lambda: len(strange.asked) >= 2, what=node.log.read_text())
    transaction, uids = strange.asked[0]
    assert strange.report(node.port, transaction, done=uids) == 0x0000
    assert node.status["sent"] == 1 and set(strange.kept.values()) == {1}


def test_an_archive_that_refuses_to_commit_is_told_of_and_the_instance_is_kept(make_node, strange, tmp_path):
    strange.answer = 0x0122
    node = make_node(committing(strange.dimse))
    put(node, save(ct_series(count=1), tmp_path / "out"))
    (row,) = until(lambda: [o for o in node.status["outbox"] if o["reason"]], what=node.log.read_text())
    assert row["state"] == "stored" and "0x0122" in row["reason"]
    assert len(list((node.site.folder / "outbox").iterdir())) == 1


def test_a_report_of_no_transaction_of_ours_changes_nothing(make_node, strange, tmp_path):
    node = make_node(committing(strange.dimse))
    put(node, save(ct_series(count=1), tmp_path / "out"))
    (_, uids) = until(lambda: strange.asked, what=node.log.read_text())[0]
    assert strange.report(node.port, generate_uid(), done=uids) == 0x0110
    assert node.status["sent"] == 0


def test_the_title_that_reports_come_to_takes_no_images(make_node, strange):
    node = make_node(committing(strange.dimse))
    assert set(send(node.port, ct_series(count=1), called="FLUORONAV")) == {0x0124}
    assert not node.status["series"]


def test_an_instance_that_one_report_calls_committed_and_failed_is_not_committed(tmp_path):
    outbox = open_outbox(load_site(init_site(tmp_path / "site")))
    (file,) = save(ct_series(count=1), tmp_path / "out").iterdir()
    outbox.add(file, "pacs")
    waiting = outbox.due()
    outbox.end(waiting.rows[0], Outcome(Result.STORED), committed_later=True)
    asked = outbox.uncommitted("pacs", 600)
    transaction = outbox.ask(asked, 600)
    assert outbox.uncommitted("pacs", 600) is None and outbox.left() == 1
    uid = asked.parcels[0].sop
    outbox.not_asked(asked, "no answer")
    assert outbox._database.rows("SELECT reason FROM outbox")[0]["reason"] == "not committed: no answer"
    assert outbox.reported(transaction, [], {uid: "why"})
    assert outbox._database.rows("SELECT state, reason FROM outbox")[0]["state"] == "waiting"
    # A report that comes twice changes nothing.
    assert outbox.reported(transaction, [uid], {})
    assert outbox._database.rows("SELECT state FROM outbox")[0]["state"] == "waiting"


def test_a_warning_of_the_archive_is_kept_when_it_commits(tmp_path):
    outbox = open_outbox(load_site(init_site(tmp_path / "site")))
    (file,) = save(ct_series(count=1), tmp_path / "out").iterdir()
    outbox.add(file, "pacs")
    outbox.end(outbox.due().rows[0], Outcome(Result.STORED, "stored, with elements coerced"), committed_later=True)
    asked = outbox.uncommitted("pacs", 600)
    outbox.not_asked(asked, "no answer")
    transaction = outbox.ask(asked, 600)
    assert outbox.reported(transaction, [asked.parcels[0].sop], {})
    (row,) = outbox._database.rows("SELECT state, reason FROM outbox")
    assert tuple(row) == ("sent", "stored, with elements coerced")
