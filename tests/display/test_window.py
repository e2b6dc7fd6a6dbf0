"""The picture's window: bone has contrast in a round field between lungs, without flicker."""

import time

import cv2
import numpy as np
import pytest
from tests.display.pipeline_stand_in import overlay
from tests.display.test_space import canvas

SIDE = 512
Y, X = np.mgrid[:SIDE, :SIDE].astype(float)
FIELD = np.hypot(X - 256, Y - 256) < 235
# The beam behind a trunk is a fiftieth of what it is behind the lungs, and bone has four fifths of what lies beside it.
SPINE = np.abs(X - 256) < 60
BONE = SPINE & (np.sin(Y / 12) > 0)
OPEN, SCATTER = 45000.0, 600.0


def counts(field=FIELD):
    primary = np.where(SPINE, np.where(BONE, 0.016, 0.032), 0.9)
    noise = np.random.default_rng(0).normal(0, 60, X.shape)
    return np.clip(OPEN * primary * field + SCATTER + noise, 0, 65535).astype("<u2")


def enhanced(field=FIELD):
    share = np.clip((counts(field) - SCATTER) / OPEN, 0, 1)
    return np.where(field, 255 * np.sqrt(share), 0).astype("u1")


def box(x1, x2, y1, y2, structure="T5"):
    return {"structure": structure, "color": "#00ff00", "paths": [[[x1, y1], [x2, y1], [x2, y2], [x1, y2]]]}


def stream(display, page, pixels, outlines, **more):
    """Streams pictures until the page shows them, with a window that was set for them alone."""
    display.streaming = False
    page.wait_for_timeout(100)
    display.changes = {}
    first = display.k + 1

    def send_until(condition):
        end = time.monotonic() + 90
        while True:
            display.k += 1
            display.stand_in.picture(display.k, pixels=pixels, **more)
            display.stand_in.say("overlay", overlay(display.k, outlines=outlines))
            page.wait_for_timeout(40)
            if page.evaluate(condition):
                return
            assert time.monotonic() < end, f"never came true: {condition}"

    send_until(f"fluoronav.stats.shownSeq >= {first} && fluoronav.stats.overlaySeq >= {first}")
    # The window need not be followed smoothly from the picture before.
    anew = page.evaluate("((fluoronav.picture.kindOf = null), fluoronav.stats.shown + 8)")
    send_until(f"fluoronav.stats.shown >= {anew}")
    display.until(page, f"fluoronav.stats.shownSeq >= {display.k}")  # a busy computer draws late


def greys(page):
    return cv2.resize(canvas(page, "picture")[..., 0], (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(float)


@pytest.mark.parametrize(
    ("draw", "pixels", "more"),
    [
        ("cpu", counts(), {}), ("gpu", counts(), {}), ("cpu", 65535 - counts(), {"polarity": "inverse"}),
        ("gpu", 65535 - counts(), {"polarity": "inverse"}), ("cpu", counts() >> 4, {"bits": 12}),
        ("cpu", enhanced(), {"kind": "view"}), ("gpu", enhanced(), {"kind": "view"}),
    ],
    ids=["cpu", "gpu", "cpu inverse", "gpu inverse", "12 bits", "cpu enhanced", "gpu enhanced"],
)  # fmt: skip
def test_bone_under_the_outlines_has_contrast(browser, display, draw, pixels, more):
    page = display.open(browser, f"{display.control}&draw={draw}")
    stream(display, page, pixels, [box(190, 322, 80, 430)], **more)
    image = greys(page)
    inside = FIELD & (np.hypot(X - 256, Y - 256) < 200)
    bone, beside = np.median(image[BONE & inside]), np.median(image[SPINE & ~BONE & inside])
    assert beside - bone > 25, "bone has contrast"
    assert bone > 15 and beside < 220, "and neither is drawn black or white"
    assert np.median(image[~FIELD]) < 12


def test_outlines_beyond_the_field_do_not_set_the_window(browser, display):
    page = display.open(browser)
    narrow = np.hypot(X - 256, Y - 256) < 80
    stream(display, page, counts(narrow), [box(190, 322, 0, 511)])
    image = greys(page)
    assert np.median(image[SPINE & ~BONE & narrow]) - np.median(image[BONE & narrow]) > 40


def test_without_outlines_the_inner_field_has_contrast(browser, display):
    page = display.open(browser)
    stream(display, page, counts(), [])
    image = greys(page)
    inner = np.hypot(X - 256, Y - 256) < 150
    assert np.ptp(np.percentile(image[inner], [5, 95])) > 130
    assert np.median(image[BONE & inner]) > 15, "and bone is not black"


def test_no_go_regions_and_structures_with_warnings_do_not_set_the_window(browser, display):
    page = display.open(browser)
    lungs = [box(10, 150, 100, 400, "forbidden"), box(360, 500, 100, 400, "aorta")]
    page.evaluate("fluoronav.state.bones = new Set(['T5'])")
    stream(display, page, counts(), [box(190, 322, 80, 430), *lungs])
    white = page.evaluate("fluoronav.picture.range[1]")
    assert white < np.log1p(OPEN / 2) / np.log1p(65535)


AIMED = """async (steps) => {
    const { makePicture } = await import("/page/picture.js");
    const picture = makePicture(document.createElement("canvas"), "cpu");
    const pixels = (dark) =>
      new Uint16Array(128 * 128).map((_, k) => (dark ? 1500 : 20000) * (1 + 0.5 * Math.sin(k * 12.9898)));
    const path = [[30, 30], [90, 30], [90, 90], [30, 90]];
    const out = [];
    steps.forEach(([dark, outlined], k) => {
      picture.upload({ dtype: "u2", bits: 16, inverse: false }, 128, 128, pixels(dark));
      picture.aim(1000 + 33 * k, outlined ? [path] : [], 128);
      out.push(picture.range.map((x) => Math.log1p(Math.max(picture.curve.back(x), 0))));
    });
    return out; }"""


def test_the_window_follows_smoothly_and_settles(browser, display):
    page = display.open(browser)
    # Another view, outlines that come and go from one picture to the next, and the first view again.
    steps = (
        [[True, True]] * 20 + [[False, True]] * 200 + [[False, k % 2 == 0] for k in range(60)] + [[True, False]] * 200
    )
    found = np.array(page.evaluate(AIMED, steps))
    assert np.abs(np.diff(found, axis=0)).max() < 0.5 * np.abs(found[219] - found[0]).max() + 1e-6
    assert np.abs(np.diff(found[:20], axis=0)).max() < 1e-6 and np.abs(np.diff(found[220:280], axis=0)).max() < 0.03
    assert found[219] == pytest.approx(found[200], abs=0.01) and found[-1][0] == pytest.approx(found[0][0], abs=0.05)


@pytest.mark.parametrize("value", [0, 65535, 700])
def test_a_constant_picture_and_empty_outlines_give_a_window(browser, display, value):
    page = display.open(browser)
    low, high = page.evaluate(
        """async (value) => {
        const { windowOf } = await import("/page/window.js");
        const paths = [[[1, 1]], [[-5, -9], [1e6, 3], [3, 1e6]], [[500, 500], [600, 500], [600, 600]]];
        return windowOf(() => value / 65535, 40, 30, paths); }""",
        value,
    )
    assert high - low > 0.02


def test_a_spine_has_contrast_at_both_its_ends_however_much_lies_before_them(browser, display):
    """The heart and the diaphragm: ten times less of the beam comes through at the lower end than at the upper."""
    page = display.open(browser, f"{display.control}&draw=cpu", size=(1920, 1080))
    thickness = 10.0 ** -(Y / SIDE)
    primary = np.where(SPINE, np.where(BONE, 0.06, 0.1) * thickness, 0.9)
    noise = np.random.default_rng(0).normal(0, 40, X.shape)
    pixels = np.clip(OPEN * primary * FIELD + SCATTER + noise, 0, 65535).astype("<u2")
    stream(display, page, pixels, [box(190, 322, 40, 470)])
    image = greys(page)
    for rows in (slice(70, 130), slice(380, 440)):
        bone, beside = (np.median(image[rows][part[rows]]) for part in (SPINE & BONE, SPINE & ~BONE))
        assert beside - bone > 25 and bone > 15 and beside < 240
    assert np.median(image[~FIELD]) < 12, "nothing outside the field is lifted"


@pytest.mark.parametrize("draw", ["cpu", "gpu"])
def test_presets_for_bone_soft_tissue_and_metal(browser, display, draw):
    page = display.open(browser, f"{display.control}&draw={draw}", size=(1920, 1080))
    primary = np.where(SPINE, np.where(BONE, 0.016, 0.032), np.where(np.sin(X / 15) > 0, 0.9, 0.6))
    metal, vessel = SPINE & (np.abs(Y - 256) < 8), ~SPINE & (np.sin(X / 15) > 0)
    pixels = np.clip(OPEN * np.where(metal, 0.004, primary) * FIELD + SCATTER, 0, 65535).astype("<u2")
    found = {}
    for name in ("bone", "soft", "metal"):
        page.evaluate(f"document.getElementById('tool-{name}').click()")
        pressed = page.evaluate(
            "['bone', 'soft', 'metal'].filter((n) => document.getElementById(`tool-${n}`).ariaPressed === 'true')"
        )
        assert pressed == [name]
        stream(display, page, pixels, [box(190, 322, 80, 430)])
        image = greys(page)
        inner = np.hypot(X - 256, Y - 256) < 200
        medians = [
            np.median(image[part & inner])
            for part in (metal, SPINE & BONE & ~metal, SPINE & ~BONE & ~metal, vessel, ~SPINE & ~vessel)
        ]
        found[name] = np.diff(medians)  # bone against metal, soft tissue against bone, and lung against what is in it
    assert found["bone"][1] > 25 and found["bone"][1] >= found["soft"][1]
    assert abs(found["soft"][3]) > 10 and abs(found["soft"][3]) > abs(found["metal"][3])
    assert found["metal"][0] > max(found["bone"][0], found["soft"][0]) and found["metal"][0] > 40
