"""Scenes for the instrument detector: what they say of the instruments is what the exposure shows."""

import numpy as np
import pytest

from fluoronav.instruments.network_input import KINDS
from fluoronav.simulation.instrument_scenes import Background, SceneMaker, training_shape, unseen_shape


@pytest.fixture
def maker(camera):
    half = camera.scaled(0.5)
    flat = np.full((half.rows, half.cols), 15.0, np.float32)
    return SceneMaker(half, [Background(flat, np.zeros_like(flat))])


def test_a_scene_is_made_again_from_its_seed(maker):
    first, second = (maker.scene(np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    assert [p.kind for p in first[1]] == [p.kind for p in second[1]]


def test_tips_and_axes_are_in_view_and_darker_than_their_surroundings(maker):
    darker = []
    for seed in range(12):
        counts, placed, seen = maker.scene(np.random.default_rng(seed), photons=100.0, count=2)
        assert len(placed) == 2
        for p in placed:
            at = np.rint(p.axis_px).astype(int)
            assert seen[at[:, 1], at[:, 0]].all()
            inside = at[len(at) // 3 : len(at) // 2]
            darker.append(np.median(counts[inside[:, 1], inside[:, 0]]) < 0.9 * np.median(counts[seen]))
    assert np.mean(darker) > 0.8


def test_the_bench_has_other_shapes_than_training_of_every_kind():
    rng = np.random.default_rng(0)
    trained, unseen = ([make(rng) for _ in range(300)] for make in (training_shape, unseen_shape))
    assert {m.kind for m in trained} == {m.kind for m in unseen} == set(KINDS)
    wires = [
        {round(2 * float(m.outer_mm.max()), 2) for m in those if m.kind == "k-wire"} for those in (trained, unseen)
    ]
    assert not wires[0] & wires[1]
