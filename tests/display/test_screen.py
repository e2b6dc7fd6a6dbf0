"""What the screen says holds for all of it: frozen whole, in doubt whole, and no alarm or answer left open."""

import time

import numpy as np
import pytest
from tests.display.pipeline_stand_in import CASE, alert, overlay
from tests.display.test_display import hold, press
from tests.display.test_space import registered
from tests.display.test_truth import NOT_MEASURED, alarms, says, unmeasured, until_says

from fluoronav.display.case_view import landmarks

DIM = "getComputedStyle(document.querySelector('#{} .number')).color"
CARDS = ("nearest", "depth", "bullseye")


# Frozen


def test_what_is_frozen_is_frozen_whole_and_says_of_when_it_is(browser, display):
    page = display.open(browser, size=(1920, 1080))
    display.show(page)
    display.until(page, "document.getElementById('mode').className === 'live'")
    # The moment before the frozen one has its numbers, too.
    came = page.evaluate("fluoronav.state.newest.seq")
    display.until(page, f"fluoronav.state.newest.seq > {came + 3}")
    page.click("#tool-freeze")
    near = overlay(0)["distances"][0] | {"distance_mm": 1.7, "lower_mm": 1.1, "level": "danger"}
    display.changes = {
        "distances": [near],
        "plan": [overlay(0)["plan"][0] | {"depth_left_mm": 3.3}],
        "status": "searching",
        "registration": None,
    }
    came = page.evaluate("fluoronav.state.newest.seq")
    display.until(page, f"fluoronav.state.newest.seq > {came + 10}")
    assert (
        "6.2 mm" in says(page, "nearest")
        and "21.4 mm" in says(page, "depth")
        and "Tracking" in says(page, "registration")
    )
    mode, note = says(page, "mode"), page.locator("#view").get_attribute("data-note")
    assert mode.startswith("FROZEN") and "LIVE" not in mode
    of_when = page.evaluate(
        "new Date(fluoronav.heading.now() - (performance.now() - fluoronav.state.frozenAt)).toLocaleTimeString('en-GB')"
    )
    assert of_when in mode and of_when in note and "s ago" in mode
    for card in CARDS:
        assert f"FROZEN {of_when}" in says(page, card) and "doubt" in page.locator(f"#{card}").get_attribute("class")
    # An earlier moment, with its own numbers.
    page.click("#tool-earlier")
    display.until(page, "fluoronav.state.moment")
    assert "FROZEN" in says(page, "nearest")
    # Alarms are of now.
    display.stand_in.say("alert", alert(3, "high"))
    display.until(page, "document.querySelector('.alarm.high')")
    display.until(page, "document.querySelector('.alarm .text').textContent.includes('1.7 mm')")
    page.click("#tool-freeze")
    display.until(page, "document.getElementById('mode').className !== 'frozen'")
    until_says(display, page, "registration", "Searching")
    until_says(display, page, "depth", "3.3 mm")


# Numbers that nobody may guide by


@pytest.mark.parametrize(
    ("words", "changes", "health"),
    [
        ("NOT REGISTERED", {"status": "searching", "registration": None}, {}),
        ("SHADOW", {"mode": "shadow"}, {}),
        ("SHADOW", {}, {"session": {"confirmed": False}}),
        ("Registration not accepted", {"registration": overlay(0)["registration"] | {"accepted": False}}, {}),
    ],
)
def test_numbers_that_nobody_may_guide_by_are_grey_and_say_why(browser, display, words, changes, health):
    page = display.open(browser)
    display.show(page)
    usual = page.evaluate(DIM.format("nearest"))
    assert page.locator("#nearest").get_attribute("data-level") == "clear"
    assert "picture and tracker" in says(page, "nearest") and "doubt" not in page.locator("#nearest").get_attribute(
        "class"
    )
    display.health |= health
    display.show(page, **changes)
    for card in CARDS:
        until_says(display, page, card, words)
    assert page.evaluate(DIM.format("nearest")) != usual
    assert page.locator("#nearest").get_attribute("data-level") == "none", "green is for clear alone"
    display.show(page, **changes, distances=[overlay(0)["distances"][0] | {"level": "danger"}])
    assert page.locator("#nearest").get_attribute("data-level") == "danger"


# Alarms


def test_the_strip_holds_two_alarms_and_the_number_of_the_others_and_acknowledges_the_worst(browser, display):
    page = display.open(browser)
    for k, (priority, structure) in enumerate(
        [("low", "lung"), ("medium", "aorta"), ("high", "spinal_cord"), ("low", "vein")]
    ):
        display.stand_in.say("alert", alert(k, priority, structure=structure))
    display.until(page, "document.getElementById('more').textContent === '+2'")
    assert [row[1] for row in alarms(page)] == ["alarm high", "alarm medium"]
    page.wait_for_timeout(500)  # a press just after the alarm under the finger changed acknowledges none
    page.click("#acknowledge")
    assert display.until_asked(page, "alert.acknowledge")[0]["args"] == {"alert": "a2"}
    # A finger that comes down in the moment in which what it was meant for has gone.
    page.evaluate(
        """() => { const button = document.getElementById("acknowledge");
        new MutationObserver((_, watching) => {
          if (button.dataset.priority !== "medium") return;
          watching.disconnect();
          button.click();
          window.clicked = true;
        }).observe(button, { attributes: true }); }"""
    )
    display.stand_in.say("alert", alert(2, "high", "acknowledged"))
    display.until(page, "window.clicked")
    page.wait_for_timeout(600)
    assert len(display.asked("alert.acknowledge")) == 1
    page.wait_for_timeout(500)  # a press just after the alarm under the finger changed acknowledges none
    page.click("#acknowledge")
    assert display.until_asked(page, "alert.acknowledge", 2)[1]["args"] == {"alert": "a1"}
    # The others are in the panel, each with a button of its own.
    page.click("#more")
    page.click("#log ul li:nth-child(4) button")
    assert display.until_asked(page, "alert.acknowledge", 3)[2]["args"]["alert"] in ("a0", "a3")


def test_an_alarm_says_the_distance_that_the_card_says(browser, display):
    page = display.open(browser)
    display.stand_in.say("alert", alert(1, "high"))
    for mm in (1.7, 0.4, 5.2):
        display.show(page, distances=[overlay(0)["distances"][0] | {"distance_mm": mm, "level": "danger"}])
        both = page.evaluate("['.alarm .text', '#nearest .number'].map((s) => document.querySelector(s).textContent)")
        assert f"{mm} mm" in both[0] and f"{mm} mm" in both[1]


def test_the_alarm_of_an_instrument_that_is_gone_does_not_flash_and_says_so(browser, display):
    page = display.open(browser)
    display.stand_in.say("alert", alert(1, "high"))
    display.show(page)
    flashes = "getComputedStyle(document.querySelector('.alarm.high')).animationName !== 'none'"
    assert page.evaluate(flashes)
    display.stand_in.say("alert", unmeasured())
    display.show(page, distances=[], instruments=[])
    assert not page.evaluate(flashes) and alarms(page)[0] == [NOT_MEASURED, "alarm high gone"]
    display.show(page)  # it is back
    assert page.evaluate(flashes)
    lost = alert(
        2, "medium", kind="instrument_lost", structure=None, text="kwire is no longer seen; its distances are unknown"
    )
    display.stand_in.say("alert", lost)
    display.show(page, distances=[], instruments=[])
    display.until(page, f"!({flashes})")
    # Whatever the pipeline last said of the distance, it is of when the instrument was still seen.
    display.stand_in.say("alert", alert(1, "high", "changed"))
    display.until(page, "document.querySelector('.alarm.high .text').textContent.includes('0.8 mm')")
    assert alarms(page)[0] == ["kwire not seen: last 0.8 mm from the spinal cord", "alarm high gone"]


def test_alarms_that_come_and_go_are_one_row_one_line_of_the_log_and_few_bursts(browser, display):
    page = display.open(browser)
    at = time.time_ns() - 5 * 3600 * 10**9  # by the pipeline's clock, five hours behind this computer's
    display.health["t"] = at
    display.until(page, "fluoronav.heading.offset_ms < -4 * 3600e3")
    before = page.evaluate("fluoronav.alarms.bursts.length")
    seen = []
    for k in range(12):
        said = {
            "kind": "stale_frames",
            "instrument": None,
            "structure": None,
            "distance_mm": None,
            "t_raised": at + k * 10**8,
        }
        display.stand_in.say("alert", alert(k, "medium", text="no frame for 160 ms", **said))
        page.wait_for_timeout(40)
        display.stand_in.say("alert", alert(k, "medium", "cleared", text="frames arrive again", **said))
        page.wait_for_timeout(80)
        seen.append(page.locator(".alarm").count())
    assert set(seen[1:]) == {1}, "it stays readable, and is one row"
    assert page.evaluate("fluoronav.alarms.bursts.length") - before <= 1
    lines = page.evaluate("[...document.querySelectorAll('#log ol li')].map((e) => e.textContent)")
    assert len(lines) == 1 and "12 times" in lines[0]
    clock = page.evaluate("(ms) => new Date(ms).toLocaleTimeString('en-GB')", at // 10**6)
    assert lines[0].startswith(clock), "by the pipeline's clock"
    display.until(page, "!document.querySelector('.alarm')")


def test_the_log_blocks_nothing(browser, display):
    page = display.open(browser)
    page.click("#tool-menu")
    page.click("#tool-log")
    display.stand_in.say("alert", alert(1, "high"))
    display.until(page, "document.querySelector('.alarm')")
    assert page.locator("#log").is_visible() and page.locator("#picture").is_visible()
    page.wait_for_timeout(500)  # a press just after the alarm under the finger changed acknowledges none
    page.click("#acknowledge")
    display.until_asked(page, "alert.acknowledge")
    page.click("#tool-freeze")
    display.until(page, "fluoronav.state.frozen")


# Requests


def test_the_pose_is_dropped_only_by_a_button_that_is_held(browser, display):
    page = display.open(browser)
    page.click("#tool-restart")
    until_says(display, page, "age", "Hold this button")
    page.wait_for_timeout(1200)
    assert not display.asked("registration.start")
    hold(page, "#tool-restart")
    display.until_asked(page, "registration.start")
    until_says(display, page, "age", "searched for anew")


@pytest.mark.parametrize(
    ("op", "name"), [("moment.mark", "mark"), ("record.start", "record"), ("registration.start", "restart")]
)
def test_a_button_that_nothing_answers_says_so_within_a_second_and_a_half(browser, display, op, name):
    display.stand_in.silent.add(op)
    page = display.open(browser)
    if op == "moment.mark":
        page.evaluate("fluoronav.stream.link.postMessage = () => {}")  # the display's server does not answer
    waited = """(name) => new Promise((done) => {
      const began = performance.now(), bar = document.getElementById("refusal");
      const told = () => done([performance.now() - began, bar.textContent]);
      new MutationObserver(told).observe(bar, {childList: true, characterData: true, subtree: true});
      if (name === "restart") fluoronav.request("registration.start", {});
      else document.getElementById(`tool-${name}`).click(); })"""
    ms, words = page.evaluate(waited, name)
    assert "not known whether this was done" in words
    assert page.evaluate("import('/page/constants.js').then((c) => c.REPLY_MS)") <= 1500 and ms < 15000


def test_a_recording_that_does_not_begin_or_ends_by_itself_is_said(browser, display):
    page = display.open(browser)
    press(page, "record")  # it is granted, and nothing is recorded
    until_says(display, page, "refusal", "Nothing is being recorded")
    press(page, "record")
    display.until_asked(page, "record.start", 2)
    display.health["recording"] = "/srv/recordings/carm0.mcap"
    display.until(page, "!document.getElementById('rec').hidden")
    display.health["recording"] = ""
    until_says(display, page, "refusal", "ended by itself")
    press(page, "record")
    display.until_asked(page, "record.start", 3)
    display.health["recording"] = "/srv/recordings/carm0-1.mcap"
    display.until(page, "!document.getElementById('rec').hidden")
    press(page, "record")
    display.until_asked(page, "record.stop")
    display.health["recording"] = ""
    display.until(page, "document.getElementById('rec').hidden")
    page.wait_for_timeout(500)
    assert "carm0-1" not in says(page, "refusal")


def test_the_name_is_asked_in_the_page_handed_over_and_asked_again(browser, display):
    page = display.open(browser, user=None)
    display.stand_in.say("alert", alert(1, "high"))
    display.until(page, "document.querySelector('.alarm')")
    page.wait_for_timeout(500)  # a press just after the alarm under the finger changed acknowledges none
    page.click("#acknowledge")
    display.until(page, "!document.getElementById('ask').hidden")
    sounded = page.evaluate("fluoronav.alarms.bursts.length")
    display.until(page, f"fluoronav.alarms.bursts.length > {sounded}")  # meanwhile alarms go on
    page.fill("#ask input", "Dr. One")
    page.click("#ask .yes")
    assert display.until_asked(page, "alert.acknowledge")[0]["user"] == "Dr. One"
    assert "Dr. One" in says(page, "role")
    page.click("#tool-menu")
    page.click("#tool-user")
    page.fill("#ask input", "Dr. Two")
    page.press("#ask input", "Enter")
    press(page, "record")
    assert display.until_asked(page, "record.start")[0]["user"] == "Dr. Two"
    assert page.evaluate("fluoronav.user.lasts_ms") == 60 * 60000
    page.evaluate("fluoronav.user.until = 0")  # the time is over
    press(page, "record")
    until_says(display, page, "ask", "Still Dr. Two?")
    page.click("#ask .no")
    display.until(page, "!document.querySelector('#ask input').hidden")
    page.fill("#ask input", "Dr. Three")
    page.click("#ask .yes")
    assert display.until_asked(page, "record.start", 2)[1]["user"] == "Dr. Three"
    # Without a name nothing is asked of the pipeline, and the page says why.
    page.evaluate("fluoronav.user.take('')")
    press(page, "record")
    page.click("#ask .no")
    until_says(display, page, "refusal", "a name is needed")


# Registration, case, size


def test_the_registration_is_accepted_after_three_points_of_bone_were_touched(browser, display):
    page = display.open(browser, size=(1920, 1080))
    pose = registered()["registration"] | {"accepted": False}
    display.show(page, **registered() | {"registration": pose})
    display.until(page, "document.getElementById('mode').textContent.includes('NOT ACCEPTED')")
    page.click("#tool-check")
    display.until(page, "document.querySelectorAll('#register li').length === 3")
    assert page.evaluate("fluoronav.space.drr_on"), "the DRR lies over the picture"
    assert page.locator("#tool-accept").is_disabled() and page.locator("#tool-unchecked").is_hidden()
    known = {one["name"]: np.array(one["point_ct"]) for one in landmarks(CASE)}
    names = page.evaluate("[...document.querySelectorAll('#register li')].map((e) => e.textContent)")
    T, camera = np.reshape(pose["T_camera_ct"], (4, 4)), page.evaluate("fluoronav.layers.camera")
    off_px = np.array([6.0, -8.0])  # where a finger errs
    residuals = []
    for name in names:
        x = T[:3, :3] @ known[name] + T[:3, 3]
        at = (np.array(camera["K"]) @ x)[:2] / x[2] + off_px
        residuals.append(10.0 * x[2] / camera["focal_px"])
        box = page.locator("#layers").bounding_box()
        page.mouse.click(*(np.array([box["x"], box["y"]]) + (at + 0.5) * box["width"] / 512))
    rms = float(np.sqrt(np.mean(np.square(residuals))))
    display.until(page, "document.querySelector('#register .residual').textContent")
    said = float(says(page, "register").split("Residual ")[1].split(" mm")[0])
    assert said == pytest.approx(rms, abs=0.5)
    assert not page.evaluate("fluoronav.space.drr_on"), "and not while points are touched"
    assert len(page.evaluate("fluoronav.layers.landmarks")) == 3
    display.stand_in.refusals["registration.accept"] = {"code": "no_registration", "text": "nothing is tracked now"}
    page.click("#tool-accept")
    until_says(display, page, "refusal", "nothing is tracked now")
    del display.stand_in.refusals["registration.accept"]
    page.click("#tool-accept")
    until_says(display, page, "age", "Registration accepted")
    args = display.asked("registration.accept")[-1]["args"]
    assert args["residual_mm"] == pytest.approx(said, abs=0.06) and [one["name"] for one in args["landmarks"]] == names
    # Reject stands apart, and is held.
    page.click("#tool-check")
    accept, reject = (page.locator(f"#tool-{name}").bounding_box() for name in ("accept", "reject"))
    assert reject["y"] - (accept["y"] + accept["height"]) >= 72


def test_without_points_in_the_picture_acceptance_needs_a_held_button(browser, display):
    page = display.open(browser)
    display.show(page)  # a pose from which no bone of the case lies in the picture
    page.click("#tool-check")
    display.until(page, "!document.getElementById('tool-unchecked').hidden")
    assert page.locator("#tool-accept").is_disabled()
    page.click("#tool-unchecked")
    page.wait_for_timeout(1200)
    assert not display.asked("registration.accept")
    hold(page, "#tool-unchecked")
    assert display.until_asked(page, "registration.accept")[0]["args"] == {}


def test_a_frame_of_another_size_than_the_camera_files_is_said_on_the_screen(browser, display):
    page = display.open(browser)
    display.show(page)
    display.with_overlays, display.side = False, 320
    until_says(display, page, "lost", "Wrong picture size")
    assert "320 x 320" in says(page, "lost") and "512 x 512" in says(page, "lost")
    display.with_overlays, display.side = True, 512
    display.show(page)
    display.until(page, "document.getElementById('lost').hidden")


def test_a_case_that_cannot_be_shown_in_space_is_said_without_folders_and_numbers(browser, display):
    display.health |= {"case_name": "another"}  # the launch file names it, and its file is not there
    page = display.open(browser, size=(1920, 1080))
    until_says(display, page, "space-note", "No 3D view")
    said = says(page, "space-note")
    assert "/" not in said and "Errno" not in said and len(said) > 20


def test_the_head_says_the_pseudonym_on_a_screen_that_was_given_no_identities(browser, display):
    page = display.open(browser)
    until_says(display, page, "who", CASE.id.partition("@")[0])
    assert page.evaluate("/^\\d\\d:\\d\\d:\\d\\d$/.test(document.getElementById('clock').textContent)")


def test_a_recording_that_is_sent_again_is_called_replay_and_never_live(browser, display):
    page = display.open(browser)
    display.show(page, replayed=True)
    until_says(display, page, "mode", "REPLAY")
    for card in CARDS:
        until_says(display, page, card, "REPLAY")
