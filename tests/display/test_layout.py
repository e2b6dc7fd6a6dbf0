"""The layout, measured in a real browser: places, sizes of letters and buttons, contrast, and that nothing moves."""

import itertools

import numpy as np
import pytest
from tests.display.pipeline_stand_in import alert, overlay
from tests.display.test_display import press, shot

LANDSCAPE = [(1920, 1080), (1280, 720), (3840, 2160)]
PORTRAIT = (1024, 1366)
MINUTES_OF_ARC, AT_MM, SCREEN_HEIGHT_MM = 16, 2000, 336.2  # 27 inch, 16:9
LONG_REASON = (
    "41 % of the frames of the last ten seconds were not looked at in time; the computer is too slow for 30 a second"
)
# What is on the screen at once, none of it over anything else.
PARTS = ("header", "#alarms", "#view", "#middle", "#numbers", "#status", "footer")
RECT = "(e) => { const b = e.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; }"


def boxes(page, selector):
    """Left, top, right and bottom of every element that is seen, by its id (or its place in the list)."""
    found = page.evaluate(
        f"""(selector) => [...document.querySelectorAll(selector)].map((e, k) => [e, k])
        .filter(([e]) => e.checkVisibility()).map(([e, k]) => [e.id || `${{e.className}} ${{k}}`, ({RECT})(e)])""",
        selector,
    )
    return dict(found)


def overlap(a, b):
    return min(a[2], b[2]) - max(a[0], b[0]) > 1 and min(a[3], b[3]) - max(a[1], b[1]) > 1


def alarm(display, page, *priorities):
    for k, priority in enumerate(priorities):
        structure = ("spinal_cord", "aorta", "vena_cava", "lung")[k]
        said = alert(k, priority, text=f"kwire is {k}.8 mm from the {structure}", structure=structure)
        display.stand_in.say("alert", said)
    display.until(page, f"document.querySelectorAll('.alarm').length === {min(len(priorities), 2)}")


@pytest.mark.parametrize("size", [*LANDSCAPE, PORTRAIT])
def test_every_part_has_its_place_and_lies_over_no_other(browser, display, size):
    page = display.open(browser, size=size)
    alarm(display, page, "high", "medium", "low")
    display.show(page)
    root = "document.documentElement"
    assert page.evaluate(f"{root}.scrollHeight <= innerHeight && {root}.scrollWidth <= innerWidth")
    found = {part: next(iter(boxes(page, f"body > {part}, main > {part}").values())) for part in PARTS}
    for a, b in itertools.combinations(found, 2):
        assert not overlap(found[a], found[b]), f"{a} and {b}"
    for part, (left, top, right, bottom) in found.items():
        assert left >= -1 and top >= -1 and right <= size[0] + 1 and bottom <= size[1] + 1, part
    view, numbers = found["#view"], found["#numbers"]
    assert view[2] - view[0] == pytest.approx(view[3] - view[1], abs=2), "the picture is square"
    assert view[0] < found["#middle"][0] + 1 and view[2] <= numbers[0]
    assert view[2] - view[0] > 1.8 * (numbers[2] - numbers[0]), "the picture is what is largest"
    if size in LANDSCAPE:
        unit = size[1] / 1080
        heights = {part: (box[3] - box[1]) / unit for part, box in found.items()}
        assert heights["header"] == pytest.approx(72, abs=1) and heights["#alarms"] == pytest.approx(96, abs=1)
        assert heights["footer"] == pytest.approx(96, abs=1)
    cards = list(boxes(page, "#numbers .card").values())
    assert len(cards) == 3 and not any(overlap(a, b) for a, b in itertools.combinations(cards, 2))
    assert len(boxes(page, "footer .group")) == 5
    pressed = boxes(page, "body > header button, #alarms button, #presets button, footer button, footer select")
    for a, b in itertools.combinations(pressed, 2):
        assert not overlap(pressed[a], pressed[b]), f"{a} and {b}"
    status = found["#status"]
    assert not any(overlap(box, status) for box in pressed.values())
    if size == (1920, 1080):
        shot(page, "display-stand-in")


CAPITALS = """(selector) => [...document.querySelectorAll(selector)]
.filter((e) => e.checkVisibility() && e.textContent).map((e) => {
  const style = getComputedStyle(e), c = document.createElement("canvas").getContext("2d");
  c.font = `${style.fontStyle} ${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
  return [e.id || e.className || e.parentElement.id, c.measureText("H").actualBoundingBoxAscent];
})"""


@pytest.mark.parametrize("size", LANDSCAPE)
def test_capitals_of_alarms_distances_and_state_have_16_minutes_of_arc_at_two_metres(browser, display, size):
    page = display.open(browser, size=size)
    alarm(display, page, "high", "medium")
    display.show(page)
    far = ".alarm .text, .alarm .priority, #mode b, #registration .state, .card .number"
    seen = page.evaluate(CAPITALS, far)
    assert len(seen) == 9
    digits = page.evaluate("parseFloat(getComputedStyle(document.querySelector('#nearest .number')).fontSize)")
    assert digits >= 72 * size[1] / 1080 - 0.5
    display.show(page, plan=[overlay(0)["plan"][0] | {"depth_left_mm": -13.6}], instruments=[], distances=[])
    seen += page.evaluate(CAPITALS, far)
    for what, px in seen:
        minutes = np.degrees(np.arctan(px * SCREEN_HEIGHT_MM / size[1] / AT_MM)) * 60
        assert minutes >= MINUTES_OF_ARC, f"{what}: {minutes:.1f}"


# Every element with words of its own: its colour, and the colour that lies behind it.
COLOURS = """() => {
  const rgba = (css) => { const n = css.match(/[\\d.]+/g).map(Number); return n.length > 3 ? n : [...n, 1]; };
  const behind = (e) => {
    const layers = [];
    for (let p = e; p && layers.at(-1)?.[3] !== 1; p = p.parentElement)
      layers.push(rgba(getComputedStyle(p).backgroundColor));
    return layers.reverse().reduce((a, b) => [0, 1, 2].map((k) => b[3] * b[k] + (1 - b[3]) * (a[k] ?? 0)), [0, 0, 0]);
  };
  const own = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  const seen = (e) => e.checkVisibility({visibilityProperty: true}) && own(e) && !e.closest("#lost");
  return [...document.querySelectorAll("body *")].filter(seen).map((e) => {
    const style = getComputedStyle(e), ink = rgba(e.namespaceURI.includes("svg") ? style.fill : style.color);
    return [e.id || `${e.parentElement.id} ${e.className.baseVal ?? e.className}`, ink.slice(0, 3), behind(e)];
  });
}"""


def contrast(a, b):
    """WCAG 2.2, 1.4.3."""

    def luminance(colour):
        c = np.array(colour) / 255
        return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)

    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def legible(page, where):
    poor = [
        (what, round(contrast(ink, ground), 1))
        for what, ink, ground in page.evaluate(COLOURS)
        if contrast(ink, ground) < 4.5
    ]
    assert not poor, f"{where}: {poor}"


def test_every_word_has_a_contrast_of_at_least_four_and_a_half(browser, display):
    page = display.open(browser, size=(1920, 1080))
    display.show(page)
    legible(page, "tracking")
    for priority in ("high", "medium", "low"):
        display.stand_in.say("alert", alert(1, priority))
        display.until(page, f"document.querySelector('.alarm.{priority}')")
        legible(page, priority)
        # Both phases of the flashing.
        page.evaluate(
            "for (const a of document.getAnimations()) "
            "{ a.pause(); a.currentTime = a.effect.getTiming().duration * 0.75 }"
        )
        legible(page, f"{priority}, dark phase")
        display.stand_in.say("alert", alert(1, priority, "cleared"))
        display.until(page, "!document.querySelector('.alarm')")
    for level in ("caution", "danger"):
        display.show(page, distances=[overlay(0)["distances"][0] | {"level": level}])
        legible(page, level)
    for changes in ({"mode": "shadow"}, {"status": "lost", "registration": None},
                    {"registration": overlay(0)["registration"] | {"accepted": False}}):  # fmt: skip
        display.show(page, **changes)
        legible(page, str(changes))
    display.show(page)
    for opened in ("menu", "check", "log", "layers", "windowing", "drr", "freeze"):
        press(page, opened)
        page.wait_for_timeout(100)
        legible(page, opened)
    display.health |= {"state": "failed", "reason": "the engine has ended"}
    press(page, "freeze")
    display.until(page, "document.getElementById('mode').className === 'failed'")
    legible(page, "failed")


@pytest.mark.parametrize("size", [(1920, 1080), PORTRAIT])
def test_what_is_touched_has_72_pixels_at_full_hd(browser, display, size):
    page = display.open(browser, size=size)
    alarm(display, page, "high", "medium", "low")
    display.health |= {"session": {"confirmed": False}}
    display.until(page, "!document.getElementById('patient').hidden")
    least = 72 * page.evaluate("parseFloat(getComputedStyle(document.documentElement).fontSize)") / 16

    def check(where):
        found = boxes(page, "button, select, input")
        assert len(found) > 15
        for name, (left, top, right, bottom) in found.items():
            assert min(right - left, bottom - top) >= least - 1, f"{where}: {name} is {right - left} x {bottom - top}"
            assert left >= -1 and right <= size[0] + 1 and bottom <= size[1] + 1, f"{where}: {name} is off the screen"

    check("at first")
    for name in ("layers", "windowing", "drr", "freeze", "menu", "user", "check", "log", "mark"):
        press(page, name)
        page.wait_for_timeout(60)
        check(name)


@pytest.mark.parametrize("size", [(1920, 1080), PORTRAIT])
def test_no_control_moves(browser, display, size):
    page = display.open(browser, size=size)
    display.show(page)
    controls = (
        "body > header button, footer button, footer select, #presets button, #tool-sound, "
        ".card, #view, #mode, #registration"
    )
    at_first = boxes(page, controls)
    assert len(at_first) > 18

    def unmoved(where):
        for name, box in boxes(page, controls).items():
            assert box == pytest.approx(at_first[name], abs=0.6), f"{where}: {name}"

    alarm(display, page, "high", "medium", "low", "low")
    unmoved("four alarms")
    display.health |= {"state": "degraded", "reason": LONG_REASON, "recording": "/srv/recordings/carm0.mcap"}
    display.until(page, "document.getElementById('reason').textContent && !document.getElementById('rec').hidden")
    unmoved("a long reason, recording")
    for changes in ({"status": "lost", "registration": None, "instruments": [], "distances": [], "plan": []},
                    {"plan": [overlay(0)["plan"][0] | {"depth_left_mm": -113.6}], "mode": "shadow"},
                    {"distances": [overlay(0)["distances"][0] | {"level": "danger",
                                                                   "distance_mm": -10.4}]}):  # fmt: skip
        display.show(page, **changes)
        unmoved(str(changes)[:60])
    for name in ("layers", "windowing", "drr", "freeze", "earlier", "menu", "check", "log", "measure", "freeze"):
        press(page, name)
        page.wait_for_timeout(60)
        unmoved(name)
    page.evaluate("fluoronav.alarms.pause()")
    display.streaming = False
    display.until(page, "document.body.classList.contains('lost')")
    unmoved("lost")


@pytest.mark.parametrize("size", [*LANDSCAPE, PORTRAIT])
def test_no_word_of_the_head_the_strip_or_the_cards_is_cut_off(browser, display, size):
    page = display.open(browser, size=size)
    held = overlay(0)["registration"] | {"age_ms": 1650.0, "tre_mm": 13.1, "tre_image_mm": 10.6}
    near = overlay(0)["distances"][0] | {"distance_mm": -10.4, "lower_mm": -11.9, "contact_s": 1.2, "level": "danger"}
    past = overlay(0)["plan"][0] | {"depth_left_mm": -113.6, "lateral_mm": 12.8, "angle_deg": 11.5}
    cut = """() => {
      const home = (e) => (e.closest(".card, #mode, #registration, .alarm, button") ?? e).getBoundingClientRect();
      const outside = (a, b) => a.right > b.right + 1 || a.bottom > b.bottom + 1;
      const words = "#mode b, #mode small, #registration p, .alarm .text, .card p, footer button, #presets button";
      const spare = (e) => 0.2 * parseFloat(getComputedStyle(e).fontSize); // lines are set closely
      const isCut = (e) => e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + spare(e);
      return [...document.querySelectorAll(words)].filter((e) => e.checkVisibility() && e.textContent)
        .filter((e) => isCut(e) || outside(e.getBoundingClientRect(), home(e)))
        .map((e) => [e.id || `${e.parentElement.id} ${e.className}`, e.textContent]); }"""
    unaccepted = {"registration": overlay(0)["registration"] | {"accepted": False}, "status": "degraded"}
    for changes, mode in (({}, {}), ({"registration": held, "plan": [past], "distances": [near]}, {}),
                          (unaccepted, {}),
                          ({"status": "searching", "registration": None},
                           {"session": {"confirmed": False}})):  # fmt: skip
        display.health = {"case": display.health["case"]} | mode
        display.show(page, **changes)
        page.wait_for_timeout(400)
        assert page.evaluate(cut) == []
    display.stand_in.say("alert", alert(1, "high"))
    display.stand_in.say(
        "alert",
        alert(
            2,
            "medium",
            kind="tracker_drift",
            instrument=None,
            structure=None,
            text="the tracker's marker has moved by 3.1 mm",
        ),
    )
    display.until(page, "document.querySelectorAll('.alarm').length === 2")
    assert page.evaluate(cut) == []
