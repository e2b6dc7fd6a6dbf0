"""Review on the workspace's page: approval, two editors, comparing, questions and screws."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from tests.workspace.conftest import Server, make_case, until
from tests.workspace.page.conftest import T8, T9, Page, saved
from tests.workspace.test_levels import QUESTION


def state_of(server, case, label):
    with server.client() as http:
        structures = http.get(f"/cases/{case}").json()["structures"]
    return next(s["state"] for s in structures if s["label"] == label)


def tick(page, label):
    page.page.check(f"[data-structure='{label}'] input[type=checkbox]")


def test_a_structure_is_approved_and_an_edit_makes_it_a_draft_again(page, server):
    tick(page, T8)
    page.page.click("button:has-text('Approve 1')")
    page.page.wait_for_selector(f"[data-structure='{T8}'] .chip.approved")
    assert (state_of(server, page.case, T8), state_of(server, page.case, T9)) == ("approved", "draft")
    page.choose(T8)
    page.tool("brush", radius_mm=3)
    page.stroke("axial", (28, 30, 2))
    page.save()
    page.page.wait_for_selector(f"[data-structure='{T8}'] .chip.draft")
    assert state_of(server, page.case, T8) == "draft"


def test_a_rejected_structure_is_hidden(page, server):
    tick(page, T9)
    page.page.click("button:has-text('Reject')")
    page.page.wait_for_selector(f"[data-structure='{T9}'] .chip.rejected")
    assert page.page.get_attribute(f"[data-structure='{T9}'] .eye", "aria-pressed") == "false"
    assert state_of(server, page.case, T9) == "rejected"


def test_unsaved_edits_are_saved_before_they_are_approved(page, server):
    page.choose(T8)
    page.tool("brush", radius_mm=3)
    page.stroke("axial", (28, 30, 2))
    page.tool("look")
    tick(page, T8)
    page.page.click("button:has-text('Approve 1')")
    page.answer("Save now")
    page.page.wait_for_selector(f"[data-structure='{T8}'] .chip.approved")
    assert sitk.GetArrayFromImage(saved(server, page.case))[2, 30, 28] == T8


def test_two_editors_never_lose_each_others_work(opened, case, server):
    ada, ben = opened(case, "ada"), opened(case, "ben")
    ada.page.wait_for_selector("#editors:has-text('ben')")
    for page, voxel in ((ada, (28, 30, 2)), (ben, (28, 8, 6))):
        page.choose(T8)
        page.tool("brush", radius_mm=3)
        page.stroke("axial", voxel)
    ada.save()
    ben.page.wait_for_selector("#message:has-text('ada saved revision 2')")
    ben.page.click("#message button")
    assert "together with what others saved" in ben.save()
    labels = sitk.GetArrayFromImage(saved(server, case))
    assert labels[2, 30, 28] == labels[6, 8, 28] == T8
    np.testing.assert_array_equal(ben.labels(), labels)


def test_where_both_changed_the_same_voxels_the_user_is_asked(opened, case, server):
    ada, ben = opened(case, "ada"), opened(case, "ben")
    for page, label in ((ada, T8), (ben, T9)):
        page.choose(label)
        page.tool("brush", radius_mm=3)
        page.stroke("axial", (28, 30, 2))
    ada.save()
    ben.page.wait_for_selector("#message:has-text('ada saved')")
    ben.page.click("#save")
    ben.answer("Keep mine there")
    ben.page.wait_for_selector("#message:has-text('Saved as revision 3')")
    assert sitk.GetArrayFromImage(saved(server, case))[2, 30, 28] == T9


def test_the_difference_of_two_revisions_is_drawn(page):
    page.choose(T8)
    page.tool("brush", radius_mm=3)
    page.stroke("axial", (28, 30, 2))
    page.save()
    page.page.click("[data-tab=Compare]")
    page.page.wait_for_selector("[data-page=Compare] select")
    page.page.select_option("[data-page=Compare] select >> nth=0", "1")
    page.page.select_option("[data-page=Compare] select >> nth=1", "2")
    page.page.click("text=Show the difference")
    page.page.wait_for_selector("[data-page=Compare] .item:has-text('Vertebra T8')")
    index = (2 * 40 + 30) * 36 + 28
    assert page.js("(i) => fluoronavWorkspace.view.scene.difference[i]", index) == 2  # only in B


@pytest.mark.parametrize(("dice", "text"), [(0.5, "50.0 %"), (0.9964, "99.6 %"), (0.99996, "99.996 %"), (0.0, "0.0 %")])
def test_an_overlap_that_is_not_whole_is_never_shown_as_whole(page, dice, text):
    """Regression: a structure that differed in 143 voxels was shown with a Dice of 100 %."""
    assert page.js("async (share) => (await import('/page/dom.js')).percentBelow(share)", dice) == text


# A path is dragged as a screw is; the phantom's vertebrae have no ring in which a screw could be graded.
PATH = {
    "kind": "path", "id": "p1", "origin": "proposed", "name": "wire", "entry_ct": [7.0, 10.0, -194.0],
    "target_ct": [7.0, 18.0, -194.0], "diameter_mm": 2.0,
}  # fmt: skip
FLAG = {
    "kind": "flag", "id": "f1", "origin": "proposed", "what": "level", "text": "Is this T8 or T9?",
    "points_ct": [[7.0, 15.0, -194.0]],
}  # fmt: skip


def put(server, case, *items):
    with server.client() as http:
        answer = http.post(f"/cases/{case}/plan/items", json={"parent": 0, "put": list(items)})
    if answer.status_code == 501:
        pytest.skip(answer.json()["error"])
    assert answer.status_code == 200, answer.text


def test_a_flag_is_shown_and_acknowledged(opened, case, server):
    put(server, case, FLAG)
    page = opened(case)
    page.page.click("text=Questions (1)")
    page.page.click("text=Show the place")
    cross = page.js("() => fluoronavWorkspace.view.scene.cross")
    np.testing.assert_allclose(cross, FLAG["points_ct"][0])
    page.page.click("text=Seen and considered")
    page.page.wait_for_selector("text=answered by ada")
    with server.client() as http:
        flag = http.get(f"/cases/{case}/plan").json()["plan"]["items"][0]
    assert flag["acknowledged_by"] == "ada"


def test_a_path_is_dragged_by_its_tip(opened, case, server):
    put(server, case, PATH)
    page = opened(case)
    page.page.click("[data-tab=Plan]")
    page.page.click("[data-screw=p1]")
    ends = """(end) => {
      const { view } = fluoronavWorkspace;
      const cut = view.cuts.cuts[0];
      const { left, top } = cut.box.getBoundingClientRect();
      const [x, y] = cut.viewport.worldToCanvas(view.plan.chosen[end]);
      return [left + x, top + y];
    }"""
    x, y = page.js(ends, "tip_ct")
    page.page.mouse.move(x, y)
    page.page.mouse.down()
    page.page.mouse.move(x + 20, y, steps=5)
    page.page.mouse.up()

    def path():
        with server.client() as http:
            return http.get(f"/cases/{case}/plan").json()["plan"]["items"][0]

    until(lambda: path()["target_ct"] != PATH["target_ct"], what="the path's new place")
    assert path()["target_ct"][0] > PATH["target_ct"][0]  # to the right of the screen is the patient's left
    assert path()["entry_ct"] == PATH["entry_ct"]


def test_a_plan_that_may_not_be_approved_says_why(opened, case, server):
    put(server, case, FLAG)
    page = opened(case)
    page.page.click("[data-tab=Plan]")
    page.page.click("#review-plan")
    page.page.wait_for_selector("#case-state:has-text('reviewed')")
    page.page.click("#approve-plan")
    page.page.wait_for_selector("#message.error")
    assert "nobody has acknowledged: Is this T8 or T9?" in page.page.inner_text("#message")
    with server.client() as http:
        assert http.get(f"/cases/{case}/plan").json()["plan"]["state"] == "reviewed"


def test_a_click_is_not_lost_where_the_panel_changes_under_it(opened, case, server):
    """Regression: each step of work in the background drew the panel anew, and the button that was pressed was gone."""
    put(server, case, FLAG)
    page = opened(case)
    page.page.click("[data-tab=Plan]")
    page.page.wait_for_selector("#review-plan")
    box = page.page.locator("#review-plan").bounding_box()
    page.page.mouse.move(box["x"] + 20, box["y"] + 10)
    page.page.mouse.down()
    page.js("() => fluoronavWorkspace.view.tell()")
    page.page.wait_for_timeout(200)
    page.page.mouse.up()
    page.page.wait_for_selector("#case-state:has-text('reviewed')")


def test_an_error_of_the_server_is_said_in_words_and_nothing_is_lost(page, server):
    page.choose(T8)
    page.tool("brush", radius_mm=3)
    page.page.route("**/session/steps*", lambda route: route.fulfill(
        status=507, content_type="application/json", body=json.dumps({"error": "The disk is full: nothing changed."})
    ))  # fmt: skip
    page.stroke("axial", (28, 30, 2))
    page.page.wait_for_selector("#message:has-text('disk is full')")
    page.page.unroute("**/session/steps*")
    np.testing.assert_array_equal(page.labels(), sitk.GetArrayFromImage(saved(server, page.case)))


@pytest.mark.parametrize(("target", "axes", "asked"), [("STL, mm", "RAS", "ras"), ("3D Slicer scene", None, None)])
def test_an_export_of_meshes_asks_for_their_axes(page, target, axes, asked):
    """Regression: the verb refused what the page asked for."""
    page.page.click("[data-tab=Work]")
    page.page.click("button[title='For guidance, printing, archive']")
    with page.page.expect_request(lambda r: r.method == "POST" and "/jobs" in r.url) as caught:
        page.page.click(f"dialog button:has-text('{target}')")
        if axes:
            page.page.click(f"dialog button:has-text('{axes}')")
    body = json.loads(caught.value.post_data)
    assert body["kind"] == "export" and body.get("frame") == asked


def test_the_level_is_asked_with_evidence_answered_and_taken_back(opened, case, server):
    (server.root / case / "questions.json").write_text(
        json.dumps({"revision": 1, "questions": [QUESTION], "warnings": []})
    )
    page = opened(case)
    page.page.click("text=Questions (1)")
    card = page.page.locator("[data-question=level]")
    assert "drafted as T8" in card.inner_text() and "ribs: T12 unclear" in card.inner_text()
    card.locator("text=Show the place").click()
    np.testing.assert_allclose(page.js("() => fluoronavWorkspace.view.scene.cross"), QUESTION["points_ct"][0])
    card.locator("text=Name the vertebrae").click()
    names = page.js("() => fluoronavWorkspace.view.levels.marks().map((m) => m.text)")
    assert names == ["T8", "T9"]
    before = page.labels()
    card.locator("[data-level=T9]").click()
    page.page.wait_for_selector("#message:has-text('All levels have moved')")
    after = page.labels()
    np.testing.assert_array_equal(after == T9, before == T8)
    np.testing.assert_array_equal(after == T9 - 1, before == T9)
    page.page.wait_for_selector("[data-question=level]", state="detached")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(saved(server, case)), after)
    page.reload()
    page.page.click("[data-tab=Questions]")
    page.page.click("#levels-back")
    page.page.wait_for_selector("[data-question=level]")
    np.testing.assert_array_equal(page.labels(), before)


def test_levels_that_nobody_asked_about_are_moved_from_a_chosen_vertebra(page, server):
    page.choose(T9)
    page.page.click("[data-tab=Questions]")
    page.page.click("[data-move='-1']:has-text('T9 is T8')")
    page.page.wait_for_selector("#message:has-text('All levels have moved')")
    assert set(np.unique(page.labels())) >= {T8, T8 + 1} and not (page.labels() == T9).any()


def test_bone_is_translucent_where_there_are_screws(opened, case, server):
    page = opened(case)
    opacity = "() => Object.fromEntries(fluoronavWorkspace.view.structures.inSpace().map((s) => [s.label, s.opacity]))"
    assert page.js(opacity)[str(T8)] == 1
    put(server, case, PATH)
    page.page.wait_for_function("() => fluoronavWorkspace.view.plan.screws().length === 1")
    assert page.js(opacity)[str(T8)] == 0.18
    page.js("() => fluoronavWorkspace.view.surfacesShown")
    shown = "([label]) => fluoronavWorkspace.view.space.surfaces.get(label)?.actor.getProperty().getOpacity()"
    until(lambda: page.js(shown, [T8]) == 0.18, what="the translucent bone")


def test_a_job_that_was_broken_off_is_said_and_started_again(opened, tmp_path, browser):
    make_case(tmp_path, "B")
    own = Server(tmp_path)
    try:
        with own.client() as http:
            http.get("/cases/B")
            job = http.post("/cases/B/jobs", json={"kind": "check"}).json()["job"]
        own.kill()
        own.start()
        page = Page(browser, own, "B")
        page.page.wait_for_selector("#message:has-text('Check, started by ada, was broken off')")
        page.page.click("[data-tab=Work]")
        page.page.click(".job-broken button:has-text('Start again')")
        page.page.wait_for_selector(".job-broken", state="detached")
        page.page.wait_for_selector(".job-failed, .job-done")  # there is no plan to check: it says so
        assert job not in page.js("() => fluoronavWorkspace.view.jobs.all.map((j) => j.job)")
        page.close()
    finally:
        own.stop()
