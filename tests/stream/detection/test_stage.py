"""From maps to instruments with identities, and drift; the network itself is judged by `bench instruments`."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from tests.stream.detection.detections import detection

from fluoronav.stream.detection.candidates import Proposal
from fluoronav.stream.detection.identity import IdentityTracker
from fluoronav.stream.detection.stage import DetectionStage
from fluoronav.stream.detection.strip_image import ACROSS_SCALE_PX, OUTPUTS, TURN_SCALE_DEG
from fluoronav.stream.detection.tracing import trace_instruments
from fluoronav.stream.detection.two_stage import TwoStageDetector
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.tracking.drift import DriftFilter


def maps_of(*lines):
    """Maps as the network would make them: (kind index, tip, tail, sagitta)."""
    y, x = np.mgrid[:128, :128].astype(np.float64)
    maps = np.zeros((6, 128, 128), np.float32)
    for kind, tip, tail, sagitta in lines:
        tip, tail = np.array(tip, float), np.array(tail, float)
        t = np.linspace(0, 1, 200)[:, None]
        normal = np.array([tail[1] - tip[1], tip[0] - tail[0]]) / np.linalg.norm(tail - tip)
        axis = tip + t * (tail - tip) + 4 * t * (1 - t) * sagitta * normal
        d2 = ((x[..., None] - axis[:, 0]) ** 2 + (y[..., None] - axis[:, 1]) ** 2).min(-1)
        maps[kind] = np.maximum(maps[kind], 0.9 * np.exp(-d2 / 1.3))
        maps[4] = np.maximum(maps[4], 0.9 * np.exp(-((x - tip[0]) ** 2 + (y - tip[1]) ** 2) / 2.4))
        maps[5] = np.maximum(maps[5], 0.9 * np.exp(-((x - tail[0]) ** 2 + (y - tail[1]) ** 2) / 2.4))
    return maps


def test_crossing_instruments_are_told_apart_and_named():
    found = trace_instruments(maps_of((0, (60, 40), (10, 120), 0), (2, (80, 60), (20, 20), 0)))
    assert sorted(t.kind for t in found) == ["k-wire", "screw"]
    for trace in found:
        tip, tail = ((60, 40), (10, 120)) if trace.kind == "k-wire" else ((80, 60), (20, 20))
        assert np.linalg.norm(trace.path[0] - tip) < 0.7
        assert np.linalg.norm(trace.path[-1] - tail) < 4


def test_a_bent_wire_is_followed():
    (trace,) = trace_instruments(maps_of((0, (100, 30), (20, 100), 12)))
    assert np.linalg.norm(trace.path[-1] - (20, 100)) < 5


def test_a_bead_is_no_instrument_and_both_ends_of_a_line_may_be_its_tip():
    bead = maps_of()
    bead[4, 40, 40] = 0.95
    assert trace_instruments(bead) == []
    both_ends = maps_of((0, (60, 40), (10, 120), 0))
    both_ends[4] = np.maximum(both_ends[4], 0.6 * both_ends[5])
    one, other = trace_instruments(both_ends)
    assert np.linalg.norm(one.path[0] - (60, 40)) < 0.7
    assert np.linalg.norm(other.path[0] - (10, 120)) < 0.7


def test_two_tips_in_one_place_have_a_line_each():
    one, other = trace_instruments(maps_of((0, (60, 40), (10, 120), 0), (3, (61, 41), (120, 100), 0)))
    assert all(np.linalg.norm(t.path[0] - (60, 40)) < 1.5 for t in (one, other))
    ends = sorted((t.path[-1] for t in (one, other)), key=lambda p: p[0])
    assert np.linalg.norm(ends[0] - (10, 120)) < 4 and np.linalg.norm(ends[1] - (120, 100)) < 4


def test_a_tip_on_the_shaft_of_another_has_its_own_line():
    found = trace_instruments(maps_of((0, (110, 64), (10, 64), 0), (2, (60, 64), (90, 12), 0)))
    drill = [t for t in found if np.linalg.norm(t.path[-1] - (90, 12)) < 4]
    assert len(drill) == 1 and np.linalg.norm(drill[0].path[0] - (60, 64)) < 1.5
    assert any(np.linalg.norm(t.path[0] - (110, 64)) < 1 and np.linalg.norm(t.path[-1] - (10, 64)) < 4 for t in found)


def test_a_wire_under_the_tip_of_another_is_followed_from_its_own_tip_although_the_other_s_is_clearer():
    """Regression: the drill's tip, with the wire's far part, was taken for the wire, and the wire's own tip dropped."""
    maps = maps_of((0, (30, 64), (110, 64), 0), (1, (62, 64), (90, 110), 0))
    maps[4, :, :45] *= 0.6
    found = trace_instruments(maps)
    assert any(np.linalg.norm(t.path[0] - (30, 64)) < 1 and np.linalg.norm(t.path[-1] - (110, 64)) < 4 for t in found)
    # What lies on a shaft and runs along it is no instrument of its own.
    maps = maps_of((0, (30, 64), (110, 64), 0))
    maps[4, 64, 70] = 0.5
    found = trace_instruments(maps)
    assert np.linalg.norm(found[0].path[0] - (30, 64)) < 1
    assert [t for t in found if np.linalg.norm(t.path[-1] - (110, 64)) < 4] == found[:1]


@pytest.mark.parametrize("faint", [0.9, 0.75, 0.6])
@pytest.mark.parametrize("tip, tail", [((100, 42), (79, 2)), ((100, 45), (79, 5)), ((100, 48), (75, 5))])
def test_a_faint_needle_that_touches_a_screw_is_followed_to_its_own_end(tip, tail, faint):
    """Regression: its trace turned onto the screw, whose line is the stronger, and was dropped as a part of that."""
    maps, of_needle = maps_of((2, (94, 31), (58, 1), 0)), maps_of((3, tip, tail, 0))
    found = trace_instruments(np.maximum(maps, np.float32(faint) * of_needle))
    (needle,) = [t for t in found if np.linalg.norm(t.path[0] - tip) < 1.5]
    assert np.linalg.norm(needle.path[-1] - tail) < 4


def test_lines_that_cross_at_small_angles_are_told_apart(rng):
    followed = []
    while len(followed) < 120:
        (one_tip, one_tail), (tip, tail) = rng.uniform(8, 120, (2, 2, 2))
        one, other = one_tail - one_tip, tail - tip
        lengths = float(np.linalg.norm(one)), float(np.linalg.norm(other))
        angle = np.rad2deg(np.arccos(np.clip(abs(one @ other) / (lengths[0] * lengths[1]), 0, 1)))
        if min(lengths) < 30 or not 12 < angle < 45:
            continue
        of_one, of_other = np.linalg.solve(np.stack([one, -other], 1), tip - one_tip)
        if not (-0.05 < of_one < 1.05 and -0.05 < of_other < 1.05) or np.linalg.norm(one_tip - tip) < 6:
            continue
        sagitta = rng.choice([0, 0, 5])
        faint = np.float32(rng.uniform(0.6, 0.9)) * maps_of((3, tip, tail, sagitta))
        found = trace_instruments(np.maximum(maps_of((2, one_tip, one_tail, 0)), faint), 0.2)
        followed += [
            any(np.linalg.norm(t.path[0] - a) < 3 and np.linalg.norm(t.path[-1] - b) < 5 for t in found)
            for a, b in ((one_tip, one_tail), (tip, tail))
        ]
    assert np.mean(followed) > 0.93  # 0.7 when the next three pixels decided alone


def test_a_candidate_is_judged_again_only_where_its_tip_moved(camera):
    detector = TwoStageDetector(camera)
    still, moves, none = detection(500, 500), detection(200, 800), detection(800, 200)
    detector.candidates = SimpleNamespace(propose=proposing(still, moves, none))
    asked = []

    def judge(frame, candidates):
        asked.append([d.tip_px.tolist() for d in candidates])
        first = len(asked) == 1
        moved = [replace(d, tip_px=d.tip_px + (9.0 if first and d is not still else 1.0)) for d in candidates]
        return [
            (replace(d, score=(0.01 if d.tip_px[0] > 700 else 0.9) - 0.2 * first), 0.6 - 0.2 * first) for d in moved
        ]

    detector._judge = judge
    found = detector.detect(blank_frame(), 0.3)
    assert asked[1:] == [[[209.0, 809.0]]], "neither what stayed nor what is none"
    assert [d.second.tip_px[0] for d in found] == [501.0, 210.0, 809.0]
    assert [d.first for d in found] == [still, moves, none]
    assert [d.second.score for d in found] == pytest.approx([0.7, 0.9, -0.19])
    assert [d.score_at_first for d in found] == pytest.approx([0.7, 0.7, -0.19])
    assert [d.tip_probability for d in found] == pytest.approx([0.4, 0.6, 0.4])


def test_an_axis_that_was_measured_along_something_else_is_as_the_strip_shows_it_and_is_judged_again(camera):
    """Regression: a screw of which 100 px were in view was found 11 degrees off, and counted as none."""
    detector = TwoStageDetector(camera)
    well, turned, beside = detection(500, 500), detection(200, 800), detection(800, 200)
    detector.candidates = SimpleNamespace(propose=proposing(well, turned, beside))
    answers = np.zeros((3, OUTPUTS), np.float32)
    answers[:, 0], answers[:, 6] = 5.0, -1.0
    answers[0, 7:9] = 1.9 / ACROSS_SCALE_PX, 1.9 / TURN_SCALE_DEG  # no more than it may be wrong itself
    answers[1, 8] = 4.0 / TURN_SCALE_DEG
    answers[2, 7] = -2.5 / ACROSS_SCALE_PX
    asked = []

    def judge(frame, candidates):
        asked.append(len(candidates))
        if len(asked) == 2:
            return [(d, 0.5) for d in candidates]
        return [(detector._corrected(d, a), 0.5) for d, a in zip(candidates, answers, strict=True)]

    detector._judge = judge
    a, b, c = (one.second for one in detector.detect(blank_frame(), 0.3))
    assert asked == [3, 1]  # the turned one
    np.testing.assert_allclose(a.tip_px, well.tip_px)
    np.testing.assert_allclose(a.direction, well.direction)
    assert np.rad2deg(np.arctan2(b.direction[1], b.direction[0])) == pytest.approx(4.0)
    np.testing.assert_allclose(c.tip_px, [800, 197.5], atol=1e-3)  # the axis runs along the columns
    assert b.sigma_deg == c.sigma_deg > a.sigma_deg


def proposing(*detections):
    """A first network that proposes these."""
    return lambda frame, min_score, tiles: [Proposal(d, np.array([d.tip_px, d.tail_px])) for d in detections]


def blank_frame():
    frame = FrameRecord.of_counts(np.zeros((2, 2), np.uint16))
    frame.full_field_mask = np.ones((2, 2), bool)
    return frame


def test_identities_stay_with_their_instruments_when_they_cross():
    tracker, ids = IdentityTracker(1.0), []
    for k in range(30):
        a, b = detection(100 + 10 * k, 200, 0.0), detection(400, 50 + 10 * k, np.pi / 2)
        shown = tracker.update([b, a] if k % 2 else [a, b])
        if shown:
            ids.append(tuple(sorted((d.id, bool(abs(d.direction[0]) > 0.5)) for d in shown)))
    assert len(set(ids)) == 1 and len(ids[0]) == 2


def test_one_is_shown_when_seen_twice_carried_on_for_a_while_and_then_gone():
    tracker = IdentityTracker(1.0)
    assert tracker.update([detection(100, 100)]) == ()
    (first,) = tracker.update([detection(104, 100)])
    assert first.age == 0
    errors, places = [], []
    for k in range(1, 9):
        (d,) = tracker.update([])
        assert d.age == k and d.id == first.id
        errors.append(d.sigma_px)
        places.append(d.tip_px[0])
    assert np.all(np.diff(errors) > 0) and np.all(np.diff(places) > 0)
    assert tracker.update([]) == ()


def test_a_tip_that_is_lost_on_another_s_shaft_leaves_no_ghost_and_its_instrument_keeps_its_name():
    """Regression: found 80 pixels down its own shaft for a frame, a drill flew off for eight frames, beside itself."""
    tracker = IdentityTracker(1.0)
    for k in range(6):
        shown = tracker.update([detection(500 + k, 300)])
    (name,) = {d.id for d in shown}
    lost = replace(detection(424, 301), sigma_px=32.0)
    tips = []
    for detections in ([lost], [], [], [detection(509, 300)], [detection(510, 300)]):
        (d,) = tracker.update(detections)  # one of it, always
        assert d.id == name
        tips.append(float(d.tip_px[0]))
    assert all(400 < x < 440 for x in tips[:3]) and tips[3:] == [509, 510]


def test_of_two_on_one_line_the_one_that_is_gone_is_not_the_other():
    tracker = IdentityTracker(1.0)
    for _ in range(3):
        tracker.update([detection(400, 300, length=150), detection(800, 300, length=150)])
    left, right = (d.id for d in tracker.update([detection(400, 300, length=150), detection(800, 300, length=150)]))
    shown = {d.id: d for d in tracker.update([detection(400, 300, length=150)])}
    assert shown[left].age == 0 and shown[right].age == 1


def test_a_bend_that_is_measured_in_most_frames_does_not_flicker():
    tracker, sagittas = IdentityTracker(1.0), []
    for k in range(40):
        measured = [6.0, 6.4, 0.0, 5.7][k % 4] if k < 20 else 0.0
        sagittas += [d.sagitta_px for d in tracker.update([replace(detection(100, 100), sagitta_px=measured)])]
    assert all(3 < b < 7 for b in sagittas[4:19])
    assert sagittas[-1] == 0 and np.count_nonzero(np.diff(np.array(sagittas) != 0)) == 1


def test_a_bend_of_one_frame_is_not_said():
    tracker = IdentityTracker(1.0)
    bends = [0.0, 0.0, 5.0, 0.0, 0.0]
    assert not any(d.sagitta_px for b in bends for d in tracker.update([replace(detection(100, 100), sagitta_px=b)]))


def test_a_false_alarm_of_one_frame_is_never_shown():
    tracker = IdentityTracker(1.0)
    for k in range(10):
        assert tracker.update([detection(100 * k, 900 - 90 * k, 0.7 * k)] if k % 2 else []) == ()


def test_a_computer_that_is_too_slow_for_it_tries_ever_less_often_and_a_slow_frame_ends_nothing(camera, monkeypatch):
    """Regressions: it was tried again after every thirty frames, and each time made a frame late; one frame of 110 ms
    ended it for twenty seconds."""
    stage = DetectionStage(looks="whole")
    stage.prepare(None, camera)
    clock, took, tried = [0.0], [0.040], []
    monkeypatch.setattr("fluoronav.stream.frame.time.perf_counter", lambda: clock[0])

    def look(frame, plan, tracks):
        tried.append(frame.seq)
        clock[0] += took[0]
        return ()

    monkeypatch.setattr(stage, "look", look)

    def run(first, count):
        tried.clear()
        for seq in range(first, first + count):
            frame = FrameRecord.of_counts(np.zeros((8, 8), np.uint16), seq=seq)
            frame.full_field_mask, frame.status = np.ones((8, 8), bool), "tracking"
            stage.process(frame, Budget(20))
            clock[0] += 0.033
        return len(tried)

    assert run(0, 3000) < 30  # of 3000 frames, each of which it would have made late
    took[0] = 0.005
    assert run(3000, 4000) > 1000  # once it is fast enough it is back, and stays
    for first, once in ((7000, 0.040), (8000, 0.110)):
        took[0] = once
        assert run(first, 1) == 1
        took[0] = 0.005
        assert run(first + 1, 60) > 20  # one slow frame, by something else
        assert run(first + 61, 900) > 600


def test_it_is_left_out_when_its_spread_and_not_its_mean_would_make_frames_late(camera, monkeypatch, rng):
    """Regression: mean and spread said that it would fit, and one frame in twenty was late."""
    stage = DetectionStage(looks="whole")
    stage.prepare(None, camera)
    clock, late, tried = [0.0], [], []
    monkeypatch.setattr("fluoronav.stream.frame.time.perf_counter", lambda: clock[0])

    def look(frame, plan, tracks):
        took_ms = 16.0 if rng.random() < 0.05 else 8.0
        tried.append(frame.seq)
        if took_ms > 14:
            late.append(frame.seq)
        clock[0] += took_ms / 1000
        return ()

    monkeypatch.setattr(stage, "look", look)
    for seq in range(4000):
        frame = FrameRecord.of_counts(np.zeros((8, 8), np.uint16), seq=seq)
        frame.full_field_mask, frame.status = np.ones((8, 8), bool), "tracking"
        stage.process(frame, Budget(14))
        clock[0] += 0.033
    assert len(late) < 60, "more than three frames in two hundred"
    assert len(tried) > 200, "it was given up"


def test_a_drift_of_2_mm_is_noticed_within_30_frames_and_corrected_to_under_07_mm(rng):
    true, R = np.array([1.5, 0.6, -1.2]), np.eye(3)
    drift, noticed = DriftFilter(), None
    for k in range(60):
        drift.predict()
        off = R[:2] @ true if k >= 20 else np.zeros(2)
        drift.update(R, off + rng.normal(0, 0.3, 2), np.eye(2) * 0.3**2)
        if k >= 20 and noticed is None and drift.drift.size_mm > 1.0:
            noticed = k - 20
        if noticed is not None and k > 50:
            assert drift.drift.corrected
            assert np.linalg.norm(R[:2] @ (drift.offset_ct - true)) < 0.7
    assert noticed is not None and noticed <= 30
    # What the view does not show is not made up.
    assert abs(drift.offset_ct[2]) < 0.1


def test_a_drift_that_is_large_or_jumps_about_is_not_corrected(rng):
    for offset in (lambda k: np.array([6.0, 0]), lambda k: 3.0 * rng.standard_normal(2)):
        drift = DriftFilter()
        for k in range(60):
            drift.predict()
            drift.update(np.eye(3), offset(k) + rng.normal(0, 0.2, 2), np.eye(2) * 0.2**2)
        assert not drift.drift.corrected
        assert not drift.offset_ct.any()
