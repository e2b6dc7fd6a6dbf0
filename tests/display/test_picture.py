"""The picture: zoom and pan, letters, levels, legend, sizes; the same places under every layer."""

import numpy as np
import pytest
from tests.display.pipeline_stand_in import alert, overlay
from tests.display.test_display import drawn, only

STRUCTURES = [
    {"name": "vertebrae_T5", "color": "#7fb3d5", "caution_mm": None, "danger_mm": None},
    {"name": "vertebrae_T6", "color": "#7fb3d5", "caution_mm": None, "danger_mm": None},
    {"name": "spinal_cord", "color": "#58d68d", "caution_mm": 2.5, "danger_mm": 1.0},
    {"name": "aorta", "color": "#ec7063", "caution_mm": 6.0, "danger_mm": 3.0},
]
# Seen from the front: the patient's left on the right, the head up.
FROM_THE_FRONT = [1.0, 0, 0, 0, 0, 0, -1, 0, 0, 1, 0, 800, 0, 0, 0, 1]
FROM_BEHIND = [-1.0, 0, 0, 0, 0, 0, -1, 0, 0, -1, 0, 800, 0, 0, 0, 1]
FROM_THE_LEFT = [0, 1.0, 0, 0, 0, 0, -1, 0, -1, 0, 0, 800, 0, 0, 0, 1]


def posed(T, **changes):
    return {"registration": overlay(0)["registration"] | {"T_camera_ct": T}} | changes


def box(structure, x1, x2, y1, y2):
    return {"structure": structure, "color": "#00ff00", "paths": [[[x1, y1], [x2, y1], [x2, y2], [x1, y2]]]}


def knows(page):
    """The page as with a case whose structures are known."""
    page.evaluate(
        "(s) => fluoronav.layers.meanings.take({ structures: s, no_go: ['forbidden'], plan: [] })", STRUCTURES
    )


def labelled(page, layer):
    """Only one layer, and what is written."""
    only(page, layer)
    page.evaluate("fluoronav.layers.on.labels = fluoronav.layers.on.letters = true")


def edges(page):
    return page.evaluate("fluoronav.layers.edges")


def at(page, x, y):
    """The place on the screen of a pixel of the frame."""
    return page.evaluate(
        """([x, y]) => {
        const b = document.getElementById("layers").getBoundingClientRect(), [l, t, p] = fluoronav.view.region();
        return [b.left + (((x + 0.5) / 512 - l) / p) * b.width, b.top + (((y + 0.5) / 512 - t) / p) * b.height]; }""",
        [x, y],
    )


# Directions


def test_letters_at_the_edges_follow_the_pose(browser, display):
    page = display.open(browser)
    for T, expected in (
        (FROM_THE_FRONT, {"left": "R", "right": "L", "top": "H", "bottom": "F"}),
        (FROM_BEHIND, {"left": "L", "right": "R", "top": "H", "bottom": "F"}),
        (FROM_THE_LEFT, {"left": "A", "right": "P", "top": "H", "bottom": "F"}),
    ):
        display.show(page, **posed(T))
        assert edges(page) == expected
    turned = np.array(FROM_THE_FRONT).reshape(4, 4)
    c, s = np.cos(np.radians(40)), np.sin(np.radians(40))
    turned[:3, :3] = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]) @ turned[:3, :3]
    display.show(page, **posed(turned.ravel().tolist()))
    assert edges(page)["left"] == "RP" and edges(page)["right"] == "LA"  # oblique, as in DICOM


@pytest.mark.parametrize("lost", [{"status": "searching", "registration": None}, {"status": "lost"}])
def test_no_letter_stands_without_a_pose(browser, display, lost):
    page = display.open(browser)
    labelled(page, "none")
    display.show(page, **posed(FROM_THE_FRONT))
    assert edges(page)["left"] == "R"
    display.show(page, **lost)
    assert edges(page) is None


def test_no_letter_stands_at_a_held_pose(browser, display):
    page = display.open(browser)
    held = overlay(0)["registration"] | {"T_camera_ct": FROM_THE_FRONT, "age_ms": 900.0}
    display.show(page, registration=held)
    display.until(page, "fluoronav.layers.edges === null")


# Meanings


def test_levels_are_named_in_their_vertebrae_and_the_target_is_stronger(browser, display):
    page = display.open(browser, size=(1920, 1080))
    knows(page)
    labelled(page, "outlines")
    plan = [overlay(0)["plan"][0] | {"trajectory": "T6_left"}]
    shown = {
        "plan": plan,
        "instruments": [],
        "outlines": [box("vertebrae_T5", 150, 350, 60, 190), box("vertebrae_T6", 150, 350, 250, 380)],
    }
    display.show(page, **posed(FROM_THE_FRONT), **shown)
    image, scale = drawn(page)
    heights = []
    for y in (125, 315):
        about = image[round((y - 40) * scale) : round((y + 40) * scale), round(200 * scale) : round(300 * scale)]
        rows, cols = np.nonzero((about[..., 3] > 200) & (about[..., :3].min(-1) > 150))
        assert (
            abs((rows.min() + rows.max()) / 2 / scale - 40) < 6 and abs((cols.min() + cols.max()) / 2 / scale - 50) < 6
        )
        heights.append(np.ptp(rows))
    assert heights[1] > 1.2 * heights[0]
    # The outline of the target level is thicker: opaque pixels across its left side.
    widths = [(image[round(y * scale), round(140 * scale) : round(160 * scale), 3] > 120).sum() for y in (125, 315)]
    assert widths[1] > 1.3 * widths[0]
    names = ["vertebrae_T8", "T8_left", "L 3", "vertebra_l5", "sacrum", "rib_left_7", "C2", "catheter12"]
    found = page.evaluate(
        "async (n) => { const { levelOf } = await import('/page/meanings.js'); return n.map(levelOf) }", names
    )
    assert found == ["T8", "T8", "L3", "L5", "", "", "C2", ""]


def test_a_cord_is_dashed_and_not_green_and_the_legend_names_what_is_shown(browser, display):
    page = display.open(browser, size=(1920, 1080))
    knows(page)
    labelled(page, "outlines")
    display.show(page, **posed(FROM_THE_FRONT), instruments=[], outlines=[box("spinal_cord", 150, 350, 100, 300)])
    image, scale = drawn(page)
    line = image[round(101 * scale), round(160 * scale) : round(340 * scale)].astype(int)
    inked = line[line[:, 3] > 200]
    assert 0.3 < len(inked) / len(line) < 0.95, "gaps between its dashes"
    coloured = inked[inked.max(1) > 120]
    assert (coloured[:, 1] < coloured[:, 0]).all() and (coloured[:, 1] < coloured[:, 2]).all(), (
        "magenta: green is least"
    )
    legend = "document.getElementById('legend').innerText.split('\\n')"
    assert page.evaluate(legend) == ["Nerve", "Plan"] or page.evaluate(legend) == ["Nerve"]
    display.show(
        page,
        **posed(FROM_THE_FRONT),
        instruments=[],
        plan=[],
        outlines=[box("aorta", 150, 350, 100, 300), box("vertebrae_T6", 1, 2, 1, 2), box("forbidden", 9, 30, 9, 30)],
    )
    display.until(page, f"{legend}.join() === 'Bone,Vessel'")  # no-go regions are switched off
    page.evaluate("fluoronav.layers.on.labels = true; document.getElementById('tool-labels').click()")
    display.until(page, "document.getElementById('legend').hidden")


@pytest.mark.parametrize("level", ["caution", "danger"])
def test_danger_is_told_by_shape_as_well(browser, display, level):
    page = display.open(browser, size=(1920, 1080))
    only(page, "instruments")
    near = overlay(0)["distances"][0]

    def ink(level):
        display.show(page, **posed(FROM_THE_FRONT), distances=[near | {"level": level}])
        image, scale = drawn(page)
        x, y = 300 - 34 * np.sqrt(0.5), 200 + 34 * np.sqrt(0.5)  # beyond the tip
        part = (
            image[
                round((y - 16) * scale) : round((y + 16) * scale), round((x - 16) * scale) : round((x + 16) * scale), 3
            ]
            > 150
        )
        return part.mean(), part[
            len(part) // 2 - 2 : len(part) // 2 + 2, len(part) // 2 - 2 : len(part) // 2 + 2
        ].mean()

    assert ink("clear")[0] < 0.02
    covered, middle = ink(level)
    assert covered > 0.1 and (middle > 0.5) == (level == "danger"), "a triangle: filled for danger, empty for caution"


def test_an_open_alarm_hatches_the_structure_that_is_near(browser, display):
    page = display.open(browser, size=(1920, 1080))
    knows(page)
    only(page, "outlines")
    shown = {"instruments": [], "outlines": [box("spinal_cord", 150, 350, 100, 300)], "distances": []}

    def filled():
        image, scale = drawn(page)
        return (image[round(120 * scale) : round(280 * scale), round(170 * scale) : round(330 * scale), 3] > 100).mean()

    display.show(page, **posed(FROM_THE_FRONT), **shown)
    assert filled() < 0.02
    display.stand_in.say("alert", alert(1, "high"))
    display.show(page, **posed(FROM_THE_FRONT), **shown)
    display.until(page, "document.querySelector('.alarm')")
    display.show(page, **posed(FROM_THE_FRONT), **shown)
    assert 0.05 < filled() < 0.6


# Size


@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080), (3840, 2160)])
def test_marks_are_as_large_on_every_screen_and_distances_legible_at_two_metres(browser, display, size):
    page = display.open(browser, size=size)
    labelled(page, "none")
    display.show(page, **posed(FROM_THE_FRONT))
    image, _ = drawn(page)
    to_screen = page.evaluate(
        "(() => { const l = document.getElementById('layers'); return l.getBoundingClientRect().width / l.width })()"
    )
    unit = size[1] / 1080 / to_screen  # pixels of the canvas
    # The scale's words, above its line: capitals and digits.
    part = image[-round(90 * unit) : -round(30 * unit), round(20 * unit) : round(60 * unit)]
    rows = np.nonzero(((part[..., 3] > 200) & (part[..., :3].min(-1) > 150)).any(1))[0]
    capital = (np.ptp(rows) + 1) * to_screen / size[1]  # of the screen's height
    # 16 minutes of arc at 2 m are 9.3 mm; a 27-inch screen of 16:9 is 336 mm high.
    assert capital >= 0.97 * 2000 * np.tan(np.radians(16 / 60)) / 336
    letter = image[image.shape[0] // 2 - round(40 * unit) : image.shape[0] // 2 + round(40 * unit), : round(70 * unit)]
    assert np.ptp(np.nonzero((letter[..., 3] > 200).any(1))[0]) * to_screen / size[1] >= capital
    assert page.evaluate("fluoronav.layers.canvas.width") <= 1080 or page.evaluate("Boolean(fluoronav.picture.gl)")


def test_fewer_pixels_than_the_screens_are_said(browser, display):
    page = display.open(browser, f"{display.control}&draw=cpu", size=(3840, 2160))
    display.show(page)
    said = "document.getElementById('thinned').textContent"
    display.until(page, f"/across: no GPU|this browser is slow|pictures a second/.test({said})")
    words = page.evaluate("import('/page/strings.js').then(({ text }) => text.coarse(1080, 1713))")
    assert "1080 of the screen's 1713" in words
    assert page.evaluate("fluoronav.view.coarse.drawn < fluoronav.view.coarse.wanted")
    small = display.open(browser, f"{display.control}&draw=cpu")
    display.show(small)
    assert small.evaluate("fluoronav.view.coarse") is None


# Zoom


def test_the_wheel_zooms_at_the_pointer_and_every_layer_follows(browser, display):
    page = display.open(browser, size=(1920, 1080))
    only(page, "instruments")
    display.show(page, **posed(FROM_THE_FRONT))
    before = at(page, 300, 200)
    page.mouse.move(*before)
    for _ in range(4):
        page.mouse.wheel(0, -200)
    display.until(page, "fluoronav.view.zoom > 2")
    assert at(page, 300, 200) == pytest.approx(before, abs=1)
    display.show(page, **posed(FROM_THE_FRONT))
    # The tip is drawn where its place of the frame now lies.
    image, _ = drawn(page)
    edge = page.evaluate(
        "(() => { const { left, top, width } = document.getElementById('layers').getBoundingClientRect();"
        "return [left, top, width] })()"
    )
    x, y = ((before[k] - edge[k]) * image.shape[1] / edge[2] for k in (0, 1))
    assert image[round(y), round(x), 3] == 255
    # The frame is drawn there, too: a ramp from black to white, of which the middle part is left.
    wide = page.evaluate("fluoronav.view.region()[2]")
    assert wide < 0.5
    # A button and a key bring the whole picture back.
    page.click("#unzoom")
    display.until(page, "fluoronav.view.zoom === 1 && document.getElementById('unzoom').hidden")
    page.mouse.dblclick(*at(page, 256, 256))
    display.until(page, "fluoronav.view.zoom === 2.5")
    page.keyboard.press("0")
    display.until(page, "fluoronav.view.zoom === 1")


def test_measured_points_are_right_in_an_enlarged_picture(browser, display):
    page = display.open(browser, size=(1920, 1080))
    display.show(page, **posed(FROM_THE_FRONT))
    page.mouse.move(*at(page, 200, 300))
    page.mouse.wheel(0, -600)
    display.until(page, "fluoronav.view.zoom > 2")
    page.click("#tool-measure")
    for x in (180, 220):
        page.mouse.click(*at(page, x, 300))
    (a, b) = page.evaluate("fluoronav.layers.measure")
    assert a == pytest.approx([180, 300], abs=0.6) and b == pytest.approx([220, 300], abs=0.6)
    # And they stay at their places of the frame when it is moved and enlarged further.
    page.mouse.move(*at(page, 210, 320))
    page.mouse.down()
    page.mouse.move(at(page, 210, 320)[0] + 90, at(page, 210, 320)[1] + 20, steps=4)
    page.mouse.up()
    page.mouse.wheel(0, -200)
    assert page.evaluate("fluoronav.layers.measure") == [a, b], "a drag sets no point"


def test_a_drag_moves_an_enlarged_picture_and_sets_the_window_of_a_whole_one(browser, display):
    page = display.open(browser, size=(1920, 1080))
    display.show(page)
    page.mouse.move(*at(page, 256, 256))
    page.mouse.wheel(0, -600)
    display.until(page, "fluoronav.view.zoom > 2")
    place = at(page, 256, 256)
    page.mouse.down()
    page.mouse.move(place[0] + 80, place[1] - 40, steps=5)
    page.mouse.up()
    assert at(page, 256, 256) == pytest.approx([place[0] + 80, place[1] - 40], abs=8)
    assert page.evaluate("fluoronav.picture.window") is None
    page.keyboard.press("0")
    page.mouse.move(*at(page, 256, 256))
    page.mouse.down()
    page.mouse.move(place[0] + 80, place[1], steps=5)
    page.mouse.up()
    assert page.evaluate("fluoronav.picture.window") is not None


def test_two_fingers_zoom_and_pan(browser, display):
    page = display.open(browser, size=(1920, 1080))
    display.show(page)
    page.click("#tool-measure")  # two fingers set no point
    session = page.context.new_cdp_session(page)
    middle = at(page, 256, 256)

    def touch(kind, apart, dx=0):
        points = [{"x": middle[0] + s * apart / 2 + dx, "y": middle[1], "id": k} for k, s in enumerate((-1, 1))]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [] if kind == "touchEnd" else points})

    touch("touchStart", 100)
    for apart in (140, 180, 220, 260, 300):
        touch("touchMove", apart)
    touch("touchMove", 300, 60)
    display.until(page, "fluoronav.view.zoom > 2.4")
    touch("touchEnd", 300)
    assert page.evaluate("fluoronav.view.zoom") == pytest.approx(3, abs=0.3)
    assert at(page, 256, 256) == pytest.approx([middle[0] + 60, middle[1]], abs=12)
    assert page.evaluate("fluoronav.layers.measure") == []


def test_the_magnifier_stays_away_from_the_tip(browser, display):
    page = display.open(browser, size=(1920, 1080))
    display.show(page)
    for tip in ([440.0, 70.0], [60.0, 60.0], [250.0, 250.0], [450.0, 60.0]):
        display.show(page, instruments=[overlay(0)["instruments"][0] | {"tip_px": tip}])
        loupe = page.evaluate("document.getElementById('loupe').getBoundingClientRect().toJSON()")
        x, y = at(page, *tip)
        assert not (loupe["left"] - 20 < x < loupe["right"] + 20 and loupe["top"] - 20 < y < loupe["bottom"] + 20)
