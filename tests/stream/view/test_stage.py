"""The picture for the display: less noise, no ghosts, contrast where people look, and none of it on the frame path."""

import time

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluoronav.imaging.xray.contrast import DisplayContrast
from fluoronav.imaging.xray.noise import NoiseModel, estimated_noise
from fluoronav.imaging.xray.spatial_filter import LocalWiener
from fluoronav.imaging.xray.temporal_filter import TemporalFilter
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.view.stage import ViewStage

SIDE = 256


def scene(wire=None):
    """Photons: a bright and a dark half with a ramp between, and a wire that lets a third through."""
    y, x = np.mgrid[:SIDE, :SIDE]
    photons = 20 + 130 / (1 + np.exp((x - SIDE / 2) / 12.0))
    if wire is not None:
        photons = np.where(np.abs(y - wire - 0.2 * x) < 3, photons / 3, photons)
    return photons


def exposed(photons, rng, gain=150.0, dark=1200.0, read=300.0):
    counts = gain * rng.poisson(photons) + dark + rng.normal(0, read, photons.shape)
    return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)


@given(st.floats(5, 300), st.floats(0, 3000), st.floats(20, 400), st.floats(20, 60000))
def test_what_was_stabilised_comes_back_and_its_noise_is_one(gain, dark, read, counts):
    model = NoiseModel(gain, dark, read**2)
    x = dark + counts
    assert model.counts(model.stabilised(x)) == pytest.approx(x, rel=1e-6, abs=1e-3)
    if counts < 4 * gain:
        return  # of one or two photons no transform makes a normal error
    sigma = np.sqrt(gain * counts + read**2)
    slope = (model.stabilised(x + 0.01) - model.stabilised(x - 0.01)) / 0.02
    assert sigma * slope == pytest.approx(1, abs=0.15)


def test_the_noise_of_a_detector_is_read_off_two_frames_although_something_moved(rng):
    first, second = exposed(scene(60), rng), exposed(scene(75), rng)
    found = estimated_noise(first, second, 1200.0)
    assert found.gain == pytest.approx(150, rel=0.15)
    assert estimated_noise(first, first, 1200.0) is None  # a picture that was sent twice tells nothing


def filtered(rng, frames, wire=lambda k: None, shift=lambda k: 0):
    temporal = TemporalFilter(SIDE, SIDE)
    for k in range(frames):
        photons = np.roll(scene(wire(k)), shift(k), axis=0)
        out = temporal(exposed(photons, rng), 1200.0)
    return temporal, out


def test_noise_falls_to_less_than_half_where_nothing_moves(rng):
    temporal, out = filtered(rng, 20)
    clean = temporal.model.stabilised(150 * scene() + 1200)
    off = (out - clean)[20:-20, 20:-20]
    assert off.std() < 0.5 and abs(off.mean()) < 0.15  # a frame's own noise is 1


def test_a_wire_that_moves_leaves_no_ghost_and_is_as_dark_as_it_is(rng):
    temporal, out = filtered(rng, 20, wire=lambda k: 40 + 4 * k)
    stabilised = temporal.model.stabilised
    without, now = stabilised(150 * scene() + 1200), stabilised(150 * scene(40 + 4 * 19) + 1200)
    on_wire = np.abs(now - without) > 1.0
    contrast = np.abs(now - without)[on_wire].mean()
    before = (np.abs(stabilised(150 * scene(40 + 4 * 18) + 1200) - without) > 1.0) & ~on_wire
    ghost = (out - without)[before].mean()
    assert abs(ghost) < 0.1 * contrast
    assert (out - without)[on_wire].mean() == pytest.approx((now - without)[on_wire].mean(), rel=0.1)


def test_what_noise_is_left_is_smoothed_and_edges_stay(rng):
    """A step of 12 sigmas in a memory of five frames: flat parts lose two fifths of their noise, the step nothing."""
    clean = np.where(np.arange(SIDE) < SIDE // 2, 40.0, 52.0) * np.ones((SIDE, 1))
    worth = np.full((SIDE, SIDE), 5.0, np.float32)
    noisy = (clean + rng.normal(0, 1 / np.sqrt(5), clean.shape)).astype(np.float32)
    out = LocalWiener(SIDE, SIDE)(noisy, worth)
    flat = np.abs(np.arange(SIDE) - SIDE // 2) > 12
    assert (out - clean)[:, flat].std() < 0.6 * (noisy - clean)[:, flat].std()
    beside = slice(SIDE // 2 - 1, SIDE // 2 + 1)
    step = (out[:, beside][:, 1] - out[:, beside][:, 0]).mean()
    assert step == pytest.approx(12.0, abs=0.6)


def test_the_memory_follows_a_shift_of_the_whole_picture(rng):
    temporal, out = filtered(rng, 20, wire=lambda k: 100, shift=lambda k: 2 * k)
    clean = temporal.model.stabilised(150 * np.roll(scene(100), 38, axis=0) + 1200)
    off = (out - clean)[60:-20, 20:-20]
    assert off.std() < 0.75


def test_the_memory_stays_with_the_patient_when_only_a_wire_moves(rng):
    """Regression: the memory was moved with the wire, which draws the phase correlation's peak to itself.

    And from the first time on in every frame: OpenCV had multiplied the picture that the next is compared with by its
    window, in place.
    """
    y, x = np.mgrid[:SIDE, :SIDE]
    ribs = 60 + 30 * np.sin(x / 9.0) * np.sin(y / 7.0)

    def frame(k):
        return np.where(np.abs(y - 60 - 4 * k) < 6, ribs / 20, ribs)

    temporal = TemporalFilter(SIDE, SIDE)
    shifts = []
    for k in range(20):
        out = temporal(exposed(frame(k), rng), 1200.0)
        shifts.append(temporal.shift_px)
    assert shifts == [(0.0, 0.0)] * 20
    clean = temporal.model.stabilised(150 * frame(19) + 1200)
    still = (y > 10) & (y < 50)
    assert temporal.worth[still].mean() > 4.5 and (out - clean)[still].std() < 0.5


def test_the_display_is_black_outside_uses_its_range_inside_and_has_no_halo():
    step = np.where(np.arange(SIDE) < SIDE // 2, 30.0, 60.0).astype(np.float32) * np.ones((SIDE, 1), np.float32)
    step += np.linspace(0, 6, SIDE, dtype=np.float32)[:, None]
    field_mask = np.zeros((128, 128), bool)
    field_mask[10:118, 10:118] = True
    picture = DisplayContrast(SIDE, SIDE)(step, field_mask)
    assert (picture[:16] == 0).all() and (picture[:, -16:] == 0).all()
    inside = picture[30:-30, 30:-30].astype(int)
    assert np.ptp(inside) > 150
    row = picture[SIDE // 2, 30:-30].astype(int)
    middle = len(row) // 2
    # Beside a strong edge nothing is darker or brighter than farther away from it.
    assert row[: middle - 4].min() > row[10] - 8 and row[middle + 4 :].max() < row[-10] + 8


def test_a_thin_dark_thing_gains_contrast():
    flat = np.full((SIDE, SIDE), 50.0, np.float32)
    flat[:, ::64] = 80  # something that sets the range
    flat[:, 1::64] = 20
    wire = flat.copy()
    wire[100:103] -= 3.0
    show = DisplayContrast(SIDE, SIDE)
    plain, with_wire = show(flat).astype(float).copy(), show(wire).astype(float)
    gained = (plain - with_wire)[101, 20:50].mean() / 255
    assert gained > 1.2 * 3.0 / 60


def test_the_stage_makes_its_picture_beside_the_frame_path_and_counts_what_it_leaves_out(rng, camera):
    stage = ViewStage()
    stage.prepare(None, camera)
    pictures = []
    stage.on_picture = lambda p: pictures.append((p.seq, p.pixels.shape, p.pixels.dtype, int(p.pixels.max())))
    counts = rng.integers(2000, 40000, (camera.rows, camera.cols)).astype(np.uint16)
    for seq in range(6):
        frame = FrameRecord.of_counts(counts, seq=seq, inverse=seq == 3)
        stage.process(frame, Budget(30))
        stage.idle(frame, Budget(1e6))
    stage.wait()
    stage.close()
    assert len(pictures) + stage.left_out == 6 and pictures
    assert all(shape == (camera.rows, camera.cols) and kind == np.uint8 for _, shape, kind, _ in pictures)


def test_a_frame_path_that_is_late_gets_six_pictures_a_second_and_one_in_time_gets_all(rng, camera):
    stage = ViewStage()
    stage.prepare(None, camera)
    made = []
    stage.on_picture = lambda p: made.append(p.seq)
    counts = rng.integers(2000, 40000, (camera.rows, camera.cols)).astype(np.uint16)

    def stream(left_ms, seconds):
        made.clear()
        end, begun, seq = time.monotonic() + seconds, stage.left_out, 0
        while time.monotonic() < end:
            stage.idle(FrameRecord.of_counts(counts, seq=seq), Budget(left_ms))
            stage.wait()
            seq += 1
            time.sleep(0.02)
        return len(made), stage.left_out - begun, seq

    pictures, skipped, frames = stream(1e6, 0.5)
    assert pictures == frames and skipped == 0
    pictures, skipped, frames = stream(0.0, 1.0)
    assert 3 <= pictures <= 8 and pictures + skipped == frames
    stage.close()


@pytest.mark.parametrize("shape", [(256, 256), (300, 420), (512, 300)])
def test_the_picture_is_that_of_the_formula_over_whole_images(rng, shape):
    rows, cols = shape
    x = 100 + 40 * rng.random((rows, cols)).astype(np.float32)
    x[rows // 3 : rows // 2, cols // 4 :] -= 30
    small = tuple(max(round(side * 256 / max(shape)), 8) for side in shape)
    field_mask = np.ones(small, bool)
    field_mask[: small[0] // 8] = False
    picture = DisplayContrast(rows, cols)(x, field_mask).copy()
    narrow = cv2.resize(x, small[::-1], interpolation=cv2.INTER_AREA)
    ranged = narrow[field_mask]
    ranged = ranged[ranged < 0.985 * ranged.max()]
    low, high = np.percentile(ranged, [0.5, 99.7])
    filled = np.where(field_mask, narrow, narrow[field_mask].mean())

    def whole(image):
        return cv2.resize(image.astype(np.float32), (cols, rows), interpolation=cv2.INTER_LINEAR)

    def filtered(radius):
        size = (2 * radius + 1, 2 * radius + 1)
        mean = cv2.blur(filled, size)
        variance = np.maximum(cv2.blur(filled * filled, size) - mean * mean, 0)
        a = variance / (variance + (0.06 * (high - low)) ** 2)
        return whole(cv2.blur(a, size)) * x + whole(cv2.blur((1 - a) * mean, size))

    middle, base = filtered(3), filtered(20)
    level = np.sqrt(np.clip((base - low) / (high - low), 0, 1))
    fine = (x - middle) * np.where(x < middle, 1.35, 1) * 1.8
    detail = (1.3 * (middle - base) + fine) / (high - low)
    wanted = 255 * np.clip(level + np.minimum(0.5 / np.maximum(level, 1e-6), 2.2) * detail, 0, 1)
    inside = whole(field_mask) >= 0.5
    assert np.abs(picture - np.where(inside, wanted, 0)).max() < 1.5
    assert picture.max() > 200
