"""What a user adds to a plan besides screws, and how a plan is approved after its check."""

import numpy as np
import pytest
from tests.workspace.conftest import CORD, T8, T9, until

from fluoronav.site.case_trail import CaseTrail


def items(server, case):
    with server.client() as http:
        plan = http.get(f"/cases/{case}/plan").json()["plan"]
    return plan["items"] if plan else []


def planned(page, kind, server):
    """The items of a kind, once there is one."""
    return until(lambda: [i for i in items(server, page.case) if i["kind"] == kind], what=kind)


def start(page, title):
    page.page.click("[data-tab=Plan]")
    page.page.click(f"[data-page=Plan] button:has-text('{title}')")


def simulated(page, text):
    page.page.click("[data-tab=Plan]")
    page.page.wait_for_selector(f"#surgery:has(.chip.approved) .figures p:has-text('{text}')", timeout=60_000)


def test_a_bone_is_cut_along_a_drawn_line_moved_and_the_volumes_are_shown(page, server):
    page.choose(T8)
    start(page, "+ Cut")
    page.answer("Next")
    # A line from back to front in a sagittal view; the side towards the head moves.
    for voxel in ((17, 8, 2), (17, 22, 2), (17, 15, 3)):
        page.click("sagittal", voxel)
    (cut,) = planned(page, "cut", server)
    assert cut["structure"] == "vertebrae_T8" and cut["origin"] == "drawn" and cut["kerf_mm"] == 1.2
    assert np.allclose(cut["normal_ct"], (0, 0, 1), atol=0.02)
    assert cut["point_ct"][2] == pytest.approx(-200 + 2 * 3, abs=0.01)
    simulated(page, "the saw takes")
    start(page, "+ Move")
    page.page.fill("dialog input >> nth=0", "10")
    page.page.fill("dialog input >> nth=3", "2")
    page.answer("Next")
    (move,) = planned(page, "move", server)
    T = np.array(move["T_moved_ct"])
    # About left and right through the cut's middle, and 2 mm towards the head.
    assert np.allclose(T[:3, 0], (1, 0, 0)) and T[2, 1] == pytest.approx(np.sin(np.deg2rad(10)))
    assert np.allclose(T[:3, :3] @ cut["point_ct"] + T[:3, 3], np.add(cut["point_ct"], (0, 0, 2)))
    simulated(page, "turned by 10.0°")


def test_a_wedge_is_two_cuts_that_face_one_another(page, server):
    page.choose(T8)
    start(page, "+ Wedge")
    page.answer("Next")
    for voxel in ((17, 8, 1), (17, 22, 1), (17, 12, 2), (17, 8, 3), (17, 22, 2), (17, 12, 4)):
        page.click("sagittal", voxel)
    one, two = planned(page, "cut", server)
    assert one["wedge_to"] == two["id"] and two["wedge_to"] is None
    assert np.dot(one["normal_ct"], np.subtract(two["point_ct"], one["point_ct"])) > 0
    assert np.dot(two["normal_ct"], np.subtract(two["point_ct"], one["point_ct"])) > 0
    simulated(page, "wedge")


def test_paths_resections_and_implants_are_placed_and_removed(page, server):
    start(page, "+ Path")
    page.page.fill("dialog input >> nth=0", "biopsy")
    page.answer("Next")
    page.click("axial", (17, 26, 2))
    page.click("axial", (17, 16, 2))
    (path,) = planned(page, "path", server)
    assert path["name"] == "biopsy" and np.allclose(np.subtract(path["target_ct"], path["entry_ct"]), (0, 12.5, 0))
    start(page, "+ Implant")
    page.page.select_option("dialog select >> nth=0", "rod|bent-5.5x80")
    page.answer("Next")
    for voxel in ((17, 24, 2), (25, 24, 2), (20, 30, 2)):
        page.click("axial", voxel)
    (rod,) = planned(page, "implant", server)
    T = np.array(rod["T_ct_implant"])
    assert np.linalg.det(T[:3, :3]) == pytest.approx(1) and np.allclose(T[:3, 2], (1, 0, 0), atol=0.02)
    assert T[1, 1] > 0.99  # it bends to -y of its own frame: towards the third place, which lies in front
    simulated(page, "rod bent")
    start(page, "+ Resection")
    page.page.select_option("dialog select >> nth=0", "spinal_cord")
    page.answer("Next")
    (resection,) = planned(page, "resection", server)
    assert (resection["lesion"], resection["margin_mm"]) == ("spinal_cord", 5)
    page.page.click("[data-tab=Plan]")
    page.page.click(".item:has-text('rod') button[title='Remove this from the plan']")
    until(lambda: not [i for i in items(server, page.case) if i["kind"] == "implant"], what="removal")


def test_what_the_check_calls_unsafe_is_asked_about_and_noted_with_the_approval(opened, case, server):
    with server.client() as http:
        judged = {"revision": 1, "labels": [T8, T9, CORD], "state": "approved"}
        assert http.post(f"/cases/{case}/structures/judge", json=judged).status_code == 200
        out = {
            "kind": "path", "id": "p1", "origin": "drawn", "name": "wire", "entry_ct": [7.0, 10.0, -194.0],
            "target_ct": [7.0, 300.0, -194.0], "diameter_mm": 2.0,
        }  # fmt: skip
        put = http.post(f"/cases/{case}/plan/items", json={"parent": 0, "put": [out]})
        assert put.status_code == 200, put.text
    page = opened(case)
    page.page.click("[data-tab=Plan]")
    page.page.click("#review-plan")
    page.page.wait_for_selector("#case-state:has-text('reviewed')")
    page.page.click("#approve-plan")
    page.page.wait_for_selector("dialog:has-text('outside')", timeout=60_000)
    page.answer("Not now")
    page.page.click("[data-tab=Work]")
    page.page.wait_for_selector(".job-done p.bad:has-text('outside')")
    page.page.click("[data-tab=Plan]")
    page.page.click("#approve-plan")
    page.page.wait_for_selector("dialog:has-text('outside')", timeout=60_000)
    page.answer("Approve all the same")
    page.page.wait_for_selector("#case-state:has-text('approved')")
    line = [e for e in CaseTrail(server.root / case).events() if e.get("what") == "approved"][-1]
    assert line["user"] == "ada" and "outside" in line["accepted"][0]
