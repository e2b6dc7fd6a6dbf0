"""Words are shown whole or not at all: alarms, the line under the picture, and what opens over it."""

import pytest
from tests.display.pipeline_stand_in import alert
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
