"""Tips and axes at full resolution, on exposures of instruments whose place is known."""

import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

from fluoronav.geometry import Camera
from fluoronav.imaging.xray.detector import DetectorCalibration
from fluoronav.lab.simulation.instrument_scenes import Background, Placed, SceneMaker, visible_axis_px
from fluoronav.lab.simulation.metal import axis_points, drill, k_wire, needle, screw, steel_mm
from fluoronav.stream.detection.measurement import measure
from fluoronav.stream.detection.stage import DetectionStage
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.preprocessing.stage import AttenuationStage

SHAPES = {
    "k-wire": k_wire(2.0, 220, 4),
    "drill": drill(3.2, 220, 40, 7, 3.2),
    "screw": screw(5.5, 40, 2.5, 12, 6, 220),
    "needle": needle(2.1, 0.4, 220),
}


def exposed(camera, metal, angle, photons=80.0, seed=0):
    """An exposure of one instrument before 20 cm of water, and where it is."""
    water = np.full((camera.rows, camera.cols), 20.0, np.float32)
    maker = SceneMaker(camera, [Background(water, np.zeros_like(water))])
    tip = camera.rays([530.0, 480.0]) * 620.0
    direction = np.array([np.cos(angle), np.sin(angle), 0.25])
    direction /= np.linalg.norm(direction)
    side = np.cross(direction, [0, 0, 1.0])
    points = axis_points(metal, tip, direction, side / np.linalg.norm(side))
    seen = np.ones((camera.rows, camera.cols), bool)
    placed = Placed(metal, points, visible_axis_px(points, camera, seen))
    steel = np.zeros_like(water)
    steel_mm(metal, points, camera, steel)
    chain = maker._chain(photons, 0)
    from fluoronav.lab.simulation.xray import transmission

    beam = np.empty(steel.size, np.float32)
    transmission(water.ravel(), np.zeros(steel.size, np.float32), steel.ravel(), beam)
    counts = chain.counts(beam.reshape(steel.shape), seed)
    return counts, placed, float(np.percentile(counts[~chain.field_mask], 10)) if (~chain.field_mask).any() else 0.0


@pytest.mark.parametrize("kind", SHAPES)
def test_the_tip_is_found_to_a_pixel_or_two_and_the_axis_to_a_fraction_of_a_degree(camera, rng, kind):
    tips, turns = [], []
    for k, angle in enumerate(np.linspace(0.2, 6.0, 8)):
        counts, placed, dark = exposed(camera, SHAPES[kind], angle, seed=k)
        rough = placed.axis_px[::8] + rng.normal(0, 2.0, 2)  # as the network says it
        found = measure(counts, rough, dark)
        assert found is not None
        tips.append(np.linalg.norm(found.tip_px - placed.axis_px[0]))
        turns.append(np.rad2deg(np.arccos(min(found.direction @ placed.tip_direction, 1))))
        assert found.sagitta_px == 0
    assert np.median(tips) < 2.0 and np.median(turns) < 0.3


def test_an_inverse_picture_and_eight_bits_make_no_difference(camera):
    counts, placed, dark = exposed(camera, SHAPES["k-wire"], 1.0)
    found = measure(counts, placed.axis_px[::8], dark)
    other = measure(65535 - counts, placed.axis_px[::8], dark, inverse=True)
    np.testing.assert_allclose(found.tip_px, other.tip_px, atol=0.05)
    coarse = measure((counts >> 8).astype(np.uint8), placed.axis_px[::8], dark / 256)
    assert np.linalg.norm(found.tip_px - coarse.tip_px) < 1.5


@pytest.mark.parametrize("photons", [80.0, 20.0])
@pytest.mark.parametrize("angle", [1.0, 2.5, 4.6])
@pytest.mark.parametrize("bend_mm", [6, -8, 12])
def test_a_bent_wire_is_called_bent_by_as_much_as_is_in_view(camera, rng, bend_mm, angle, photons):
    """Regression: a bend was looked for in the first 320 pixels only, where most wires are straight enough."""
    counts, placed, dark = exposed(camera, k_wire(2.0, 220, 4, bend_mm=bend_mm), angle, photons)
    axis = placed.axis_px[np.linalg.norm(placed.axis_px - 511.5, axis=1) < 470]  # inside the aperture
    chord = axis[0] - axis[-1]
    off = (axis - axis[-1]) @ np.array([-chord[1], chord[0]]) / np.linalg.norm(chord)
    true = float(off[np.abs(off).argmax()])
    assert abs(true) > 4
    found = measure(counts, axis[::8] + rng.normal(0, 2.0, 2), dark)
    assert found is not None and abs(found.sagitta_px - true) < 0.25 * abs(true)


@pytest.mark.parametrize("kind", SHAPES)
def test_a_straight_one_is_not_called_bent_although_its_path_is(camera, kind):
    """As where the traced line leaves a shaft for one that crosses it."""
    counts, placed, dark = exposed(camera, SHAPES[kind], 1.0)
    path = placed.axis_px[::8].copy()
    chord = path[0] - path[-1]
    along = np.linspace(0, 1, len(path))
    path += 5 * np.sin(np.pi * along)[:, None] * np.array([-chord[1], chord[0]]) / np.linalg.norm(chord)
    found = measure(counts, path, dark, kind=kind)
    assert found is not None and found.sagitta_px == 0


def test_where_there_is_nothing_nothing_is_measured(camera, rng):
    counts = rng.poisson(4000, (camera.rows, camera.cols)).astype(np.uint16)
    path = np.array([400.0, 300.0]) + np.arange(0, 300, 8)[:, None] * np.array([0.6, 0.8])
    # Nothing can be measured: what comes back is the path's own, with an error that says so.
    rough = measure(counts, path, 0.0)
    assert rough.width_px == 0 and rough.sigma_px >= 8 and rough.sigma_deg > 0.4
    assert np.linalg.norm(rough.tip_px - path[0]) < 1 and rough.direction @ [-0.6, -0.8] > 0.999
    assert measure(counts, path[:3], 0.0) is None  # too short to be anything


def test_a_shadow_that_runs_another_way_is_not_taken_for_the_instruments_own():
    """A faint short instrument beside a plate was measured along the plate, 20 degrees off, and so was lost."""
    rng = np.random.default_rng(3)
    picture = np.full((400, 400), 20000.0)
    rows, cols = np.mgrid[:400, :400]
    turned = np.deg2rad(25)
    along_plate = np.abs((cols - 200) * np.cos(turned) + (rows - 200) * np.sin(turned)) < 9
    picture[along_plate] *= 0.4
    counts = rng.poisson(picture / 100).astype(np.uint16) * 100
    path = np.stack([np.full(16, 200.0), np.arange(130.0, 258.0, 8)], 1)
    found = measure(counts, path, 0.0)
    assert found is not None
    assert np.rad2deg(np.arccos(found.direction @ [0.0, -1.0])) < 3
    assert found.width_px == 0  # and it says that it was not measured


@pytest.mark.parametrize(("diameter", "expected"), [(2.0, 2.0), (4.0, 4.0)])
def test_a_wire_holds_back_as_much_as_a_ray_crosses(diameter, expected):
    camera = Camera(256, 256, np.array([[800.0, 0, 127.5], [0, 800.0, 127.5], [0, 0, 1]]))
    metal = k_wire(diameter, 200, 0.5)
    points = axis_points(metal, np.array([0, 0, 500.0]), np.array([0, -1.0, 0]), np.array([1.0, 0, 0]))
    steel = np.zeros((256, 256), np.float32)
    steel_mm(metal, points, camera, steel)
    assert steel[180].max() == pytest.approx(expected, rel=0.05)  # through the middle, square to the axis
    assert steel[100].max() == 0  # beyond the tip


def test_no_frame_waits_for_a_kernel_to_be_compiled(camera, tmp_path):
    """Regressions: what the wire delivers may not be written to, and Numba compiled anew for the first such frame; the
    first bent wire waited for its own kernels."""

    def compiled():
        names = [n for n in sys.modules if n.startswith("fluoronav.") and not n.startswith("fluoronav.lab.simulation")]
        kernels = [k for n in names for k in vars(sys.modules[n]).values() if isinstance(k, Dispatcher)]
        return {f"{k.py_func.__module__}.{k.py_func.__qualname__}": len(k.signatures) for k in kernels}

    shape = (camera.rows, camera.cols)
    calibration = DetectorCalibration(np.zeros(shape, np.float32), np.ones(shape, np.float32), np.zeros(shape, bool))
    calibration.save(tmp_path / "detector.npz")
    with_calibration = replace(camera, detector=tmp_path / "detector.npz")
    corrected, plain, detection = AttenuationStage(), AttenuationStage(), DetectionStage()
    for stage, seen_by in ((corrected, with_calibration), (plain, camera), (detection, camera)):
        stage.prepare(None, seen_by)
    before = compiled()
    found = []
    for metal in (SHAPES["drill"], k_wire(2.0, 220, 4, 12)):  # what is bent is measured in another way
        counts, _, _ = exposed(camera, metal, 1.0)
        for pixels, bits in ((counts, 16), ((counts >> 8).astype(np.uint8), 8)):
            for attenuation in (plain, corrected):
                received = np.frombuffer(pixels.tobytes(), pixels.dtype).reshape(shape)
                frame = FrameRecord.of_counts(received, bits=bits)
                attenuation.process(frame, Budget(1e6))
                found += detection.find(frame)
    assert len(found) >= 4 and any(d.sagitta_px for d in found)
    assert {name for name, count in compiled().items() if count != before.get(name)} == set()


def test_a_tangent_that_the_path_does_not_have_is_of_another_shadow():
    """Regression: a screw of which 76 px were in view was found 24 degrees off, along what lay beside it."""
    along = np.linspace(0, 120, 121)
    path = np.stack([np.full_like(along, 500.0), 400 + along], axis=1)

    def turned_deg(sagitta):
        counts = np.full((1024, 1024), 9000, np.uint16)
        off = sagitta * (2 * along / 120 - 1) ** 2
        cv2.polylines(counts, [np.rint(path + off[:, None] * [1, 0]).astype(np.int32)], False, 3000, 9)
        found = measure(counts, path, 0.0)
        return np.rad2deg(np.arccos(-found.direction[1]))

    assert turned_deg(0.0) < 0.5 and turned_deg(14.0) < 6


def test_a_path_that_comes_back_to_where_it_began_has_no_chord_and_no_bend():
    """Regression: a loop of cable that was traced all round ended the frame with a division by zero."""
    angle = np.linspace(0, 2 * np.pi, 90)
    path = 500 + 100 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    path[-1] = path[0]
    counts = np.full((1024, 1024), 9000, np.uint16)
    cv2.polylines(counts, [np.rint(path).astype(np.int32)], False, 3000, 7)
    found = measure(counts, path, 0.0)
    assert found is not None and found.sagitta_px == 0.0 and np.isfinite(found.tip_px).all()


@pytest.mark.parametrize("half_px", [9, 14])
@pytest.mark.parametrize("crosses_at", [200, 260])
def test_a_path_that_is_drawn_towards_what_crosses_it_is_measured_along_its_own_line(crosses_at, half_px):
    """Regression: a rod that crosses a wire at 20 degrees bulged its path, and the axis was taken through the bulge."""
    rng = np.random.default_rng(3)
    rows, cols = np.mgrid[:700, :600]
    turned = np.deg2rad(20)
    picture = np.full((700, 600), 20000.0)
    picture[(np.abs(cols - 300) < 4) & (rows > 100)] *= 0.75
    picture[np.abs((cols - 300) * np.cos(turned) - (rows - crosses_at) * np.sin(turned)) < half_px] *= 0.4
    counts = rng.poisson(picture / 250).astype(np.uint16) * 250
    y = np.arange(100.0, 660, 8)
    bulge = np.clip((y - crosses_at) * np.tan(turned), 0, 15) * (np.abs(y - crosses_at) < 90)
    found = measure(counts, np.stack([300 + bulge, y], 1), 0.0)
    assert found is not None
    assert np.rad2deg(np.arccos(min(found.direction @ [0.0, -1.0], 1))) < 0.1
    assert np.linalg.norm(found.tip_px - [300, 100.5]) < 1.5


def test_a_path_that_turns_into_another_instrument_s_is_measured_where_it_is_its_own(camera):
    """Regression: a short stretch that meets a longer line had the axis of neither."""
    counts = np.full((camera.rows, camera.cols), 9000, np.uint16)
    cv2.line(counts, (400, 500), (520, 500), 4000, 9)
    cv2.line(counts, (500, 494), (900, 600), 3000, 15)
    own = np.stack([np.linspace(400, 520, 16), np.full(16, 500.0)], 1)
    others = np.stack([np.linspace(524, 890, 46), 500 + 0.265 * (np.linspace(524, 890, 46) - 524)], 1)
    found = measure(counts, np.concatenate([own, others]), 0.0)
    assert np.degrees(np.arccos(found.direction @ [-1, 0])) < 1
    assert np.linalg.norm(found.tip_px - [396, 500]) < 3
