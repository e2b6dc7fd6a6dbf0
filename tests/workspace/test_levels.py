"""The level is a question: answered in the workspace, all levels move as one revision that can be taken back."""

import json

import numpy as np
from tests.workspace.conftest import CORD, T8, T9, Editor, Server, index, make_case, phantom, until

T10 = 34
QUESTION = {
    "key": "level", "text": "Which level is the vertebra at 7, 15, -194 (LPS mm)? It is drafted as T8.",
    "choices": ["T8", "T7", "T9"], "evidence": "ribs: T12 unclear; the next place fits as well",
    "points_ct": [[7.0, 15.0, -194.0]],
}  # fmt: skip


def ask(folder):
    (folder / "questions.json").write_text(json.dumps({"revision": 1, "questions": [QUESTION], "warnings": []}))


def structures(page):
    return {s["label"]: s for s in page.http.get(page.at).json()["structures"]}


def test_an_answer_moves_every_level_as_one_audited_revision_and_is_taken_back(server, case):
    page = Editor(server, case)
    ask(server.root / case)
    assert page.http.get(page.at).json()["questions"] == [QUESTION]
    page.http.post(f"{page.at}/structures/judge", json={"revision": 1, "labels": [T8, CORD], "state": "approved"})
    before = structures(page)
    answer = page.http.post(f"{page.at}/levels", json={"revision": 2, "drafted": "T8", "true": "T9"})
    assert answer.status_code == 200, answer.text
    done = answer.json()
    assert (done["revision"], done["can_move_back"], done["questions"]) == (3, True, [])
    page.open()
    labels = phantom()[1]
    np.testing.assert_array_equal(page.voxels() == T9, labels == T8)
    np.testing.assert_array_equal(page.voxels() == T10, labels == T9)
    np.testing.assert_array_equal(page.voxels() == CORD, labels == CORD)
    now = structures(page)
    assert now[T9]["name"] == "vertebrae_T9" and now[T9]["state"] == "draft" and now[CORD]["state"] == "approved"
    line = page.http.get(f"{page.at}/audit?last=1").json()["lines"][0]
    assert (line["event"], line["user"], line["said"], line["by"]) == ("levels", "ada", "T8 is T9", 1)
    assert line["questions"] == [QUESTION["text"]]
    back = page.http.post(f"{page.at}/levels/back", json={"revision": 3})
    assert back.status_code == 200 and back.json()["questions"] == [QUESTION], back.text
    page.open()
    np.testing.assert_array_equal(page.voxels(), labels)
    assert structures(page) == before
    page.http.post(f"{page.at}/structures/judge", json={"revision": 4, "labels": [T9], "state": "approved"})
    lines = (server.root / case / "feedback.jsonl").read_text().splitlines()
    assert not any(json.loads(line)["share"] for line in lines), "a move of levels is no edit of what an engine drew"
    page.http.post(f"{page.at}/structures/judge", json={"revision": 5, "labels": [T9], "state": "draft"})
    assert page.http.post(f"{page.at}/levels/back", json={"revision": 6}).status_code == 422


def test_the_draft_is_confirmed_without_a_new_revision(server, case):
    page = Editor(server, case)
    ask(server.root / case)
    answer = page.http.post(f"{page.at}/levels", json={"revision": 1, "drafted": "T8", "true": "T8"})
    assert (answer.json()["revision"], answer.json()["questions"]) == (1, [])
    assert page.http.get(f"{page.at}/audit?last=1").json()["lines"][0]["what"] == "confirmed"


def test_levels_are_moved_of_the_newest_saved_revision_only(server, case):
    page = Editor(server, case)
    assert page.http.post(f"{page.at}/levels", json={"revision": 7, "drafted": "T8", "true": "T9"}).status_code == 409
    page.stroke(index(2, 30, [5, 6]), T8)
    answer = page.http.post(f"{page.at}/levels", json={"revision": 1, "drafted": "T8", "true": "T9"})
    assert answer.status_code == 422 and "save first" in answer.json()["error"]
    for true in ("T13", "L5"):
        answer = page.http.post(f"{page.at}/levels", json={"revision": 1, "drafted": "T8", "true": true})
        assert answer.status_code == 422, answer.text


def test_edits_of_the_levels_before_are_not_merged_into_their_neighbours(server, case):
    ada, ben = Editor(server, case), Editor(server, case, "ben")
    ben.stroke(index(2, 30, [5, 6]), T8)
    assert ada.http.post(f"{ada.at}/levels", json={"revision": 1, "drafted": "T8", "true": "T9"}).status_code == 200
    answer = ben.ask("save")
    assert answer.status_code == 409 and "moved the levels" in answer.json()["error"]
    assert ben.ask("save", branch="ben").status_code == 200


def test_a_job_that_the_servers_end_broke_off_is_said_and_started_again(tmp_path):
    make_case(tmp_path, "A")
    running = Server(tmp_path)
    try:
        page = Editor(running, "A")
        for end in (running.kill, running.stop):
            job = page.http.post(f"{page.at}/jobs", json={"kind": "screws", "levels": ["T8"]}).json()["job"]
            end()
            running.start()
            page = Editor(running, "A")
            (broken,) = page.http.get(f"{page.at}/jobs").json()["jobs"]
            assert (broken["job"], broken["state"], broken["kind"], broken["user"]) == (job, "broken", "screws", "ada")
            lines = page.http.get(f"{page.at}/audit?last=20").json()["lines"]
            ends = [e for e in lines if e["event"] == "job.end" and e["job"] == job]
            assert [e["state"] for e in ends] == ["broken"]
            if end == running.kill:
                assert page.http.delete(f"{page.at}/jobs/{job}").status_code == 200
                assert page.http.get(f"{page.at}/jobs").json()["jobs"] == []
        again = page.http.post(f"{page.at}/jobs/{job}/again", json={}).json()["job"]
        seen = lambda: page.http.get(f"{page.at}/jobs").json()["jobs"]  # noqa: E731
        until(lambda: seen()[0]["state"] in ("done", "failed"), what="the job")
        assert [j["job"] for j in seen()] == [again]
        running.stop()
        running.start()
        page = Editor(running, "A")
        assert seen() == [], "what has ended was not broken off"
    finally:
        running.stop()
