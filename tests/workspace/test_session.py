"""Editing over HTTP: strokes, undo, crashes, and two people at once."""

import threading

import numpy as np
import pytest
from tests.workspace.conftest import CORD, LESION, SHAPE, T8, T9, Editor, Server, index, make_case, unpacked

from fluoronav.planning.revisions import Revisions
from fluoronav.site.audit import verify_trail

BONE = index(2, 12, np.arange(12, 18))


def test_a_stroke_is_undone_and_done_again_and_each_is_an_audit_line(server, case):
    page = Editor(server, case)
    before = page.labels.copy()
    page.stroke(BONE, 0, "erase")
    assert page.state["undo"] == 1 and page.state["unsaved"] == 1
    assert page.ask("undo").status_code == 200 and (page.labels == before).all()
    assert page.state["unsaved"] == 0
    assert page.ask("redo").status_code == 200 and (page.labels[BONE] == 0).all()
    lines = page.http.get(f"{page.at}/audit").json()["lines"][-3:]
    assert [(e["user"], e["what"], e["structure"], e["voxels"]) for e in lines] == [
        ("ada", what, "vertebrae_T8", 6) for what in ("erase", "undo erase", "redo erase")
    ]
    assert verify_trail(server.root / case / "provenance.jsonl") >= 4


def test_twenty_steps_are_undone_after_the_server_was_killed_and_the_page_loaded_again(tmp_path):
    make_case(tmp_path, "A")
    running = Server(tmp_path)
    page = Editor(running, "A")
    maps = [page.labels.copy()]
    for k in range(25):
        page.stroke(index(k % 12, 3 + k, np.arange(5, 9)), T9)
        maps.append(page.labels.copy())
    running.kill()
    running.start()
    page = Editor(running, "A")
    assert page.state["undo"] == 25 and (page.labels == maps[-1]).all()
    for expected in reversed(maps[:-1]):
        assert page.ask("undo").status_code == 200 and (page.labels == expected).all()
    assert (page.state["unsaved"], page.state["redo"]) == (0, 25)
    running.stop()


def test_a_record_that_a_crash_cut_off_is_left_out_and_kept(tmp_path):
    make_case(tmp_path, "A")
    running = Server(tmp_path)
    page = Editor(running, "A")
    page.stroke(BONE, 0)
    kept = page.labels.copy()
    page.stroke(index(3, 12, np.arange(12, 18)), 0)
    running.kill()
    (journal,) = (tmp_path / "A" / "sessions").glob("ada-*/session.journal")
    journal.write_bytes(journal.read_bytes()[:-5])
    running.start()
    page = Editor(running, "A")
    assert page.state["undo"] == 1 and (page.labels == kept).all()
    assert list(journal.parent.glob("*.cut"))
    page.stroke(index(4, 12, 12), T9)
    running.stop()


def test_an_edit_of_another_state_is_refused_and_changes_nothing(server, case):
    page = Editor(server, case)
    before = page.labels.copy()
    assert page.send(page.delta(BONE, 0), sequence=7).json()["sequence"] == 0
    wrong = page.delta(BONE, 0)
    wrong["before"] = CORD
    answer = page.send(wrong)
    assert answer.status_code == 409 and "older state" in answer.json()["error"]
    page.load()
    assert (page.labels == before).all()


def test_a_stroke_whose_answer_was_lost_counts_once(server, case):
    page = Editor(server, case)
    runs = page.delta(BONE, 0)
    first, again = page.send(runs, sequence=0), page.send(runs, sequence=0)
    assert first.json() == again.json() and again.json()["undo"] == 1


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([(5, 3, T8, T8)], "changes nothing"), ([(5, 0, 0, T8)], "has no voxels"),
        ([(5, 3, 0, T8), (7, 3, 0, T8)], "before the run before it has ended"),
        ([(int(np.prod(SHAPE)) - 1, 2, 0, T8)], "leaves the volume"), ([], "without runs"),
        ([(5, 3, 0, LESION)], "has no name"),
    ],
)  # fmt: skip
def test_a_delta_that_makes_no_sense_is_refused_with_its_run(server, case, runs, said):
    page = Editor(server, case)
    answer = page.send(np.array(runs, page.delta([0], T8).dtype))
    assert answer.status_code in (400, 422) and said in answer.json()["error"]
    assert page.http.post(f"{page.at}/session/steps?sequence=0", content=b"12345").status_code == 400


def test_labels_above_255_are_drawn_saved_and_read_again(server, case):
    page = Editor(server, case)
    page.do("structure", label=LESION, name="lesion_1")
    page.stroke(index(5, 30, np.arange(20, 25)), LESION)
    assert page.state["dtype"] == "uint16"
    assert page.http.get(f"{page.at}/session/labels?dtype=uint8").status_code == 400
    number = unpacked(page.ask("save", note="a lesion").content)[0]["revision"]
    record = page.http.get(f"{page.at}/revisions/{number}").json()
    (lesion,) = [s for s in record["structures"] if s["label"] == LESION]
    assert (lesion["name"], lesion["engine"], lesion["voxels"]) == ("lesion_1", "person", 5)
    saved = page.http.get(f"{page.at}/revisions/{number}/labels")
    assert saved.headers["X-Dtype"] == "uint16"
    assert (np.frombuffer(saved.content, np.uint16) == page.labels).all()


def test_undo_goes_on_beyond_a_save(server, case):
    page = Editor(server, case)
    before = page.labels.copy()
    page.stroke(BONE, 0)
    assert page.ask("save").status_code == 200
    assert (page.state["parent"], page.state["undo"], page.state["unsaved"]) == (2, 1, 0)
    assert page.ask("undo").status_code == 200
    assert (page.labels == before).all() and page.state["unsaved"] == 1
    assert page.ask("save").status_code == 200
    same = page.http.get(f"{page.at}/compare?a=1&b=3").json()
    assert same == {"voxels": 0, "structures": []}


def test_two_who_edit_different_voxels_both_have_their_work_in_the_newest_revision(server, case):
    ada, ben = Editor(server, case, "ada"), Editor(server, case, "ben")
    ada.stroke(BONE, 0)
    ben.stroke(index(6, 12, np.arange(12, 18)), 0)
    assert ada.ask("save").status_code == 200
    head, _ = unpacked(ben.ask("save").content)
    assert head["merged"] and head["revision"] == 3
    assert (ben.labels[BONE] == 0).all()  # the page was told what merging changed
    ada.open()
    assert (ada.labels == ben.labels).all() and ada.state["parent"] == 3
    assert ben.ask("undo").status_code == 200 and (ben.labels[index(6, 12, np.arange(12, 18))] == T9).all()


def test_two_who_edit_the_same_voxels_are_told_and_nobodys_work_is_lost(server, case):
    ada, ben = Editor(server, case, "ada"), Editor(server, case, "ben")
    ada.stroke(BONE, 0)
    ben.stroke(BONE[:4], T9)
    mine = ben.labels.copy()
    assert ada.ask("save").status_code == 200
    answer = ben.ask("save")
    assert answer.status_code == 409
    said = answer.json()
    assert (said["newest"], said["author"], said["voxels"]) == (2, "ada", 4)
    assert {s["name"] for s in said["structures"]} == {"vertebrae_T8", "vertebrae_T9"}
    ben.open()
    assert (ben.labels == mine).all() and ben.state["unsaved"] == 1
    # Kept as a branch: the main line is still ada's.
    head, _ = unpacked(ben.ask("save", branch="ben-1").content)
    revisions = Revisions(server.root / case)
    assert (revisions.read(head["revision"]).parent, revisions.newest().number) == (1, 2)
    # And brought back from the branch, with ben's voxels where both have edited.
    head, _ = unpacked(ben.ask("save", branch="", resolve="mine").content)
    assert revisions.newest().number == head["revision"] and (ben.labels[BONE] == [T9] * 4 + [0] * 2).all()


def test_giving_way_keeps_the_others_voxels_and_the_rest_of_ones_own(server, case):
    ada, ben = Editor(server, case, "ada"), Editor(server, case, "ben")
    ada.stroke(BONE, 0)
    assert ada.ask("save").status_code == 200
    ben.stroke(np.r_[BONE[:2], index(6, 30, 30)], T9)
    head, _ = unpacked(ben.ask("save", resolve="theirs").content)
    assert head["merged"] and (ben.labels[BONE] == 0).all() and ben.labels[index(6, 30, 30)] == T9


def test_two_saves_in_the_same_moment_are_both_kept(server, case):
    ada, ben = Editor(server, case, "ada"), Editor(server, case, "ben")
    ada.stroke(BONE, 0)
    ben.stroke(index(6, 12, np.arange(12, 18)), 0)
    threads = [threading.Thread(target=e.ask, args=("save",)) for e in (ada, ben)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    last = Editor(server, case, "ada")
    assert last.state["parent"] == 3 and not last.labels[np.r_[BONE, index(6, 12, np.arange(12, 18))]].any()


def test_what_was_edited_of_an_approved_structure_is_a_draft_again_and_the_rest_stays_approved(server, case):
    page = Editor(server, case)
    judged = page.http.post(
        f"{page.at}/structures/judge", json={"revision": 1, "labels": [T8, T9], "state": "approved"}
    )
    assert judged.status_code == 200 and judged.json()["session"]["parent"] == 2
    page.open()
    page.stroke(BONE, 0)
    refused = page.http.post(f"{page.at}/structures/judge", json={"revision": 2, "labels": [T8], "state": "approved"})
    assert refused.status_code == 422 and "save first" in refused.json()["error"]
    assert page.ask("save").status_code == 200
    by = {s["label"]: s for s in page.http.get(f"{page.at}/revisions/3").json()["structures"]}
    assert (by[T8]["state"], by[T8]["judged_by"], by[T9]["state"], by[T9]["judged_by"]) == (
        "draft", "", "approved", "ada"
    )  # fmt: skip
    assert by[T9]["judged_at"] and by[CORD]["state"] == "draft"


def test_a_save_without_edits_is_refused(server, case):
    page = Editor(server, case)
    answer = page.ask("save")
    assert answer.status_code == 422 and "nothing to save" in answer.json()["error"]


def test_discarding_keeps_the_journal_that_it_leaves(server, case):
    page = Editor(server, case)
    before = page.labels.copy()
    page.stroke(BONE, 0)
    answer = page.http.post(f"{page.at}/session/discard", json={"sequence": page.state["sequence"]})
    page.state = answer.json()
    page.load()
    assert (page.labels == before).all() and page.state["undo"] == 0
    assert len(list((server.root / case / "sessions").glob("ada-*/aside-*.journal"))) == 1


def test_without_a_session_an_edit_is_refused(server, case):
    http = server.client()
    answer = http.post(f"/cases/{case}/session/undo", json={"sequence": 0})
    assert answer.status_code == 409 and "open one first" in answer.json()["error"]
