"""Counts to attenuation."""

import cv2
import numpy as np
import pytest

from fluoronav.geometry import Camera
from fluoronav.imaging.xray.anatomy_mask import find_anatomy
from fluoronav.imaging.xray.field_edge import find_full_field_mask
from fluoronav.imaging.xray.field_of_view import dark_level, find_field_of_view
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.preprocessing.stage import AttenuationStage


def processed(counts, bits=16, inverse=False, i0=None):
    rows, cols = counts.shape
    stage = AttenuationStage()
    stage.prepare(None, Camera(rows, cols, np.array([[3000.0, 0, cols / 2], [0, 3000, rows / 2], [0, 0, 1]])))
    frame = FrameRecord.of_counts(counts, bits=bits, inverse=inverse, open_beam=i0)
    stage.process(frame, Budget(30))
    return frame


def beam(size=512, level=40000, dark=1000):
    """A slab that lets half the beam through, inside a round aperture on a dark level."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    counts = np.full((size, size), float(level))
    counts[y > 0] /= 2
    counts[np.hypot(x, y) > 0.47] = 0
    return (counts + dark).astype(np.uint16)


def test_half_the_beam_is_an_attenuation_of_log_two():
    frame = processed(beam())
    upper, lower = frame.pyramid[256][100, 128], frame.pyramid[256][156, 128]
    assert lower - upper == pytest.approx(np.log(2), abs=1e-3)


def test_an_inverted_frame_gives_the_same_attenuation():
    counts = beam()
    straight, inverse = processed(counts), processed(65535 - counts, inverse=True)
    np.testing.assert_allclose(straight.pyramid[128], inverse.pyramid[128], atol=1e-3)


def test_eight_bits_keep_the_fractions_of_their_averages(rng):
    image = rng.integers(100, 103, (512, 512)).astype(np.uint8)
    frame = processed(image, bits=8)
    assert len(np.unique(frame.pyramid[256])) > 4


def test_levels_have_the_sizes_of_their_names_for_any_frame():
    frame = processed(np.full((880, 1760), 500, np.uint16))
    shapes = {512: (256, 512), 256: (128, 256), 128: (64, 128), 64: (32, 64)}
    assert {k: v.shape for k, v in frame.pyramid.items()} == shapes


@pytest.mark.parametrize("size", [200, 256, 300, 512, 1024])
def test_each_level_is_of_the_mean_of_the_counts_there_in_frames_of_any_size(rng, size):
    counts = rng.integers(2000, 60000, (size, size)).astype(np.uint16)
    frame = processed(counts)
    for side in (side for side in (256, 128, 64) if side <= size):
        mean = cv2.resize(counts.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
        np.testing.assert_allclose(frame.pyramid[side], np.log(65535) - np.log(mean), atol=3e-4)


def test_black_and_saturated_frames_stay_finite():
    for value in (0, 65535):
        frame = processed(np.full((512, 512), value, np.uint16))
        assert all(np.isfinite(level).all() for level in frame.pyramid.values())


def turned(turn_deg):
    """Places in a 128 image, of its width from its middle: column, row, and both turned."""
    y, x = np.mgrid[:128, :128] / 128 - 0.5
    c, s = np.cos(np.deg2rad(turn_deg)), np.sin(np.deg2rad(turn_deg))
    return x, y, c * x + s * y, c * y - s * x


def test_the_aperture_is_seen_and_what_is_dark_inside_it_stays():
    y, x = np.mgrid[:128, :128] / 128 - 0.5
    counts = np.where(np.hypot(x, y) < 0.45, 1000.0, 20.0)
    counts[60:68, 60:68] = 60  # metal
    field_mask = find_field_of_view(counts.astype(np.float32)).field_mask
    assert field_mask[64, 64] and field_mask[64, 20] and not field_mask[2, 2] and not field_mask[64, 1]


def test_a_dark_limb_that_crosses_the_field_from_rim_to_rim_is_seen(rng):
    y, x = np.mgrid[:128, :128] / 128 - 0.5
    inside = np.hypot(x, y) < 0.45
    counts = np.where(inside, 4000.0, 20.0) + rng.normal(0, 5, inside.shape)
    counts[inside & (np.abs(x + 0.3 * y) < 0.1)] = 100  # as dark beside the open beam as what lies behind a blade
    field_mask = find_field_of_view(counts.astype(np.float32)).field_mask
    assert field_mask[inside & (np.hypot(x, y) < 0.4)].all()
    assert not field_mask[np.hypot(x, y) > 0.47].any()


def test_a_dark_spine_at_the_image_s_border_is_seen_where_there_is_no_aperture(rng):
    y, x = np.mgrid[:128, :128] / 128 - 0.5
    spine = np.exp(-((x - 0.1 * np.sin(9 * y)) ** 2) / 0.01)
    counts = 4000 * np.exp(-3.0 * spine * (y + 0.6)) + 300 + rng.normal(0, 5, x.shape)
    assert find_field_of_view(counts.astype(np.float32)).field_mask.all()


@pytest.mark.parametrize("turn_deg", [0, 25, 90])
def test_blades_that_leak_in_the_open_beam_bound_the_field_and_what_crosses_the_rim_is_seen(rng, turn_deg):
    x, y, across, along = turned(turn_deg)
    inside = (np.hypot(x, y) < 0.49) & (np.abs(across) < 0.36)
    beam = np.where(along > 0, 30000.0, 3000.0)
    beam[(np.abs(along) < 0.03) & (across > 0.1)] = 500  # a driver that comes in over a blade
    beam *= np.where(np.abs(across) < 0.36, 1, 0.02) * (np.hypot(x, y) < 0.49)
    field_mask = find_field_of_view((beam + 900 + rng.normal(0, 4, x.shape)).astype(np.float32)).field_mask
    deep = (np.hypot(x, y) < 0.46) & (np.abs(across) < 0.33)
    assert (field_mask & ~inside).mean() < 0.002
    assert field_mask[deep].all()


@pytest.mark.parametrize("turn_deg", [40, 130, 215])
def test_the_straight_edge_of_a_thick_instrument_at_the_rim_is_no_blade(rng, turn_deg):
    """Regression: all beyond it was taken for not seen, the instrument's own tip with it, for half a second."""
    x, y, outwards, along = turned(turn_deg)
    inside = np.hypot(x, y) < 0.49
    beam = np.where(inside, 9000.0, 0.0)
    beam[inside & (outwards > 0.36) & (outwards < 0.47) & (along < 0.08)] = 900  # a driver with its screw
    field_mask = find_field_of_view((beam + 900 + rng.normal(0, 4, x.shape)).astype(np.float32)).field_mask
    assert field_mask[(np.hypot(x, y) < 0.46)].all()
    assert not (field_mask & ~inside).any()


def test_scatter_behind_a_blade_beside_a_bright_lung_does_not_pass_for_the_field(rng):
    """Regression: an eighth of the lung's signal, but half of the median, was taken for something seen."""
    y, x = np.mgrid[:128, :128] / 128 - 0.5
    inside = (np.hypot(x, y) < 0.49) & (np.abs(x) < 0.36)
    beam = np.where(np.abs(x) < 0.2, 3500.0, 12000.0)
    beam = np.where(np.abs(x) < 0.36, beam, 1500.0) * (np.hypot(x, y) < 0.49)
    field_mask = find_field_of_view((beam + 900 + rng.normal(0, 4, x.shape)).astype(np.float32)).field_mask
    assert (field_mask & ~inside).mean() < 0.002
    assert field_mask[(np.hypot(x, y) < 0.46) & (np.abs(x) < 0.33)].all()


def test_of_a_field_in_a_corner_nothing_is_read_that_nobody_wrote(monkeypatch):
    """Regression: rays that end far outside the image were what memory held, and numpy warned of it."""
    y, x = np.mgrid[:128, :128]
    counts = np.where(np.hypot(x - 24, y - 24) < 20, 9000, 300).astype(np.float32)
    warp, held = cv2.warpPolar, np.float32(3e38)

    def on_used_memory(image, size, *of):
        used = np.where(np.arange(size[0] * size[1]).reshape(size[::-1]) // 7 % 2, held, -held)
        return warp(image, size, *of, dst=used)

    monkeypatch.setattr("cv2.warpPolar", on_used_memory)
    with np.errstate(all="raise"):
        field_mask = find_field_of_view(counts).field_mask
    assert field_mask[24, 24] and not field_mask[80, 80] and field_mask.mean() < 0.1


def test_real_frames_keep_their_round_field(shared_data):
    import cv2

    image = cv2.imread(str(shared_data / "knee" / "frame0138_cam1.tif"), cv2.IMREAD_UNCHANGED)
    image = image if image.ndim == 2 else image[..., 0]
    field_mask = processed(image, bits=8).field_mask
    assert 0.4 < field_mask.mean() < 0.95
    assert not field_mask[:4, :4].any()


def test_the_first_frame_does_not_wait_for_what_looking_for_its_field_needs(monkeypatch):
    """Regression: 19 ms of the first frame of a start, on a computer that takes 5; a rim has to be there to fit."""
    found = []
    monkeypatch.setattr(
        "fluoronav.stream.preprocessing.stage.find_field_of_view",
        lambda counts: found.append(find_field_of_view(counts)) or found[-1],
    )
    AttenuationStage().prepare(None, Camera(512, 512, np.array([[3000.0, 0, 256], [0, 3000, 256], [0, 0, 1]])))
    (field,) = found
    assert 0.4 < field.field_mask.mean() < 0.7 and not field.field_mask[0, 0] and field.edges


def test_blades_that_close_are_seen_between_frames_and_no_frame_waits_for_that(monkeypatch):
    """Regression: looking for the aperture took 6 ms of every fifteenth frame."""
    stage, looked = AttenuationStage(), []
    stage.prepare(None, Camera(512, 512, np.array([[3000.0, 0, 256], [0, 3000, 256], [0, 0, 1]])))
    monkeypatch.setattr(
        "fluoronav.stream.preprocessing.stage.find_field_of_view",
        lambda counts: looked.append(0) or find_field_of_view(counts),
    )
    opened, closed = beam(), beam()
    closed[:, :150] = 1000
    for seq in range(40):
        frame = FrameRecord.of_counts(opened if seq < 5 else closed, seq=seq)
        before = len(looked)
        stage.process(frame, Budget(30))
        assert len(looked) == before or seq == 0
        assert frame.field_mask[64, 64]
        if seq in (0, 39):
            assert frame.field_mask[64, 30] == (seq == 0)
        stage.idle(frame, Budget(1e6))
    assert 2 <= len(looked) <= 5


def test_while_a_pose_is_searched_for_the_field_is_looked_for_less_often(monkeypatch):
    """Regression: the search has both cores, and looking made a frame late twice a second."""
    stage, looked = AttenuationStage(), []
    stage.prepare(None, Camera(512, 512, np.array([[3000.0, 0, 256], [0, 3000, 256], [0, 0, 1]])))
    monkeypatch.setattr(
        "fluoronav.stream.preprocessing.stage.find_field_of_view",
        lambda counts: looked.append(seq) or find_field_of_view(counts),
    )
    for seq in range(200):
        frame = FrameRecord.of_counts(beam(), seq=seq)
        stage.process(frame, Budget(30))
        frame.status = "searching" if seq < 120 else "tracking"
        stage.idle(frame, Budget(1e6))
    assert [seq for seq in looked if seq < 120] == [0, 59, 119] and len(looked) >= 7


def test_the_field_is_looked_for_after_a_frame_that_leaves_time_for_it(monkeypatch):
    """Regression: on a slower computer it took 5 to 7 ms that the next frame then waited."""
    stage, looked, fitted, seq = AttenuationStage(), [], [], 0
    stage.prepare(None, Camera(512, 512, np.array([[3000.0, 0, 256], [0, 3000, 256], [0, 0, 1]])))
    where = "fluoronav.stream.preprocessing.stage."
    monkeypatch.setattr(where + "find_field_of_view", lambda counts: looked.append(seq) or find_field_of_view(counts))
    monkeypatch.setattr(where + "find_full_field_mask", lambda *of: fitted.append(seq) or find_full_field_mask(*of))
    # Time after one frame of eleven, later after none.
    for seq in range(150):
        frame = FrameRecord.of_counts(beam(), seq=seq)
        stage.process(frame, Budget(30))
        stage.idle(frame, Budget(1e6 if seq % 11 == 10 and seq < 80 else 0.0))
    # Fifteen frames after the last look at the earliest, thirty at the latest; its rim a frame later at the earliest.
    assert looked[:4] == [0, 21, 43, 65]
    assert fitted[:4] == [0, 32, 54, 76]
    later = [seq for seq in looked if seq > 80]
    assert later and max(np.diff([65, *later])) == 30
    rims = [seq for seq in fitted if seq > 80]
    assert len(rims) >= len(later) - 1 and all(0 < rim - max(k for k in looked if k < rim) <= 16 for rim in rims)


@pytest.mark.parametrize("turn_deg", [0, 20, 50])
def test_blades_beside_a_limb_and_an_instrument_are_found(rng, turn_deg):
    """Regression: their edges hold more points than the blades', which were not come to before the search gave up."""
    x, y, across, along = turned(turn_deg)
    inside = (np.hypot(x, y) < 0.49) & (np.abs(across) < 0.36)
    beam = np.full(x.shape, 24000.0)
    bones = [(21, -0.15), (25, -0.08), (28, 0.0), (31, 0.08), (27, 0.15)]
    for turn, offset, half_width, left in [(25, 0.0, 0.22, 9000), *((*bone, 0.014, 1300) for bone in bones)]:
        u = np.cos(np.deg2rad(turn)) * along - np.sin(np.deg2rad(turn)) * across - offset
        beam[np.abs(u) < half_width] = left
    beam *= np.where(np.abs(across) < 0.36, 1, 0.026) * (np.hypot(x, y) < 0.49)
    field_mask = find_field_of_view((beam + 900 + rng.normal(0, 4, x.shape)).astype(np.float32)).field_mask
    assert (field_mask & ~inside).mean() < 0.01
    assert field_mask[(np.hypot(x, y) < 0.46) & (np.abs(across) < 0.33)].mean() > 0.97


def test_the_diaphragm_s_dome_below_bright_lungs_is_no_round_aperture(rng):
    """Regression: of a field that was found where the median is dim; its circle was twice as wide as the image."""
    y, x = np.mgrid[:128, :128].astype(float)
    lung = np.clip((252 - np.hypot(x + 16, y + 180)) / 6 + 0.5, 0, 1)
    beam = 2600.0 * (30000.0 / 2600.0) ** lung * np.where(np.abs(x - 63.5) < 12, 0.5, 1.0)
    beam *= np.where(np.abs(x - 63.5) < 60.5, 1, 0.02)
    field_mask = find_field_of_view((beam + 900 + rng.normal(0, 4, x.shape)).astype(np.float32)).field_mask
    assert field_mask[:, 8:-8].all() and not field_mask[:, :2].any()


def test_blades_that_leak_do_not_raise_the_dark_level_above_the_patient(rng):
    """Regression: with 1 % of leak the level came out above up to two thirds of the patient's pixels."""
    y, x = np.mgrid[:128, :128] / 128 - 0.5
    inside = np.hypot(x, y) < 0.45
    patient = 900 + 6000 * np.exp(-3.0 * np.exp(-(x**2) / 0.01))
    counts = np.where(inside, patient, 900 + 2500) + rng.normal(0, 5, x.shape)
    field_mask = inside & (np.hypot(x, y) < 0.43)
    dark = dark_level(counts.astype(np.float32), field_mask)
    assert 0 < dark < counts[field_mask].min()


@pytest.mark.parametrize(("depth", "scatter"), [(1.2, 0.25), (1.2, 0.35), (2.4, 0.25)])
def test_blades_that_leak_with_scatter_behind_them_still_bound_the_field(rng, depth, scatter):
    """Regression: behind the spine the signal dropped by half alone, no edge was found, and all was taken for seen."""
    y, x = np.mgrid[:128, :128].astype(float)
    inside = (x > 24) & (x < 106) & (y > 8) & (y < 102)
    spine = np.exp(-((x - 60 - 0.1 * y) ** 2) / 200)
    beam = np.where(x > 75 + 0.25 * y, 15000.0, 4000.0) * np.exp(-depth * spine) * np.where(inside, 1, 0.02)
    signal = cv2.blur(beam, (3, 3)) + scatter * cv2.GaussianBlur(beam, (0, 0), 19)
    field_mask = find_field_of_view((signal + 180 + rng.normal(0, 8, x.shape)).astype(np.float32)).field_mask
    assert not (field_mask & ~inside).any()
    assert field_mask[inside].mean() > 0.9


def test_a_strip_along_the_border_that_no_edge_explains_is_not_seen(rng):
    """Regression: a strip of less than nine pixels of 128 passed for an instrument that reaches the edge."""
    y, x = np.mgrid[:128, :128] / 128 - 0.5
    counts = np.where(np.hypot(x, y) < 0.49, 3000.0 + 2000 * x, 0.0)
    counts[-26:-14] = 0
    counts[-14:] = 0
    counts[:, :6] = np.where(rng.random((128, 6)) < 0.9, 0.0, 8.0)
    field_mask = find_field_of_view((counts + 900 + rng.normal(0, 4, x.shape)).astype(np.float32)).field_mask
    assert not field_mask[:, :5].any()
    assert field_mask[30:90, 20:100].all()


def test_scatter_beside_the_field_is_no_dark_level(rng):
    """Regression: beside a head it was subtracted from the picture, and right poses moved by 1.8 mm."""
    y, x = np.mgrid[:128, :128] / 128 - 0.5
    head = 0.9 * np.exp(-3 * np.clip(1 - (np.hypot(x, y) / 0.35) ** 2, 0, 1))
    through = np.clip((0.4 - np.abs(x)) * 128 + 0.5, 0, 1)
    counts = (300 + rng.poisson(8000 * (through * head + 0.08))).astype(np.float32)
    field_mask = find_field_of_view(counts).field_mask
    assert not field_mask[np.abs(x) > 0.41].any()
    assert dark_level(counts, field_mask) < 0.6 * counts[field_mask].min()


def test_a_signal_without_a_logarithm_is_not_compared(rng):
    """A plate of lead, too large for a screw: what is left of the signal is noise."""
    y, x = np.mgrid[:128, :128] / 128 - 0.5
    counts = np.where(np.hypot(x, y) < 0.45, 4000.0, 0.0)
    counts[45:75, 55:95] = 0
    counts = (counts + 900 + rng.normal(0, 4, x.shape)).astype(np.float32)
    field = find_field_of_view(counts)
    anatomy = find_anatomy(counts, dark_level(counts, field.field_mask), field.field_mask, field.median_signal)
    assert field.field_mask[50:70, 60:90].all()
    assert anatomy[50:70, 60:90].mean() < 0.02
    assert anatomy[52:68, 20:50].all()


def test_screws_and_rods_are_not_compared_and_bones_are(rng):
    y, x = np.mgrid[:128, :128] / 128 - 0.5
    bones = 0.5 * np.exp(-(x**2) / 0.01) * (1 + 0.3 * np.sin(40 * y))  # a spine with its discs
    metal = np.zeros_like(x)
    for column in (54, 74):
        metal[20:110, column - 1 : column + 2] = 2.0
        for row in (30, 64, 98):
            metal[row - 3 : row + 4, column - 3 : column + 4] = 1.5
    inside = np.hypot(x, y) < 0.49
    counts = 900 + 20000 * np.exp(-1.0 - bones - metal) * inside + rng.normal(0, 20, x.shape)
    field = find_field_of_view(counts.astype(np.float32))
    args = dark_level(counts.astype(np.float32), field.field_mask), field.field_mask, field.median_signal
    anatomy = find_anatomy(counts.astype(np.float32), *args)
    assert not anatomy[metal > 0].any()
    far = cv2.dilate(metal, np.ones((9, 9))) == 0
    assert anatomy[far & (np.hypot(x, y) < 0.46)].all()


def test_where_all_would_be_metal_nothing_is_masked(rng):
    y, x = np.mgrid[:128, :128]
    counts = np.where((x // 4 + y // 4) % 2 == 0, 8000.0, 2000.0) + rng.normal(0, 20, x.shape)
    everything = np.ones(x.shape, bool)
    assert find_anatomy(counts.astype(np.float32), 0.0, everything, 5000.0).all()
