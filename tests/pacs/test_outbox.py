"""The outbox against a real archive, and against one that answers as archives should not."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage, StudyRootQueryRetrieveInformationModelFind
from tests.case.scans import save
from tests.pacs.conftest import ACCESSION, PATIENT_ID, ct_series, free_port, send, until

from fluoronav.pacs.archives import archive
from fluoronav.pacs.delivery import Delivery
from fluoronav.pacs.outbox import LIMITS, OutboxError, wait_s
from fluoronav.pacs.outgoing import open_outbox
from fluoronav.site.init import init_site
from fluoronav.site.site_file import Peer, load_site


@pytest.fixture
def outbox(tmp_path):
    return open_outbox(load_site(init_site(tmp_path / "site")))


def rows(outbox):
    return outbox._database.rows("SELECT * FROM outbox ORDER BY id")


def delivered(outbox, **peer):
    """One round of delivery to a peer, without waiting for the next attempt's time; the rows after it."""
    delivery = Delivery(outbox, {"pacs": archive(Peer(timeout_s=5, **peer))})
    with outbox._database.transaction() as sql:
        sql.execute("UPDATE outbox SET next_ns = 0")
    while (waiting := outbox.due()) is not None:
        delivery.deliver(waiting)
    return rows(outbox)


def put(outbox, folder, datasets):
    for file in sorted(save(datasets, folder).iterdir()):
        outbox.add(file, "pacs")


@pytest.mark.parametrize("way", ["dicomweb", "dimse"])
def test_what_is_sent_is_in_the_archive_once_and_its_file_is_gone(outbox, orthanc, tmp_path, way):
    put(outbox, tmp_path / "out", ct_series(count=5))
    peer = {"dicomweb": {"dicomweb": orthanc.web}, "dimse": {"dimse": orthanc.dimse}}[way]
    assert {(r["state"], r["reason"]) for r in delivered(outbox, **peer)} == {("sent", "")}
    assert len(orthanc.get("/instances")) == 5
    assert not [p for p in outbox._folder.iterdir()]
    for file in (tmp_path / "out").iterdir():
        assert not outbox.add(file, "pacs")
    assert outbox.left() == 0


def test_where_dicomweb_gives_no_answer_it_goes_by_c_store(outbox, orthanc, tmp_path):
    put(outbox, tmp_path / "out", ct_series(count=2))
    dead = {"url": f"http://127.0.0.1:{free_port()}/dicom-web", "insecure": True}
    assert {r["state"] for r in delivered(outbox, dicomweb=dead, dimse=orthanc.dimse)} == {"sent"}
    assert len(orthanc.get("/instances")) == 2


def test_results_and_arrivals_go_on_while_the_archive_is_down_and_all_is_there_once_it_is_back(
    make_node, orthanc, tmp_path
):
    def change(content):
        content["peers"]["pacs"] = {"dicomweb": orthanc.web, "timeout_s": 2}

    node = make_node(change)
    node.command("send", save(ct_series(count=2), tmp_path / "before"), "--to", "pacs", "--site", node.file)
    until(lambda: node.status["sent"] == 2, what=node.log.read_text())
    orthanc.stop()
    for k in range(3):
        node.command("send", save(ct_series(count=2), tmp_path / str(k)), "--to", "pacs", "--site", node.file)
    assert set(send(node.port, ct_series())) == {0}
    assert len(list((node.case() / "ct").iterdir())) == 26
    until(lambda: all(o["attempts"] >= 2 for o in node.status["outbox"]), what="attempts")
    # The longest wait may be minutes; none of it is waited for once the archive answers.
    with open_outbox(node.site)._database.transaction() as sql:
        sql.execute("UPDATE outbox SET next_ns = next_ns + 200 * 1000000000 WHERE state = 'waiting' AND id > 3")
    orthanc.start()
    until(lambda: node.status["sent"] == 8, what=node.log.read_text())
    assert len(orthanc.get("/instances")) == 8 and not node.status["outbox"] and not node.status["aside"]
    times = [c for c in orthanc.get("/changes?limit=1000")["Changes"] if c["ChangeType"] == "NewInstance"]
    assert len(times) == 8


def test_while_the_archive_is_down_it_waits_with_a_reason_and_goes_when_it_is_back(make_node, orthanc, tmp_path):
    def change(content):
        content["peers"]["pacs"] = {"dicomweb": orthanc.web, "timeout_s": 2}

    orthanc.stop()
    node = make_node(change)
    folder = save(ct_series(count=3), tmp_path / "out")
    done = node.command("send", folder, "--to", "pacs", "--site", node.file)
    assert done.returncode == 0 and "3 of 3 files" in done.stderr
    until(lambda: [o for o in node.status["outbox"] if o["attempts"] and "refused" in o["reason"].lower()])
    assert "3 waiting, 0 refused, 0 sent" in node.command("status", node.file).stdout
    node.kill()
    orthanc.start()
    node.start()
    until(lambda: node.status["sent"] == 3)
    assert len(orthanc.get("/instances")) == 3


def test_an_answer_that_is_lost_sends_nothing_twice(outbox, orthanc, tmp_path):
    """Killed after the archive had it and before that was noted: asked first, not sent again."""
    put(outbox, tmp_path / "out", ct_series(count=3))
    peer = archive(Peer(dicomweb=orthanc.web))
    waiting = outbox.due()
    outbox.begin(waiting.rows)
    peer.store(waiting.parcels)
    sent = []
    again = archive(Peer(dicomweb=orthanc.web))
    again.store = lambda parcels: sent.append(parcels)
    with outbox._database.transaction() as sql:
        sql.execute("UPDATE outbox SET next_ns = 0")
    Delivery(outbox, {"pacs": again}).deliver(outbox.due())
    assert not sent and {r["state"] for r in rows(outbox)} == {"sent"}


def test_a_result_that_would_land_on_another_patient_is_refused(outbox, orthanc, tmp_path):
    study = generate_uid()
    put(outbox, tmp_path / "first", ct_series(study, count=1))
    delivered(outbox, dicomweb=orthanc.web)
    put(outbox, tmp_path / "second", ct_series(study, count=1, PatientID="somebody else"))
    for peer in ({"dicomweb": orthanc.web}, {"dimse": orthanc.dimse}):
        last = delivered(outbox, **peer)[-1]
        assert (last["state"], last["reason"]) == ("refused", "its study is another patient's at the archive")
        assert outbox.retry() == 1
    assert len(orthanc.get("/instances")) == 1


def test_a_result_of_a_case_gets_its_patient_study_and_uids_back(make_node, orthanc, tmp_path):
    def change(content):
        content["peers"]["pacs"] = {"dicomweb": orthanc.web}
        content["results_to"] = "pacs"

    node = make_node(change)
    original = ct_series(PatientName="Müller^山田", SpecificCharacterSet="ISO_IR 192")
    send(node.port, original)
    case = node.case()
    slice_ = dcmread(next((case / "ct").iterdir()))
    result = Dataset()
    for k in ("PatientID", "PatientName", "StudyInstanceUID", "SOPClassUID", "FrameOfReferenceUID"):
        setattr(result, k, slice_.get(k))
    result.file_meta = slice_.file_meta
    result.SOPInstanceUID = result.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    result.SeriesInstanceUID, result.Modality, result.SeriesDescription = generate_uid(), "CT", "draft"
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = slice_.SOPClassUID, slice_.SOPInstanceUID
    result.ReferencedImageSequence = [item]
    result.save_as(tmp_path / "result.dcm", enforce_file_format=True)
    done = node.command("send", tmp_path / "result.dcm", "--site", node.file, "--wait", 40)
    assert done.returncode == 0, done.stderr + node.command("status", node.file).stdout
    (sent,) = orthanc.tags
    assert (sent["PatientID"], sent["PatientName"], sent["AccessionNumber"]) == (PATIENT_ID, "Müller^山田", ACCESSION)
    assert (sent["PatientBirthDate"], sent["StudyDate"]) == ("19700203", "20260102")
    assert sent["StudyInstanceUID"] == original[0].StudyInstanceUID
    assert sent["FrameOfReferenceUID"] == original[0].FrameOfReferenceUID
    assert sent["ReferencedImageSequence"][0]["ReferencedSOPInstanceUID"] in {d.SOPInstanceUID for d in original}
    assert sent["SOPInstanceUID"] == result.SOPInstanceUID and "PatientIdentityRemoved" not in sent


def test_the_same_uid_with_other_content_and_what_is_no_dicom_are_not_put_in(outbox, tmp_path):
    (single,) = ct_series(count=1)
    put(outbox, tmp_path / "a", [single])
    single.PatientID = "changed"
    with pytest.raises(OutboxError, match="with other content"):
        put(outbox, tmp_path / "b", [single])
    (tmp_path / "text.dcm").write_text("no DICOM")
    with pytest.raises(OutboxError, match=r"text\.dcm: cannot be read as DICOM"):
        outbox.add(tmp_path / "text.dcm", "pacs")
    assert len(rows(outbox)) == 1 and len(list(outbox._folder.iterdir())) == 1


def test_waits_grow_to_a_bound_and_a_clock_that_was_set_back_makes_nothing_wait(outbox, tmp_path):
    waits = [wait_s(n) for n in range(1, 40)]
    assert waits[0] < waits[3] < waits[7] <= LIMITS.longest_wait_s + LIMITS.jitter_s
    assert max(waits) <= LIMITS.longest_wait_s + LIMITS.jitter_s
    put(outbox, tmp_path / "out", ct_series(count=1))
    with outbox._database.transaction() as sql:
        sql.execute("UPDATE outbox SET next_ns = next_ns + 3600000000000")
    assert outbox.due() is not None
    with outbox._database.transaction() as sql:
        sql.execute("UPDATE outbox SET next_ns = next_ns - 3600000000000 + 60000000000")
    assert outbox.due() is None


class Answers(BaseHTTPRequestHandler):
    """An archive that answers STOW-RS as it is told to."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        uids = [u.rstrip(b"\0").decode() for u in re.findall(rb"\x08\x00\x18\x00UI..([0-9.]+\0?)", body, re.S)]
        self.server.stored |= set(uids)
        code, answer = self.server.answer(uids)
        self._said(code, answer)

    def do_GET(self):
        uid = self.path.rpartition("SOPInstanceUID=")[2]
        found = [{"00080018": {"vr": "UI", "Value": [uid]}}] if uid in self.server.stored else []
        self._said(200 if found else 204, found)

    def _said(self, code, answer):
        content = b"" if code == 204 else json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def answering():
    servers = []

    def made(answer):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        server.answer, server.stored = answer, set()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return {"url": f"http://127.0.0.1:{server.server_address[1]}", "insecure": True}

    yield made
    for server in servers:
        server.shutdown()
        server.server_close()


def failure(uid, reason):
    return {"00081198": {"vr": "SQ", "Value": [{
        "00081155": {"vr": "UI", "Value": [uid]}, "00081197": {"vr": "US", "Value": [reason]}}]}}  # fmt: skip


@pytest.mark.parametrize("code", [200, 202, 409])
def test_a_failed_sop_sequence_is_read_whatever_the_code_says(outbox, answering, tmp_path, code):
    first, second = ct_series(count=2)
    put(outbox, tmp_path / "out", [first, second])
    stored = {"00081155": {"vr": "UI", "Value": [second.SOPInstanceUID]}, "00081196": {"vr": "US", "Value": [0xB000]}}
    warned = {"00081199": {"vr": "SQ", "Value": [stored]}}
    web = answering(lambda uids: (code, failure(first.SOPInstanceUID, 0xA900) | warned))
    by_state = {r["state"]: r["reason"] for r in delivered(outbox, dicomweb=web)}
    assert by_state == {
        "refused": f"STOW-RS was answered with {code}, FailureReason 0xA900",
        "sent": "WarningReason 0xB000",
    }


@pytest.mark.parametrize(
    ("answer", "state", "reason"),
    [
        (lambda uids: (409, {}), "refused", "409: another study"),
        (lambda uids: (400, {}), "refused", "answered with 400"),
        (lambda uids: (401, {}), "waiting", "access was refused (401)"),
        (lambda uids: (503, {}), "waiting", "answered with 503"),
        (lambda uids: (200, failure(uids[0], 0xA700)), "waiting", "0xA700"),
        (lambda uids: (200, failure(uids[0], 0x0122)), "refused", "0x0122"),
    ],
    ids=["409", "400", "401", "503", "out of resources", "class"],
)
def test_what_an_archive_answers_decides_whether_it_is_tried_again(outbox, answering, tmp_path, answer, state, reason):
    put(outbox, tmp_path / "out", ct_series(count=1))
    (row,) = delivered(outbox, dicomweb=answering(answer))
    assert row["state"] == state and reason in row["reason"] and row["attempts"] == 1


def test_stored_is_believed_only_when_the_archive_finds_it(outbox, answering, tmp_path):
    put(outbox, tmp_path / "out", ct_series(count=1))
    web = answering(lambda uids: (200, {}))
    peer = archive(Peer(dicomweb=web))
    peer.found = lambda parcels: set()
    Delivery(outbox, {"pacs": peer}).deliver(outbox.due())
    (row,) = rows(outbox)
    assert row["state"] == "waiting" and "does not find it" in row["reason"]


def test_a_token_is_sent_and_read_anew_for_every_attempt(outbox, answering, tmp_path):
    put(outbox, tmp_path / "out", ct_series(count=1))
    token = tmp_path / "token"
    token.write_text("old\n")
    seen = []
    web = answering(lambda uids: (200, {}))
    original = Answers.parse_request

    def looked(handler):
        ok = original(handler)
        seen.append(handler.headers.get("Authorization"))
        return ok

    Answers.parse_request = looked
    try:
        delivered(outbox, dicomweb={**web, "token": token})
    finally:
        Answers.parse_request = original
    assert set(seen) == {"Bearer old"}
    token.unlink()
    put(outbox, tmp_path / "more", ct_series(count=1))
    assert "the token cannot be read" in delivered(outbox, dicomweb={**web, "token": token})[-1]["reason"]


@pytest.mark.parametrize(
    ("status", "state", "reason"),
    [
        (0xB000, "sent", "stored, with elements coerced (0xB000)"),
        (0xA700, "waiting", "status 0xA700"),
        (0xA900, "refused", "status 0xA900"),
        (0xC123, "refused", "status 0xC123"),
    ],
)
def test_c_store_warnings_and_failures_are_told_apart(outbox, tmp_path, status, state, reason):
    stored = []

    def store(event):
        stored.append(event.request.AffectedSOPInstanceUID)
        return status

    def find(event):
        if event.identifier.QueryRetrieveLevel == "IMAGE" and event.identifier.SOPInstanceUID in stored:
            yield 0xFF00, event.identifier

    ae = AE("PACS")
    ae.add_supported_context(CTImageStorage)
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    port = free_port()
    server = ae.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store), (evt.EVT_C_FIND, find)]
    )
    put(outbox, tmp_path / "out", ct_series(count=1))
    dimse = {"host": "127.0.0.1", "port": port, "called": "PACS", "insecure": True}
    (row,) = delivered(outbox, dimse=dimse)
    server.shutdown()
    assert row["state"] == state and reason in row["reason"]


def test_an_archive_that_does_not_know_us_leaves_a_reason(outbox, tmp_path):
    ae = AE("PACS")
    ae.require_calling_aet = ["SOMEBODY"]
    ae.add_supported_context(CTImageStorage)
    port = free_port()
    server = ae.start_server(("127.0.0.1", port), block=False)
    put(outbox, tmp_path / "out", ct_series(count=1))
    dimse = {"host": "127.0.0.1", "port": port, "called": "PACS", "insecure": True}
    (row,) = delivered(outbox, dimse=dimse)
    server.shutdown()
    assert row["state"] == "waiting" and "rejected" in row["reason"] and "AE titles known" in row["reason"]


def test_send_says_what_it_did_not_take_and_leaves_a_dicomdir_out(make_node, tmp_path):
    node = make_node(start=False)
    folder = save(ct_series(count=2), tmp_path / "out")
    (folder / "DICOMDIR").write_bytes(b"index")
    (folder / "letter.txt").write_text("Dear colleague")
    done = node.command("send", folder, "--site", node.file)
    assert done.returncode == 1 and "2 of 3 files" in done.stderr and "letter.txt: cannot be read" in done.stderr
    wrong = node.command("send", folder, "--to", "nowhere", "--site", node.file)
    assert wrong.returncode == 1 and "has no peer 'nowhere'; it has archive, node" in wrong.stderr
    waiting = node.command("send", folder / "0000.dcm", "--site", node.file, "--wait", 0.5)
    assert waiting.returncode == 1 and "2 instances still wait" in waiting.stderr
    assert "0 series are judged anew, 2 instances" in node.command("retry", node.file).stdout
    assert yaml.safe_load(node.command("status", node.file, "--json").stdout)["node"]["running"] is False


def test_the_archive_says_how_many_instances_a_series_has(make_node, orthanc):
    def change(content):
        content["peers"]["pacs"] = {"dicomweb": orthanc.web, "dimse": orthanc.dimse}
        content["series"] = {"settle_s": 0.2, "quiet_s": 60, "count_from": "pacs"}

    single = ct_series()
    send(orthanc.dicom, single, called="ORTHANC")
    node = make_node(change)
    # Without a gap and released: only the archive knows that the upper half is missing.
    send(node.port, single[:13])
    until(lambda: node.status["series"][0]["expected"] == 26)
    send(node.port, single[13:], release=False)
    (series,) = node.series(state="complete", instances=26)
    assert series["complete_by"] == "counted" and not series["flagged"]


def test_what_another_process_puts_in_while_the_node_starts_is_not_taken_for_a_leftover(outbox, tmp_path, monkeypatch):
    (file,) = save(ct_series(count=1), tmp_path / "out").iterdir()
    leftover = outbox._folder / "pacs-leftover.dcm"
    leftover.write_bytes(b"of nobody")
    other = open_outbox(load_site(tmp_path / "site" / "SITE.yaml"))
    putting = threading.Thread(target=other.add, args=(file, "pacs"))
    listed = Path.iterdir

    def listed_late(folder):
        if folder == outbox._folder and not putting.is_alive():
            putting.start()
            putting.join(1.0)
        return listed(folder)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", listed_late)
        outbox.recover()
    putting.join()
    assert not leftover.exists() and outbox.left() == 1
    assert len(outbox.due().parcels) == 1
