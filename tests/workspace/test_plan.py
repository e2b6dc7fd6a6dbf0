"""The plan over HTTP: items, flags, review and approval, and the verbs that fill it."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from tests.workspace.conftest import CORD, T8, T9, Editor, index, make_case, until

from fluoronav.cli import main
from fluoronav.paths import embedded_case
from fluoronav.planning.plan.file import read_plan, write_plan
from fluoronav.planning.plan.schema import Flag, Plan, Screw
from fluoronav.site.audit import verify_trail
from fluoronav.site.case_trail import CaseTrail

PATH = {
    "kind": "path",
    "id": "p1",
    "name": "left",
    "entry_ct": [0, 0, -190],
    "target_ct": [0, 30, -190],
    "diameter_mm": 3,
}


class Page:
    """A page's plan."""

    def __init__(self, server, case, user="ada"):
        self.http, self.at = server.client(user), f"/cases/{case}"
        self.http.get(self.at).raise_for_status()

    def post(self, verb, status=200, **body):
        answer = self.http.post(f"{self.at}/plan/{verb}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def judge(self, labels, state="approved"):
        newest = self.http.get(self.at).json()["newest"]
        answer = self.http.post(
            f"{self.at}/structures/judge", json={"revision": newest, "labels": labels, "state": state}
        )
        assert answer.status_code == 200, answer.text


def test_a_plan_is_edited_reviewed_and_approved_and_each_revision_stays(server, case):
    page = Page(server, case)
    assert page.http.get(f"{page.at}/plan").json() == {"plan": None, "obstacles": []}
    plan = page.post("items", parent=0, put=[PATH])["plan"]
    assert (plan["revision"], plan["state"], plan["author"], plan["items"][0]["origin"]) == (1, "draft", "ada", "drawn")
    (line,) = [x for x in page.http.get(f"{page.at}/audit").json()["lines"] if str(x["n"]) == plan["items"][0]["audit"]]
    assert (line["event"], line["what"], line["put"], line["user"]) == ("plan", "edited", ["p1"], "ada")
    said = page.post("state", parent=1, state="approved", status=422)
    assert "reviewed" in said["error"]
    page.post("state", parent=1, state="reviewed")
    said = page.post("state", parent=2, state="approved", status=422)
    assert any("spinal_cord is draft" in r for r in said["reasons"])
    page.judge([CORD])
    approved = page.post("state", parent=2, state="approved")["plan"]
    assert (approved["state"], approved["reviewed_by"], approved["approved_by"]) == ("approved", "ada", "ada")
    assert read_plan(server.root / case / "plan.yaml").state == "approved"
    again = page.post("items", parent=3, put=[{**PATH, "diameter_mm": 4}])["plan"]
    assert (again["state"], again["approved_by"], again["revision"]) == ("draft", "", 4)
    assert page.http.get(f"{page.at}/plan/3").json()["plan"]["state"] == "approved"
    states = [r["state"] for r in page.http.get(f"{page.at}/plans").json()["revisions"]]
    assert states == ["draft", "reviewed", "approved", "draft"]
    verify_trail(server.root / case / "provenance.jsonl")


def test_of_two_who_edit_a_plan_the_second_is_told(server, case):
    ada, ben = Page(server, case), Page(server, case, "ben")
    ada.post("items", parent=0, put=[PATH])
    assert ben.post("items", parent=0, put=[{**PATH, "id": "p2"}], status=409)["newest"] == 1
    assert len(ben.post("items", parent=1, put=[{**PATH, "id": "p2"}])["plan"]["items"]) == 2


def test_what_was_proposed_becomes_moved_and_what_was_not_touched_stays(server, case):
    page = Page(server, case)
    ct_hash = page.http.get(page.at).json()["ct"]["hash"]
    proposed = {**PATH, "origin": "proposed"}
    plan = Plan(case=case, revision=1, ct_hash=ct_hash, made="2026-01-01", state="approved", items=(proposed,))
    write_plan(plan, server.root / case / "plan.yaml")
    plan = page.http.get(f"{page.at}/plan").json()["plan"]
    assert (plan["state"], plan["items"][0]["origin"]) == ("draft", "proposed")  # a file cannot approve itself
    refused = page.post("items", parent=1, put=[{**PATH, "origin": "drawn"}], status=422)
    assert "nothing was changed" in refused["error"]
    plan = page.post("items", parent=1, put=[{**PATH, "target_ct": [0, 31, -190]}, {**PATH, "id": "p2"}])["plan"]
    assert [i["origin"] for i in plan["items"]] == ["moved", "drawn"]
    assert [i["id"] for i in page.post("items", parent=2, remove=["p1"])["plan"]["items"]] == ["p2"]
    page.post("items", parent=3, remove=["p1"], status=404)


def test_a_flag_is_acknowledged_by_a_person_and_never_by_an_edit(server, case):
    page = Page(server, case)
    flag = {
        "kind": "flag",
        "id": "f1",
        "what": "vertebrae",
        "text": "six lumbar vertebrae?",
        "acknowledged_by": "nobody",
    }
    plan = page.post("items", parent=0, put=[PATH, flag])["plan"]
    assert plan["items"][1]["acknowledged_by"] == ""
    page.judge([CORD])
    page.post("state", parent=1, state="reviewed")
    said = page.post("state", parent=2, state="approved", status=422)
    assert said["reasons"] == ["nobody has acknowledged: six lumbar vertebrae?"]
    plan = page.post("acknowledge", parent=2, flags=["f1"])
    assert plan["plan"]["items"][1]["acknowledged_by"] == "ada" and plan["plan"]["state"] == "reviewed"
    page.post("state", parent=3, state="approved")
    page.post("acknowledge", parent=4, flags=["p1"], status=404)


def test_a_plan_on_another_label_map_cannot_be_approved_until_it_was_checked_on_the_new_one(server, case):
    page, editor = Page(server, case), Editor(server, case)
    page.post("items", parent=0, put=[PATH])
    editor.stroke(index(2, 12, [12, 13]), T9)
    assert editor.ask("save").status_code == 200
    page.judge([CORD])
    page.post("state", parent=1, state="reviewed")
    said = page.post("state", parent=2, state="approved", status=422)
    assert any("label map was changed" in r for r in said["reasons"])
    assert page.post("refit", parent=2)["plan"]["state"] == "draft"
    page.post("state", parent=3, state="reviewed")
    page.post("state", parent=4, state="approved")


def test_a_plan_for_another_ct_cannot_be_approved(server, case):
    page = Page(server, case)
    page.judge([CORD])
    plan = Plan(case=case, revision=1, ct_hash="b" * 64, made="2026-01-01", items=(PATH | {"origin": "drawn"},))
    write_plan(plan, server.root / case / "plan.yaml")
    page.post("state", parent=1, state="reviewed")
    said = page.post("state", parent=2, state="approved", status=422)
    assert any("another CT" in r for r in said["reasons"])


def test_an_item_that_makes_no_sense_is_refused_with_its_field(server, case):
    page = Page(server, case)
    assert "diameter_mm" in page.post("items", parent=0, put=[{**PATH, "diameter_mm": 0.003}], status=400)["error"]
    assert "same id" in page.post("items", parent=0, put=[PATH, {**PATH, "diameter_mm": 5}], status=400)["error"]
    assert page.http.get(f"{page.at}/plan").json()["plan"] is None


def test_the_case_file_follows_the_newest_revision_and_keeps_margins(server, case):
    path = server.root / case / "case.yaml"
    content = yaml.safe_load(path.read_text())
    content["structures"] = [{"name": "spinal_cord", "label": CORD, "caution_mm": 3.0, "danger_mm": 1.5}]
    path.write_text("# by hand\n" + yaml.safe_dump(content))
    page = Page(server, case)
    editor = Editor(server, case)
    editor.do("relabel", **{"from": T8, "to": 34})
    assert editor.ask("save").status_code == 200
    text = path.read_text()
    content = yaml.safe_load(text)
    by = {s["name"]: s for s in content["structures"]}
    assert text.startswith("# by hand\n") and content["labels"] == "labels.nii.gz"
    assert by.keys() == {"vertebrae_T9", "vertebrae_T10", "spinal_cord"} and by["spinal_cord"]["caution_mm"] == 3.0
    assert content["rigid"] == {"structures": ["vertebrae_T10", "vertebrae_T9"]}
    structures = {s["name"]: s for s in page.http.get(page.at).json()["structures"]}
    assert structures["spinal_cord"]["alarms"] and not structures["vertebrae_T9"]["alarms"]


def test_feedback_says_what_people_changed_of_an_engines_work(server, case, tmp_path, capsys):
    editor = Editor(server, case)
    editor.stroke(index(2, 12, range(12, 18)), 0)
    assert editor.ask("save").status_code == 200
    Page(server, case).judge([CORD])
    folder = tmp_path / "cases"
    shutil.copytree(server.root / case, folder / case)
    assert main(["workspace", "feedback", str(folder), "--json", str(tmp_path / "f.json")]) == 0
    assert "vertebrae_T8" in capsys.readouterr().out
    rows = {r["structure"]: r for r in yaml.safe_load((tmp_path / "f.json").read_text())["structures"]}
    assert rows["vertebrae_T8"]["share_changed"] == pytest.approx(6 / 360, abs=1e-4)
    assert (rows["spinal_cord"]["share_changed"], rows["spinal_cord"]["approved"]) == (0.0, 1)


def test_what_little_people_changed_is_not_shown_as_nothing(tmp_path, capsys):
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "case.yaml").write_text("name: A")
    line = {"engine": "atlas", "structure": "lung", "state": "draft", "voxels": 10**6, "share": 3e-6}
    (tmp_path / "A" / "feedback.jsonl").write_text(json.dumps(line) + "\n")
    assert main(["workspace", "feedback", str(tmp_path)]) == 0
    assert "< 0.1 %" in capsys.readouterr().out


@pytest.fixture(scope="module")
def spine(server):
    """The embedded thoracic spine as a case of the store."""
    folder = server.root / "SPINE"
    shutil.copytree(embedded_case().parent, folder)
    return "SPINE"


def done(page, job):
    def ended():
        (found,) = [j for j in page.http.get(f"{page.at}/jobs").json()["jobs"] if j["job"] == job]
        return found if found["state"] not in ("waiting", "running") else None

    return until(ended, 120, "the job")


def test_screws_are_proposed_in_the_background_moved_by_hand_and_graded(server, spine):
    pytest.importorskip("fluoronav.planning.screws")
    page = Page(server, spine)
    job = page.http.post(f"{page.at}/jobs", json={"kind": "screws", "levels": ["T8"]}).json()["job"]
    ended = done(page, job)
    assert ended["state"] == "done", ended
    plan = page.http.get(f"{page.at}/plan").json()["plan"]
    # Regression: it was the work of who had started the server.
    assert plan["author"] == "ada"
    line = [e for e in CaseTrail(server.root / spine).events() if e["event"] == "plan.screws"][-1]
    assert line["user"] == "ada"
    screw = next(i for i in plan["items"] if i["kind"] == "screw")
    assert screw["origin"] == "proposed" and screw["grade"] in "AB"
    moved = {**screw, "entry_ct": [screw["entry_ct"][0] + 6, *screw["entry_ct"][1:]], "grade": "A", "breach_mm": 0}
    live = page.post("grade", screw={k: moved[k] for k in ("id", "level", "side", "entry_ct", "tip_ct", "diameter_mm",
                                                           "length_mm")})  # fmt: skip
    assert live["breach_mm"] > 0 and live["grade"] != "A"
    kept = page.post("items", parent=plan["revision"], put=[moved])["plan"]
    now = next(i for i in kept["items"] if i["id"] == screw["id"])
    assert now["origin"] == "moved" and {k: now[k] for k in live} == live
    found = done(page, page.http.post(f"{page.at}/jobs", json={"kind": "check"}).json()["job"])
    assert found["state"] == "done" and found["result"]["findings"]


def test_a_screw_in_a_bone_that_is_not_there_is_refused(server, case):
    page = Page(server, case)
    screw = {
        "kind": "screw", "id": "s", "level": "L1", "side": "left", "entry_ct": [0, 0, -190], "tip_ct": [0, 30, -190],
        "diameter_mm": 5, "length_mm": 30,
    }  # fmt: skip
    for verb, body in (("grade", {"screw": screw}), ("items", {"parent": 0, "put": [screw]})):
        assert "L1 is not in the label map" in page.post(verb, status=422, **body)["error"]


def test_a_job_is_cancelled_and_one_that_fails_says_why(server, case):
    page = Page(server, case)
    job = page.http.post(f"{page.at}/jobs", json={"kind": "screws"}).json()["job"]
    again = page.http.post(f"{page.at}/jobs", json={"kind": "screws"})
    assert again.status_code == 422 and "already" in again.json()["error"]
    assert page.http.delete(f"{page.at}/jobs/{job}").json()["state"] == "cancelled"
    assert page.http.delete(f"{page.at}/jobs/{job}").status_code == 422
    job = page.http.post(f"{page.at}/jobs", json={"kind": "check"}).json()["job"]
    ended = done(page, job)
    assert ended["state"] == "failed" and "plan.yaml" in ended["error"] and str(server.root) not in ended["error"]
    assert page.http.get(f"{page.at}/jobs/{job}/files/..%2f..%2fcase.yaml").status_code == 404


def test_a_page_that_is_loaded_again_is_told_of_work_that_goes_on(server, case):
    import asyncio

    aiohttp = pytest.importorskip("aiohttp")
    page = Page(server, case)

    async def run():
        url = f"{server.url}/api{page.at}/events?key={server.keys['ada']}"
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(url) as one:
                assert (await one.receive_json())["event"] == "jobs"
                job = (await asyncio.to_thread(page.http.post, f"{page.at}/jobs", json={"kind": "check"})).json()["job"]
            async with session.ws_connect(url) as again:
                seen = await again.receive_json(timeout=60)
                assert [j["job"] for j in seen["jobs"]] == [job]
                while not any(j["state"] == "failed" for j in seen.get("jobs", [])):
                    seen = await again.receive_json(timeout=60)
                await asyncio.to_thread(page.post, "items", parent=0, put=[PATH])
                while seen["event"] != "plan":
                    seen = await again.receive_json(timeout=60)
                assert (seen["revision"], seen["author"]) == (1, "ada")
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(f"{server.url}/api{page.at}/events")

    # In a thread of its own: Playwright's loop may run in this one.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, run()).result()


def test_an_upload_has_a_harmless_name_and_is_known_to_its_case_alone(server, case):
    page = Page(server, case)
    assert page.http.put(f"{page.at}/uploads/labels.nii.gz", content=b"x" * 1000).json()["bytes"] == 1000
    for name in ("..%2fcase.yaml", ".hidden", "a%00b"):
        assert page.http.put(f"{page.at}/uploads/{name}", content=b"x").status_code in (400, 404)
    make_case(server.root, "UPLOADS")
    upload = page.http.put(f"{page.at}/uploads/labels.nii.gz", content=b"x").json()["upload"]
    other = Page(server, "UPLOADS")
    answer = other.http.post(f"{other.at}/jobs", json={"kind": "segment", "engine": "import", "upload": upload})
    assert answer.status_code == 404


def test_the_schema_knows_who_approved(tmp_path):
    plan = Plan(case="A", revision=1, ct_hash="a" * 64, made="2026", approved_by="ada", items=())
    write_plan(plan, tmp_path / "plan.yaml")
    assert read_plan(tmp_path / "plan.yaml").approved_by == "ada"
    assert Flag(id="f", origin="proposed", what="x", text="y").acknowledged_by == ""
    assert Screw.model_fields["grade"].is_required()
