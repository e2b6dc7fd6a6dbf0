"""The demo's picture: bones are seen in it, and its panel says what is true."""

from itertools import pairwise

import numpy as np
import pytest

from fluoronav.lab.simulation.flat_panel import FlatPanel, ImageChain
from fluoronav.lab.simulation.picture import _BONES, draw_overlay, windowed

SIZE = 512
# Where the simulated spine lies, and the bodies in it: columns, rows.
SPINE, BODIES = slice(192, 320), [slice(r, r + 40) for r in range(60, 440, 60)]


@pytest.fixture(scope="module")
def frames():
    """Bodies, 0.5 denser than the discs between them, in a trunk that lets through a hundredth of what lungs do."""
    attenuation = np.full((SIZE, SIZE), 0.5, np.float32)
    attenuation[:, SPINE] = 4.5
    for rows in BODIES:
        attenuation[rows, SPINE] += 0.5
    chain = ImageChain(FlatPanel(photons=80), SIZE, SIZE, 1)
    return [chain.counts(np.exp(-attenuation), seed) for seed in range(8)]


def outline(structure, rows, cols=SPINE):
    corners = [(cols.start, rows.start), (cols.stop, rows.start), (cols.stop, rows.stop), (cols.start, rows.stop)]
    return {"structure": structure, "color": "#ffffff", "paths": [corners]}


BONES = [outline("vertebrae_T8", rows) for rows in BODIES]


def inside(rows):
    return slice(rows.start + 10, rows.stop - 10), slice(SPINE.start + 20, SPINE.stop - 20)


@pytest.mark.parametrize("filtered", [False, True], ids=["one frame", "filtered over time"])
def test_bodies_of_vertebrae_are_neither_black_nor_white_and_stand_out_from_the_discs(frames, filtered):
    grey = windowed(frames[-1], BONES, frames[:-1] if filtered else ())
    bodies = np.array([grey[inside(rows)].mean() for rows in BODIES])
    discs = np.array([grey[a.stop + 4 : b.start - 4, inside(a)[1]].mean() for a, b in pairwise(BODIES)])
    assert (bodies > 70).all() and (bodies < 200).all()
    assert discs.mean() - bodies.mean() > 10
    assert (grey[:, SPINE] == 0).mean() < 0.1


def test_without_outlined_bones_the_window_is_that_of_the_field(frames):
    for outlines in ([], [outline("aorta", BODIES[0])], [outline("vertebrae_T8", slice(900, 940))]):
        grey = windowed(frames[-1], outlines)
        np.testing.assert_array_equal(grey, windowed(frames[-1], []))
        assert np.ptp(grey[np.hypot(*(np.indices(grey.shape) - 255.5)) < 200].astype(int)) > 150


@pytest.mark.parametrize("counts", [np.zeros((64, 64), np.uint16), np.full((64, 96), 65535, np.uint16)])
def test_a_frame_that_shows_nothing_is_drawn_all_the_same(counts):
    assert windowed(counts, BONES).shape == counts.shape
    assert windowed(counts, BONES, [counts]).shape == counts.shape


def overlay(**change):
    return {"seq": 3, "t_acq": 0, "t_sent": 15_000_000, "missed": False, "status": "searching", "registration": None,
            "instruments": [], "distances": [], "plan": [], "outlines": BONES, "mode": "live"} | change  # fmt: skip


def test_the_panel_says_what_is_true(frames, monkeypatch):
    said = []
    monkeypatch.setattr("fluoronav.lab.simulation.picture.cv2.putText", lambda image, text, *_: said.append(text))
    draw_overlay(frames[0], overlay(missed=True, mode="shadow"))
    assert "SEARCHING" in said and "no pose: nothing is projected" in said
    assert "shadow mode: it only watches" in said and "frame 3, 15.0 ms after exposure: late" in said
    said.clear()
    pose = {"tre_image_mm": 0.4, "tre_mm": 3.0, "score": 0.8, "age_ms": 120.0}
    draw_overlay(frames[0], overlay(status="tracking", registration=pose))
    assert "TRACKING" in said and "pose measured 120 ms ago" in said
    assert not [text for text in said if "late" in text or "shadow" in text]


def test_the_names_of_bones_are_those_of_the_embedded_case(case):
    assert [s.name for s in case.structures if s.name.startswith(_BONES)]
