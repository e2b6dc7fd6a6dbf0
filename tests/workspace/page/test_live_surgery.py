"""What a person changes of a cut, a move or a margin is carried out while the hand moves, and drawn."""

import numpy as np
import pytest
from tests.workspace.conftest import until

# In the phantom T8 lies from z = -197 to -188 mm; the case's y axis points to the front.
CUT = {
    "kind": "cut", "id": "cut1", "origin": "drawn", "structure": "vertebrae_T8", "point_ct": [7.0, 13.0, -193.0],
    "normal_ct": [0.0, 0.0, 1.0], "kerf_mm": 1.0,
}  # fmt: skip
MOVE = {
    "kind": "move", "id": "move1", "origin": "drawn", "cut": "cut1",
    "T_moved_ct": [[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 2.0], [0, 0, 0, 1.0]],
}  # fmt: skip
MARGIN = {"kind": "resection", "id": "resection1", "origin": "drawn", "lesion": "spinal_cord", "margin_mm": 4.0}
BODIES = "() => fluoronavWorkspace.view.plan.live.bodies.map((b) => [b.kind, b.name, b.structure])"
# Lowest and highest z of the bodies of a kind.
HEIGHT = """(kind) => {
  const z = fluoronavWorkspace.view.plan.live.bodies
    .filter((b) => b.kind === kind && (kind !== "piece" || b.T_moved_ct))
    .flatMap((b) => Array.from(b.points).filter((_, k) => k % 3 === 2));
  return [Math.min(...z), Math.max(...z)];
}"""
# How many loops of moved pieces the sagittal slice shows.
LOOPS = """() => fluoronavWorkspace.view.plan.live.bodies.filter((b) => b.T_moved_ct)
  .map((b) => b.sections?.sagittal?.loops.length ?? 0)"""
EXACT = "#surgery .chip.approved"


@pytest.fixture
def planned(opened, case, server):
    """Opens the case with items in its plan, and waits for the exact numbers."""

    def open_with(*items, chosen):
        with server.client() as http:
            answer = http.post(f"/cases/{case}/plan/items", json={"parent": 0, "put": list(items)})
        assert answer.status_code == 200, answer.text
        page = opened(case)
        page.page.click("[data-tab=Plan]")
        page.page.wait_for_selector(EXACT, timeout=60_000)
        page.js("(id) => fluoronavWorkspace.view.plan.show(id)", chosen)
        page.page.wait_for_selector("#surgery label")
        return page

    return open_with


def item(server, case, name):
    with server.client() as http:
        return next(i for i in http.get(f"/cases/{case}/plan").json()["plan"]["items"] if i["id"] == name)


def grip(page, cut, which):
    """Where a grip of the chosen cut lies on the screen."""
    return page.js(
        """([name, which]) => {
          const { view } = fluoronavWorkspace;
          const cut = view.cuts.cuts.find((c) => c.name === name);
          const { left, top } = cut.box.getBoundingClientRect();
          const [x, y] = cut.viewport.worldToCanvas(view.plan.live.grips(cut)[which].at);
          return [left + x, top + y];
        }""",
        [cut, which],
    )


def figures(page):
    return page.page.inner_text("#surgery .figures")


def changes(page):
    return page.js("() => fluoronavWorkspace.view.timing.changes_ms.length")


def same_as_the_verb(page, server):
    """The exact numbers on the page are those of `fluoronav plan simulate`, to 0.01 %."""
    with server.client() as http:
        number = http.post(f"/cases/{page.case}/jobs", json={"kind": "simulate"}).json()["job"]

        def ended():
            jobs = http.get(f"/cases/{page.case}/jobs").json()["jobs"]
            return next((j for j in jobs if j["job"] == number and j["state"] == "done"), None)

        done = until(ended, what="the verb")
    ours = page.js("() => fluoronavWorkspace.view.plan.live.report")
    for section, keys in (("cuts", ("volume_cm3", "kerf_cm3")), ("resections", ("taken_out_cm3", "lesion_cm3"))):
        for a, b in zip(ours[section], done["result"][section], strict=True):
            np.testing.assert_allclose([a[k] for k in keys], [b[k] for k in keys], rtol=1e-4)
    pieces = [[p["volume_cm3"] for c in r["cuts"] for p in c["pieces"]] for r in (ours, done["result"])]
    np.testing.assert_allclose(pieces[0], pieces[1], rtol=1e-4)


def test_a_cut_that_is_dragged_moves_numbers_and_the_piece_before_it_is_let_go(planned, server):
    page = planned(CUT, MOVE, chosen="cut1")
    assert [k for k, _, _ in page.js(BODIES)] == ["piece", "ghost", "piece", "kerf"]
    before, low = figures(page), page.js(HEIGHT, "piece")[0]
    assert page.js(HEIGHT, "ghost")[0] == pytest.approx(low - 2, abs=0.01)
    assert "turned by 0.0°, 2.0 mm at the cut" in before
    page.page.wait_for_timeout(300)
    assert any(page.js(LOOPS))
    x, y = grip(page, "sagittal", 0)
    page.page.mouse.move(x, y)
    page.page.mouse.down()
    page.page.mouse.move(x, y - 10, steps=4)
    until(lambda: figures(page) != before and changes(page), what="numbers while the button is held")
    held = page.js(HEIGHT, "piece")[0]
    assert held > low + 0.3  # head is up: the piece above the cut begins higher
    assert item(server, page.case, "cut1")["point_ct"] == CUT["point_ct"]  # nothing is kept yet
    page.page.mouse.up()
    until(lambda: item(server, page.case, "cut1")["point_ct"][2] > CUT["point_ct"][2] + 0.3, what="the cut's new place")
    page.page.wait_for_selector(EXACT)
    assert page.js("() => fluoronavWorkspace.view.timing.settled_ms.length") == 1
    same_as_the_verb(page, server)


def test_a_cut_is_turned_in_a_view_by_a_circle(planned, server):
    page = planned(CUT, chosen="cut1")
    x, y = grip(page, "sagittal", 1)
    mx, _ = grip(page, "sagittal", 0)
    page.page.mouse.move(x, y)
    page.page.mouse.down()
    page.page.mouse.move(x, y - abs(mx - x) * np.tan(np.deg2rad(10)), steps=4)
    page.page.mouse.up()
    normal = until(
        lambda: (n := item(server, page.case, "cut1")["normal_ct"]) != CUT["normal_ct"] and n, what="the turned cut"
    )  # fmt: skip
    assert normal[0] == pytest.approx(0, abs=1e-6)  # about the axis across the view
    assert np.degrees(np.arccos(normal[2])) == pytest.approx(10, abs=1)


def test_a_move_is_stepped_and_its_piece_follows(planned, server):
    page = planned(CUT, MOVE, chosen="move1")
    high = page.js(HEIGHT, "piece")[1]
    page.page.fill("#surgery [data-field='Shift to the head, mm']", "5")
    until(lambda: page.js(HEIGHT, "piece")[1] == pytest.approx(high + 3, abs=0.3), what="the piece at its new place")
    until(lambda: item(server, page.case, "move1")["T_moved_ct"][2][3] == pytest.approx(5), what="the kept move")
    page.page.wait_for_selector(f"{EXACT} >> visible=true")
    assert page.js(HEIGHT, "piece")[1] == pytest.approx(high + 3, abs=0.01)
    page.page.fill("#surgery [data-field='Bend about left and right, °']", "10")
    page.page.wait_for_selector("#surgery .figures p:has-text('turned by 10.0°')")
    until(lambda: item(server, page.case, "move1")["T_moved_ct"][2][1] > 0.1, what="the kept turn")
    T = np.array(item(server, page.case, "move1")["T_moved_ct"])
    at = np.array(CUT["point_ct"])
    np.testing.assert_allclose(T[:3, :3] @ at + T[:3, 3], at + (0, 0, 5), atol=0.01)  # about the middle of the cut


def test_a_margin_is_stepped_and_what_is_cut_through_follows(planned, server):
    page = planned(MARGIN, chosen="resection1")
    assert page.js(BODIES)[0][0] == "resection"
    through = "() => fluoronavWorkspace.view.plan.live.report.resections[0].cuts_through.map((c) => c.structure)"
    assert page.js(through) == []
    page.page.fill("#surgery [data-field='Margin, mm']", "9")
    until(lambda: page.js(through), what="what the wider margin cuts through")
    until(lambda: item(server, page.case, "resection1")["margin_mm"] == 9, what="the kept margin")
    page.page.wait_for_selector(f"{EXACT} >> visible=true")
    same_as_the_verb(page, server)


def test_pieces_take_the_place_of_their_bone_in_3d_and_are_switched_off(planned):
    page = planned(CUT, MOVE, chosen="cut1")
    shown = (
        "() => [fluoronavWorkspace.view.space.shownBodies.length, fluoronavWorkspace.view.structures.inSpace().length]"
    )
    pieces, structures = until(lambda: (s := page.js(shown))[0] and s, what="pieces in 3D")
    assert pieces == 4
    page.page.click("#tools label:has-text('Cuts and pieces') input")
    assert page.js(shown) == [0, structures + 1]
    assert page.js("() => fluoronavWorkspace.view.plan.live.grips(fluoronavWorkspace.view.cuts.cuts[1])") == []


def test_a_cut_that_leaves_the_bone_says_so_and_the_pieces_go(planned):
    page = planned(CUT, chosen="cut1")
    page.page.fill("#surgery [data-field='Shift along its normal, mm']", "80")
    page.page.wait_for_selector("#surgery .chip.rejected")
    assert "misses vertebrae_T8" in figures(page) and page.js(BODIES) == []
    page.page.fill("#surgery [data-field='Shift along its normal, mm']", "0")
    page.page.wait_for_selector(EXACT)
    assert len(page.js(BODIES)) == 3


def test_loops_close_where_a_slice_passes_through_a_box(page):
    found = page.js("""async () => {
      const { loopsOf } = await import("/page/pieces.js");
      const points = Float32Array.from([0,0,0, 2,0,0, 2,2,0, 0,2,0, 0,0,2, 2,0,2, 2,2,2, 0,2,2]);
      const triangles = Uint32Array.from(
        [0,2,1,0,3,2, 4,5,6,4,6,7, 0,1,5,0,5,4, 1,2,6,1,6,5, 2,3,7,2,7,6, 3,0,4,3,4,7]);
      const body = { points, triangles };
      return [loopsOf(body, [0, 0, 1], [0, 0, 1]), loopsOf(body, [0, 0, 1], [0, 0, 3])];
    }""")
    (loop,), none = found
    corners = np.reshape(loop, (-1, 3))
    assert none == [] and np.allclose(corners[:, 2], 1) and len(corners) == 8
    assert np.allclose(corners.min(0)[:2], 0) and np.allclose(corners.max(0)[:2], 2)
