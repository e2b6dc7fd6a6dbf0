"""How pictures are thinned: by the pipeline's load, the browser's and the server's; and that nothing else ever is."""

from __future__ import annotations

import asyncio
import os
import time
from itertools import pairwise

import numpy as np
import pytest
from tests.display.pipeline_stand_in import alert, overlay
from tests.display.test_display import outside, shot
from tests.display.test_server import head_of, heard, packb, serving

from fluoronav.display.pace import LIMITS, STEPS, Ladder, PipelineLoad, ScreenLoad, ServerLoad
from fluoronav.display.place import is_of_this_computer, take_what_is_left
from fluoronav.display.viewer import LIMITS as VIEWER_LIMITS
from fluoronav.display.viewer import DisplayPicture, Viewer

aiohttp = pytest.importorskip("aiohttp", reason="the extra `display` is not installed")


# Pictures that the page has shown, and overlays that have come.
COUNTED = "[fluoronav.stats.shown, fluoronav.stats.overlays]"


def late(k: int, **changes) -> dict:
    """An overlay of a pipeline that missed its deadline."""
    return overlay(k, missed=True, **changes)


def test_a_busy_time_takes_one_step_after_another_and_calm_takes_them_back():
    ladder = Ladder()
    levels = [ladder.level for k in range(30) if ladder.take(0.1 * k, True) or True]
    assert levels[0] == 1 and levels[-1] == len(STEPS) - 1
    assert all(0 <= b - a <= 1 for a, b in pairwise(levels))
    assert not ladder.take(2.9 + LIMITS.calm_s - 0.1, False)
    now = 3.0
    while ladder.level:
        now += 0.1
        ladder.take(now, False)
    assert now == pytest.approx(2.9 + LIMITS.calm_s * (len(STEPS) - 1), abs=1.0)


def test_a_step_back_that_was_too_early_makes_the_next_one_wait_for_longer():
    ladder, now, waits = Ladder(), 0.0, []
    ladder.take(now, True)
    for _ in range(6):
        began = now
        while ladder.level:
            now += 0.1
            ladder.take(now, False)
        waits.append(now - began)
        now += 1.0
        ladder.take(now, True)
    assert waits == pytest.approx([4, 8, 16, 32, 64, 64], abs=0.3)


@pytest.mark.parametrize(
    ("changes", "busy"),
    [
        ({"missed": True}, True), ({"dropped": {"network": 0, "overload": 1, "invalid": 0}}, True),
        ({"t_recv": 0, "t_sent": 30_000_000}, True), ({"t_recv": 0, "t_sent": 20_000_000}, False),
        ({"t_recv": None, "t_sent": "now"}, False), ({"deadline_ms": float("nan")}, False), ({"dropped": 5}, False),
        ({"deadline_ms": 0, "t_recv": 0}, False), ({"missed": "yes"}, False),
    ],
)  # fmt: skip
def test_the_pipeline_is_busy_where_its_overlays_say_that_they_were_nearly_late(changes, busy):
    load = PipelineLoad()
    for k in range(LIMITS.near + 1):
        load.take(k / 30, overlay(k, **changes))
    assert (load.ladder.level > 0) == busy


def test_one_late_frame_in_a_second_changes_nothing():
    load = PipelineLoad()
    for k in range(300):
        load.take(k / 30, late(k) if k % 30 == 0 else overlay(k))
    assert load.ladder.level == 0


def test_a_slow_screen_and_a_busy_server_are_thinned_each_by_its_own_measure():
    screen = ScreenLoad()
    for k in range(40):
        screen.take(k / 4, 3 * LIMITS.slow_ms if k == 7 else 20.0)  # one slow drawing is none
    assert screen.ladder.level == 0
    for k in range(40, 60):
        screen.take(k / 4, 2 * LIMITS.slow_ms)
    assert screen.ladder.level == len(STEPS) - 1
    server = ServerLoad(0.0, 0.0)
    assert not server.take(1.0, 0.5 * LIMITS.server_share)
    assert server.take(2.0, 2 * LIMITS.server_share) and server.ladder.level == 1


async def sent_in(viewer: Viewer, seconds: float, every_s: float = 1 / 30) -> list:
    """What a viewer is sent that confirms at once, of pictures and overlays at 30 a second."""
    out, end, k = [], time.monotonic() + seconds, 0
    while time.monotonic() < end:
        k += 1
        viewer.offer_picture(DisplayPicture({"seq": k, "rows": 4, "cols": 4, "dtype": "u1"}, bytes(16)))
        viewer.offer_overlay(b"overlay")
        viewer.alert("a", b"alert")
        begin = time.monotonic()
        while (left := every_s - (time.monotonic() - begin)) > 0:
            out += await viewer.next(left)
            viewer.taken()
    return out, k


@pytest.mark.parametrize("level", range(len(STEPS)))
def test_only_pictures_are_thinned(level):
    async def run():
        viewer = Viewer(side=4)
        viewer.taken()
        viewer.pace({"pipeline": level})
        out, offered = await sent_in(viewer, 2.0)
        pictures = sum(isinstance(m, DisplayPicture) for m in out)
        assert out.count(b"overlay") == offered and out.count(b"alert") == offered
        assert pictures <= min(2.0 * STEPS[level].per_s * 1.15 + 1, offered)
        assert pictures > 0.4 * min(2.0 * STEPS[level].per_s, offered)

    outside(run())


def test_a_thinned_viewer_is_sent_smaller_pictures_and_told_why():
    viewer = Viewer(side=400)
    picture = DisplayPicture({"seq": 1, "rows": 1000, "cols": 800, "dtype": "u1"}, bytes(800_000))
    assert head_of(viewer.made(picture))["height"] == 400
    viewer.pace({"pipeline": 3, "server": 1})
    assert head_of(viewer.made(picture))["height"] == 200
    said = head_of(viewer.states["pace"])
    assert said["why"] == "pipeline" and said["per_s"] == STEPS[3].per_s and said["scale"] == 0.5
    viewer.pace({"pipeline": 0, "server": 0})
    assert head_of(viewer.states["pace"])["why"] == "" and head_of(viewer.made(picture))["height"] == 400


def test_one_picture_is_made_in_few_sizes_however_many_look_on():
    picture = DisplayPicture({"seq": 1, "rows": 100, "cols": 100, "dtype": "u1"}, bytes(10_000))
    sizes = {head_of(picture.message(side))["height"] for side in range(80, 20, -5)}
    assert len(sizes) == VIEWER_LIMITS.max_sizes
    assert head_of(picture.message(72))["height"] == 75, "the next larger one"


def test_a_picture_is_made_for_nobody_who_is_not_sent_it(tmp_path, stand_in, monkeypatch):
    """Ten viewers, one of which hangs and one of which is hidden: each picture is made once."""
    made, whole = [], DisplayPicture._make

    def make(self, shape, is_whole):
        made.append(self._head["seq"])
        return whole(self, shape, is_whole)

    monkeypatch.setattr(DisplayPicture, "_make", make)

    async def run():
        async with serving(tmp_path, stand_in) as served, aiohttp.ClientSession() as session:
            streams = [await served.stream(session, screen=str(k)) for k in range(10)]
            for stream in streams:
                await heard(stream, "hello")
                await stream.send_str("side 32")
                await stream.send_str("taken")
            await streams[1].send_str("hidden")
            await asyncio.sleep(0.3)
            hub, seen = served.server.hub, [0] * 10

            async def look(k):
                async for message in streams[k]:
                    if head_of(message.data)["topic"] == "picture":
                        seen[k] += 1
                        if k:  # the first one never confirms another picture
                            await streams[k].send_str("taken")

            tasks = [asyncio.create_task(look(k)) for k in range(10)]
            for k in range(20):
                head = {"v": 1, "seq": k, "t_acq": k, "rows": 64, "cols": 64, "dtype": "u1", "bits": 8}
                hub.take([b"view/x", packb(head), bytes(4096)])
                await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()
            assert seen[1] == 0 and 1 <= seen[0] <= 2, "hidden, and hanging"
            assert min(seen[2:]) >= 15, seen
            assert len(made) == len(set(made)) <= 20, "once for all of a size"

    outside(run())


def test_frames_are_heard_only_while_somebody_looks_at_them(tmp_path, stand_in):
    async def run():
        async with serving(tmp_path, stand_in) as served, aiohttp.ClientSession() as session:
            hub = served.server.hub

            async def frames(hears):
                async with asyncio.timeout(5):
                    while hub._hears_frames != hears:
                        await asyncio.sleep(0.02)

            await frames(False)
            stream = await served.stream(session)
            await frames(True)
            await heard(stream, "hello")
            await stream.send_str("hidden")
            await frames(False)
            await stream.send_str("visible")
            await frames(True)
            head = {"v": 1, "seq": 1, "t_acq": 1, "rows": 4, "cols": 4, "dtype": "u1", "bits": 8}
            hub.take([b"view/x", packb(head), bytes(16)])
            await frames(False)  # the enhanced picture is shown instead
            await frames(True)  # until it comes no more

    outside(run())


def test_a_busy_pipeline_thins_the_pages_of_its_own_computer_alone_and_alerts_come_at_once(tmp_path, stand_in):
    async def run():
        async with serving(tmp_path, stand_in) as served, aiohttp.ClientSession() as session:
            near, far = await served.stream(session, screen="near"), await served.stream(session, screen="far")
            hub = served.server.hub
            await heard(near, "hello"), await heard(far, "hello")
            viewers = {viewer.screen: viewer for viewer in hub.viewers}
            assert viewers["near"].local and viewers["far"].local
            viewers["far"].local = False
            for k in range(4):
                hub.take([b"overlay/x", packb(late(k))])
            said = await heard(near, "pace")
            assert said["why"] == "pipeline" and said["per_s"] == STEPS[1].per_s
            assert viewers["far"].level == 0
            for k in range(30):
                hub.take([b"alert/x", packb(alert(k, "high"))])
                assert (await heard(near, "alert", 1.0))["id"] == f"a{k}"

    outside(run())


def test_what_a_page_says_of_its_screen_is_no_request_and_nonsense_is_refused(tmp_path, stand_in):
    async def run():
        async with serving(tmp_path, stand_in) as served, aiohttp.ClientSession() as session:
            stream = await served.stream(session)
            await heard(stream, "hello")
            for _ in range(5 * LIMITS.reports):
                await stream.send_str("drawn 500")
            assert (await heard(stream, "pace"))["why"] == "screen"
            for nonsense in ("drawn -1", "drawn 1e9", "drawn 99999999", "drawn", "hidden please"):
                await stream.send_str(nonsense)
                assert (await heard(stream, "reply"))["error"]["code"] == "invalid"

    outside(run())


@pytest.mark.parametrize(
    ("endpoint", "ours"),
    [
        ("ipc:///run/x.ipc", True), ("tcp://127.0.0.1:5551", True), ("tcp://localhost:5551", True),
        ("tcp://[::1]:5551", True), ("tcp://192.0.2.7:5551", False), ("tcp://no.such.host.invalid:1", False),
    ],
)  # fmt: skip
def test_a_pipeline_is_known_to_be_beside_the_display_or_elsewhere(endpoint, ours):
    assert is_of_this_computer(endpoint) == ours


def test_the_server_takes_what_the_pipeline_leaves(display):
    assert os.getpriority(os.PRIO_PROCESS, display.server.process.pid) >= 10
    before = os.getpriority(os.PRIO_PROCESS, 0)
    take_what_is_left(0)  # never raises it
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_the_page_says_that_it_shows_fewer_and_smaller_pictures_and_alerts_come_at_full_rate(browser, display):
    page = display.open(browser)
    display.show(page)
    said = "document.getElementById('thinned').textContent"
    assert not page.evaluate(f"{said}.includes('pipeline')")
    display.changes = {"missed": True}
    display.until(page, f"{said} === 'Smaller pictures, at most 6 a second: the pipeline needs the computer'")
    shot(page, "display-thinned")
    assert "alarms" in page.locator("#thinned").get_attribute("title")
    display.until(page, "fluoronav.picture.rows < 0.6 * document.getElementById('picture').height")
    began, frames = page.evaluate(COUNTED), display.k
    for k in range(20):
        display.stand_in.say("alert", alert(k, "low", text=f"alert {k}"))
        page.wait_for_timeout(50)
    display.until(page, "document.querySelectorAll('#log li').length >= 20", 5)
    frames = display.k - frames
    shown, overlays = np.subtract(page.evaluate(COUNTED), began)
    assert overlays > 0.7 * frames and overlays > 2 * shown, "overlays are not thinned"
    assert page.locator("#lost").is_hidden()
    display.changes = {}
    display.until(page, f"!{said}.includes('pipeline')")


def test_a_slow_browser_says_so_and_slows_no_other(browser, display):
    slow, other = display.open(browser), display.open(browser)
    slow.evaluate(
        """fluoronav.layers.draw = () => { const end = performance.now() + 120; while (performance.now() < end); }"""
    )
    display.until(slow, "document.getElementById('thinned').textContent.includes('this browser is slow')")
    began, frames = [page.evaluate(COUNTED) for page in (slow, other)], display.k
    other.wait_for_timeout(3000)
    frames = display.k - frames
    (few, _), (many, overlays) = np.subtract([page.evaluate(COUNTED) for page in (slow, other)], began)
    assert overlays > 0.7 * frames and many > few


def test_a_page_that_is_behind_another_gets_no_pictures_and_its_alarms_sound(browser, display):
    page = display.open(browser)
    display.show(page)
    hide = """(hidden) => { Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange")); }"""
    page.evaluate(hide, True)
    page.wait_for_timeout(500)
    pictures, overlays = page.evaluate("[fluoronav.stats.pictures, fluoronav.stats.overlays]")
    display.stand_in.say("alert", alert(3, "high"))
    display.until(page, "fluoronav.alarms.bursts.some((b) => b.priority === 'high')", 5)
    page.wait_for_timeout(500)
    assert page.evaluate("fluoronav.stats.pictures") == pictures
    assert page.evaluate("fluoronav.stats.overlays") > overlays
    page.evaluate(hide, False)
    display.until(page, f"fluoronav.stats.shown > 0 && fluoronav.stats.pictures > {pictures + 5}")
    assert page.locator(".alarm").count() == 1


def test_a_page_that_was_held_up_takes_the_newest_overlays_first_and_loses_no_alert(browser, display):
    page = display.open(browser)
    display.show(page)
    before = page.evaluate("fluoronav.stats.overlays")
    frames = display.k
    page.evaluate("setTimeout(() => { const end = performance.now() + 3000; while (performance.now() < end); }, 50)")
    for k in range(20):
        display.stand_in.say("alert", alert(k, "low", text=f"alert {k}"))
        time.sleep(0.1)
    display.until(page, "document.querySelectorAll('#log li').length >= 20", 10)
    came, sent = page.evaluate("fluoronav.stats.overlays") - before, display.k - frames
    assert came < sent - 20, "what has grown old is not worked through"
    display.until(page, f"fluoronav.state.newest.seq > {display.k}")
