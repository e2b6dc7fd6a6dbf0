"""The simulated C-arm: its physics, its motion, and the truth beside the frames."""

from itertools import pairwise

import numpy as np
import pytest

from fluoronav.case.tool import Tool
from fluoronav.cli import main
from fluoronav.geometry import is_rigid, rotation_distance_deg
from fluoronav.lab.simulation.flat_panel import FlatPanel, ImageChain
from fluoronav.lab.simulation.metal import axis_points, steel_mm
from fluoronav.lab.simulation.scenario import Scenario
from fluoronav.lab.simulation.sequence import tool_metal
from fluoronav.lab.simulation.xray import DETECTED_SPECTRUM, transmission
from fluoronav.paths import embedded_case


def through(water=0.0, bone=0.0, steel=0.0):
    out = np.empty(1, np.float32)
    transmission(*(np.array([x], np.float32) for x in (water, bone, steel)), out)
    return float(out[0])


def test_the_spectrum_sums_to_one_and_nothing_lets_everything_through():
    assert DETECTED_SPECTRUM.sum() == pytest.approx(1)
    assert through() == pytest.approx(1)


def test_the_beam_hardens():
    first, second = -np.log(through(10)), -np.log(through(20)) + np.log(through(10))
    assert second < 0.97 * first
    assert through(bone=2) < through(water=2) and through(steel=1) < 0.3


def test_a_wire_across_a_ray_is_as_thick_as_its_diameter_and_its_point_as_thin_as_a_cone(camera):
    metal = tool_metal(Tool(id="wire", kind="k-wire", diameter_mm=2.0, length_mm=100))
    tip, along = np.array([10.0, 0, 600]), np.array([1.0, 0, 0])
    steel = np.zeros((camera.rows, camera.cols), np.float32)
    steel_mm(metal, axis_points(metal, tip, along, np.array([0.0, 1, 0])), camera, steel)

    def at(x, y):
        u, v = np.rint(camera.project(np.array([[x, y, 600.0]]))[0]).astype(int)
        return steel[v, u]

    assert at(0, 0) == pytest.approx(2, abs=0.05)
    assert at(8, 0) == pytest.approx(1, abs=0.15)  # half-way along its point of 4 mm
    assert at(10.5, 0) == 0 and at(0, 1.2) == 0  # beyond the tip, beside the shaft


def test_a_tool_with_a_profile_is_seen_by_it(camera):
    tool = Tool(
        id="awl", kind="awl", diameter_mm=4.0, length_mm=60, profile=((0, 0.5), (20, 0.5), (21, 2.0), (60, 2.0))
    )
    metal = tool_metal(tool)
    assert metal.outer_mm[50] == pytest.approx(0.5) and metal.outer_mm[200] == pytest.approx(2.0)
    assert metal.length_mm == pytest.approx(60, abs=0.2)


def test_the_detector_counts_quanta_saturates_and_is_dark_outside_its_aperture():
    chain = ImageChain(FlatPanel(photons=100, electronic_photons=0, fixed_pattern=0), 256, 256, 1)
    counts = chain.counts(np.full((256, 256), 0.1, np.float32), 5)
    np.testing.assert_array_equal(counts, chain.counts(np.full((256, 256), 0.1, np.float32), 5))
    assert (counts != chain.counts(np.full((256, 256), 0.1, np.float32), 6)).any()
    assert counts[:5, :5].mean() < 1500 < counts[100:150, 100:150].mean()
    patch = counts[118:138, 118:138].astype(float) - 0.02 * 65535
    photons = patch * 4.5 * 100 / (0.98 * 65535)
    assert photons.var() / photons.mean() == pytest.approx(1, abs=0.25)  # Poisson
    bright = np.full((256, 256), 0.01, np.float32)
    bright[120:140, 120:140] = 1
    assert ImageChain(FlatPanel(), 256, 256, 1).counts(bright, 1)[125:135, 125:135].min() == 65535


def test_scatter_comes_from_where_the_beam_meets_matter():
    """Regression: open air scattered most of all, even beyond the aperture, and 30 mm of steel beside it showed as a
    tenth less than its surroundings."""
    settings = FlatPanel(aperture_fraction=0.8, collimator_fraction=0.7, blur_sigma_px=0.01)
    chain = ImageChain(settings, 512, 512, 1)

    def share(transmitted):
        photons, per_share = chain.exposure(transmitted.astype(np.float32))
        return photons / per_share

    air = np.ones((512, 512))
    np.testing.assert_allclose(share(air), chain.shading, atol=1e-6)
    patient = np.full((512, 512), np.exp(-4))
    middle = (slice(250, 262), slice(250, 262))
    expected = (1 + settings.scatter_to_primary) * np.exp(-4)
    assert share(patient)[middle].mean() == pytest.approx(expected, rel=0.08)
    # What no beam reaches changes nothing; and steel in the open beam is nearly black.
    air_around = np.where(chain.field_mask, patient, 1.0)
    np.testing.assert_allclose(share(air_around)[chain.field_mask], share(patient)[chain.field_mask], rtol=0.15)
    steel = air.copy()
    steel[240:272] = 1e-6
    assert share(steel)[middle].max() < 0.01


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_stored_bits_are_kept(bits):
    counts = ImageChain(FlatPanel(bits=bits), 128, 128, 1).counts(np.full((128, 128), 0.1, np.float32), 1)
    assert counts.max() <= 2**bits - 1


def test_motion_is_smooth_rigid_and_comes_back(case):
    scenario = Scenario(anatomy_frames=50)
    poses = scenario.poses(case)
    assert all(is_rigid(T) for T in poses)
    target = np.append(case.target_ct, 1)
    steps = np.linalg.norm(np.diff((poses @ target)[:, :3], axis=0), axis=1)
    assert steps.max() < 2 and steps[0] < 0.3 and steps[-1] < 0.3
    assert rotation_distance_deg(case.prior.T_camera_ct(), poses[0]) > 4
    indices = [scenario.sequence_index(n) for n in range(2 * scenario.frames)]
    assert indices == [*range(100), *reversed(range(100))]
    assert max(abs(a - b) for a, b in pairwise(indices)) == 1


def test_the_wire_is_driven_past_a_threshold_of_the_cord(case):
    T_ct_tool = Scenario().wire(case)
    cord = next(s for s in case.structures if s.name == "spinal_cord")
    distance, _ = cord.field.sample(T_ct_tool[:, :3, 3])
    assert distance[0] > cord.caution_mm + 3 and 0 < distance.min() < cord.caution_mm


@pytest.mark.parametrize("whole", [True, False])
def test_a_patient_who_ends_where_the_ct_ends_is_said_before_frames_are_rendered(whole, tmp_path, capsys):
    folder = embedded_case().parent
    keys = [f"{key}: {folder / key}.nrrd" for key in ("ct", "labels", *(["surroundings"] if whole else []))]
    prior = "prior: {isocentre_ct: [0, 91.7, -158.5], source_to_isocentre_mm: 620}"
    bones = "structures: [{name: vertebrae_T8, label: 36}]\nrigid: {structures: [vertebrae_T8]}"
    case = tmp_path / "case.yaml"
    case.write_text("\n".join(["name: narrow", *keys, bones, prior]))
    assert main(["simulate", str(case), "--camera", str(tmp_path / "none.yaml")]) == 1  # after the warning
    said = capsys.readouterr().err
    assert "none.yaml" in said and ("sides cut through the body" in said) != whole
