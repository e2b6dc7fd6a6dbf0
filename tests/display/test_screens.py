"""Pictures of the whole screen in every state that a person may meet, at four sizes, to be looked at before a release.

With FLUORONAV_SCREENSHOTS=FOLDER they are written there as PNG.
"""

import numpy as np
import pytest
from tests.display.pipeline_stand_in import CASE, alert, overlay
from tests.display.test_display import press, shot
from tests.display.test_space import registered

from fluoronav.geometry import Camera
from fluoronav.lab.simulation.sequence import Anatomy
from fluoronav.paths import shipped

SIZES = {"fhd": (1920, 1080), "hd": (1280, 720), "4k": (3840, 2160), "tablet": (1024, 1366)}
SIDE = 512


@pytest.fixture(scope="module")
def counts():
    """The embedded case's spine at its prior pose, as counts."""
    camera = Camera.load(shipped("calibration/demo-carm.yaml")).scaled(SIDE / 1024)
    water, bone = Anatomy(CASE, camera).paths(CASE.prior.T_camera_ct())
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    seen = np.hypot(x, y) < 0.49
    attenuation = 0.02 * np.clip(water, 0, None) + 1.0 * np.clip(bone, 0, None)
    return np.where(seen, 60000 * np.exp(-attenuation), 40).astype("<u2")


def placed(**changes):
    """An overlay at the prior pose, with an instrument on its way along the first planned path."""
    return registered(plan=[overlay(0)["plan"][0] | {"beside_mm": [0.6, -0.5]}], outlines=[]) | changes


def near(level, mm):
    return overlay(0)["distances"][0] | {"level": level, "distance_mm": mm, "lower_mm": mm - 0.7, "contact_s": None}


def unregistered(display, page):
    display.changes = placed(status="lost", registration=None)


def alarms(*which):
    def say(display, page):
        for k, (priority, structure, mm) in enumerate(which):
            said = alert(
                k, priority, structure=structure, distance_mm=mm, text=f"kwire is {mm} mm from the {structure}"
            )
            display.stand_in.say("alert", said)
        display.changes = placed(distances=[near("danger" if "high" in str(which) else "caution", which[0][2])])
        display.until(page, "document.querySelector('.alarm')")

    return say


def dead(display, page):
    display.streaming = False
    display.until(page, "document.getElementById('lost').innerText.includes('Guidance has stopped')")


def wrong_size(display, page):
    display.with_overlays, display.side = False, 320
    display.until(page, "document.getElementById('lost').innerText.includes('Wrong picture size')")


def unconfirmed(display, page):
    display.health |= {"session": {"confirmed": False}}
    display.until(page, "!document.getElementById('patient').hidden")


def unaccepted(display, page):
    display.changes = placed(registration=registered()["registration"] | {"accepted": False})
    press(page, "check")
    display.until(page, "document.querySelectorAll('#register li').length === 3")


STATES = {
    "tracking": lambda display, page: None,
    "alarm-high": alarms(("high", "spinal_cord", 0.8)),
    "alarm-medium": alarms(("medium", "aorta", 4.1)),
    "alarm-low": alarms(("low", "storage", 3.0)),
    "two-alarms": alarms(("high", "spinal_cord", 0.8), ("medium", "aorta", 4.1), ("low", "vein", 6.0)),
    "frozen": lambda display, page: press(page, "freeze"),
    "shadow": lambda display, page: display.changes.update(mode="shadow"),
    "unconfirmed": unconfirmed,
    "unregistered": unregistered,
    "unaccepted": unaccepted,
    "wrong-size": wrong_size,
    "menu": lambda display, page: press(page, "menu"),
    "layers": lambda display, page: press(page, "layers"),
    "lost": dead,
}


@pytest.mark.parametrize("name", SIZES)
def test_every_state_is_drawn(browser, display, counts, name):
    display.pixels = counts
    display.changes = placed()
    page = display.open(browser, size=SIZES[name])
    display.until(page, "fluoronav.space.case && fluoronav.space.drawn.slices > 1", 60)
    for state, reach in STATES.items():
        reach(display, page)
        page.wait_for_timeout(900 if name == "4k" else 500)
        shot(page, f"{state}-{name}")
        for said in [*range(4)]:
            display.stand_in.say("alert", alert(said, "low", "cleared"))
        if state in ("frozen", "menu", "layers"):
            press(page, {"frozen": "freeze"}.get(state, state))
        if state == "unaccepted":
            press(page, "check")
        display.health = {"case": CASE.id}
        display.changes, display.streaming, display.with_overlays, display.side = placed(), True, True, SIDE
        display.until(
            page, "document.getElementById('mode').className === 'live' && document.getElementById('lost').hidden"
        )
