"""The display with the real pipeline and the simulated C-arm: it shows what they send."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tests.display.test_display import shot

from fluoronav.case import load_case
from fluoronav.geometry import Camera
from fluoronav.lab.simulation.rig import capture_run, scaled_camera
from fluoronav.lab.simulation.sequence import load_or_render
from fluoronav.paths import shipped
from fluoronav.site.launch import load_launch

SIZE = 512


def test_the_page_shows_what_the_pipeline_of_the_demo_sends(browser, free_port, tmp_path):
    pytest.importorskip("aiohttp", reason="the extra `display` is not installed")
    pytest.importorskip("psutil", reason="the extra `bench` is not installed")
    launch = load_launch(shipped("launch/demo.yaml")).model_dump(mode="json") | {"audit": str(tmp_path / "audit")}
    # Before the browser is there: both would want the same cores.
    load_or_render(load_case("embedded"), Camera.load(scaled_camera(launch["camera"], SIZE, tmp_path)))
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    stumbled = []
    page.on("pageerror", lambda error: stumbled.append(str(error)))
    with ThreadPoolExecutor(1) as pool:
        # Half of the rate of the OR: browser, renderer and pipeline share the test machine's cores.
        running = pool.submit(capture_run, launch, 450, 15.0, size=SIZE, display_port=free_port)

        def until(condition, seconds=120):
            for _ in range(int(10 * seconds)):
                if page.evaluate(f"Boolean({condition})"):
                    return
                assert not running.done(), f"the pipeline ended before this came true: {condition}"
                page.wait_for_timeout(100)
            pytest.fail(f"never came true: {condition}")

        for _ in range(600):
            try:
                page.goto(f"http://127.0.0.1:{free_port}/")
                break
            except Exception:
                assert not running.done(), running.result()
                page.wait_for_timeout(200)
        until("document.getElementById('registration').innerText.includes('Tracking')")
        # What is drawn lags behind what has come: the first overlays, without a pose, may still be on the screen.
        drawn = "fluoronav.state.overlays.get(fluoronav.stats.overlaySeq)?.overlay"
        until(f"(o => o?.status === 'tracking' && o.outlines.length && o.instruments[0]?.tip_px)({drawn})")
        shown = page.evaluate(
            f"(o => ({{seq: o.seq, tip: o.instruments[0]?.tip_px, outlines: o.outlines.length}}))({drawn})"
        )
        shot(page, "display-demo")
        page.close()
        recording = running.result()
    said = {o["seq"]: o for _, o in recording.overlays}[shown["seq"]]
    assert shown["tip"] == said["instruments"][0]["tip_px"] and shown["outlines"] == len(said["outlines"])
    assert not stumbled
    assert np.isfinite(shown["tip"]).all()
