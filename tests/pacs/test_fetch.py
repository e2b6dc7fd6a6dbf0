"""Fetching from a real archive by QIDO-RS and WADO-RS, and by C-FIND and C-MOVE, into a running node."""

import json
import sqlite3
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
)
from tests.pacs.conftest import ACCESSION, NAME, PATIENT_ID, Orthanc, ct_series, free_port, send, until

from fluoronav.pacs.database import _SCHEMA, Database, DatabaseError
from fluoronav.pacs.dicomweb_peer import DicomwebPeer
from fluoronav.pacs.outgoing import open_fetches
from fluoronav.pacs.peers import FoundSeries, PeerUnreachable, Wanted
from fluoronav.pacs.wado import PartFiles, WadoError
from fluoronav.site.site_file import Dicomweb


def with_pacs(orthanc, **peer):
    def change(content):
        content["peers"]["pacs"] = {"timeout_s": 5, **peer}
        content["fetch"] = {"peer": "pacs", "least_instances": 5}
        content["node"]["callers"].append("ORTHANC")

    return change


def archived(orthanc, **tags):
    """A CT in the archive."""
    series = ct_series(**tags)
    assert set(send(orthanc.dicom, series, called="ORTHANC")) == {0}
    return series


def nobody_named(node, *more):
    text = node.log.read_text()
    for secret in (NAME, PATIENT_ID, ACCESSION, "Zimmer", *more):
        assert secret not in text


@pytest.fixture
def moving(tmp_path):
    """An archive that lets a node ask for C-MOVE and knows it as the destination; takes the node's port."""
    archives = []

    def made(port):
        ours = {"node": ["FLUORO_PLAN", "127.0.0.1", port], "asker": ["FLUORONAV", "127.0.0.1", port]}
        archive = Orthanc(tmp_path / "orthanc", {"DicomModalities": ours})
        archives.append(archive)
        return archive.start()

    yield made
    for archive in archives:
        archive.stop()


def test_a_patients_ct_is_fetched_by_wado_and_becomes_a_case(make_node, orthanc):
    series = archived(orthanc)
    node = make_node(with_pacs(orthanc, dicomweb=orthanc.web))
    done = node.command("fetch", node.file, "--patient", PATIENT_ID, "--json")
    assert done.returncode == 0, done.stderr
    (fetched,) = json.loads(done.stdout)["series"]
    assert (fetched["state"], fetched["instances"], fetched["expected"]) == ("complete", len(series), len(series))
    assert len(list((node.site.cases / fetched["case"] / "ct").iterdir())) == len(series)
    assert node.status["series"][0]["complete_by"] == "counted"
    # The same again fetches nothing, since all of it is here.
    again = node.command("fetch", node.file, "--study", series[0].StudyInstanceUID)
    assert again.returncode == 0 and len(node.status["cases"]) == 1 and not node.status["aside"]
    nobody_named(node, done.stdout)
    assert PATIENT_ID not in done.stdout + done.stderr + node.command("status", node.file).stdout


def test_without_dicomweb_the_ct_comes_by_c_move_to_our_own_title(make_node, moving):
    node = make_node(start=False)
    archive = moving(node.port)
    # DICOMweb is asked first, and gives no answer.
    dead = {"url": "http://127.0.0.1:9/dicom-web", "insecure": True}
    changed(node, with_pacs(archive, dicomweb=dead, dimse=archive.dimse))
    series = archived(archive)
    node.start()
    done = node.command("fetch", node.file, "--accession", ACCESSION, "--json")
    assert done.returncode == 0, done.stderr + node.log.read_text()
    (fetched,) = json.loads(done.stdout)["series"]
    assert fetched["instances"] == len(series) and fetched["case"]


class Mover:
    """An archive that answers C-FIND for one series, and sends what it likes when it is asked to move that."""

    def __init__(self, said, sent, node_port):
        self.port, self._said, self._sent, self._node = free_port(), said, sent, node_port
        ae = AE("MOVER")
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelMove)
        ae.add_requested_context(CTImageStorage)
        handlers = [(evt.EVT_C_FIND, self._find), (evt.EVT_C_MOVE, self._move)]
        self._server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    @property
    def dimse(self):
        return {"host": "127.0.0.1", "port": self.port, "called": "MOVER", "insecure": True}

    def _find(self, event):
        first, found = self._said[0], Dataset()
        for keyword in ("StudyInstanceUID", "PatientID", "PatientBirthDate", "SeriesInstanceUID", "Modality"):
            setattr(found, keyword, first.get(keyword))
        found.NumberOfSeriesRelatedInstances = len(self._said)
        yield 0xFF00, found

    def _move(self, event):
        yield "127.0.0.1", self._node
        yield len(self._sent)
        for dataset in self._sent:
            yield 0xFF00, dataset

    def stop(self):
        self._server.shutdown()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"PatientID": "OTHER-5150", "PatientName": "Andere^Anna"}, "images of another patient"),
        ({"SeriesInstanceUID": "1.2.3.4.5.6"}, "images of another series"),
        (
            {"PatientID": "OTHER-5150", "SeriesInstanceUID": "1.2.3.4.5.6", "StudyInstanceUID": "1.2.3.4.5"},
            "images of another patient",
        ),
    ],
)
def test_what_comes_by_c_move_is_of_the_patient_and_the_series_that_were_asked_for(make_node, wrong, said):
    node = make_node(start=False)
    asked = ct_series(count=6)
    series = {"SeriesInstanceUID": asked[0].SeriesInstanceUID, **wrong}
    mover = Mover(asked, ct_series(study=asked[0].StudyInstanceUID, count=6, **series), node.port)
    changed(node, with_pacs(None, dimse=mover.dimse))
    changed(node, lambda content: content["node"]["callers"].append("MOVER"))
    node.start()
    done = node.command("fetch", node.file, "--patient", PATIENT_ID)
    mover.stop()
    assert done.returncode == 1 and said in done.stderr, done.stderr + node.log.read_text()
    status = node.status
    assert not status["series"] and not status["cases"] and status["fetches"][0]["state"] == "refused"
    assert any(said in what for what in status["refused"])
    nobody_named(node, "OTHER-5150", "Andere")


def test_what_a_peer_moves_that_we_asked_for_comes_in(make_node):
    node = make_node(start=False)
    asked = ct_series()
    mover = Mover(asked, asked, node.port)
    changed(node, with_pacs(None, dimse=mover.dimse))
    changed(node, lambda content: content["node"]["callers"].append("MOVER"))
    node.start()
    done = node.command("fetch", node.file, "--patient", PATIENT_ID)
    mover.stop()
    assert done.returncode == 0, done.stderr + node.log.read_text()
    assert len(node.status["cases"]) == 1


def test_an_archive_that_does_not_know_our_title_is_told_of_with_what_to_do(make_node, orthanc):
    archived(orthanc, count=6)
    node = make_node(with_pacs(orthanc, dimse=orthanc.dimse))
    done = node.command("fetch", node.file, "--patient", PATIENT_ID)
    assert done.returncode == 1 and "goes on trying" in done.stderr
    assert "C-MOVE" in done.stderr and "FLUORO_PLAN" in done.stderr


def test_what_the_archive_has_not_is_said_and_refused(make_node, orthanc):
    archived(orthanc, count=4)
    node = make_node(with_pacs(orthanc, dicomweb=orthanc.web))
    for words, said in (
        (("--patient", "nobody"), "no study of this patient of issuer SITE"),
        (("--patient", PATIENT_ID, "--issuer", "ELSEWHERE"), "no study of this patient of issuer ELSEWHERE"),
        (("--patient", PATIENT_ID), "no CT series of at least 5 instances"),
        (("--patient", "ZZ*"), "none of * ? "),
        (("--study", "1.2.x"), "not a StudyInstanceUID"),
        (("--patient", PATIENT_ID, "--from", "nowhere"), "has no peer 'nowhere'"),
    ):
        done = node.command("fetch", node.file, *words)
        assert done.returncode == 1 and said in done.stderr, done.stderr
        assert "ZZ" not in done.stderr
    assert not node.status["series"]


def test_two_patients_with_one_id_are_not_fetched_as_one(make_node, orthanc):
    archived(orthanc, count=6)
    archived(orthanc, count=6, PatientBirthDate="19551231", SeriesInstanceUID=generate_uid())
    node = make_node(with_pacs(orthanc, dicomweb=orthanc.web))
    done = node.command("fetch", node.file, "--patient", PATIENT_ID)
    assert done.returncode == 1 and "two patients have one ID" in done.stderr
    assert not node.status["series"] and not node.status["cases"]


def test_a_fetch_waits_for_an_archive_that_is_down_and_survives_the_node(make_node, orthanc):
    archived(orthanc)
    orthanc.stop()
    node = make_node(with_pacs(orthanc, dicomweb=orthanc.web))
    done = node.command("fetch", node.file, "--patient", PATIENT_ID)
    assert done.returncode == 1 and "the node goes on trying" in done.stderr
    node.kill()
    orthanc.start()
    node.start()
    assert node.case().is_dir()
    until(lambda: node.status["fetches"][0]["state"] == "done", what="the fetch")
    for file in node.site.folder.glob("node.sqlite*"):
        assert PATIENT_ID.encode() not in file.read_bytes()


def test_without_a_running_node_it_is_said_how_to_start_it(make_node):
    node = make_node()
    node.stop()
    done = node.command("fetch", node.file, "--patient", "1")
    assert done.returncode == 1 and "the node does not run: start it" in done.stderr


def changed(node, change):
    content = yaml.safe_load(node.file.read_text())
    change(content)
    node.file.write_text(yaml.safe_dump(content))


class Landing:
    title = "X"

    def __init__(self, folder):
        self.folder, self.parts = folder, []

    def take(self, path):
        self.parts.append(path.read_bytes())

    def moving(self):
        pass


CONTENTS = [b"\r\n--b-\r\n--", b"", bytes(range(256)) * 50]
BODY = b"".join(b"--b0\r\nContent-Type: application/dicom\r\n\r\n" + c + b"\r\n" for c in CONTENTS) + b"--b0--\r\n"
TYPE = 'multipart/related; type="application/dicom"; boundary=b0'


@pytest.mark.parametrize("step", [1, 7, 1000, len(BODY)])
@pytest.mark.parametrize("before", [b"", b"\r\n"])
def test_the_parts_of_an_answer_are_files_wherever_it_is_cut_into_pieces(tmp_path, step, before):
    landing, body = Landing(tmp_path), before + BODY
    with PartFiles(TYPE, landing) as parts:
        for at in range(0, len(body), step):
            parts.write(body[at : at + step])
        parts.end()
    assert landing.parts == CONTENTS and not list(tmp_path.iterdir())


@pytest.mark.parametrize("length", [10, 60, len(BODY) - 5])
def test_an_answer_that_is_cut_off_is_an_error_and_leaves_no_part(tmp_path, length):
    landing = Landing(tmp_path)
    with pytest.raises(WadoError, match="cut off"), PartFiles(TYPE, landing) as parts:
        parts.write(BODY[:length])
        parts.end()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("text/html", b"<html>", "text/html, not multipart/related"),
        ("multipart/related", BODY, "with a boundary"),
        (TYPE, b"rubbish that is no part", "not multipart as its header says"),
    ],
)
def test_an_answer_that_is_no_multipart_is_said(tmp_path, kind, body, said):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    web = Dicomweb(url=f"http://127.0.0.1:{server.server_port}", insecure=True)
    with pytest.raises(PeerUnreachable, match=said):
        DicomwebPeer(web, 5).retrieve(FoundSeries("1.2", "1.3", "CT", 1), Landing(tmp_path))
    server.shutdown()


def test_a_request_that_waits_keeps_its_turn_when_the_schedule_repeats_it(make_node):
    site = make_node(start=False).site
    fetches = open_fetches(site)
    first = fetches.add(Wanted("patient", "4711"), "archive", "worklist", again_s=60)
    row, wanted = fetches.due()
    assert wanted.value == "4711"
    fetches.begin(row)
    fetches.end(row, "waiting", "no answer")
    assert fetches.add(Wanted("patient", "4711"), "archive", "worklist", again_s=60) == first
    assert fetches.due() is None
    assert fetches.add(Wanted("patient", "4711"), "archive", "command") == first
    assert fetches.due()[0]["id"] == first
    fetches.end(row, "refused", "no study")
    assert fetches.due() is None and fetches.retry() == 1 and fetches.due() is not None


def test_a_database_of_the_layout_before_keeps_its_rows_and_gets_the_new_tables(tmp_path):
    path = tmp_path / "node.sqlite"
    with sqlite3.connect(path) as old:
        old.executescript(_SCHEMA + "PRAGMA user_version = 1; INSERT INTO tally VALUES ('before', 3);")
    for _ in range(2):
        database = Database(path)
        assert database.rows("SELECT number FROM tally")[0]["number"] == 3
        assert database.rows("SELECT * FROM fetches") == database.rows("SELECT * FROM merges") == []
        database.close()
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 99")
    with pytest.raises(DatabaseError, match="newer fluoronav"):
        Database(path)
