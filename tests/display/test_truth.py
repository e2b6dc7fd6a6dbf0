"""The page shows only what holds: alarms of the running pipeline, values with their age, a confirmed patient."""

import json

import numpy as np
import pytest
from tests.display.in_time import read_in_time
from tests.display.pipeline_stand_in import CASE, alert, health, overlay
from tests.display.test_display import drawn, hold, only

NOT_MEASURED = "kwire's distance to the spinal cord is not measured any more: it is not seen"


def alarms(page):
    return page.evaluate(
        "[...document.querySelectorAll('.alarm')].map((e) => [e.querySelector('.text').textContent, e.className])"
    )


def says(page, name):
    return read_in_time(page, f"document.getElementById('{name}').innerText")


def until_says(display, page, name, words, seconds=90):
    display.until(page, f"document.getElementById('{name}').innerText.includes({json.dumps(words)})", seconds)


def unmeasured(number=1, priority="high"):
    return alert(number, priority, "changed", NOT_MEASURED, distance_mm=None, lower_mm=None)


# Alarms


def test_a_page_that_opens_during_danger_shows_and_sounds_the_open_alarms(browser, display):
    display.changes = {"distances": []}
    acknowledged = alert(2, "medium", "acknowledged", "kwire is 3 mm from the aorta", structure="aorta")
    display.health |= {"instance": "one", "alerts": [alert(1, "high"), acknowledged]}
    page = display.open(browser)
    display.until(page, "document.querySelectorAll('.alarm').length === 2")
    assert alarms(page)[0] == ["kwire is 0.8 mm from the spinal cord", "alarm high"]
    assert alarms(page)[1] == ["kwire is 3 mm from the aorta", "alarm medium acknowledged"]
    display.until(page, "fluoronav.alarms.bursts.some((b) => b.priority === 'high')")
    late = display.open(browser)  # and another that comes later hears the same at once, with nothing raised anew
    late.wait_for_timeout(300)
    assert alarms(late) == alarms(page)


def test_alarms_of_an_ended_pipeline_are_dropped_at_once_with_a_notice(browser, display):
    display.health |= {"instance": "one", "alerts": [alert(1, "high")]}
    page = display.open(browser)
    display.until(page, "document.querySelector('.alarm')")
    assert page.evaluate("document.getElementById('anew').hidden")
    display.health |= {"instance": "two", "alerts": [alert(7, "low", kind="recording", text="the recording has ended")]}
    display.until(page, "document.querySelector('.alarm.low') && !document.querySelector('.alarm.high')")
    assert "started anew" in says(page, "anew") and page.locator("#anew").is_visible()
    assert "started anew" in page.evaluate("document.querySelector('#log ol').textContent")
    display.stand_in.say("alert", alert(1, "high", instance="one"))  # late, and of the dead one
    page.wait_for_timeout(500)
    assert [row[0] for row in alarms(page)] == ["the recording has ended"]


def test_an_alarm_that_is_missing_in_the_list_is_dropped(browser, display):
    display.health |= {"instance": "one", "alerts": []}
    page = display.open(browser)
    display.streaming = False
    page.wait_for_timeout(100)
    display.stand_in.say("alert", alert(1, "high"))
    display.until(page, "document.querySelector('.alarm')")
    display.streaming = True
    display.until(page, "!document.querySelector('.alarm')")
    assert "no longer said" in page.evaluate("document.querySelector('#log ol').textContent")


def test_without_a_list_in_health_alarms_stay_until_they_are_cleared(browser, display):
    page = display.open(browser)
    display.stand_in.say("alert", alert(1, "high"))
    display.until(page, "document.querySelector('.alarm')")
    page.wait_for_timeout(1000)  # three healths
    assert len(alarms(page)) == 1
    display.stand_in.say("alert", alert(1, "high", "acknowledged", "acknowledged by Dr. Test"))
    display.until(page, "document.querySelector('.alarm.acknowledged')")
    page.wait_for_timeout(700)
    assert alarms(page) == [["kwire is 6.2 mm from the spinal cord", "alarm high acknowledged"]], "as the card says"


def test_without_health_the_state_is_shown_as_unknown(browser, display):
    page = display.open(browser)
    display.show(page)
    display.until(page, "document.getElementById('mode').className === 'live'")
    say = display.stand_in.say
    display.stand_in.say = lambda kind, *parts: say(kind, *parts) if kind != "health" else None
    until_says(display, page, "lost", "Nothing is known")
    assert says(page, "mode") == "UNKNOWN" and "Do not" in says(page, "registration")
    shown = page.evaluate("fluoronav.state.newest.seq")
    display.until(page, f"fluoronav.state.newest.seq > {shown + 5}")  # although overlays go on
    display.until(page, "fluoronav.alarms.bursts.some((b) => b.priority === 'high')")
    display.stand_in.say = say
    display.until(
        page, "document.getElementById('lost').hidden && document.getElementById('mode').className === 'live'"
    )


# Distances


def test_an_alarm_without_a_measured_distance_keeps_its_level_and_is_never_shown_as_clear(browser, display):
    page = display.open(browser)
    display.stand_in.say("alert", alert(1, "high"))
    display.stand_in.say("alert", unmeasured())
    display.show(page, distances=[], instruments=[])
    assert alarms(page) == [[NOT_MEASURED, "alarm high gone"]]
    assert "not measured" in says(page, "nearest") and "mm" not in says(page, "nearest")
    assert "kwire to spinal cord" in says(page, "nearest")
    assert page.locator("#nearest").get_attribute("data-level") == "danger"
    # Another structure that is far away is measured: it does not stand in for the one that is not.
    aorta = overlay(0)["distances"][0] | {"structure": "aorta", "distance_mm": 30.0, "lower_mm": 28.0}
    display.show(page, distances=[aorta])
    assert "not measured" in says(page, "nearest") and "30" not in says(page, "nearest")
    assert page.locator("#nearest").get_attribute("data-level") == "danger"
    # One that is as near is told, and the other beside it.
    display.show(page, distances=[aorta | {"distance_mm": 0.5, "lower_mm": 0.1, "level": "danger"}])
    assert "0.5 mm" in says(page, "nearest") and "to spinal cord not measured" in says(page, "nearest")
    display.stand_in.say("alert", alert(1, "high", "cleared"))
    display.show(page, distances=[aorta])
    display.until(page, "document.getElementById('nearest').dataset.level === 'clear'")
    assert "30.0 mm" in says(page, "nearest")


def test_the_level_of_a_distance_is_at_least_that_of_its_open_alarm(browser, display):
    page = display.open(browser)
    display.stand_in.say("alert", alert(1, "high"))
    display.show(page, distances=[overlay(0)["distances"][0] | {"level": "clear"}])
    assert page.locator("#nearest").get_attribute("data-level") == "danger"


@pytest.mark.parametrize("wrong", [None, float("inf"), float("nan"), "far", 1e300])
def test_a_distance_that_is_no_number_is_not_measured(browser, display, wrong):
    page = display.open(browser)
    one = overlay(0)["distances"][0] | {"level": "danger"}
    # On a busy computer what was shown may have aged before it is asked for.
    for key in ("distance_mm", "lower_mm"):
        display.show(page, distances=[one | {key: wrong}])
        until_says(display, page, "nearest", "not measured")
    display.until(page, "document.getElementById('nearest').dataset.level === 'danger'")


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), None, "x", 1e300, []])
def test_invalid_numbers_never_break_the_page(browser, display, wrong):
    """Each invalid value in every place; the fixture fails on any error of the page."""
    page = display.open(browser)
    whole = overlay(0)
    registration, instrument, plan = whole["registration"], whole["instruments"][0], whole["plan"][0]
    places = [
        {"registration": registration | {key: wrong}}
        for key in ("T_camera_ct", "sigma", "tre_mm", "tre_image_mm", "age_ms", "accepted")
    ]
    places.append({"registration": registration | {"T_camera_ct": [wrong] * 16}})
    places += [{"instruments": [instrument | {key: wrong}]} for key in instrument]
    places += [{"instruments": [instrument | {"tip_px": [wrong, 1.0], "shaft_px": [[1.0, wrong], [wrong] * 2]}]}]
    places += [{"distances": [whole["distances"][0] | {key: wrong}]} for key in whole["distances"][0]]
    places += [{"plan": [plan | {key: wrong}]} for key in plan]
    places += [{"plan": [plan | {"beside_mm": [wrong, 1.0]}]}]
    places += [{"outlines": [{"structure": "T5", "color": wrong, "paths": [[[wrong, 1.0], [2.0, 3.0]], wrong]}]}]
    places += [
        {key: wrong} for key in ("registration", "instruments", "distances", "plan", "outlines", "status", "objects")
    ]
    places += [{key: [wrong]} for key in ("instruments", "distances", "plan", "outlines", "objects")]
    display.streaming = False
    page.wait_for_timeout(100)
    for place in places:
        display.changes = place
        display.next()
        display.stand_in.say("health", health(mode="live", **display.health))
        display.until(page, f"fluoronav.state.newest.seq >= {display.k} && fluoronav.stats.shownSeq >= {display.k}")
        shown = page.evaluate("document.body.innerText")
        assert "NaN" not in shown and "Infinity" not in shown
    display.changes, display.streaming = {}, True
    display.health |= {"latency_ms": wrong, "session": wrong, "reason": wrong, "alerts": wrong, "instance": wrong}
    display.show(page)
    until_says(display, page, "registration", "Tracking")


def test_the_depth_past_the_target_is_shown_in_full(browser, display):
    page = display.open(browser)
    display.show(page, plan=[overlay(0)["plan"][0] | {"depth_left_mm": -13.6}])
    assert "13.6 mm PAST the target" in says(page, "depth")
    wide = page.evaluate(
        "(({ scrollWidth, clientWidth }) => scrollWidth <= clientWidth)(document.querySelector('#depth .number'))"
    )
    assert wide, "and not cut off"


# How the pipeline stands


def test_the_badge_is_live_only_when_every_condition_holds(browser, display):
    page = display.open(browser)
    display.show(page)
    display.until(page, "document.getElementById('mode').className === 'live'")
    assert says(page, "reason") == ""

    def becomes(kind, words, health=None, **changes):
        before = dict(display.health)
        display.health |= health or {}
        display.changes = changes
        display.until(page, f"document.getElementById('mode').className === '{kind}'")
        assert words in says(page, "mode") and "LIVE" not in says(page, "mode")
        display.health = before
        display.changes = {}
        display.until(page, "document.getElementById('mode').className === 'live'")

    becomes("waiting", "DEGRADED", {"state": "degraded", "reason": "41 % of the frames are missed"})
    becomes("waiting", "READY", {"state": "ready", "reason": "no frame has come yet"})
    becomes("failed", "FAILED", {"state": "failed", "reason": "the engine has ended"})
    becomes("waiting", "DEGRADED", {"state": "splendid"})
    becomes("shadow", "SHADOW", mode="shadow")
    becomes("shadow", "not confirmed", {"session": {"confirmed": False}})
    unaccepted = overlay(0)["registration"] | {"accepted": False}
    becomes("waiting", "NOT ACCEPTED", registration=unaccepted)
    display.with_overlays = False
    display.until(page, "document.getElementById('mode').textContent === 'NO GUIDANCE'")
    display.with_overlays = True
    display.health |= {"session": {"confirmed": True, "accepted": True}, "unauthenticated": True}
    display.show(page, registration=overlay(0)["registration"] | {"accepted": True})
    display.until(page, "document.getElementById('mode').className === 'live'")
    until_says(display, page, "open", "need no key")


def test_the_reason_of_a_degraded_state_is_shown(browser, display):
    display.health |= {"state": "degraded", "reason": "no tracker was ever heard"}
    page = display.open(browser)
    until_says(display, page, "reason", "no tracker was ever heard")
    assert page.locator("#reason").is_visible()
    display.health |= {"state": "running", "reason": ""}
    display.until(page, "document.getElementById('reason').innerText === ''")


def test_a_reason_that_does_not_fit_into_its_line_is_said_short(browser, display):
    """Regression: "the bones' edges in the picture lie 2 mm beside those of the CT" was cut off on a tablet."""
    whole = (
        "the registration has been degraded for 2 s (the bones' edges in the picture lie 2 mm beside those of the CT)"
    )
    rests = {"detection": "most frames leave it too little time: a look takes 41 ms, and there are 12 ms for it"}
    display.health |= {"state": "degraded", "reason": whole, "resting": rests | {"view": rests["detection"]}}
    page = display.open(browser)
    page.set_viewport_size({"width": 1920, "height": 1200})
    until_says(display, page, "reason", whole)
    page.set_viewport_size({"width": 800, "height": 1280})
    display.until(
        page, "document.getElementById('reason').textContent === 'the registration has been degraded for 2 s'"
    )
    short = "Instrument detection rests; Enhanced picture rests"
    display.until(page, f"document.getElementById('resting').textContent === '{short}'")
    for line in ("reason", "resting"):
        fits, title = page.evaluate(
            f"(e => [e.scrollWidth <= e.clientWidth + 1, e.title])(document.getElementById('{line}'))"
        )
        assert fits and len(title) > 90


def test_a_controlling_screen_confirms_the_patient_named_in_the_bar(browser, display):
    display.health |= {"case_name": "Patient 2", "session": {"confirmed": False}}
    page, watching = display.open(browser), display.open(browser, display.watch)
    until_says(display, page, "patient", "Is this the patient? Patient 2")
    until_says(display, watching, "patient", "Patient not confirmed: shadow")
    assert page.locator("#patient button").is_visible() and watching.locator("#patient button").is_hidden()
    display.stand_in.refusals["case.confirm"] = {"code": "invalid", "text": "another case is being loaded"}
    page.click("#patient button")
    until_says(display, page, "refusal", "another case is being loaded")
    del display.stand_in.refusals["case.confirm"]
    page.click("#patient button")
    asked = [a for a in display.stand_in.asked if a["op"] == "case.confirm"]
    display.until(page, "true")
    while len(asked) < 2:
        page.wait_for_timeout(30)
        asked = [a for a in display.stand_in.asked if a["op"] == "case.confirm"]
    assert {a["args"]["case"] for a in asked} == {CASE.id} and asked[0]["user"] == "Dr. Test"
    assert len({a["id"] for a in asked}) == 2 and all(isinstance(a["t"], int) for a in asked)
    display.health |= {"session": {"confirmed": True}}
    for p in (page, watching):
        display.until(p, "document.getElementById('patient').hidden")


def test_a_case_without_a_name_is_shown_by_its_id(browser, display):
    display.health |= {"session": {"confirmed": False}}
    page = display.open(browser)
    until_says(display, page, "patient", f"Is this the patient? {CASE.id}")


def test_a_registration_that_is_not_accepted_is_marked(browser, display):
    page = display.open(browser)
    display.show(page, registration=overlay(0)["registration"] | {"accepted": False})
    until_says(display, page, "registration", "not accepted")
    assert page.locator("#registration .note").is_visible()
    assert "wanted" in page.locator("#tool-check").get_attribute("class")
    display.show(page, registration=overlay(0)["registration"] | {"accepted": True})
    display.until(page, "document.querySelector('#registration .note').hidden")
    display.show(page)  # a pipeline that does not say
    assert page.locator("#registration .note").is_hidden()


def test_a_request_without_an_answer_is_shown(browser, display):
    display.stand_in.silent.add("registration.reject")
    page = display.open(browser)
    page.click("#tool-check")
    hold(page, "#tool-reject")
    until_says(display, page, "refusal", "it is not known whether this was done")
    assert "Reject" in says(page, "refusal") and "within 1.2 s" in says(page, "refusal")
    page.evaluate("fluoronav.stream.link.postMessage = () => {}")  # a server that never answers
    hold(page, "#tool-reject")
    until_says(display, page, "refusal", "within 1.5 s")
    # It was done after all, and the page says so.
    page.evaluate("fluoronav.stream.answered({id: fluoronav.stream.number, ok: true, result: {}})")
    until_says(display, page, "refusal", "answered late: Registration rejected")


# Age


def test_a_held_pose_is_not_shown_as_tracked_and_is_drawn_as_old(browser, display):
    page = display.open(browser)
    only(page, "outlines")
    registration = overlay(0)["registration"]

    def along():
        """Shares of the outline's upper line that are drawn, and how opaquely."""
        image, scale = drawn(page)
        line = image[round(100 * scale) - 1 : round(100 * scale) + 3, round(105 * scale) : round(195 * scale), 3].max(0)
        return (line > 40).mean(), line.max()

    display.show(page, registration=registration | {"age_ms": 0.0})
    assert "Tracking" in says(page, "registration")
    whole, strong = along()
    assert whole > 0.95 and strong > 200
    display.show(page, registration=registration | {"age_ms": 450.0})
    assert "Tracking" not in says(page, "registration") and "Held" in says(page, "registration")
    assert 450 <= int("".join(c for c in says(page, "registration").split(" ms")[0] if c.isdigit())) < 900
    assert page.locator("#registration").get_attribute("data-status") == "aged"
    share, strength = along()
    assert share < 0.8 and strength < 0.8 * strong
    display.show(page, registration=registration | {"age_ms": 250.0})  # with the time since the overlay came
    display.streaming = False
    display.until(page, "document.getElementById('registration').dataset.status !== 'tracking'")
    display.streaming = True
    display.show(page, registration=registration)  # a pipeline that does not say
    assert page.locator("#registration").get_attribute("data-status") == "tracking"


def test_a_held_instrument_and_its_numbers_are_drawn_as_old(browser, display):
    page = display.open(browser)
    only(page, "instruments")
    one = overlay(0)["instruments"][0]

    def shaft():
        image, scale = drawn(page)
        t = np.linspace(0.2, 0.9, 200)
        x, y = (300 + 120 * t + 0.5) * scale, (200 - 120 * t + 0.5) * scale
        return (image[y.astype(int), x.astype(int), 3] > 60).mean()

    display.show(page, instruments=[one | {"age_ms": 20.0}])
    assert shaft() > 0.95 and page.locator("#nearest").get_attribute("data-level") == "clear"
    display.show(page, instruments=[one | {"age_ms": 600.0}])
    assert shaft() < 0.8
    assert page.locator("#nearest").get_attribute("data-level") == "none", "no green for what is not measured"
    assert "ms old" in says(page, "nearest") and "ms old" in says(page, "bullseye")
    assert "aged" in page.locator("#depth").get_attribute("class")
    assert "Tracking" in says(page, "registration")
    near = overlay(0)["distances"][0] | {"level": "danger"}
    display.show(page, instruments=[one | {"age_ms": 600.0}], distances=[near])
    assert page.locator("#nearest").get_attribute("data-level") == "danger"


@pytest.mark.parametrize(
    ("name", "age_ms", "whole"), [("T5", 10.0, True), ("T5", 900.0, False), ("the body", 900.0, False)]
)
def test_the_outline_of_a_held_object_is_drawn_as_old(browser, display, name, age_ms, whole):
    page = display.open(browser)
    only(page, "outlines")
    display.show(page, objects=[{"name": name, "age_ms": age_ms} | overlay(0)["registration"] | {"age_ms": age_ms}])
    image, scale = drawn(page)
    line = image[round(100 * scale) - 1 : round(100 * scale) + 3, round(105 * scale) : round(195 * scale), 3].max(0)
    assert ((line > 40).mean() > 0.95) == whole
    assert "Tracking" in says(page, "registration")


def test_what_rests_and_why_is_shown(browser, display):
    display.health |= {"resting": {"detection": "most frames leave it too little time: a look takes 41 ms"}}
    page = display.open(browser)
    until_says(display, page, "resting", "Instrument detection rests: most frames leave it too little time")
    assert page.locator("#resting").is_visible()
    display.health |= {"resting": {}}
    display.until(page, "document.getElementById('resting').innerText === ''")
