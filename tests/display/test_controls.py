"""Stepping back, measuring, no-go regions, and requests to the pipeline and into the trail."""

import json

import numpy as np
import pytest
from tests.display.pipeline_stand_in import overlay
from tests.display.test_display import drawn, extent, hold, only, shot

from fluoronav.site.audit import verify_trail


def test_the_last_half_minute_can_be_stepped_through_with_its_overlays(browser, display):
    page = display.open(browser)
    display.show(page)
    display.until(page, "fluoronav.history.moments.length >= 12")
    page.keyboard.press("Space")
    page.wait_for_timeout(1300)  # longer than overlays are kept for the live picture
    frozen = page.evaluate("fluoronav.stats.shownSeq")
    image, _ = drawn(page)
    assert (image[..., 3] > 60).sum() > 500, "what was drawn on the frozen picture stays"
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(200)
    back = page.evaluate("[fluoronav.stats.shownSeq, fluoronav.state.moment.overlay.seq, fluoronav.picture.rows]")
    assert back[0] < frozen - 5 and back[0] == back[1] and back[2] == 512
    assert "s ago" in page.locator("#view").get_attribute("data-note")
    page.keyboard.press("Space")
    display.until(page, f"fluoronav.stats.shownSeq > {frozen} && fluoronav.picture.rows === 512")
    page.evaluate("fluoronav.history.moments.length = 0")
    page.evaluate(
        """for (let k = 0; k < 400; k++) fluoronav.history.keep(1e9 + 100 * k, {height: 8, width: 8, dtype: 'u2'},
        new Uint16Array(64).buffer, 0, null)"""
    )
    assert page.evaluate("fluoronav.history.moments.length") == 300
    page.evaluate(
        """fluoronav.history.keep(2e9, {height: 704, width: 704, dtype: 'u2'},
        new Uint16Array(704 * 704).map((_, k) => k >> 6).buffer, 0, null)"""
    )
    kept = page.evaluate(
        "(({rows, cols, pixels}) => [rows, cols, ...pixels.slice(0, 3)])(fluoronav.history.moments.at(-1))"
    )
    assert kept == [352, 352, 5, 5, 5], "a large one at half its size"


def test_an_angle_is_measured_at_its_middle_point(browser, display):
    page = display.open(browser)
    display.show(page)
    page.click("#tool-measure")
    page.click("#tool-angle")
    assert page.locator("#tool-measure").get_attribute("aria-pressed") == "false"
    box = page.locator("#layers").bounding_box()
    per_px = box["width"] / 512
    for x, y in ((150.5, 300.5), (250.5, 300.5), (320.5, 230.5)):
        page.mouse.click(box["x"] + x * per_px, box["y"] + y * per_px)
    said = page.evaluate("fluoronav.layers.said(fluoronav.layers.measure, null)")
    assert float(said.rstrip("°")) == pytest.approx(135, abs=0.8)


def test_forbidden_regions_are_hatched_and_have_a_switch_of_their_own(browser, display):
    page = display.open(browser)
    region = {"structure": "forbidden", "color": "#ff8000", "paths": [[[300, 300], [400, 300], [400, 400], [300, 400]]]}
    display.show(page, outlines=[*overlay(0)["outlines"], region], instruments=[], plan=[])
    only(page, "no_go")
    display.show(page, outlines=[*overlay(0)["outlines"], region], instruments=[], plan=[])
    assert np.abs(extent(page, 20) - [300, 400, 300, 400]).max() < 2
    image, scale = drawn(page)
    inside = image[int(320 * scale) : int(380 * scale), int(320 * scale) : int(380 * scale)].reshape(-1, 4)
    lines = inside[inside[:, 3] > 100]
    assert 0.05 < len(lines) / len(inside) < 0.4, "lines, and the frame shows through between them"
    assert np.abs(lines[:, :3].astype(int) - [0xFF, 0x3C, 0xF0]).max() < 10, "in the colour of forbidden regions (BGR)"


def test_a_tip_from_the_tracker_includes_the_registration_error(browser, display):
    page = display.open(browser)
    registration = overlay(0)["registration"] | {"sigma": [0.1, 0.1, 0.1, 1.0, 0.1, 3.0]}
    one = overlay(0)["instruments"][0] | {"tail_px": None, "origin": "tracker"}
    only(page, "instruments")
    display.show(page, instruments=[one], plan=[], registration=registration)
    left, right, top, bottom = extent(page)
    focal = page.evaluate("fluoronav.layers.camera.focal_px")
    for size, mm in ((right - left, np.hypot(0.5, 1.0)), (bottom - top, np.hypot(0.5, 0.1))):
        assert size == pytest.approx(2 * 2.45 * mm * focal / 800, abs=3)


def test_arrows_show_the_directions_of_the_patient(browser, display):
    page = display.open(browser)
    # Head to the left of the picture, the patient's left at the top; the back points at the viewer.
    T = [0.0, 0, -1, 0, -1, 0, 0, 0, 0, 1, 0, 800, 0, 0, 0, 1]
    display.show(page, registration=overlay(0)["registration"] | {"T_camera_ct": T})
    page.evaluate(
        "(() => { const draw = fluoronav.layers.words; fluoronav.words = []; fluoronav.layers.words = "
        "function (s, x, y, z) { fluoronav.words.push([s, x, y]); draw.call(this, s, x, y, z); }; })()"
    )
    display.until(page, "fluoronav.words.length > 6")
    said = {s: (x, y) for s, x, y in page.evaluate("fluoronav.words")}
    assert "P" not in said
    assert said["H"][0] < said["L"][0] - 10 and said["L"][1] < said["H"][1] - 10


def trail(tmp_path):
    (file,) = (tmp_path / "audit").glob("display-*.jsonl")
    verify_trail(file)
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_decisions_go_to_the_pipeline_and_into_the_trail(browser, display, tmp_path):
    page = display.open(browser)
    display.until(page, "document.getElementById('tool-trajectory').options.length === 3")
    page.locator("#tool-trajectory").select_option("T5 right")
    page.click("#tool-check")
    hold(page, "#tool-reject")
    display.until(page, "document.getElementById('panel').hidden")
    hold(page, "#tool-restart")
    page.click("#tool-menu")
    page.click("#tool-mode")
    page.click("#ask .yes")
    page.click("#tool-mark")
    display.until(page, "document.getElementById('refusal').textContent.includes('nobody hears marks')")
    asked = [a for a in display.stand_in.asked if a["op"] not in ("case.info", "status")]
    assert [(a["op"], a["args"]) for a in asked] == [
        ("plan.set", {"trajectories": ["T5 right"]}), ("registration.reject", {}), ("registration.start", {}),
        ("mode.set", {"mode": "shadow"}),
    ]  # fmt: skip
    assert {a["user"] for a in asked} == {"Dr. Test"}
    (marked,) = trail(tmp_path)
    assert marked["event"] == "marked" and marked["user"] == "Dr. Test" and marked["args"]["seq"] > 0
    assert marked["case"] == display.health["case"]
    shot(page, "display-stand-in")


def test_a_request_of_a_watching_screen_is_refused_and_noted(browser, display, tmp_path):
    page = display.open(browser, display.watch)
    reply = page.evaluate("fluoronav.stream.ask('registration.accept', {}, 'nobody')")
    assert reply["error"]["code"] == "forbidden"
    assert [(e["event"], e["op"], e["user"]) for e in trail(tmp_path)] == [
        ("forbidden", "registration.accept", "nobody")
    ]


def test_the_dot_lies_on_the_tips_side_of_the_path(browser, display):
    page = display.open(browser)
    beside = overlay(0)["plan"][0] | {"lateral_mm": 1.5, "beside_mm": [-1.2, 0.9]}
    seen = "getComputedStyle(document.querySelector('#bullseye {}')).visibility === '{}'"

    def until_seen(dot, ring):  # on a busy computer what was shown may have aged before it is asked for
        display.until(page, f"{seen.format('.tip', dot)} && {seen.format('.beside', ring)}")

    display.show(page, plan=[beside])
    until_seen("visible", "hidden")
    x, y = page.evaluate(
        "(() => { const d = document.querySelector('#bullseye .tip'); "
        "return ['cx', 'cy'].map((k) => +d.getAttribute(k)) })()"
    )
    assert x < 0 and y < 0 and y / x == pytest.approx(0.75)  # to the left and up, as somebody sees who drills
    rings = page.evaluate("[...document.querySelectorAll('#bullseye circle.ring')].map((c) => +c.getAttribute('r'))")
    assert rings[0] < np.hypot(x, y) < rings[1]  # between the rings of 1 and 2 mm
    display.show(page, plan=[overlay(0)["plan"][0]])  # a pipeline that does not say to which side: a ring, no dot
    until_seen("hidden", "visible")


def test_recording_and_another_case_are_requested_and_the_pipelines_state_is_shown(browser, display):
    page = display.open(browser)
    display.until(page, "document.getElementById('tool-case').options.length === 2")
    page.click("#tool-menu")
    page.click("#tool-record")
    display.until(page, "document.getElementById('age').textContent === 'Recording begins'")
    assert page.locator("#rec").is_hidden()
    display.health["recording"] = "/recordings/carm0.mcap"
    display.until(page, "document.getElementById('tool-record').textContent === 'Stop recording'")
    assert page.locator("#rec").is_visible()
    page.click("#tool-record")
    page.locator("#tool-case").select_option("another")
    page.click("#ask .yes")

    def asked():
        return [(a["op"], a["args"]) for a in display.stand_in.asked if a["op"] not in ("case.info", "status")]

    for _ in range(100):
        if len(asked()) == 3:
            break
        page.wait_for_timeout(50)
    assert asked() == [("record.start", {}), ("record.stop", {}), ("case.load", {"case": "another"})]
    display.health["loading"] = "another"
    display.until(page, "document.getElementById('age').textContent.startsWith('Loading the case another')")
    why = "case.load another: /srv/cases/another/case.yaml: [Errno 2] cannot be read"
    display.health |= {"loading": "", "error": why}
    display.until(page, "document.getElementById('age').textContent.includes('cannot be read')")
    said = page.evaluate("document.getElementById('refusal').textContent")
    assert "/srv" not in said and "Errno" not in said and "case.yaml" in said


def test_a_gpu_that_goes_and_comes_back_shows_the_picture_again(browser, display):
    page = display.open(browser, f"{display.control}&draw=gpu")
    display.show(page)
    brightest = "Math.max(...(() => { const c = document.createElement('canvas'); c.width = c.height = 64; const x = "
    brightest += "c.getContext('2d'); x.drawImage(document.getElementById('picture'), 0, 0, 64, 64); "
    brightest += "return x.getImageData(0, 0, 64, 64).data.filter((_, k) => k % 4 === 0) })())"
    assert page.evaluate(brightest) > 200
    page.evaluate("(window.gpu = fluoronav.picture.gl.getExtension('WEBGL_lose_context')).loseContext()")
    display.until(page, "fluoronav.picture.gl.isContextLost()")
    page.wait_for_timeout(300)
    page.evaluate("gpu.restoreContext()")
    display.until(page, f"!fluoronav.picture.gl.isContextLost() && {brightest} > 200")
    shown = page.evaluate("fluoronav.stats.shownSeq")
    display.until(page, f"fluoronav.stats.shownSeq > {shown + 3}")


def test_the_menu_names_the_planned_views(browser, display):
    page = display.open(browser)
    display.show(page)
    views = [
        {"item": "T8_left", "orbital_deg": 0, "angular_deg": 40, "bound_mm": 0.21},
        {"item": "T8_left", "orbital_deg": 70, "angular_deg": -20, "bound_mm": 0.21},
        {"item": "T8_right", "orbital_deg": -20, "angular_deg": 30, "bound_mm": None},
    ]
    head = {"case": page.evaluate("fluoronav.state.running"), "views": views}
    page.route("**/case", lambda route: route.fulfill(json=head))
    page.click("#tool-menu")
    page.wait_for_selector("#planned-views:visible dd")
    assert page.locator("#planned-views dd").all_inner_texts() == [
        "T8_left: orbital 0°, angular 40°, then orbital 70°, angular -20°: tip within 0.2 mm (95 %)",
        "T8_right: orbital -20°, angular 30°",
    ]
    page.click("#tool-menu")
    head["views"] = []
    page.click("#tool-menu")
    page.wait_for_selector("#planned-views", state="hidden")
