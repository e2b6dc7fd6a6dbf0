"""The server with hostile clients, crashes in mid-save, and large scans."""

import json
import os
import socket
import stat
import struct
import time

import numpy as np
import pytest
import SimpleITK as sitk
from tests.workspace.conftest import CORD, SHAPE, T8, T9, Editor, Server, index, make_case, phantom, unpacked, until

from fluoronav.planning.plan.hashes import volume_hash
from fluoronav.planning.revisions import Revisions
from fluoronav.site.audit import verify_trail

BONE = index(2, 12, np.arange(12, 18))


def raw(server, text, seconds=60.0):
    """Status and body of an answer to a request that is written by hand."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), seconds) as s:
        s.sendall(text.encode())
        answer = b""
        while data := s.recv(65536):
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.decode(), body.decode(errors="replace")


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        ("127.0.0.1", None, 200), ("localhost", "http://localhost", 200), ("evil.example", None, 403),
        ("127.0.0.1", "http://evil.example", 403), ("", None, 403), ("127.0.0.1.evil.example", None, 403),
    ],
)  # fmt: skip
def test_only_addresses_and_allowed_names_are_served_and_only_to_their_own_pages(server, host, origin, expected):
    origin = f"Origin: {origin}\r\n" if origin else ""
    status, head, _ = raw(
        server,
        f"GET /api/cases HTTP/1.1\r\nHost: {host}\r\n{origin}X-Key: {server.keys['ada']}\r\nConnection: close\r\n\r\n",
    )
    assert status == expected
    assert "frame-ancestors 'none'" in head and "nosniff" in head


def test_without_a_key_nothing_of_a_case_is_said(server, case):
    for path in ("/api/cases", f"/api/cases/{case}", f"/api/cases/{case}/ct", "/api/me"):
        status, _, body = raw(server, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert status == 401 and case not in body
    http = server.client()
    http.headers["X-Key"] = server.keys["ada"][:-1]
    assert http.get("/cases").status_code == 401


@pytest.mark.parametrize("name", ["..", "%2e%2e", "..%2f..%2fetc", "a%2fb", ".workspace", "nobody", "x" * 300, "%00"])
def test_a_name_that_is_no_case_is_unknown_and_leads_nowhere(server, name):
    status, _, body = raw(
        server,
        f"GET /api/cases/{name}/revisions HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Key: {server.keys['ada']}\r\n"
        "Connection: close\r\n\r\n",
    )
    assert status == 404 and "root" not in body


def test_a_link_that_leads_out_of_the_store_is_no_case(server, tmp_path):
    make_case(tmp_path, "elsewhere")
    (server.root / "linked").symlink_to(tmp_path / "elsewhere")
    assert server.client().get("/cases/linked").status_code == 404


def test_a_file_of_the_page_is_served_and_nothing_else(server):
    for path in ("../server.py", "%2e%2e/server.py", "..%2fserver.py", ".hidden.js", "none.js"):
        assert raw(server, f"GET /page/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")[0] == 404


def test_a_body_that_is_too_large_is_refused_before_it_is_read(server, case):
    for path, size in ((f"/api/cases/{case}/session/steps?sequence=0", 40 << 20), ("/api/cases", 1 << 40)):
        status, _, body = raw(
            server,
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Key: {server.keys['ada']}\r\nContent-Length: {size}\r\n"
            "Connection: close\r\n\r\n",
        )
        assert status == 413, body


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("session", "{"), ("session", "[1]"), ("session", '{"revision": "x"}'), ("session/undo", "{}"),
        ("session/operations", '{"sequence": 0, "operation": "explode"}'), ("plan/items", '{"parent": 0, "put": [3]}'),
        ("plan/state", '{"parent": 0, "state": "final"}'), ("structures/judge", '{"revision": 1, "labels": []}'),
        ("jobs", '{"kind": "rm"}'), ("jobs", '{"kind": "segment", "engine": "--help"}'),
        ("jobs", '{"kind": "segment", "engine": "import", "upload": "../../case.yaml"}'),
    ],
)  # fmt: skip
def test_a_body_that_makes_no_sense_is_refused_in_words(server, case, path, body):
    http = server.client()
    http.post(f"/cases/{case}/session", json={})
    answer = http.post(f"/cases/{case}/{path}", content=body)
    assert answer.status_code in (400, 404) and len(answer.json()["error"]) > 10


def test_a_case_says_where_its_voxels_lie_and_sends_them_as_they_are(server, case):
    http = server.client()
    head = http.get(f"/cases/{case}").json()
    image = sitk.ReadImage(str(server.root / case / "ct.nrrd"))
    assert head["ct"]["size"] == list(image.GetSize()) and head["ct"]["direction"] == list(image.GetDirection())
    assert head["ct"]["origin_ct"] == list(image.GetOrigin()) and head["ct"]["hash"] == volume_hash(image)
    hounsfield, labels = phantom()
    whole = http.get(f"/cases/{case}/ct")
    assert (np.frombuffer(whole.content, "<i2") == hounsfield.reshape(-1)).all()
    part = http.get(f"/cases/{case}/ct?first=3&count=4&gzip=1").content
    assert (np.frombuffer(part, "<i2").reshape(4, *SHAPE[1:]) == hounsfield[3:7]).all()
    coarse = http.get(f"/cases/{case}/ct?step=4").content
    assert (np.frombuffer(coarse, "<i2") == hounsfield[::4, ::4, ::4].reshape(-1)).all()
    sent = http.get(f"/cases/{case}/revisions/1/labels")
    assert sent.headers["X-Dtype"] == "uint8" and (np.frombuffer(sent.content, "u1") == labels.reshape(-1)).all()
    for wrong in ("first=12", "first=0&count=13", "count=0", "step=3", "first=-1", "first=x"):
        assert http.get(f"/cases/{case}/ct?{wrong}").status_code == 400


def test_a_surface_lies_where_its_voxels_lie_and_looks_outwards(server, case):
    trimesh = pytest.importorskip("trimesh")
    http = server.client()
    spacing, origin = np.array([1.5, 1.25, 3.0]), np.array([-20.0, 31.5, -200.0])
    for path in (f"/cases/{case}/revisions/1/surfaces/{T8}", f"/cases/{case}/session/surfaces/{T8}"):
        http.post(f"/cases/{case}/session", json={})
        answer = http.get(path)
        assert answer.status_code == 200, answer.text
        head, _ = unpacked(answer.content[:0] + answer.content[: 4 + int.from_bytes(answer.content[:4], "little")])
        start = 4 + int.from_bytes(answer.content[:4], "little")
        points = np.frombuffer(answer.content, "<f4", 3 * head["points"], start).reshape(-1, 3)
        triangles = np.frombuffer(answer.content, "<u4", 3 * head["triangles"], start + points.nbytes).reshape(-1, 3)
        assert (head["label"], head["name"]) == (T8, "vertebrae_T8")
        low = origin + spacing * [12, -20 + 0.5, 1] - spacing * [0.5, 0, 0.5]
        high = origin + spacing * [23, -10 + 0.5, 3] + spacing * [0.5, 0, 0.5]
        # The box has lost its edges, and its sides lie outside by as much as that took.
        assert np.allclose(points.min(0), low, atol=0.8) and np.allclose(points.max(0), high, atol=0.8)
        mesh = trimesh.Trimesh(points, triangles, process=False)
        assert mesh.is_watertight and mesh.volume > 0.9 * (labels_of(T8) * spacing.prod())
    assert http.get(f"/cases/{case}/revisions/1/surfaces/7").status_code == 422


def labels_of(label):
    return int((phantom()[1] == label).sum())


def test_a_label_map_of_another_scan_is_refused(server):
    folder = make_case(server.root, "OTHER-SCAN", labels=False)
    other = sitk.GetImageFromArray(phantom()[1])
    other.SetOrigin((0, 0, 55))
    Revisions(folder).add(other, (), author="import", ct_hash="0" * 64, parent=0)
    answer = server.client().get("/cases/OTHER-SCAN/revisions/1/labels")
    assert answer.status_code == 422 and "mm away from the CT" in answer.json()["error"]


def test_the_worklist_says_in_what_state_each_case_is(server, case):
    make_case(server.root, "NEW", labels=False)
    page = Editor(server, case)
    rows = {r["name"]: r for r in page.http.get("/cases").json()["cases"]}
    assert rows["NEW"]["state"] == "arrived" and rows["NEW"]["revision"] == 0
    assert rows[case]["state"] == "segmented" and rows[case]["editors"] == ["ada"] and rows[case]["structures"] == 3
    assert ".workspace" not in rows


def test_a_case_without_a_label_map_is_drawn_from_nothing(server):
    make_case(server.root, "EMPTY", labels=False)
    page = Editor(server, "EMPTY")
    page.stroke(BONE, T8)
    head, _ = unpacked(page.ask("save").content)
    assert head["revision"] == 1
    (structure,) = page.http.get("/cases/EMPTY/revisions/1").json()["structures"]
    assert (structure["engine"], structure["voxels"], structure["kind"]) == ("person", 6, "vertebra")


def test_another_ct_in_the_case_is_noticed_when_the_page_is_loaded(server, case):
    page = Editor(server, case)
    path = server.root / case / "ct.nrrd"
    image = sitk.ReadImage(str(path))
    image[0, 0, 0] = 77
    sitk.WriteImage(image, str(path))
    assert page.http.get(f"/cases/{case}").json()["ct"]["hash"] == volume_hash(image)


def test_keys_are_for_this_computers_user_alone_and_stay_after_a_restart(tmp_path):
    make_case(tmp_path, "A")
    running = Server(tmp_path)
    keys = running.keys
    assert stat.S_IMODE((tmp_path / ".workspace" / "keys.json").stat().st_mode) == 0o600
    running.stop()
    running.start()
    assert running.keys == keys and running.client().get("/me").json()["user"] == "ada"
    running.stop()


def test_a_server_that_is_killed_in_mid_save_leaves_the_old_revision_or_the_new_one(tmp_path):
    shape = (40, 160, 160)  # large enough for a save to take a while
    make_case(tmp_path, "A", shape=shape)
    running = Server(tmp_path)
    for k in range(6):
        page = Editor(running, "A")
        before, newest = page.labels.copy(), page.state["parent"]
        page.stroke(index(k + 3, 30, np.arange(20, 40), shape), T9)
        after = page.labels.copy()
        host, port = running.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as s:
            body = json.dumps({"note": str(k)})
            s.sendall(
                f"POST /api/cases/A/session/save HTTP/1.1\r\nHost: {host}\r\nX-Key: {running.keys['ada']}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
            )
            time.sleep(0.03 * k)
            running.kill()
        running.start()
        page = Editor(running, "A")
        assert (page.labels == after).all() and page.state["undo"] >= 1
        number = page.state["parent"]
        assert number in (newest, newest + 1) and page.state["unsaved"] == (number == newest)
        saved = np.frombuffer(page.http.get(f"/cases/A/revisions/{number}/labels").content, "u1")
        assert (saved == (before if number == newest else after)).all()
        kept = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "A" / "labels.nii.gz")))
        assert (kept.reshape(-1) == saved).all()
        verify_trail(tmp_path / "A" / "provenance.jsonl")
        if number == newest:
            assert page.ask("save").status_code == 200
    running.stop()


def test_a_browser_that_goes_away_while_voxels_are_sent_is_no_error_in_the_log(tmp_path, capfd):
    """Regression: the log held a traceback, once the page was left while it loaded."""
    make_case(tmp_path, "A", shape=(120, 256, 256))
    running = Server(tmp_path)
    http = running.client()
    until(lambda: http.get("/cases/A").status_code == 200, what="opening")
    host, port = running.url.removeprefix("http://").split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as s:
            s.sendall(f"GET /api/cases/A/ct HTTP/1.1\r\nHost: {host}\r\nX-Key: {running.keys['ada']}\r\n\r\n".encode())
            s.recv(1 << 16)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, as of a closed page
    assert http.get("/me").status_code == 200
    time.sleep(0.5)
    running.stop()
    assert "Traceback" not in capfd.readouterr().err


def memory_mb(process):
    with open(f"/proc/{process}/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return int(lines["RssAnon"].split()[0]) / 1024


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="memory is read from /proc")
def test_a_scan_of_a_thousand_slices_is_sent_without_being_held_in_memory(tmp_path):
    shape = (1000, 256, 256)
    folder = make_case(tmp_path, "LONG", shape=shape)
    running = Server(tmp_path)
    http = running.client()
    until(lambda: http.get("/cases/LONG").status_code == 200, what="opening")
    before = memory_mb(running.process.pid)
    for path in ("ct", "revisions/1/labels"):
        size, most = 0, 0
        with http.stream("GET", f"/cases/LONG/{path}") as answer:
            for data in answer.iter_bytes(1 << 20):
                size += len(data)
                most = max(most, memory_mb(running.process.pid))
        assert size == np.prod(shape) * (2 if path == "ct" else 1)
        assert most - before < 60
    page = Editor(running, "LONG")
    page.stroke(index(500, 128, np.arange(100, 120), shape), CORD)
    assert memory_mb(running.process.pid) - before < 60
    running.stop()
    assert folder.is_dir()
