"""What the middle column shows beside the picture: 3D from the beam, the probe's eye, slices, the last other view."""

import numpy as np
import pytest
from tests.display.pipeline_stand_in import CASE, overlay
from tests.display.test_space import canvas, registered

from fluoronav.geometry import Camera
from fluoronav.paths import shipped

CAMERA = Camera.load(shipped("calibration/demo-carm.yaml"))
LOADED = "fluoronav.space.case && fluoronav.space.drawn.slices > 0"


def turned(degrees):
    """The case's prior, with the beam turned about the patient's long axis through the target."""
    T = CASE.prior.T_camera_ct()
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    about = np.eye(4)
    about[:3, :3] = [[c, -s, 0], [s, c, 0], [0, 0, 1]]
    target = np.array(CASE.plan[0].target_ct)
    about[:3, 3] = target - about[:3, :3] @ target
    return (T @ about).ravel().tolist()


def posed(degrees):
    return registered(registration=overlay(0)["registration"] | {"T_camera_ct": turned(degrees)})


def projected(T, point_ct):
    """A point of the patient in the frame, in parts of its sides."""
    x = np.array(T).reshape(4, 4)[:3] @ [*point_ct, 1]
    u, v = (np.array(CAMERA.K) @ x)[:2] / x[2]
    return np.array([(u + 0.5) / CAMERA.cols, (v + 0.5) / CAMERA.rows])


@pytest.mark.parametrize("degrees", [0, 75, 180])
def test_the_3d_view_from_the_beam_agrees_with_the_picture(browser, display, degrees):
    page = display.open(browser, size=(1920, 1080))
    display.show(page, **posed(degrees))
    display.until(page, f"{LOADED} && fluoronav.space.scene.drawn > 1 && fluoronav.space.scene.T", 60)
    display.show(page, **posed(degrees))
    display.until(page, "fluoronav.space.scene.edges.top.startsWith('H')")
    # The same letters at the same edges, and every point at the same place of the field, not mirrored.
    assert page.evaluate("fluoronav.space.scene.edges") == page.evaluate("fluoronav.layers.edges")
    assert np.count_nonzero(canvas(page, "scene-letters")) > 100
    width, height = page.evaluate(
        "[fluoronav.space.scene.canvas.clientWidth, fluoronav.space.scene.canvas.clientHeight]"
    )
    side = min(width, height)
    for off in ([0, 0, 0], [20, 0, 0], [0, 20, 0], [0, 0, 20]):
        point = np.array(CASE.plan[0].target_ct) + off
        part = projected(turned(degrees), point)
        expected = [width / 2 + (part[0] - 0.5) * side, height / 2 + (part[1] - 0.5) * side]
        assert page.evaluate(f"fluoronav.space.scene.project({point.tolist()})") == pytest.approx(expected, abs=1)


def test_a_person_may_turn_the_3d_view_and_come_back_to_the_beam(browser, display):
    page = display.open(browser, size=(1920, 1080))
    display.show(page, **posed(0))
    display.until(page, f"{LOADED} && fluoronav.space.scene.drawn > 1 && fluoronav.space.scene.T", 60)
    before = page.evaluate("fluoronav.space.scene.edges")
    box = page.evaluate("document.getElementById('scene').getBoundingClientRect().toJSON()")
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 3)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 250, box["y"] + box["height"] / 3, steps=5)
    page.mouse.up()
    display.until(page, "!fluoronav.space.scene.along")
    display.until(page, f"fluoronav.space.scene.edges.left !== '{before['left']}'")  # the letters turn with it
    page.click("#along-beam")
    display.until(page, f"fluoronav.space.scene.edges.left === '{before['left']}'")


def test_the_probes_eye_slices_the_ct_along_the_instrument(browser, display):
    page = display.open(browser, size=(1920, 1080))
    page.click("#tool-probe")
    display.show(page, **registered())
    display.until(page, "fluoronav.space.case && fluoronav.space.drawn.probe > 1 && fluoronav.space.probe_views", 60)
    views = page.evaluate("fluoronav.space.probe_views")
    tip, axis = np.array(CASE.plan[0].target_ct), np.array(registered()["instruments"][0]["axis_ct"])
    for view in views[:2]:  # contain the axis, which points down
        assert view["down"] == pytest.approx(axis) and view["middle"] == pytest.approx(tip)
    for view in views[2:]:  # across it, the head up
        assert (
            abs(np.dot(view["right"], axis)) < 1e-6
            and abs(np.dot(view["down"], axis)) < 1e-6
            and view["down"][2] < -0.9
        )
        assert np.cross(view["right"], view["down"]) == pytest.approx(axis, abs=1e-6), (
            "seen along the instrument, not mirrored"
        )
    assert views[3]["middle"] == pytest.approx(tip + 10 * axis)
    image = canvas(page, "probe")[..., 0].astype(float)
    tiles = page.evaluate("fluoronav.space.probe.tiles(4)")
    low = CASE.ct.corners_ct().min(0)
    grid = CASE.ct.resampled(
        low, tuple((np.ptp(CASE.ct.corners_ct(), axis=0) // 1 + 1).astype(int).tolist()), 1.0, -400.0
    )
    for view, tile in zip(views, tiles, strict=True):
        side = tile["side"]
        at = (np.arange(9, side - 9, 6) + 0.5) / side - 0.5
        places = view["middle"] + 90 * (
            at[None, :, None] * np.array(view["right"]) + at[:, None, None] * np.array(view["down"])
        )
        index = np.rint(places - low).astype(int)
        inside = ((index >= 0) & (index < np.array(grid.shape)[::-1])).all(-1)
        i = np.clip(index, 0, np.array(grid.shape)[::-1] - 1)
        expected = np.clip((grid[i[..., 2], i[..., 1], i[..., 0]] + 200) / 1100, 0, 1) * 255
        got = image[tile["y"] + 9 : tile["y"] + side - 9 : 6, tile["x"] + 9 : tile["x"] + side - 9 : 6]
        assert np.corrcoef(got[inside], expected[inside])[0, 1] > 0.9
    display.show(page, **registered(instruments=[]))
    display.until(page, "fluoronav.space.probe_views === null")  # and says so


def test_the_last_other_view_is_kept_and_the_instrument_is_drawn_into_it_where_it_is_now(browser, display):
    page = display.open(browser, size=(1920, 1080))
    page.click("#tool-other")
    display.show(page, **posed(0))
    page.evaluate("fluoronav.space.other.forget()")  # what the stand-in had shown before
    display.until(page, "fluoronav.space.other.latest && fluoronav.space.drawn.other > 0")
    assert page.evaluate("fluoronav.space.other.kept") is None
    display.show(page, **posed(20))  # the same view, turned a little
    page.wait_for_timeout(300)
    assert page.evaluate("fluoronav.space.other.kept") is None
    display.show(page, **posed(85))
    display.until(page, "fluoronav.space.other.kept && fluoronav.space.other.tips?.length")
    kept = page.evaluate("fluoronav.space.other.kept.T")
    assert kept in (pytest.approx(turned(0)), pytest.approx(turned(20)))
    width, height = page.evaluate("[fluoronav.space.other.canvas.width, fluoronav.space.other.canvas.height]")
    side = min(width, height)
    for off in (0, 12):  # it follows the instrument, although the picture stands still
        tip = np.array(CASE.plan[0].target_ct) + [off, 0, 0]
        moved = registered()["instruments"][0] | {"tip_ct": tip.tolist()}
        display.show(page, **posed(85) | {"instruments": [moved]})
        part = projected(kept, tip)
        expected = [(width - side) / 2 + part[0] * side, (height - side) / 2 + part[1] * side]
        page.wait_for_timeout(1500)
        assert page.evaluate("fluoronav.space.other.tips[0]") == pytest.approx(expected, abs=1.5)
    assert canvas(page, "other").max() > 100
    # Another patient's view is not kept.
    display.health |= {"case": "another@1", "case_name": "another"}
    display.until(page, "fluoronav.space.other.kept === null")


def test_the_name_of_a_view_is_told_by_its_beam(browser, display):
    page = display.open(browser)
    name = "async (T) => { const { viewOf } = await import('/page/directions.js'); return viewOf(T) }"
    assert [page.evaluate(name, turned(a)) for a in (0, 90, 180, 45)] == ["AP", "lateral", "PA", "oblique"]
