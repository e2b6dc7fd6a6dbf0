"""What the bench of moving instruments counts as shown, and as false."""

import dataclasses

import numpy as np
import pytest
from tests.stream.detection.detections import detection

from fluoronav.lab.bench.moving import Shown, figures, moving
from fluoronav.lab.simulation.instrument_scenes import Background, Placed
from fluoronav.lab.simulation.metal import k_wire


def wire(camera, tip, length_px=300):
    """A wire that lies level, its tip at the right, half a metre from the source."""
    x = tip[0] - np.arange(length_px)
    axis = np.stack([x, np.full(length_px, float(tip[1]))], 1)
    points = camera.rays(axis[[0, -1]])
    return Placed(k_wire(2, 200), 500 * points / points[:, 2:], axis)


def find(tip, id, angle_deg=0.0):
    return dataclasses.replace(detection(*tip, np.deg2rad(angle_deg)), id=id)


def test_an_instrument_is_shown_where_its_tip_is_and_keeps_its_identity(camera):
    seen = Shown()
    scene = (wire(camera, (500, 500)), dataclasses.replace(wire(camera, (600, 300)), tip_hidden=True))
    seen.add((find((503, 504), "a"), find((600, 300), "b")), scene, camera)
    seen.add((find((500, 500), "a", 30),), scene, camera)  # that runs another way
    seen.add((find((500, 500), "c"),), scene, camera)
    assert (seen.due, seen.shown, seen.in_sight, seen.in_sight_shown) == (6, 3, 3, 2)
    assert seen.switches == 1 and seen.off_px == [5.0, 0.0, 0.0]
    # What points another way is a false one.
    assert (seen.false, seen.called, seen.frames) == (1, {"a"}, 3)


def test_what_is_false_counts_by_frame_and_once_each(camera):
    seen = Shown()
    for _ in range(4):
        seen.add((find((200, 200), "a"), find((800, 800), "b")), (), camera)
    f = figures([seen, Shown(frames=4)])
    assert f["false_per_frame"] == 1.0 and f["false_per_1000_frames"] == 250.0


def test_what_is_hardly_in_view_need_not_be_shown_and_is_no_error_when_it_is(camera):
    seen = Shown()
    short, at_the_rim = wire(camera, (500, 500), 40), wire(camera, (camera.cols - 20, 300))
    seen.add((find((490, 500), "a"), find((camera.cols - 22, 300), "b")), (short, at_the_rim), camera)
    assert (seen.due, seen.false) == (0, 0)


def test_a_share_is_as_unsure_as_the_sequences_differ_and_not_as_their_frames(camera):
    alike = [Shown(due=14, off_px=[0.0] * 13, in_sight=14, in_sight_shown=13)] * 40
    apart = [Shown(due=14, off_px=[0.0] * 14 * (k % 14 > 0), in_sight=14, in_sight_shown=0) for k in range(42)]
    assert figures(alike)["shown_95"] == pytest.approx((13 / 14, 13 / 14))
    low, high = figures(apart)["shown_95"]
    # 39 of 42 and nothing between, as if each were one instrument: 7.9 % to either side, and no more than all.
    assert low == pytest.approx(13 / 14 - 1.96 * np.sqrt(13 / 14 / 14 / 41)) and high == 1.0
    assert figures([])["shown_95"] == (0.0, 1.0)


def test_sequences_are_the_same_from_the_same_seed_on_any_number_of_cores(camera, monkeypatch):
    flat = np.full((512, 512), 15.0, np.float32)
    backgrounds = [Background(flat, np.zeros_like(flat))]
    found = []
    for cores in (1, 2):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        found.append(moving(camera, backgrounds, 6, 4, 80.0, 3))
    assert found[0] == found[1]
    assert found[0]["sequences"] == 6 and found[0]["frames"] == 12 and found[0]["shown"] > 0.5
