"""Looks in shares: nothing new is missed for long, what is known is followed, and what is gone ends."""

from dataclasses import replace

import numpy as np
import pytest
from tests.stream.detection.detections import detection

from fluoronav.geometry import Camera
from fluoronav.imaging.inference import InferenceSettings
from fluoronav.lab.bench.moving import moving
from fluoronav.lab.simulation.instrument_scenes import Background, SceneMaker
from fluoronav.lab.simulation.metal import axis_points, k_wire, steel_mm
from fluoronav.lab.simulation.xray import transmission
from fluoronav.stream.detection.attention import moved_path, within_field
from fluoronav.stream.detection.pace import Pace
from fluoronav.stream.detection.stage import DetectionStage
from fluoronav.stream.detection.two_stage import Candidate
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.preprocessing.stage import AttenuationStage

FRAME_NS = 33_333_333  # 30 a second
WIRE = k_wire(2.4, 220, 4)


class Stream:
    """Exposures of a wire before 20 cm of water, through the stage, 30 a second."""

    def __init__(self, camera, looks="shares"):
        self.camera = camera
        self.water = np.full((camera.rows, camera.cols), 20.0, np.float32)
        self.chain = SceneMaker(camera, [Background(self.water, np.zeros_like(self.water))])._chain(80.0, 0)
        self.attenuation, self.stage = AttenuationStage(), DetectionStage(InferenceSettings(), looks)
        self.attenuation.prepare(None, camera)
        self.stage.prepare(None, camera)
        self.seq = 0

    def frame(self, tip_px=None, angle=0.0, budget_ms=1e6):
        steel = np.zeros_like(self.water)
        if tip_px is not None:
            direction = np.array([np.cos(angle), np.sin(angle), 0.0])
            points = axis_points(
                k_wire(2.4, 220, 4), self.camera.rays(tip_px) * 620.0, direction, np.array([0, 0, 1.0])
            )
            steel_mm(k_wire(2.4, 220, 4), points, self.camera, steel)
        beam = np.empty(steel.size, np.float32)
        transmission(self.water.ravel(), np.zeros(steel.size, np.float32), steel.ravel(), beam)
        self.seq += 1
        counts = self.chain.counts(beam.reshape(steel.shape), self.seq)
        frame = FrameRecord.of_counts(counts, seq=self.seq, t_acq=self.seq * FRAME_NS)
        self.attenuation.process(frame, Budget(1e6))
        self.stage.process(frame, Budget(budget_ms))
        return frame


@pytest.fixture(scope="module")
def stream(camera):
    return Stream(camera)


@pytest.mark.parametrize("tip_px", [(330, 330), (700, 340), (340, 690), (690, 700), (512, 512), (600, 400)])
def test_a_new_instrument_is_shown_within_200_ms_wherever_it_enters(stream, tip_px):
    for _ in range(12):  # an earlier one ends
        frame = stream.frame()
    assert frame.detections == () and frame.look.kind == "part" and len(frame.look.areas_px) == 1
    angle = np.arctan2(tip_px[1] - 500, tip_px[0] - 500)  # it points inwards
    entered = stream.seq
    while not frame.detections and stream.seq < entered + 6:
        frame = stream.frame(tip_px, angle)
    (found,) = frame.detections
    assert (stream.seq - entered) * FRAME_NS < 200e6
    assert np.linalg.norm(found.tip_px - tip_px) < 4 and found.age == 0


def test_a_known_instrument_is_measured_in_every_frame_whatever_tile_is_looked_at(stream):
    off_px, looked = [], set()
    for k in range(24):
        tip = (420.0 + 5 * k, 520.0 - 3 * k)
        frame = stream.frame(tip, 0.4 + 0.004 * k)
        looked |= set(frame.look.areas_px)
        if k > 9:  # the wire of the test before has ended
            (found,) = frame.detections
            assert found.age == 0
            off_px.append(float(np.linalg.norm(found.tip_px - tip)))
    assert np.median(off_px) < 1.5 and max(off_px) < 5 and len(looked) == 4


def test_what_is_known_is_measured_where_there_is_time_for_nothing_else(stream, monkeypatch):
    for _ in range(12):
        stream.frame((500, 500), 0.5)
    for kind in ("whole", "part"):
        monkeypatch.setitem(stream.stage._paces, kind, Pace(1e9))
    for k in range(10):
        frame = stream.frame((500 + 4 * k, 500), 0.5)
        (found,) = frame.detections
        assert frame.look.kind == "known" and frame.look.reason == "time" and frame.look.areas_px == ()
        assert found.age == 0 and np.linalg.norm(found.tip_px - (500 + 4 * k, 500)) < 4


def test_an_instrument_that_is_gone_leaves_no_ghost(stream):
    for _ in range(12):
        frame = stream.frame((560, 470), 2.0)
    assert len(frame.detections) == 1
    ages = []
    for _ in range(12):
        ages += [d.age for d in stream.frame().detections]
    assert ages == list(range(1, len(ages) + 1)) and len(ages) <= 8, "carried on with its age, and then ended"


def test_a_jump_is_followed_as_a_new_instrument_is_found(stream):
    for _ in range(12):
        stream.frame((400, 400), 3.6)
    shown = [stream.frame((650, 640), 0.6).detections for _ in range(12)]
    fresh = [[d for d in found if d.age == 0 and np.linalg.norm(d.tip_px - (650, 640)) < 4] for found in shown]
    assert all(fresh[5:])


def test_moving_instruments_are_shown_as_in_looks_at_whole_frames(camera):
    flat = np.full((512, 512), 15.0, np.float32)
    f = moving(camera, [Background(flat, np.zeros_like(flat))], 6, 14, 80.0, 11)
    assert f["whole"]["frames"] == f["frames"] == 72
    assert f["shown"] >= f["whole"]["shown"] - 0.06 and f["whole"]["shown"] > 0.8
    assert f["tip_px"]["p95"] < f["whole"]["tip_px"]["p95"] + 2
    assert f["false_per_frame"] <= f["whole"]["false_per_frame"] + 0.05


@pytest.mark.parametrize(("rows", "cols"), [(600, 1000), (1000, 437), (96, 64), (333, 333)])
def test_frames_of_any_shape_are_looked_at_where_there_is_a_picture(rows, cols):
    side = max(rows, cols)
    camera = Camera(rows, cols, np.array([[4.0 * side, 0, cols / 2], [0, 4.0 * side, rows / 2], [0, 0, 1]]))
    stage, attenuation = DetectionStage(looks="shares"), AttenuationStage()
    stage.prepare(None, camera)
    attenuation.prepare(None, camera)
    counts = np.random.default_rng(0).integers(8000, 9000, (rows, cols)).astype(np.uint16)
    areas = set()
    for k in range(10):
        frame = FrameRecord.of_counts(counts, seq=k, t_acq=(k + 1) * FRAME_NS)
        attenuation.process(frame, Budget(1e6))
        stage.process(frame, Budget(1e6))
        areas |= set(frame.look.areas_px)
        assert frame.look.kind in ("whole", "part")
    assert areas and all(left < cols and top < rows for left, top, _, _ in areas)


@pytest.mark.parametrize("radius_px", [0, 20])
def test_a_field_smaller_than_a_tile_is_looked_at_by_the_tiles_that_show_it(stream, radius_px):
    y, x = np.mgrid[:512, :512]
    mask = (x - 128) ** 2 + (y - 128) ** 2 < radius_px**2
    stage = DetectionStage(looks="shares")
    stage.prepare(None, stream.camera)
    stage.detector = stream.stage.detector
    kinds = []
    for k in range(8):
        frame = stream.frame()
        frame = replace(frame, full_field_mask=mask, t_acq=(k + 1) * FRAME_NS, detections=(), look=None)
        stage.process(frame, Budget(1e6))
        kinds.append((frame.look.kind, frame.look.areas_px))
        assert frame.detections == ()
    inside = ("part", ((0.0, 0.0, 640.0, 640.0),))
    assert kinds[1:] == ([inside] * 7 if radius_px else [("part", ())] * 7)


@pytest.mark.parametrize(
    ("speed", "budget_ms", "kinds"),
    [
        (1.0, 24, {"part"}),  # an AVX2 computer: a tile and what is known take 6 ms, all of it 16
        (0.5, 24, {"part"}),  # at half speed
        (0.25, 24, {"known", "none"}),  # 24 ms would make the frame late
    ],
)
def test_a_slow_computer_looks_at_less_and_no_frame_is_late_for_it(camera, monkeypatch, speed, budget_ms, kinds):
    stage = DetectionStage(looks="shares")
    stage.prepare(None, camera)
    clock, late, seen = [0.0], 0, []
    monkeypatch.setattr("fluoronav.stream.frame.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr(stage._attention, "_memory_of", lambda track: None)

    def look(frame, plan, tracks):
        clock[0] += {"whole": 16, "part": 6, "known": 2}[plan.kind] / speed / 1000
        stage._attention._schedule.looked(stage._attention._area_of(plan))
        return ()

    monkeypatch.setattr(stage, "look", look)
    for seq in range(600):
        frame = FrameRecord.of_counts(np.zeros((1024, 1024), np.uint16), seq=seq, t_acq=(seq + 1) * FRAME_NS)
        frame.full_field_mask, frame.status = np.ones((512, 512), bool), "tracking"
        start = clock[0]
        stage.process(frame, Budget(budget_ms))
        late += clock[0] - start > budget_ms / 1000
        seen.append(frame.look.kind)
        clock[0] = start + 0.033
    assert late <= 12, "one in fifty, while it learns"
    settled = seen[200:]
    assert np.mean([kind in kinds for kind in settled]) >= 0.95


def test_a_line_moves_with_its_instrument_and_begins_at_its_tip():
    here = detection(500, 500, 0.0, length=200)
    path = np.stack([500 + 6 - 8.0 * np.arange(26), np.full(26, 500.0)], 1)  # it began 6 px ahead
    candidate = Candidate(here, here, 0.9, 0.9, path_px=path)
    there = detection(520, 530, np.deg2rad(30))
    moved = moved_path(candidate, there)
    np.testing.assert_allclose(moved[0], there.tip_px)
    behind = (moved[1:] - there.tip_px) @ there.direction
    assert (behind < 0).all() and (np.diff(behind) < 0).all()
    across = (moved - there.tip_px) @ [-there.direction[1], there.direction[0]]
    np.testing.assert_allclose(across, 0, atol=1e-9)


def test_a_line_ends_at_the_edge_of_the_field_and_grows_to_it_where_its_instrument_leaves_it():
    mask = np.zeros((512, 512), bool)
    mask[:, 100:400] = True  # columns 200 to 799 of the frame
    path = np.stack([700 - 8.0 * np.arange(60), np.full(60, 300.0)], 1)  # to column 228
    assert within_field(path, mask, (1024, 1024), grows=False)[-1, 0] == 228
    assert 200 <= within_field(path, mask, (1024, 1024), grows=True)[-1, 0] < 208
    assert 200 <= within_field(path - [100, 0], mask, (1024, 1024), grows=False)[-1, 0] < 208
    out = within_field(path + [0, 900], mask, (1024, 1024), grows=True)
    assert len(out) == 1, "outside the image there is none"
