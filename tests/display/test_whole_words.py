"""Words are shown whole or not at all: alarms, the line under the picture, and what opens over it."""

import pytest
from tests.display.pipeline_stand_in import alert, overlay
from tests.display.test_display import press
from tests.display.test_layout import LANDSCAPE, LONG_REASON, boxes, overlap

LONG = "registration is uncertain: the pose has not been compared with the whole field for more than five seconds"
ROWS = "[...document.querySelectorAll('.alarm .text')]"


def said(display, page, count):
    display.until(page, f"document.querySelectorAll('.alarm').length === {count}")
    assert page.evaluate(f"{ROWS}.every((e) => e.scrollWidth <= e.clientWidth + 1)")
    return page.evaluate(f"{ROWS}.map((e) => e.textContent)")


@pytest.mark.parametrize("size", LANDSCAPE)
def test_of_two_alarms_a_long_one_loses_its_reason_and_no_letter(browser, display, size):
    page = display.open(browser, size=size)
    lost = {"kind": "registration_lost", "instrument": None, "structure": None}
    display.stand_in.say("alert", alert(1, "medium", text=LONG, **lost))
    assert said(display, page, 1) == [LONG]
    display.stand_in.say("alert", alert(2, "high"))
    assert said(display, page, 2)[1] == "registration is uncertain"
    assert LONG in page.evaluate("document.getElementById('log').textContent")
    display.stand_in.say("alert", alert(2, "high", "cleared"))
    assert said(display, page, 1) == [LONG]


@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080), (1200, 1920)])
def test_what_does_not_fit_under_the_picture_is_left_out_whole(browser, display, size):
    page = display.open(browser, size=size)
    display.health |= {"state": "degraded", "reason": LONG_REASON[:90]}
    display.until(page, "document.getElementById('reason').textContent")
    shown = page.evaluate(
        """(() => { const line = document.getElementById("status").getBoundingClientRect();
        return [...document.querySelectorAll("#status span")].filter((e) => e.textContent)
          .map((e) => [e.id, e.getBoundingClientRect(), e.scrollWidth > e.clientWidth + 1])
          .filter(([, box]) => box.top < line.bottom - 1)
          .map(([id, box, cut]) => [id, box.bottom <= line.bottom + 1, cut]);
        })()"""
    )
    assert shown[0][0] == "reason"
    assert all(whole and not cut for _, whole, cut in shown), shown


def test_a_slider_covers_no_word_under_the_picture(browser, display):
    page = display.open(browser, size=(1920, 1080))
    press(page, "drr")
    page.wait_for_timeout(100)
    found = boxes(page, "#status, .sheet, footer")
    sheets = [box for name, box in found.items() if name.startswith("sheet")]
    assert sheets and not any(overlap(box, found[name]) for box in sheets for name in ("status", "tools"))


def test_the_head_says_no_name_twice(browser, display):
    page = display.open(browser, size=(1920, 1080))
    display.until(page, "document.getElementById('patient-name').textContent")
    name = page.locator("#patient-name").inner_text()
    page.evaluate("(name) => fluoronav.heading.procedure({ name, plan: [{ name: 'T8_left' }] })", name)
    assert page.locator("#case").inner_text() == "" and page.locator("#site").inner_text() == "T8 left"


@pytest.mark.parametrize("size", [*LANDSCAPE, (1200, 1920)])
def test_an_alarm_without_a_distance_says_so_in_words_that_fit(browser, display, size):
    page = display.open(browser, size=size)
    display.show(page, distances=[], instruments=[])
    words = "the distance of kwire from the spinal cord is no longer measured (the tool is not seen by the tracker)"
    display.stand_in.say("alert", alert(1, "high", text=words, distance_mm=None, lower_mm=None))
    for k in (2, 3):
        display.stand_in.say("alert", alert(k, "medium", text="x", kind=f"other{k}", instrument=None, structure=None))
    display.until(page, "!document.getElementById('more').hidden")
    assert said(display, page, 2)[0] in (words, "kwire to spinal cord not measured")
    fits = "(e => e?.clientWidth && e.scrollWidth <= e.clientWidth + 1)"
    display.until(page, f"{fits}(document.querySelector('#nearest .number.words'))")


@pytest.mark.parametrize("accepted", [True, False])
@pytest.mark.parametrize("size", [*LANDSCAPE, (1200, 1920)])
def test_how_the_patient_moves_lies_beside_the_registrations_state(browser, display, size, accepted):
    page = display.open(browser, size=size)
    breathing = {"state": "irregular", "amplitude_mm": None, "period_s": None, "chest": False, "slip_mm": 12.1}
    registration = overlay(0)["registration"] | {"accepted": accepted}
    display.show(page, status="degraded", registration=registration, breathing=breathing)
    display.until(page, "document.querySelector('#registration .motion').textContent.includes('12.1')")
    boxes = page.evaluate(
        """() => [".state", ".detail", ".motion"].map((one) => { const words = document.createRange();
        words.selectNodeContents(document.querySelector(`#registration ${one}`));
        const b = words.getBoundingClientRect(), card = document.querySelector("#registration").getBoundingClientRect();
        return [Math.max(b.left, card.left), b.top, Math.min(b.right, card.right), b.bottom]; })"""
    )
    shown = page.evaluate("(() => { const b = document.querySelector('#registration .motion').getBoundingClientRect();"
                          "return [b.left, b.top, b.right, b.bottom]; })()")  # fmt: skip
    assert not overlap(boxes[0], shown)
    assert accepted is False or not overlap(boxes[1], shown)


def test_a_frozen_picture_is_not_said_to_be_of_now(browser, display):
    page = display.open(browser)
    page.mouse.click(600, 60)  # sounds are allowed: otherwise the line asks for a touch
    display.until(page, "document.getElementById('age').textContent.startsWith('shown')")
    press(page, "freeze")
    display.until(page, "document.getElementById('age').textContent === ''")
    press(page, "freeze")
    display.until(page, "document.getElementById('age').textContent.startsWith('shown')")


@pytest.mark.parametrize("size", LANDSCAPE)
def test_a_lost_instrument_beside_more_alarms_loses_what_follows_from_it(browser, display, size):
    page = display.open(browser, size=size)
    words = "kwire is no longer seen by the tracker; its distances are unknown"
    display.stand_in.say("alert", alert(1, "high"))
    display.stand_in.say("alert", alert(2, "medium", text=words, kind="instrument_lost", structure=None))
    assert said(display, page, 2)[1] in (words, "kwire is no longer seen by the tracker")
    for k in (3, 4):  # the button with their number takes some of the width
        display.stand_in.say("alert", alert(k, "low", text="x", kind=f"other{k}", instrument=None, structure=None))
    display.until(page, "!document.getElementById('more').hidden")
    assert said(display, page, 2)[1] in (words, "kwire is no longer seen by the tracker")
