"""Every state of the screen in the real demo: nothing is cut off, lies over something else, or is too small.

With FLUORONAV_SCREENSHOTS=FOLDER the pictures are written there, at four sizes, to be looked at.
"""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from tests.display.test_layout import AT_MM, CAPITALS, MINUTES_OF_ARC, PARTS, SCREEN_HEIGHT_MM, boxes, overlap

from fluoronav.lab.bench.faults.scene import load_scene
from fluoronav.lab.screens import SIZES, STATES, Room, take

SIDE = 512  # of a frame, px
SHOTS = os.environ.get("FLUORONAV_SCREENSHOTS")
FAR = ".alarm .text, .alarm .priority, #mode b, #registration .state, .card .number"
# Words that reach out of their element, or out of the box that it lies in.
CUT = """() => {
  const box = (e) => e.getBoundingClientRect();
  const home = (e) => box(e.closest(".card, #mode, #registration, .alarm, button, #lost, .bar-line") ?? e);
  const after = (a, b) => a.right > b.right + 1 || a.bottom > b.bottom + 1;
  const outside = (a, b) => after(a, b) || a.left < b.left - 1 || a.top < b.top - 1;
  const words = "#mode b, #mode small, #registration p, .alarm .text, .card p, footer button, #presets button, " +
    "#lost h1, #lost p, .bar-line .words, #panel button, #who p, #reason, #legend li";
  const spare = (e) => 0.2 * parseFloat(getComputedStyle(e).fontSize); // lines are set closely
  const isCut = (e) => e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + spare(e);
  return [...document.querySelectorAll(words)].filter((e) => e.checkVisibility() && e.textContent)
    .filter((e) => (e.clientWidth && isCut(e)) || outside(box(e), home(e)))
    .map((e) => [e.id || `${e.parentElement.id} ${e.className}`, e.textContent]); }"""


def faults_of(page, size):
    """What is wrong with the screen, in words."""
    width, height = SIZES[size]
    found = {part: next(iter(boxes(page, f"body > {part}, main > {part}").values())) for part in PARTS}
    out = [f"{a} and {b} overlap" for a, b in itertools.combinations(found, 2) if overlap(found[a], found[b])]
    controls = boxes(page, "body > header button, #alarms button, #presets button, footer button, footer select")
    out += [f"{a} and {b} overlap" for a, b in itertools.combinations(controls, 2) if overlap(controls[a], controls[b])]
    for name, (left, top, right, bottom) in {**found, **controls}.items():
        if left < -1 or top < -1 or right > width + 1 or bottom > height + 1:
            out.append(f"{name} is off the screen")
    out += [f"{where} is cut off: {words}" for where, words in page.evaluate(CUT)]
    if width > height:
        for what, px in page.evaluate(CAPITALS, FAR):
            minutes = np.degrees(np.arctan(px * SCREEN_HEIGHT_MM / height / AT_MM)) * 60
            if minutes < MINUTES_OF_ARC:
                out.append(f"{what} has {minutes:.1f} minutes of arc")
    return out


def test_every_state_of_the_real_demo_is_whole_at_its_size(browser, tmp_path):
    pytest.importorskip("aiohttp", reason="the extra `display` is not installed")
    found = []

    def seen(state, size, page):
        if SHOTS:
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=str(Path(SHOTS) / f"{state.name}-{size}.png"))
        found.extend(f"{state.name} at {size}: {fault}" for fault in faults_of(page, size))

    room = Room(browser, tmp_path, load_scene(tmp_path, SIDE))
    try:
        failed = take(room, STATES, list(SIZES) if SHOTS else ["1280x720", "1200x1920"], seen)
    finally:
        room.close()
    assert not room.stumbled
    assert not failed + found, "\n".join(failed + found)
