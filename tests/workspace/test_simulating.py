"""The planned surgery while a person changes it: the server's side."""

import asyncio
import json
import os
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tests.workspace.conftest import until

from fluoronav.workspace.errors import WorkspaceError
from fluoronav.workspace.simulating import Simulating, Superseded

CUT = {
    "kind": "cut", "id": "c1", "origin": "drawn", "structure": "vertebrae_T8", "point_ct": [7.0, 13.0, -193.0],
    "normal_ct": [0.1, 0.0, 1.0], "kerf_mm": 1.0,
}  # fmt: skip
MOVE = {
    "kind": "move", "id": "m1", "origin": "drawn", "cut": "c1",
    "T_moved_ct": [[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 2.0], [0, 0, 0, 1.0]],
}  # fmt: skip
MARGIN = {"kind": "resection", "id": "r1", "origin": "drawn", "lesion": "spinal_cord", "margin_mm": 8.0}


def ask(http, case, items, status=200, **more):
    answer = http.post(f"/cases/{case}/plan/simulate", json={"items": items, **more})
    assert answer.status_code == status, answer.text
    if status != 200:
        return answer.json()
    (length,) = struct.unpack_from("<I", answer.content)
    return json.loads(answer.content[4 : 4 + length]), answer.content[4 + length + -length % 4 :]


def in_simulating(story):
    """Runs a story with a process of its own."""

    async def run():
        simulating = Simulating()
        try:
            return await story(simulating)
        finally:
            simulating.close()

    # A thread of its own: where a browser's tests have run in this process, its loop is still there.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, run()).result()


def test_a_newer_value_takes_the_place_of_the_one_that_waits():
    async def story(simulating):
        first = asyncio.create_task(simulating.run("a", time.sleep, 0.3))
        await asyncio.sleep(0.05)
        waiting = [asyncio.create_task(simulating.run("a", os.getpid)) for _ in range(3)]
        other = asyncio.create_task(simulating.run("b", os.getpid))
        return await asyncio.gather(first, *waiting, other, return_exceptions=True)

    first, *older, newest, other = in_simulating(story)
    assert first is None
    assert all(isinstance(answer, Superseded) and answer.status == 409 for answer in older)
    assert newest == other != os.getpid()  # one process carries out what both pages ask


def test_what_ends_the_process_is_that_requests_error_alone():
    async def story(simulating):
        with pytest.raises(WorkspaceError, match="has ended"):
            await simulating.run("a", os._exit, 1)
        return await simulating.run("a", os.getpid), simulating._newest

    number, waiting = in_simulating(story)
    assert number != os.getpid() and not waiting


def test_exact_numbers_are_those_of_the_verb(server, case):
    items = [CUT, MOVE, MARGIN]
    with server.client() as http:
        ask(http, case, [{**CUT, "kerf_mm": 2.0}, MOVE, {**MARGIN, "margin_mm": 5.0}])
        ask(http, case, [{**CUT, "kerf_mm": 2.0}, MOVE, {**MARGIN, "margin_mm": 5.0}], exact=True)
        ours = ask(http, case, items, exact=True)[0]["report"]
        put = http.post(f"/cases/{case}/plan/items", json={"parent": 0, "put": items})
        assert put.status_code == 200, put.text
        number = http.post(f"/cases/{case}/jobs", json={"kind": "simulate"}).json()["job"]

        def ended():
            jobs = http.get(f"/cases/{case}/jobs").json()["jobs"]
            return next((j for j in jobs if j["job"] == number and "result" in j), None)

        theirs = until(ended, what="the verb")["result"]
    assert ours["exact"]
    for section in ("cuts", "resections"):
        assert len(ours[section]) == len(theirs[section]) == 1
        np.testing.assert_allclose(numbers(ours[section]), numbers(theirs[section]), rtol=1e-4, atol=1e-9)


def numbers(value):
    value = list(value.values()) if isinstance(value, dict) else value
    if isinstance(value, list):
        return [n for v in value for n in numbers(v)]
    return [float(value)] if isinstance(value, (int, float)) else []


def test_bodies_are_packed_as_the_page_reads_them(server, case):
    with server.client() as http:
        head, payload = ask(http, case, [CUT, MOVE])
    assert not head["report"]["exact"]
    assert [p["kind"] for p in head["parts"]] == ["piece", "piece", "kerf"]
    assert len(payload) == sum(12 * (p["points"] + p["triangles"]) for p in head["parts"])
    moved = [p["T_moved_ct"] for p in head["parts"] if p["T_moved_ct"]]
    assert moved == [MOVE["T_moved_ct"]]
    at = 0
    for p in head["parts"]:
        points = np.frombuffer(payload, "<f4", p["points"] * 3, at).reshape(-1, 3)
        triangles = np.frombuffer(payload, "<u4", p["triangles"] * 3, at + points.nbytes)
        at += points.nbytes + triangles.nbytes
        assert triangles.max() == p["points"] - 1
        assert -205 < points[:, 2].min() < points[:, 2].max() < -180


def test_nothing_of_what_is_being_changed_is_kept(server, case):
    with server.client() as http:
        ask(http, case, [CUT], exact=True)
        assert http.get(f"/cases/{case}/plan").json()["plan"] is None


@pytest.mark.parametrize(
    ("items", "status", "text"),
    [
        ([{**CUT, "point_ct": [7.0, 13.0, 400.0]}], 422, "misses vertebrae_T8"),
        ([{**CUT, "structure": "femur_left"}], 422, "has no structure 'femur_left'"),
        ([MOVE], 422, "names the cut 'c1'"),
        ([{**CUT, "kerf_mm": 50}], 400, "kerf_mm"),
        ([{"kind": "flag", "id": "f", "what": "level", "text": "?"}], 400, "a flag is not carried out"),
    ],
)
def test_what_cannot_be_carried_out_says_why(server, case, items, status, text):
    with server.client() as http:
        assert text in ask(http, case, items, status)["error"]


def test_a_case_without_a_label_map_says_that_there_is_none(server, tmp_path_factory):
    from tests.workspace.conftest import make_case

    make_case(server.root, "without", labels=False)
    with server.client() as http:
        assert "no label map" in ask(http, "without", [CUT], 422)["error"]
