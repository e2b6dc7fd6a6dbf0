"""Scenes for the instrument detector: what they say of the instruments is what the exposure shows."""

import numpy as np
import pytest

from fluoronav.geometry import exp_se3, transform_points
from fluoronav.lab.simulation.instrument_scenes import (
    Background,
    Placed,
    SceneMaker,
    limb,
    training_shape,
    unseen_shape,
    visible_axis_px,
)
from fluoronav.lab.simulation.instrument_scenes import maker as scene_maker
from fluoronav.lab.simulation.metal import axis_points, k_wire
from fluoronav.stream.detection.network_input import KINDS


@pytest.fixture
def maker(camera):
    return before_water(camera.scaled(0.5))


def before_water(camera):
    flat = np.full((camera.rows, camera.cols), 15.0, np.float32)
    return SceneMaker(camera, [Background(flat, np.zeros_like(flat))])


def test_a_scene_is_made_again_from_its_seed(maker):
    first, second = (maker.scene(np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    assert [p.kind for p in first[1]] == [p.kind for p in second[1]]


def test_tips_and_axes_are_in_view_and_darker_than_their_surroundings(maker):
    darker = []
    for seed in range(12):
        counts, placed, field_mask = maker.scene(np.random.default_rng(seed), photons=100.0, count=2)
        assert len(placed) == 2
        for p in placed:
            at = np.rint(p.axis_px).astype(int)
            assert field_mask[at[:, 1], at[:, 0]].all()
            inside = at[len(at) // 3 : len(at) // 2]
            darker.append(np.median(counts[inside[:, 1], inside[:, 0]]) < 0.9 * np.median(counts[field_mask]))
    assert np.mean(darker) > 0.8


def test_hard_ones_show_little_of_themselves_or_their_tails_and_the_others_hardly_ever(camera):
    half = camera.scaled(0.5)
    flat = np.full((half.rows, half.cols), 15.0, np.float32)

    def share_of_hard(asked: float) -> float:
        hard, rng = [], np.random.default_rng(2)
        maker = SceneMaker(half, [Background(flat, np.zeros_like(flat))], hard=asked)
        for _ in range(20):
            placed = maker.scene(rng, count=2)[1]
            hard += [p.shows_tail(half) or 2 * len(p.axis_px) <= 160 for p in placed]
        return float(np.mean(hard))

    assert share_of_hard(1.0) == 1
    assert share_of_hard(0.0) < 0.4


@pytest.mark.parametrize("bend_mm", [0.0, 9.0])
def test_both_ends_of_an_axis_point_out_of_it_and_a_tail_is_shown_where_it_ends_in_view(camera, bend_mm):
    metal, field_mask = k_wire(2.0, 90.0, 4.0, bend_mm), np.ones((camera.rows, camera.cols), bool)
    middle, along, across = np.array([0.0, 0.0, 600.0]), np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
    points = axis_points(metal, middle + 45 * along, along, across)
    whole = Placed(metal, points, visible_axis_px(points, camera, field_mask))
    assert whole.shows_tail(camera)
    for direction, end, before in ((whole.tip_direction, 0, 20), (whole.tail_direction, -1, -21)):
        outwards = whole.axis_px[end] - whole.axis_px[before]
        assert np.linalg.norm(direction) == pytest.approx(1)
        assert direction @ outwards / np.linalg.norm(outwards) > np.cos(np.deg2rad(3))
    assert whole.tip_direction @ whole.tail_direction < -0.5
    field_mask[:, : camera.cols // 2] = False
    cut = Placed(metal, points, visible_axis_px(points, camera, field_mask))
    assert 0 < len(cut.axis_px) < len(whole.axis_px) and not cut.shows_tail(camera)


def test_the_bench_has_other_shapes_than_training_of_every_kind():
    rng = np.random.default_rng(0)
    trained, unseen = ([make(rng) for _ in range(300)] for make in (training_shape, unseen_shape))
    assert {m.kind for m in trained} == {m.kind for m in unseen} == set(KINDS)
    wires = [
        {round(2 * float(m.outer_mm.max()), 2) for m in those if m.kind == "k-wire"} for those in (trained, unseen)
    ]
    assert not wires[0] & wires[1]


def test_a_sequence_moves_the_instruments_a_little_from_frame_to_frame_and_nothing_else(maker):
    rng = np.random.default_rng(2)
    shots = list(maker.sequence(rng, 6, photons=100.0, count=2))
    assert len(shots) == 6 and all(len(placed) == 2 for _, placed in shots)
    for n in range(2):
        tips = np.array([placed[n].points_camera[0] for _, placed in shots])
        steps = np.linalg.norm(np.diff(tips, axis=0), axis=1)
        assert 0 < steps.max() < 1.5
        lengths = [np.linalg.norm(np.diff(placed[n].points_camera, axis=0), axis=1).sum() for _, placed in shots]
        np.testing.assert_allclose(lengths, lengths[0], rtol=1e-6)


def test_what_moves_is_blurred_along_its_way_and_stays_where_it_is_said_to_be(maker, monkeypatch):
    def steel(mm_a_frame: float) -> np.ndarray:
        monkeypatch.setattr(
            scene_maker, "hand_motion", lambda rng: lambda frame: exp_se3([0, 0, 0, mm_a_frame * frame, 0, 0])
        )
        ((exposure, _),) = maker._moments(np.random.default_rng(4), 1, 100.0, 2)
        return exposure.steel

    still, moved = steel(0.0), steel(20.0)  # 2 mm from one third of a pulse to the next
    cols = np.arange(still.shape[1])
    more = moved - still
    assert more.max() > 0.2 and more.min() < -0.2
    assert abs(more.sum()) < 0.01 * still.sum()
    assert abs((more * cols).sum() / still.sum()) < 0.3


def test_a_moved_instrument_s_axis_ends_where_the_field_does(maker):
    """Regression: behind a blade it was said to be in view, and the bench called its tip missed."""
    hidden = 0
    for seed in range(8):
        for chain, _, now in maker.beams(np.random.default_rng(seed), 12, count=2):
            for p in now:
                col, row = np.rint(p.axis_px).astype(int).T
                assert chain.field_mask[row, col].all()
                whole = visible_axis_px(p.points_camera, maker.camera, np.ones_like(chain.field_mask))
                hidden += len(whole) > len(p.axis_px)
    assert hidden > 0


def test_a_moving_tip_is_hidden_while_thicker_metal_lies_over_it_and_not_before(camera):
    maker = before_water(camera.scaled(0.25))
    said, thicker = [], []
    # Of these three instruments one goes under another.
    for _, placed in maker.sequence(np.random.default_rng(6), 8, photons=100.0, count=3):
        said.append([p.tip_hidden for p in placed])
        thicker.append([_share_of_others(maker, p, placed) for p in placed])
    thicker = np.array(thicker)
    covered, free = thicker > 1.2, thicker == 0
    assert (covered.any(0) & free.any(0)).any()
    assert np.array(said)[covered].all()
    assert not np.array(said)[free].any()


def _share_of_others(maker, p, placed):
    """How much of the other instruments' metal lies over a tip, as a share of its own."""
    col, row = np.rint(p.axis_px[: 24 * maker.camera.cols // 1024]).astype(int).T
    own, all_of_them = (maker._steel(those)[row, col].mean() for those in ((p,), placed))
    return (all_of_them - own) / own


def test_a_pair_shows_one_instrument_from_two_sides(maker):
    turn = exp_se3([0, 0.7, 0, 0, 0, 0])
    turn[:3, 3] = np.array([0, 0, 620]) - turn[:3, :3] @ [0, 0, 620]
    (_, first), (_, second) = maker.pair(np.random.default_rng(5), turn, photons=100.0)
    np.testing.assert_allclose(transform_points(turn, first.points_camera), second.points_camera)
    np.testing.assert_allclose(maker.camera.project(second.points_camera[0]), second.axis_px[0], atol=1e-6)


def test_a_limb_leaves_the_open_beam_and_has_dense_edges(maker):
    shares = []
    for seed in range(8):
        b = limb(np.random.default_rng(seed), maker.camera)
        assert np.isfinite(b.water).all() and (b.water >= 0).all() and (b.bone >= 0).all()
        shares.append([(b.water > 0).mean(), (b.bone > 0).mean()])
        assert b.water.max() < 15 and b.bone.max() < 8  # g/cm2: a thigh, a femur's shaft along its length
    water, bone = np.array(shares).T
    assert (water > 0.05).sum() >= 6 and (water < 0.98).all() and (bone > 0.01).sum() >= 6
