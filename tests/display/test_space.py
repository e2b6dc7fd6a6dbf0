"""The patient in space: 3D view, slices and DRR, from the case on the display's computer."""

import base64

import cv2
import numpy as np
import pytest
from tests.conftest import another_case
from tests.display.pipeline_stand_in import CASE, overlay
from tests.display.test_display import shot

from fluoronav.case import load_case
from fluoronav.geometry import Camera
from fluoronav.lab.simulation.sequence import Anatomy
from fluoronav.paths import shipped


def registered(**changes):
    """An overlay with the case's prior as its pose and an instrument at the first plan's target."""
    plan = CASE.plan[0]
    T = CASE.prior.T_camera_ct()
    axis = np.subtract(plan.target_ct, plan.entry_ct) / np.linalg.norm(np.subtract(plan.target_ct, plan.entry_ct))
    instrument = overlay(0)["instruments"][0] | {"tip_ct": list(plan.target_ct), "axis_ct": axis.tolist()}
    registration = overlay(0)["registration"] | {"T_camera_ct": T.ravel().tolist()}
    return {"registration": registration, "instruments": [instrument]} | changes


def canvas(page, name):
    png = page.evaluate(f"document.getElementById('{name}').toDataURL('image/png').split(',')[1]")
    return cv2.imdecode(np.frombuffer(base64.b64decode(png), np.uint8), cv2.IMREAD_COLOR)


@pytest.fixture
def page(browser, display):
    page = display.open(browser, size=(1920, 1080))
    display.show(page, **registered())
    display.until(
        page, "fluoronav.space.case && fluoronav.space.drawn.slices > 1 && fluoronav.space.scene.drawn > 1", 60
    )
    return page


def test_surfaces_plan_and_instrument_lie_in_the_patients_frame(page, display):
    image = canvas(page, "scene")
    scale = image.shape[1] / page.evaluate("document.getElementById('scene').clientWidth")
    tip = CASE.plan[0].target_ct
    names = page.evaluate("fluoronav.space.scene.scene.children.map(c => c.name).filter(n => n)")
    assert set(names) == {s.name for s in CASE.structures}
    # The first vertebra's middle shows the vertebra's colour; a point far outside shows none.
    bone = next(s for s in CASE.structures if s.name == "vertebrae_T8")
    inside = np.argwhere(bone.field.hundredths < 0).mean(0)[::-1] * bone.field.spacing_mm + bone.field.origin_ct
    x, y = np.rint(np.array(page.evaluate(f"fluoronav.space.scene.project({inside.tolist()})")) * scale).astype(int)
    assert image[y - 4 : y + 5, x - 4 : x + 5].max() > 60
    assert image[3, 3].max() < 20
    shaft = page.evaluate(
        "(() => { const m = fluoronav.space.scene.shafts.get('kwire'); return [...m.position.toArray(), m.scale.y] })()"
    )
    axis = np.array(registered()["instruments"][0]["axis_ct"])
    assert np.array(shaft[:3]) == pytest.approx(np.array(tip) - axis * shaft[3] / 2, abs=1e-3)


# The letters' boxes in the 3D view, and that of the button over it: left, top, right, bottom, CSS pixels.
LETTERS = """() => {
  const { scene } = fluoronav.space, { canvas } = scene, box = canvas.getBoundingClientRect();
  const scale = box.width / canvas.width, half = Math.max(canvas.width, canvas.height) / 36;
  const button = document.getElementById("along-beam").getBoundingClientRect();
  const letters = Object.values(scene.places).map(([x, y]) => [x - half, y - half, x + half, y + half]
    .map((at, k) => at * scale + (k % 2 ? box.top : box.left)));
  return [[button.left, button.top, button.right, button.bottom], letters]; }"""


@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080), (1200, 1920), (1024, 1366)])
def test_every_letter_of_the_3d_view_is_beside_the_button(page, display, size):
    """Regression: on a tablet the button *Along the beam* lay over the letter F."""
    drawn = page.evaluate("fluoronav.space.scene.drawn")
    page.set_viewport_size({"width": size[0], "height": size[1]})
    display.until(page, f"fluoronav.space.scene.drawn > {drawn + 1}")
    button, letters = page.evaluate(LETTERS)
    assert len(letters) == 4
    for left, top, right, bottom in letters:
        assert right < button[0] or left > button[2] or bottom < button[1] or top > button[3]


def test_slices_show_the_ct_at_the_tip(page):
    image = canvas(page, "slices")[..., 0].astype(float)
    side = image.shape[0]
    shown = page.evaluate("[fluoronav.space.slices.ct.fraction(-200), fluoronav.space.slices.ct.fraction(900)]")
    assert shown == pytest.approx([200 / 1800, 1300 / 1800])
    tip = np.array(CASE.plan[0].target_ct)
    ways = [((1, 0, 0), (0, 1, 0)), ((0, 1, 0), (0, 0, -1)), ((1, 0, 0), (0, 0, -1))]
    hu = CASE.ct
    low = CASE.ct.corners_ct().min(0)
    grid = hu.resampled(low, tuple((np.ptp(CASE.ct.corners_ct(), axis=0) // 1 + 1).astype(int).tolist()), 1.0, -400.0)
    for k, (right, down) in enumerate(ways):
        at = (np.arange(9, side - 9, 6) + 0.5) / side - 0.5
        places = tip + 90 * (at[None, :, None] * np.array(right) + at[:, None, None] * np.array(down))
        index = np.rint(places - low).astype(int)
        inside = ((index >= 0) & (index < np.array(grid.shape)[::-1])).all(-1)
        i = np.clip(index, 0, np.array(grid.shape)[::-1] - 1)
        expected = np.clip((grid[i[..., 2], i[..., 1], i[..., 0]] + 200) / 1100, 0, 1) * 255
        got = image[9 : side - 9 : 6, k * side + 9 : (k + 1) * side - 9 : 6]
        assert inside.mean() > 0.3
        assert np.corrcoef(got[inside], expected[inside])[0, 1] > 0.9


def test_the_drr_agrees_with_the_projector(page, display):
    page.click("#tool-drr")
    display.until(page, "fluoronav.space.drawn.drr > 0")
    # At once: a pose that is no more renewed is old after seconds, and nothing is drawn by it.
    box = "(n => { const b = document.getElementById(n).getBoundingClientRect(); return [b.x, b.y, b.width] })"
    boxes = page.evaluate(f"['picture', 'drr'].map({box})")
    drawn = canvas(page, "drr")[..., 0].astype(np.float64)
    camera = Camera.load(shipped("calibration/demo-carm.yaml"))
    small = camera.scaled(drawn.shape[0] / camera.rows)
    _, bone = Anatomy(CASE, small).paths(CASE.prior.T_camera_ct())
    middle = slice(drawn.shape[0] // 4, 3 * drawn.shape[0] // 4)
    a, b = drawn[middle, middle].ravel(), np.exp(-bone[middle, middle].astype(np.float64)).ravel()
    assert np.corrcoef(a, b)[0, 1] > 0.85
    # The mask lies over the frame, half of it; the slider says how much.
    assert page.evaluate("document.getElementById('drr').style.opacity") == "0.5"
    page.evaluate("(() => { const s = document.getElementById('slider-blend'); s.value = 80; s.oninput() })()")
    assert page.evaluate("document.getElementById('drr').style.opacity") == "0.8"
    assert boxes[0] == pytest.approx(boxes[1], abs=1)
    page.click("#tool-flicker")
    display.until(page, "document.getElementById('drr').style.visibility === 'hidden'")
    display.until(page, "document.getElementById('drr').style.visibility === ''")
    page.click("#tool-flicker")
    shot(page, "display-space")
    page.click("#tool-drr")
    display.until(page, "document.getElementById('drr').hidden")


def test_the_drr_comes_at_once_however_long_the_3d_view_waits_for_its_turn(page, display):
    """Regression: without a GPU the step *Check* asked to compare with a DRR that came up to two seconds later."""
    page.evaluate("fluoronav.space.next = performance.now() + 1e6")
    page.click("#tool-drr")
    display.until(page, "!document.getElementById('drr').hidden && fluoronav.space.drawn.drr > 0", 30)


def test_another_case_than_the_pipelines_is_not_shown(browser, display):
    display.health["case"] = "someone else@1"
    page = display.open(browser, size=(1920, 1080))
    display.until(page, "document.getElementById('space-note').textContent.includes('someone else@1')")
    assert page.evaluate("fluoronav.space.case") is None
    display.health["case"] = CASE.id
    display.until(page, "fluoronav.space.case !== null", 60)  # and by itself, once it is the right one


def test_the_view_follows_when_the_pipeline_loads_another_case(browser, display, tmp_path):
    other = load_case(another_case(tmp_path))
    page = display.open(browser, size=(1920, 1080))
    display.show(page, **registered())
    display.until(page, f"fluoronav.space.case?.case === '{CASE.id}' && fluoronav.space.scene.drawn > 1", 60)
    paths = "fluoronav.space.scene.planned.children.length"
    before = page.evaluate(paths)
    display.health |= {"case": other.id, "case_name": "another"}
    display.until(page, f"fluoronav.space.case?.case === '{other.id}' && fluoronav.space.scene.drawn > 1", 60)
    assert page.evaluate(paths) == 2 < before  # one path and its end, of several
    display.until(page, "fluoronav.space.drawn.slices > 1")
    assert canvas(page, "slices").max() > 100 and canvas(page, "scene").max() > 60
