"""The navigation display in a real browser: layers, numbers, alarms, and the loss of each input."""

import asyncio
import base64
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.display.in_time import read_in_time
from tests.display.pipeline_stand_in import alert, overlay

from fluoronav.display.viewer import DisplayPicture, Viewer

SHOTS = os.environ.get("FLUORONAV_SCREENSHOTS")  # a folder: the pictures of the docs are made there


def outside(coroutine):
    """Runs a coroutine in a thread of its own, since Playwright uses this one's event loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def shot(page, name):
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))


def drawn(page):
    """What is drawn on the layers, (rows, cols, 4), and canvas pixels to a pixel of the frame."""
    png = read_in_time(page, "document.getElementById('layers').toDataURL('image/png').split(',')[1]")
    image = cv2.imdecode(np.frombuffer(base64.b64decode(png), np.uint8), cv2.IMREAD_UNCHANGED)
    return image, image.shape[1] / 512


def extent(page, least=60):
    """First and last columns and rows, in pixels of the frame, of what is drawn at least so opaquely; without the scale
    bar."""
    image, scale = drawn(page)
    image[-90:, :320] = 0
    rows, cols = np.nonzero(image[..., 3] > least)
    return np.array([cols.min(), cols.max() + 1, rows.min(), rows.max() + 1]) / scale - 0.5


def press(page, name):
    """Presses a button, also one that lies in a closed sheet or menu."""
    page.evaluate("(name) => document.getElementById(`tool-${name}`).click()", name)


def press_down(page, selector):
    """Puts a finger on a button and leaves it there; fails where the button does not feel it."""
    page.hover(selector)
    page.evaluate(
        "(s) => { window.felt = false; document.querySelector(s)"
        ".addEventListener('pointerdown', () => (window.felt = true), { once: true }); }",
        selector,
    )
    page.mouse.down()
    assert page.evaluate("window.felt"), f"{selector} was not under the finger"


def hold(page, selector, seconds=60):
    """Holds a button until it has acted, however late a busy computer is."""
    press_down(page, selector)
    end = time.monotonic() + seconds
    while page.evaluate("(s) => document.querySelector(s).classList.contains('held')", selector):
        assert time.monotonic() < end, f"{selector} is held and does not act"
        page.wait_for_timeout(30)
    page.mouse.up()


def only(page, layer):
    for name in ("outlines", "no_go", "plan", "instruments"):
        pressed = page.locator(f"#tool-{name}").get_attribute("aria-pressed") == "true"
        if pressed != (name == layer):
            press(page, name)
    page.evaluate("fluoronav.layers.on.labels = fluoronav.layers.on.letters = false")


def test_layers_are_drawn_where_they_belong_to_a_pixel(browser, display):
    page = display.open(browser)
    one = overlay(0)["instruments"][0] | {"tail_px": None}
    plan = overlay(0)["plan"][0] | {"entry_px": [250.0, 260.0]}
    shown = {"instruments": [one], "plan": [plan], "registration": overlay(0)["registration"]}

    def centre(layer):
        only(page, layer)
        display.show(page, **shown)
        return extent(page)

    box = centre("outlines")
    assert np.abs(box - [100, 200, 100, 180]).max() < 3.5  # half the line's width with its border
    for layer, (x, y) in (("instruments", (300, 200)), ("plan", (250, 260))):
        box = centre(layer)
        assert (box[0] + box[1]) / 2 == pytest.approx(x, abs=1) and (box[2] + box[3]) / 2 == pytest.approx(y, abs=1)
    box = centre("instruments")
    focal = page.evaluate("fluoronav.layers.camera.focal_px")
    assert box[1] - box[0] == pytest.approx(2 * 2.45 * 0.5 * focal / 800, abs=3)  # the 95 % error of 0.5 mm at 800 mm
    image, scale = drawn(page)
    bar = np.nonzero((image[-16:-4, :400, :3].min(-1) > 150).any(0))[0]
    assert (np.ptp(bar) / scale) % (focal / 800) < 4  # whole millimetres at the target


def test_a_bent_shaft_is_drawn_and_labelled_as_bent(browser, display):
    page = display.open(browser)
    only(page, "instruments")
    y = np.linspace(200, 60, 9)
    bent = [[300.0 + 40 * (1 - ((v - 130) / 70) ** 2), float(v)] for v in y]
    one = overlay(0)["instruments"][0] | {"tail_px": [300.0, 60.0]}
    boxes = []
    for shaft in (None, bent):
        display.show(page, instruments=[one | {"shaft_px": shaft}], plan=[])
        image, scale = drawn(page)
        row = image[round(131 * scale), :, 3] > 60
        boxes.append(np.flatnonzero(row) / scale)
    straight, curved = boxes
    assert np.abs(straight - 300).max() < 6
    assert np.abs(curved - 340).min() < 2 and np.abs(curved - 300).min() > 20  # and nothing where it is not
    shot(page, "bent")


@pytest.mark.parametrize("draw", ["gpu", "cpu"])
def test_the_frame_is_shown_with_its_window_and_a_drag_changes_it(browser, display, draw):
    page = display.open(browser, f"{display.control}&draw={draw}", size=(1000, 700))
    assert page.evaluate("Boolean(fluoronav.picture.gl)") == (draw == "gpu")
    display.show(page)
    display.stop(page)  # by itself the window follows what is shown

    def row():
        return page.evaluate(
            """() => { const p = fluoronav.picture, c = new OffscreenCanvas(p.canvas.width, 1).getContext("2d");
            p.draw(); c.drawImage(p.canvas, 0, -20);
            return Array.from(c.getImageData(0, 0, p.canvas.width, 1).data).filter((_, k) => k % 4 === 0); }"""
        )

    before = np.array(row())
    assert before[2] < 8 and before[-3] > 225 and (np.diff(before) >= 0).all()  # the ramp, from black to white
    page.mouse.move(300, 400)
    page.mouse.down()
    page.mouse.move(500, 400)
    page.mouse.up()
    wider = np.array(row())
    slope = [np.searchsorted(row, 150) - np.searchsorted(row, 80) for row in (before, wider)]
    assert slope[1] > 1.2 * slope[0]  # less contrast
    press(page, "window")
    np.testing.assert_array_equal(row(), before)


def test_with_and_without_a_gpu_the_same_picture_is_drawn(browser, display):
    """Enlarged and reduced, 16 and 8 bits, inverse and not."""
    page = display.open(browser)
    assert not page.evaluate("Boolean(fluoronav.picture.gl)")  # the tests' browser has a program in the GPU's place
    differences = page.evaluate(
        """async () => {
        const { makePicture } = await import("/page/picture.js");
        const out = [];
        const most = (values) => values.reduce((a, b) => Math.max(a, b), 0);
        for (const [bits, inverse, cols, rows, width, height] of [[16, false, 96, 64, 96, 64],
             [16, true, 96, 64, 250, 170], [8, false, 200, 128, 90, 60], [12, false, 1, 1, 8, 8]]) {
          const dtype = bits > 8 ? "u2" : "u1", pixels = new (bits > 8 ? Uint16Array : Uint8Array)(rows * cols);
          for (let k = 0; k < pixels.length; k++) pixels[k] = (Math.sin(k * 12.9898) * 0.5 + 0.5) * (2 ** bits - 1);
          const [gpu, cpu] = ["gpu", "cpu"].map((where) => {
            const canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [width, height];
            const picture = makePicture(canvas, where);
            picture.upload({ dtype, bits, inverse }, rows, cols, pixels);
            picture.window = [0.2, 0.9];
            picture.draw();
            const c = new OffscreenCanvas(width, height).getContext("2d");
            c.drawImage(canvas, 0, 0);
            return c.getImageData(0, 0, width, height).data;
          });
          const off = gpu.map((value, k) => Math.abs(value - cpu[k]));
          out.push([most(off), most(gpu.filter((_, k) => k % 4 === 0)), pixels.length]);
        }
        return out; }"""
    )
    assert len(differences) == 4
    for off, brightest, count in differences:
        assert off <= 2 and (count == 1 or brightest > 215)


def test_numbers_are_those_of_the_overlay(browser, display):
    page = display.open(browser)
    display.show(page)
    seen = {name: page.locator(f"#{name}").inner_text() for name in ("registration", "depth", "bullseye", "nearest")}
    assert "Tracking" in seen["registration"] and "0.6 mm across" in seen["registration"]
    assert "21.4 mm left" in seen["depth"] and "0.8 mm, 1.5°" in seen["bullseye"]
    assert "6.2 mm" in seen["nearest"] and "at least 4.9 mm" in seen["nearest"] and "spinal cord" in seen["nearest"]
    assert page.locator("#case").inner_text() == "Pedicle screws" and page.locator("#mode").inner_text() == "LIVE"
    assert page.locator("#site").inner_text() == "T5 left, right"
    page.evaluate("fluoronav.heading.procedure({ name: 'thoracic_spine', procedure: null, plan: [] })")
    assert page.locator("#case").inner_text() == ""  # the case's name is no procedure
    near = overlay(0)["distances"][0] | {"distance_mm": 0.8, "lower_mm": -0.3, "level": "danger", "contact_s": 1.2}
    far = overlay(0)["plan"][0] | {"depth_left_mm": -1.25}
    display.show(page, distances=[near], plan=[far], status="lost", registration=None, mode="shadow")
    assert "1.3 mm PAST" in page.locator("#depth").inner_text() or "1.2 mm PAST" in page.locator("#depth").inner_text()
    assert "contact in 1.2 s" in page.locator("#nearest").inner_text()
    assert page.locator("#nearest").get_attribute("data-level") == "danger"
    assert "Do not navigate" in page.locator("#registration").inner_text()
    display.show(page, instruments=[], distances=[], plan=[])
    assert "No instrument" in page.locator("#nearest").inner_text()


def test_how_the_patient_moves_is_a_line_of_the_registration_that_covers_no_other(browser, display):
    page = display.open(browser)
    breath = {"state": "breathing", "of": "target", "amplitude_mm": 4.2, "period_s": 4.13, "phase": 0.2, "slip_mm": 0.0}
    quiet = breath | {"state": "still", "amplitude_mm": None, "period_s": None, "phase": None}
    unaccepted = overlay(0)["registration"] | {"accepted": False, "tre_mm": 13.1, "tre_image_mm": 10.6}
    covered = """() => {
      const boxOf = (name) => {
        const range = document.createRange();
        range.selectNodeContents(document.querySelector(`#registration .${name}`));
        return range.getBoundingClientRect(); };
      const moved = boxOf("motion");
      const apart = (a, b) => a.right <= b.left + 1 || a.bottom <= b.top + 2;
      return moved.width === 0 ? [] : ["state", "detail", "note"].map((name) => [name, boxOf(name), moved])
        .filter(([, other]) => !apart(moved, other) && !apart(other, moved)); }"""
    for said, words in (
        (breath, "breathing 4 mm, 4.1 s"), (breath | {"of": "chest"}, "chest breathing 4 mm, 4.1 s"),
        (quiet, "no breathing"), (breath | {"slip_mm": 2.31}, "moved by 2.3 mm"),
        (quiet | {"state": "irregular"}, "moves irregularly"), (None, ""),
        (breath | {"amplitude_mm": None, "state": 7, "slip_mm": "x"}, ""),
    ):  # fmt: skip
        display.show(page, breathing=said, registration=unaccepted, status="degraded")
        assert page.locator("#registration .motion").inner_text() == words
        assert page.evaluate(covered) == []
    display.show(page, breathing=breath, status="lost", registration=None)
    assert page.locator("#registration .motion").inner_text() == ""


@pytest.mark.parametrize(
    ("priority", "pulses", "fastest", "slowest"), [("high", 10, 1.4, 2.8), ("medium", 3, 0.4, 0.8), ("low", 2, 0, 0)]
)
def test_an_alarm_has_its_colour_flash_words_and_burst(browser, display, priority, pulses, fastest, slowest):
    display.changes = {"distances": []}
    page = display.open(browser)
    display.stand_in.say("alert", alert(7, priority))
    display.until(page, "document.querySelector('.alarm')")
    row = page.locator(".alarm")
    assert priority in row.get_attribute("class") and "0.8 mm from the spinal cord" in row.inner_text()
    assert priority.upper() in row.inner_text()
    style = "getComputedStyle(document.querySelector('.alarm'))"
    seconds = page.evaluate(f"{style}.animationName === 'none' ? 0 : parseFloat({style}.animationDuration)")
    assert (seconds == 0) if not slowest else fastest <= 1 / seconds <= slowest
    own = f"fluoronav.alarms.bursts.find((b) => b.priority === '{priority}')"
    display.until(page, own)
    assert page.evaluate(own)["pulses"] == pulses
    shot(page, f"alarm-{priority}")
    display.stand_in.say("alert", alert(7, priority, "cleared"))
    display.until(page, "!document.querySelector('.alarm')")
    assert page.locator("#log ol li").count() == 1, "one line for an alarm and its end"


def test_an_acknowledged_alarm_neither_flashes_nor_sounds_and_names_who_acknowledged(browser, display):
    page = display.open(browser)
    display.stand_in.say("alert", alert(1, "medium"))
    display.stand_in.say("alert", alert(2, "high", text="tip in the cord"))
    display.until(page, "document.querySelectorAll('.alarm').length === 2")
    display.show(page, distances=[])
    assert "tip in the cord" in page.locator(".alarm").first.inner_text()  # the worst is first
    page.wait_for_timeout(500)  # a press just after the alarm under the finger changed acknowledges none
    page.click("#acknowledge")
    asked = display.until_asked(page, "alert.acknowledge")[0]
    assert asked["args"] == {"alert": "a2"} and asked["user"] == "Dr. Test"
    display.stand_in.say("alert", alert(2, "high", "acknowledged", "tip in the cord"))
    display.until(page, "document.querySelector('.alarm.high.acknowledged')")
    page.locator("#tool-sound").click()
    count = page.evaluate("fluoronav.alarms.bursts.length")
    display.show(page)
    assert (
        page.evaluate("fluoronav.alarms.bursts.length") == count and page.evaluate("fluoronav.alarms.pausedFor") > 110
    )


def test_who_only_watches_may_not_control(browser, display):
    page = display.open(browser, display.watch)
    display.stand_in.say("alert", alert(1, "high"))
    display.until(page, "document.querySelector('.alarm')")
    assert page.locator("#acknowledge").is_hidden() and page.locator("#tool-restart").is_hidden()
    assert page.locator("#role").inner_text() == "watching only: Dr. Test"

    async def ask():
        import aiohttp

        async with aiohttp.ClientSession() as session, session.ws_connect(display.watch + "stream") as socket:
            for text in ('{"id": 1, "op": "mode.set", "args": {"mode": "shadow"}}', "]["):
                await socket.send_str(text)
            replies = []
            while len(replies) < 2:
                data = (await socket.receive(10)).data
                head = json.loads(data[4 : 4 + int.from_bytes(data[:4], "little")])
                replies += [head] if head["topic"] == "reply" else []
            return replies

    refused, broken = outside(ask())
    assert refused["error"]["code"] == "forbidden" and broken["error"]["code"] == "invalid"
    assert not any(a["op"] == "mode.set" for a in display.stand_in.asked)


def test_an_old_overlay_is_faded_with_its_age_and_a_late_one_is_drawn_on_its_own_frame(browser, display):
    page = display.open(browser)
    display.show(page)
    display.streaming = False
    page.wait_for_timeout(100)
    for _ in range(6):
        display.next(with_overlay=False)
        page.wait_for_timeout(40)
    display.until(page, f"fluoronav.stats.shownSeq === {display.k}")
    assert page.evaluate("fluoronav.stats.strength") < 0.5
    assert "6 frames old" in page.locator("#view").get_attribute("data-note")
    display.stand_in.say("overlay", overlay(display.k - 3))  # late, and newer than what is shown
    display.until(page, f"fluoronav.stats.overlaySeq === {display.k - 3}")
    display.stand_in.say("overlay", overlay(display.k - 5))  # out of order
    page.wait_for_timeout(200)
    assert page.evaluate("fluoronav.state.newest.seq") == display.k - 3
    assert page.evaluate("fluoronav.stats.overlaySeq") == display.k - 3
    display.streaming = True
    display.show(page)
    assert page.evaluate("fluoronav.stats.strength") == 1


def test_a_frame_is_shown_with_its_overlay_even_if_that_comes_after_the_next_frame(browser, display):
    page = display.open(browser)
    display.show(page)
    display.streaming = False
    page.wait_for_timeout(100)
    pairs = page.evaluate("fluoronav.stats.overlayToPixels.length")
    together = count = 0
    # Not all of them: a browser that was held up for longer than it waits for an overlay shows the frame without it.
    while together <= 20:
        assert (count := count + 1) < 200, f"{together} of {count} frames with their overlay"
        display.next(with_overlay=False)
        display.stand_in.say("overlay", overlay(display.k - 1))
        page.wait_for_timeout(40)
        together += page.evaluate(
            "fluoronav.stats.overlaySeq === fluoronav.stats.shownSeq && fluoronav.stats.strength === 1"
        )
    assert page.evaluate("fluoronav.stats.overlayToPixels.length") > pairs + 5


def test_silence_is_unmistakable_and_ends_without_a_reload(browser, display):
    page = display.open(browser)
    display.show(page)
    display.streaming = False
    display.until(page, "document.getElementById('lost').innerText.includes('Picture is old')")
    assert "mm" not in page.locator("#depth .number").inner_text()
    assert "Do not" in page.locator("#registration").inner_text()
    display.until(page, "document.getElementById('lost').innerText.includes('Guidance has stopped')")
    display.until(page, "fluoronav.alarms.bursts.some((b) => b.priority === 'high')")
    shot(page, "lost")
    display.streaming = True
    display.show(page)
    display.until(page, "document.getElementById('lost').hidden")
    display.until(page, "document.getElementById('registration').innerText.includes('Tracking')")


def test_numbers_do_not_stay_when_pictures_go_on_without_guidance(browser, display):
    page = display.open(browser)
    display.show(page)
    display.with_overlays = False
    display.until(page, "!document.querySelector('#depth .number').innerText.includes('mm')")
    shown = page.evaluate("fluoronav.stats.shownSeq")
    display.until(page, f"fluoronav.stats.shownSeq > {shown + 10}")  # the picture goes on
    assert "Do not" in page.locator("#registration").inner_text()
    assert "mm" not in page.locator("#nearest .number").inner_text()
    assert "frames old" in page.locator("#view").get_attribute("data-note")
    assert page.locator("#lost").is_hidden()  # the picture itself is live
    display.with_overlays = True
    display.show(page)
    display.until(page, "document.querySelector('#depth .number').innerText.includes('21.4 mm')")


def test_a_broken_connection_is_shown(browser, display):
    page = display.open(browser)
    display.show(page)
    display.server.process.kill()
    display.until(page, "document.getElementById('lost').innerText.includes('Connection lost')")
    assert "Do not" in page.locator("#registration").inner_text()


def test_another_picture_size_an_overlay_without_picture_and_malformed_messages_do_no_harm(browser, display):
    page = display.open(browser)
    display.show(page)
    display.streaming = False
    page.wait_for_timeout(100)
    display.k += 1
    display.stand_in.say("overlay", overlay(display.k))
    for _ in range(5):
        display.next(side=320)
        page.wait_for_timeout(40)
    display.until(page, f"fluoronav.stats.shownSeq === {display.k}")
    assert page.evaluate("fluoronav.picture.rows") == 320
    for parts in (
        [b"overlay/carm0", b"\xc1"],
        [b"view/carm0", b""],
        [b"alert/carm0"],
        [b"overlay/carm0", b"\x80", b"x"],
    ):
        display.stand_in.send(parts)
    display.streaming = True
    display.show(page)
    assert page.evaluate("fluoronav.picture.rows") == 512


def test_sixteen_may_watch_the_seventeenth_is_refused_and_an_idle_one_slows_nobody(browser, display):
    page = display.open(browser)

    async def crowd():
        import aiohttp

        async with aiohttp.ClientSession() as session:
            idle = [await session.ws_connect(display.watch + "stream", max_msg_size=0) for _ in range(16)]
            with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
                await session.ws_connect(display.watch + "stream")
            await asyncio.sleep(2)
            for socket in idle:
                await socket.close()

    page_count = page.evaluate("fluoronav.stats.pictures")
    outside(crowd())
    display.show(page)
    display.until(page, f"fluoronav.stats.pictures > {page_count + 10}")


def test_controls_freeze_measure_and_switch_layers(browser, display):
    page = display.open(browser)
    display.show(page)
    page.locator("#tool-freeze").click()
    frozen = page.evaluate("fluoronav.stats.shownSeq")
    page.wait_for_timeout(300)
    assert page.evaluate("fluoronav.stats.shownSeq") == frozen
    assert page.locator("#view").get_attribute("data-note").startswith("FROZEN")
    page.keyboard.press("Tab")
    page.locator("#tool-freeze").click()
    display.show(page)
    page.locator("#tool-measure").click()
    box = page.locator("#layers").bounding_box()
    per_px = box["width"] / 512
    for x in (150.5, 250.5):
        page.mouse.click(box["x"] + x * per_px, box["y"] + 300.5 * per_px)
    (a, b) = page.evaluate("fluoronav.layers.measure")
    assert b[0] - a[0] == pytest.approx(100, abs=1.5) and a[1] == pytest.approx(300, abs=1.5)
    display.show(page)
    assert page.evaluate("fluoronav.layers.measure.length") == 2


def test_a_page_of_another_site_and_unknown_files_are_refused(display):
    async def ask():
        import aiohttp

        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                await session.ws_connect(display.watch + "stream", headers={"Origin": "http://elsewhere.example"})
            for path in ("page/..%2fserver.py", "page/nothing.js", "page/hub.py"):
                async with session.get(display.watch + path) as answer:
                    assert answer.status == 404
            async with session.get(display.watch) as answer:
                assert "default-src 'self'" in answer.headers["Content-Security-Policy"]

    outside(ask())


def test_a_page_that_is_slow_to_draw_gets_the_newest_picture_next_and_none_in_between():
    """Pictures would grow old in a browser's buffers; a page that never confirms one still gets them."""

    async def run():
        viewer = Viewer()
        pictures = [DisplayPicture({"seq": k, "rows": 1, "cols": 1, "dtype": "u1"}, bytes([k])) for k in range(7)]

        viewer.offer_picture(pictures[1])
        assert await viewer.next(0.1) == [pictures[1]]
        viewer.offer_picture(pictures[2])
        begin = time.monotonic()
        while not (came := await viewer.next(1.0)):
            pass
        # It has never said a word: another program than our page, or one that hangs. It gets ten a second.
        assert came == [pictures[2]] and time.monotonic() - begin > 0.05
        viewer.taken()
        viewer.offer_picture(pictures[3])
        assert await viewer.next(0.1) == [pictures[3]]
        for k in (4, 5):
            viewer.offer_picture(pictures[k])
            viewer.offer_overlay(b"overlay %d" % k)
            assert await viewer.next(0.1) == [b"overlay %d" % k]  # what is small comes all the same
        viewer.taken()
        assert await viewer.next(0.1) == [pictures[5]] and viewer.skipped == 1
        viewer.offer_picture(pictures[6])
        viewer.sent_at -= 2.0  # it has been silent for long
        assert await viewer.next(0.1) == [pictures[6]]

    outside(run())


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_a_picture_is_sent_at_the_size_that_it_is_shown_at(dtype):
    whole = np.random.default_rng(0).integers(0, 200 if dtype == "u1" else 60000, (60, 80)).astype(dtype)
    picture = DisplayPicture({"seq": 1, "rows": 60, "cols": 80, "dtype": dtype}, whole.tobytes())

    def shown(side):
        message = picture.message(side)
        length = int.from_bytes(message[:4], "little")
        head = json.loads(message[4 : 4 + length])
        assert (head["rows"], head["cols"]) == (60, 80)
        return np.frombuffer(message[4 + length :], dtype).reshape(head["height"], head["width"])

    for side in (None, 80, 70, 9999):
        np.testing.assert_array_equal(shown(side), whole)
    half = whole.reshape(30, 2, 40, 2).mean((1, 3))
    assert shown(40).shape == (30, 40) and np.abs(shown(40) - half).max() <= 1
    assert picture.message(40) is picture.message(40), "made once for all viewers of that size"
    assert shown(1).shape == (1, 1)


def test_a_small_screen_is_sent_few_pixels_and_a_larger_window_more_again(browser, display):
    page = display.open(browser, size=(760, 520))
    display.until(page, "fluoronav.picture.rows < 512")
    rows = page.evaluate("fluoronav.picture.rows")
    assert rows == page.evaluate("document.getElementById('picture').height")
    assert page.evaluate("fluoronav.state.shown.rows") == 512, "places are told in pixels of the frame"
    page.set_viewport_size({"width": 1280, "height": 720})
    display.until(page, "fluoronav.picture.rows === 512")
