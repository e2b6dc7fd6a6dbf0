"""Pictures of the navigation display in each state that a person may meet, made from the real demo.

The pipeline, the display's server and the browser are real processes. C-arm and tracker are simulated. For each state
the wire is driven towards the cord, frames are mirrored, made smaller or held back, or the pipeline is killed.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.lab.bench.display import DisplayProcess
from fluoronav.lab.bench.faults.loop import AlterFrames, AlterTools, Loop
from fluoronav.lab.bench.faults.scene import Scene
from fluoronav.lab.bench.faults.tools import of_tool
from fluoronav.paths import shipped
from fluoronav.site.launch import load_launch

# Width and height of the screens, px.
SIZES = {"1280x720": (1280, 720), "1920x1080": (1920, 1080), "3840x2160": (3840, 2160), "1200x1920": (1200, 1920)}


@dataclass(frozen=True)
class ScreenSettings:
    """How the states are reached; all chosen."""

    fps: float = 4.0  # frames a second: browser, pipeline and renderer share the cores
    noise_mm: float = 0.1  # of the tracker: poses that repeat to the digit are not believed
    noise_counts: int = 200  # of a frame, besides its own: the same frames come again and again
    reach_s: float = 180.0  # until a state is there; a search on a busy computer takes most of it
    settle_s: float = 0.6  # after a change of the screen's size, for full HD; more pixels get more
    stay_s: float = 120.0  # for a picture of a state that goes and comes again
    held_frames: int = 6  # of the sequence, forth and back, while the wire stands still
    clear_frame: int = 100  # the wire's tip is in the bone, far from the cord
    knocked_mm: float = 2.0  # of the tracker's tool, for its drift
    small: int = 2  # every so many pixels of a frame that is too small


SETTINGS = ScreenSettings()
_SMALL = {"width": 640, "height": 360}  # between pictures: what is drawn costs the pipeline time
# What holds in the page while a state is shown.
_MODE = "document.getElementById('mode').className === '{}'"
_FAULT = "document.getElementById('lost').innerText.includes('{}')"
_NO_FAULT = "document.getElementById('lost').hidden"
_ALARM = f"[...document.querySelectorAll('.alarm.{{}}')].some((e) => e.textContent.includes('{{}}')) && {_NO_FAULT}"
# Frames that come again and again make the patient jump, which the pipeline says until a person accepts.
_QUIET = "[...document.querySelectorAll('.alarm')].every((e) => e.textContent.includes('the patient has moved'))"
_TRACKING = "['tracking', 'degraded'].includes(document.getElementById('registration').dataset.status)"
# Places of three points of bone, in pixels of the screen, where the newest pose sees them.
_LANDMARKS = """async () => {
  const { chosen } = await import("/page/register.js");
  const { landmarks } = await (await fetch("/case")).json();
  const { newest, camera } = fluoronav.state;
  if (!newest.registration) return [];
  const box = document.getElementById("layers").getBoundingClientRect();
  const across = (x) => box.left + ((x + 0.5) / camera.cols) * box.width;
  const down = (y) => box.top + ((y + 0.5) / camera.rows) * box.height;
  return chosen(landmarks, newest.registration.T_camera_ct, camera).map(({ px }) => [across(px[0]), down(px[1])]);
}"""


class ScreenError(RuntimeError):
    """A state was not reached; the text says which."""


class Room:
    """The demo's pipeline, a display beside it, and the page of somebody who controls.

    Parameters
    ----------
    browser : playwright.sync_api.Browser
    folder : Path
        For the launch file, trails and recordings.
    scene : Scene
    """

    def __init__(self, browser: Any, folder: Path, scene: Scene) -> None:
        demo = load_launch(shipped("launch/demo.yaml")).model_dump(mode="json")
        ours = {key: demo[key] for key in ("stages", "inference", "mode")}
        # The whole period: this is no measurement of times.
        self.loop = Loop(folder, scene, SETTINGS.fps, **ours, deadline_ms=1000 / SETTINGS.fps)
        self.change_frames: AlterFrames = lambda header, pixels: [(header, pixels)]
        self.change_tools: AlterTools = lambda message: [message]
        rng = np.random.default_rng(7)
        self._rng, self._noise = rng, rng.integers(0, SETTINGS.noise_counts, scene.sequence.frames[0].shape, np.uint16)
        self._faults = ExitStack()
        self._faults.enter_context(self.loop.altering(self._frames, self._tools))
        self.display = DisplayProcess(self.loop.path)
        self.page = browser.new_page(viewport=_SMALL)
        self.stumbled: list[str] = []
        self.page.on("pageerror", lambda error: self.stumbled.append(str(error)))

    def open(self) -> None:
        """Starts the pipeline and opens the page; nobody has confirmed the patient yet."""
        self.between(SETTINGS.clear_frame)
        self.loop.start_unconfirmed()
        self.page.goto(self.display.control)
        self.until("fluoronav.stats.shownSeq !== null && fluoronav.layers.camera?.target_ct")
        self.page.evaluate("fluoronav.user.take('A. Surgeon')")
        self.until(f"fluoronav.space.case && {_TRACKING}")

    def until(self, condition: str, seconds: float = SETTINGS.reach_s) -> None:
        """Waits until something holds in the page; raises :class:`ScreenError`."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(f"Boolean({condition})"):
            if time.monotonic() > end:
                raise ScreenError(f"within {seconds:.0f} s it never came true that {condition}")
            self.page.wait_for_timeout(50)

    def press(self, name: str) -> None:
        """Presses a button, also one in a closed sheet or menu."""
        self.page.evaluate("(name) => document.getElementById(`tool-${name}`).click()", name)

    def between(self, frame: int) -> None:
        """Sends the frames about one of the sequence, forth and back: the wire hardly moves."""
        low = min(max(frame - SETTINGS.held_frames // 2, 0), len(self.loop.scene.tips_ct) - 1 - SETTINGS.held_frames)
        self.loop.between = low, low + SETTINGS.held_frames

    def drive(self, structure: str, most_mm: float, least_mm: float = 0.0) -> None:
        """Drives the wire to the first frame in which its true distance from a structure lies between two, mm."""
        distances = [d[structure] for d in self.loop.scene.distances_mm]
        found = next((k for k, d in enumerate(distances) if least_mm <= d <= most_mm), None)
        if found is None:
            raise ScreenError(f"the wire is never {least_mm:g} to {most_mm:g} mm from the {structure}")
        self.between(found)

    def accept(self) -> None:
        """Checks the registration as a person does: touches three points of bone, and accepts."""
        self.until("document.querySelectorAll('#register li').length === 3")
        begun = time.monotonic()
        while self.page.evaluate("document.getElementById('tool-accept').disabled"):
            if time.monotonic() > begun + SETTINGS.reach_s:
                raise ScreenError(f"no three points could be touched within {SETTINGS.reach_s:.0f} s")
            self.until("fluoronav.state.newest.registration")
            places = self.page.evaluate(_LANDMARKS)
            touched = self.page.evaluate("fluoronav.layers.landmarks.length")  # of a pose that is lost they are dropped
            if touched < len(places):
                self.page.mouse.click(*places[touched])
            self.page.wait_for_timeout(200)
        self.press("accept")
        self.until("document.querySelector('#registration .note').hidden")

    def set_mode(self, mode: str) -> None:
        """Changes between live and shadow by the menu, and answers its question."""
        self.press("mode")
        self.until("document.getElementById('panel').checkVisibility() && !document.getElementById('ask').hidden")
        self.page.click("#ask .yes")
        self.until(f"fluoronav.state.health.mode === '{mode}'")
        self.page.evaluate("document.getElementById('panel-close').click()")

    def _frames(self, header: dict[str, Any], pixels: NDArray) -> list[tuple[dict[str, Any], NDArray]]:
        noise = np.roll(self._noise, int(self._rng.integers(len(self._noise))), axis=0)
        return self.change_frames(header, np.minimum(pixels, np.iinfo(np.uint16).max - SETTINGS.noise_counts) + noise)

    def _tools(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        for entry in message["tools"]:
            for k in (3, 7, 11):
                entry["T_tracker_tool"][k] += self._rng.normal(0, SETTINGS.noise_mm / np.sqrt(3))
        return self.change_tools(message)

    def mend(self) -> None:
        """Ends the faults of frames and tools."""
        self.change_frames = lambda header, pixels: [(header, pixels)]
        self.change_tools = lambda message: [message]
        self.loop.frames_on = True

    def close(self) -> None:
        """Ends everything."""
        self._faults.close()
        self.page.close()
        self.display.close()
        self.loop.close()


@dataclass(frozen=True)
class State:
    """A state of the screen.

    Attributes
    ----------
    name : str
        Begins the picture's file name.
    words : str
        What it shows, for a caption.
    reach, leave : callable
        Take the room.
    holds : str
        JavaScript; true while the page shows the state.
    """

    name: str
    words: str
    reach: Callable[[Room], object]
    holds: str
    leave: Callable[[Room], object] = lambda room: None


def _mirrored(room: Room) -> None:
    room.change_frames = lambda header, pixels: [(header, pixels[:, ::-1])]


def _small(room: Room) -> None:
    step = SETTINGS.small

    def smaller(header, pixels):
        return [(header | {"rows": header["rows"] // step, "cols": header["cols"] // step}, pixels[::step, ::step])]

    room.change_frames = smaller


def _knocked(room: Room) -> None:
    def moved(entry):
        entry["T_tracker_tool"][3] += SETTINGS.knocked_mm

    room.change_tools = of_tool(room.loop, moved)


def _hidden(room: Room) -> None:
    room.change_tools = of_tool(room.loop, lambda entry: entry.update(visible=False, T_tracker_tool=None))


def _well(room: Room) -> None:
    """Ends the faults; the wire goes back to where it is far from the cord."""
    room.mend()
    room.between(SETTINGS.clear_frame)
    room.until(f"{_QUIET} && {_TRACKING} && {_NO_FAULT}")


def _confirm(room: Room) -> None:
    room.page.click("#patient button")
    room.until("document.getElementById('patient').hidden")
    room.press("check")


STATES = (
    State("patient", "Is this the patient?", Room.open, "!document.getElementById('patient').hidden"),
    State("check", "the registration is checked", _confirm,
          "document.querySelectorAll('#register li').length === 3 && !document.getElementById('drr').hidden",
          Room.accept),
    State("tracking", "tracking", _well, f"{_MODE.format('live')} && {_NO_FAULT}"),
    State("alarm-medium", "medium alarm: caution", lambda room: room.drive("spinal_cord", 3.2, 2.6),
          _ALARM.format("medium", "mm from the")),
    State("alarm-high", "high alarm: danger", lambda room: room.drive("spinal_cord", 1.5),
          _ALARM.format("high", "mm from the")),
    State("two-alarms", "two alarms: the tracker does not see the wire, either", _hidden,
          "document.querySelectorAll('.alarm').length === 2 && document.getElementById('lost').hidden", _well),
    State("alarm-low", "low alarm: the tracker's marker was knocked", _knocked, _ALARM.format("low", "drifted"), _well),
    State("frozen", "frozen", lambda room: room.press("freeze"), _MODE.format("frozen"),
          lambda room: room.press("freeze")),
    State("menu", "the menu", lambda room: room.press("menu"), "!document.getElementById('menu').hidden",
          lambda room: room.press("menu")),
    State("shadow", "shadow mode", lambda room: room.set_mode("shadow"), _MODE.format("shadow"),
          lambda room: room.set_mode("live")),
    State("lost", "registration lost: the picture was mirrored", _mirrored,
          "document.getElementById('registration').dataset.status === 'lost'", Room.mend),
    State("old", "no frames come", lambda room: setattr(room.loop, "frames_on", False),
          _FAULT.format("Picture is old"), Room.mend),
    State("wrong-size", "frames of another size than the camera file's", _small, _FAULT.format("Wrong picture size"),
          Room.mend),
    State("dead", "the pipeline is dead", lambda room: room.loop.stop(signal.SIGKILL),
          _FAULT.format("Guidance has stopped")),
)  # fmt: skip


def take(
    room: Room, states: Iterable[State], sizes: Sequence[str], seen: Callable[[State, str, Any], object]
) -> list[str]:
    """Goes through states, and through the sizes of the screen in each.

    Parameters
    ----------
    room : Room
    states : iterable of State
        In their order: the first opens the page.
    sizes : sequence of str
        Keys of `SIZES`.
    seen : callable
        Takes the state, the size and the page while it shows them.

    Returns
    -------
    list of str
        Which states were not reached, or did not stay, and why.
    """
    failed = []
    for state in states:
        try:
            state.reach(room)
            for size in sizes:
                _show(room, state, size)
                seen(state, size, room.page)
        except ScreenError as error:
            failed.append(f"{state.name}: {error}")
        room.page.set_viewport_size(_SMALL)
        try:
            state.leave(room)
        except ScreenError as error:
            failed.append(f"after {state.name}: {error}")
    return failed


def _show(room: Room, state: State, size: str) -> None:
    """Sets the screen's size, and waits until the state is drawn in it."""
    width, height = SIZES[size]
    end = time.monotonic() + SETTINGS.stay_s
    while (left_s := end - time.monotonic()) > 0:
        room.page.set_viewport_size(_SMALL)
        room.until(state.holds, left_s)
        room.page.set_viewport_size({"width": width, "height": height})
        room.page.wait_for_timeout(1000 * SETTINGS.settle_s * max(width * height / (1920 * 1080), 1))
        if room.page.evaluate(f"Boolean({state.holds})"):
            return
    raise ScreenError(f"{state.name} did not stay at {size}")
