"""A button that must be held: the finger alone begins and ends the hold, not a page that moves or is busy."""

import time

import pytest
from tests.display.pipeline_stand_in import overlay
from tests.display.test_display import hold, press_down
from tests.display.test_layout import PORTRAIT, boxes
from tests.display.test_space import registered
from tests.display.test_truth import until_says

HELD = "document.getElementById('tool-reject').classList.contains('held')"


def test_a_hold_goes_on_while_the_page_moves_under_the_finger(browser, display):
    page = display.open(browser)
    page.click("#tool-check")
    at = page.locator("#tool-reject").bounding_box()
    press_down(page, "#tool-reject")
    page.evaluate("document.getElementById('register').append(document.createElement('div'))")
    page.evaluate("document.querySelector('#register > :last-child').style.cssText = 'flex: none; height: 90px'")
    assert page.locator("#tool-reject").bounding_box()["y"] < at["y"] - at["height"], "it is no longer under the finger"
    display.until(page, f"!{HELD}")
    display.until_asked(page, "registration.reject")
    page.mouse.up()


def test_a_finger_that_leaves_the_button_ends_the_hold(browser, display):
    page = display.open(browser)
    page.click("#tool-check")
    at = page.locator("#tool-reject").bounding_box()
    press_down(page, "#tool-reject")
    page.mouse.move(at["x"] + at["width"] - 2, at["y"] + at["height"] - 2)
    assert page.evaluate(HELD), "a finger that moves on the button holds it"
    page.mouse.move(at["x"] + at["width"] + 30, at["y"])
    until_says(display, page, "age", "Hold this button")
    assert not page.evaluate(HELD)
    page.mouse.up()
    page.wait_for_timeout(1200)  # longer than a hold
    assert not display.asked("registration.reject")


@pytest.mark.parametrize(("held_s", "acts"), [(1.2, True), (0.8, False)])
def test_a_busy_page_counts_the_hold_by_the_fingers_clock(browser, display, held_s, acts):
    """It hears of the finger late, and of its lifting at once after."""
    page = display.open(browser)
    page.click("#tool-check")
    page.hover("#tool-reject")
    at = page.locator("#tool-reject").bounding_box()
    finger = page.context.new_cdp_session(page)
    now = time.time()
    for kind, t in (("mousePressed", now - held_s), ("mouseReleased", now)):
        place = {"x": at["x"] + at["width"] / 2, "y": at["y"] + at["height"] / 2}
        finger.send(
            "Input.dispatchMouseEvent",
            {"type": kind, "timestamp": t, "button": "left", "buttons": 1, "clickCount": 1, **place},
        )
    if acts:
        display.until_asked(page, "registration.reject")
    else:
        until_says(display, page, "age", "Hold this button")
        assert not display.asked("registration.reject")


def test_a_button_that_has_gone_meanwhile_does_not_act(browser, display):
    page = display.open(browser)
    page.click("#tool-check")
    display.until(page, "!document.getElementById('tool-unchecked').hidden")
    press_down(page, "#tool-unchecked")
    display.changes = registered()  # a pose with points to touch: accepting without them is no longer offered
    display.until(page, "document.getElementById('tool-unchecked').hidden")
    until_says(display, page, "age", "Hold this button")
    page.mouse.up()
    assert not display.asked("registration.accept")
    display.changes = {}
    display.until(page, "!document.getElementById('tool-unchecked').hidden")
    hold(page, "#tool-unchecked")
    display.until_asked(page, "registration.accept")


@pytest.mark.parametrize("size", [(1920, 1080), (1280, 720), PORTRAIT])
def test_nothing_that_is_pressed_moves_while_the_check_of_a_registration_fills(browser, display, size):
    page = display.open(browser, size=size)
    display.show(page, **registered())
    page.evaluate(
        "() => { const whole = window.fetch; window.fetch = (...asked) => "
        "new Promise((done) => (window.arrives = () => done(whole(...asked)))); }"
    )
    page.click("#tool-check")
    display.until(page, "window.arrives")
    pressed = "#tool-again, #tool-accept, #tool-reject"
    at_first = boxes(page, pressed)
    assert len(at_first) == 3

    def unmoved(where):
        for name, box in boxes(page, pressed).items():
            assert box == pytest.approx(at_first[name], abs=0.6), f"{where}: {name}"

    page.evaluate("() => window.arrives()")
    display.until(page, "document.querySelectorAll('#register li').length === 3")
    unmoved("the case has come")
    display.show(page, status="lost", registration=None)
    unmoved("no pose")
    display.show(page, registration=overlay(0)["registration"])
    display.until(page, "!document.getElementById('tool-unchecked').hidden")
    unmoved("no points in the picture")
