"""Takes the pictures of docs/display.md from the real demo: each state of the screen at four sizes.

    python docs/images/draw_display.py SCREENS [--states NAME...] [--sizes WIDTHxHEIGHT...]

`SCREENS` is a folder for the whole pictures (PNG). Look at each of them for what is cut off, lies over something else,
or says what is not so. Needs the extra `dev` and Chromium; about ten minutes of two cores.
"""

import argparse
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from fluoronav.lab.bench.chromium import FLAGS, find_chromium
from fluoronav.lab.bench.faults.scene import load_scene
from fluoronav.lab.screens import SIZES, STATES, Room, take

SIDE = 1024  # of the C-arm's frames, px


def photograph(out: Path, states: list[str], sizes: list[str]) -> None:
    """Writes the pictures of some states at some sizes."""

    def seen(state, size, page):
        page.screenshot(path=str(out / f"{state.name}-{size}.png"))
        print(f"{state.name} at {size}", flush=True)

    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        room = Room(browser, Path(name), load_scene(Path(name), SIDE))
        try:
            # The first two open the page and accept the registration.
            take(room, [s for k, s in enumerate(STATES) if k < 2 or s.name in states], sizes, seen)
            if room.stumbled:
                raise SystemExit("the page stumbled: " + "; ".join(room.stumbled))
        finally:
            room.close()
            browser.close()


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("screens", type=Path, metavar="SCREENS", help="folder for the whole pictures")
names = [s.name for s in STATES]
parser.add_argument("--states", nargs="+", choices=names, default=names, help="some of them, besides the first two")
parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="some of them")
options = parser.parse_args()
photograph(options.screens, options.states, options.sizes)
