"""A real headless Chromium, the display's real server, and a stand-in for the pipeline's sockets."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import yaml
from tests import ports
from tests.display.pipeline_stand_in import CASE, SIDE, StandIn, health, overlay
from tests.display.warm import WarmDisplay

from fluoronav.lab.simulation.rig import scaled_camera

ROOT = Path(__file__).parents[2]


def launch_file(folder: Path, stand_in: StandIn) -> Path:
    """The demo's launch file with the stand-in's endpoints."""
    launch = yaml.safe_load((ROOT / "launch" / "demo.yaml").read_text())
    launch["endpoints"] |= stand_in.endpoints | {"marks": f"ipc://{folder}/marks"}
    launch["audit"] = str(folder / "audit")
    launch["cases"] = {"another": str(folder / "another" / "case.yaml")}
    launch["camera"] = str(scaled_camera(ROOT / "calibration" / "demo-carm.yaml", SIDE, folder))
    path = folder / "launch.yaml"
    path.write_text(yaml.safe_dump(launch))
    return path


class Display:
    """The server's process, its addresses, and a stream of frames for it."""

    def __init__(self, folder: Path, stand_in: StandIn) -> None:
        self.server = WarmDisplay(launch_file(folder, stand_in))
        self.watch, self.control = self.server.watch, self.server.control
        self.stand_in = stand_in
        self.k, self.changes, self.health = 0, {}, {"case": CASE.id}
        self._pages, self._stumbled = [], []
        self.side = SIDE
        self.pixels = None  # of every frame; None for the stand-in's own
        self.streaming, self.with_overlays, self._ending = True, True, False
        # Answers do not wait for frames: the page gives a pipeline little more than a second.
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._stream, self._answer)]
        for thread in self._threads:
            thread.start()

    def _answer(self) -> None:
        while not self._ending:
            self.stand_in.answer(50)

    def _stream(self) -> None:
        while not self._ending:
            if self.streaming:
                self.next(self.with_overlays, self.side)
                if self.k % 8 == 0:
                    self.stand_in.say("health", health(mode=self.changes.get("mode", "live"), **self.health))
            time.sleep(0.033)

    def next(self, with_overlay: bool = True, side: int = SIDE) -> None:
        """One more frame."""
        self.k += 1
        self.stand_in.picture(self.k, side, self.pixels if side == SIDE else None)
        if with_overlay:
            self.stand_in.say("overlay", overlay(self.k, **self.changes))

    def show(self, page, **changes) -> None:
        """Changes what the overlays say, and waits until the page shows it."""
        self.changes = changes
        self.until(page, f"fluoronav.stats.overlaySeq > {self.k + 1} && !document.body.classList.contains('lost')")

    def stop(self, page) -> None:
        """Sends no more frames, and waits until those that were sent have come."""
        self.streaming = False
        page.wait_for_timeout(100)  # one may be on its way
        came = f"fluoronav.state.newest.seq >= {self.k} && performance.now() - fluoronav.state.pictureAt > 300"
        self.until(page, f"{came} && !fluoronav.state.waiting.length")

    def until(self, page, condition: str, seconds: float = 90) -> None:
        """Waits until something holds in the page (its content security policy forbids Playwright's own way)."""
        end = time.monotonic() + seconds
        while not page.evaluate(f"Boolean({condition})"):
            assert time.monotonic() < end, f"never came true: {condition}"
            page.wait_for_timeout(30)

    def asked(self, op: str) -> list[dict]:
        """What the page has asked the pipeline for, by `op`."""
        return [a for a in self.stand_in.asked if a["op"] == op]

    def until_asked(self, page, op: str, count: int = 1) -> list[dict]:
        """Waits until the page has asked for it."""
        end = time.monotonic() + 60
        while len(self.asked(op)) < count:
            assert time.monotonic() < end, f"{op} was never asked"
            page.wait_for_timeout(30)
        return self.asked(op)

    def open(self, browser, address: str | None = None, size=(1280, 720), user: str | None = "Dr. Test"):
        """A page of the display, used by somebody who has said who they are, unless `user` is None."""
        page = browser.new_page(viewport={"width": size[0], "height": size[1]})
        page.set_default_timeout(90_000)
        self._pages.append(page)
        page.on("pageerror", lambda error: self._stumbled.append(str(error)))
        page.on("dialog", lambda dialog: self._stumbled.append(f"a dialog halted the page: {dialog.message}"))
        page.goto(address or self.control)
        self.until(page, "fluoronav.stats.shownSeq !== null && fluoronav.layers.camera?.target_ct")
        if user is not None:
            page.evaluate("(name) => fluoronav.user.take(name)", user)
        return page

    def close(self) -> None:
        self._ending = True
        for thread in self._threads:
            thread.join()
        # Before the server ends: it gives an open stream two seconds to end by itself.
        for page in self._pages:
            page.close()
        self.server.close()
        assert not self._stumbled, "the page stumbled"


@pytest.fixture
def free_port():
    return ports.free_port()


@pytest.fixture
def stand_in():
    s = StandIn()
    yield s
    s.close()


@pytest.fixture
def display(tmp_path, stand_in):
    pytest.importorskip("aiohttp", reason="the extra `display` is not installed")
    d = Display(tmp_path, stand_in)
    yield d
    d.close()
